import os
import signal
import time

import pytest

from fer_jax.apps.stopping import Stop, Stopped


def test_it_ends_after_its_seconds_and_waits_no_longer():
    with Stop(0.15) as stop:
        stop.wait(0.2)
        assert not stop  # the clock has not begun
        began = time.monotonic()
        stop.begin()
        assert not stop
        stop.wait(30)
        stop.begin()
        assert stop and 0.1 < time.monotonic() - began < 5


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_only_and_leaves_the_handlers_as_they_were(number):
    before = signal.getsignal(number)
    with Stop() as stop:
        os.kill(os.getpid(), number)
        assert stop
        stop.wait(30)
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts():
    with pytest.raises(KeyboardInterrupt), Stop():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


def test_a_signal_that_was_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_is_guarded_does_not_begin_after_the_end():
    done = []
    with Stop() as stop:
        work = stop.guarded(lambda value: done.append(value) or value)
        assert work(1) == 1
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            work(2)
    assert done == [1]
