"""A directory is there whole or not at all."""

import os

import pytest

from fer_jax.data.aside import written_aside
from fer_jax.errors import UserError


def listing(folder):
    return sorted(os.listdir(folder))


def test_it_appears_only_at_the_end_and_leaves_nothing_else(tmp_path):
    output = tmp_path / 'a' / 'out'
    with written_aside(output) as aside:
        (aside / 'x').write_text('1')
        assert not output.exists()
    assert (output / 'x').read_text() == '1'
    assert listing(tmp_path / 'a') == ['out']


@pytest.mark.parametrize('error', (RuntimeError, KeyboardInterrupt, SystemExit))
def test_an_error_leaves_nothing_and_the_old_one_untouched(error, tmp_path):
    with written_aside(tmp_path / 'out') as aside:
        (aside / 'x').write_text('old')
    for output in (tmp_path / 'out', tmp_path / 'other'):
        with pytest.raises(error), written_aside(output, overwrite=True) as aside:
            (aside / 'x').write_text('half')
            raise error
    assert listing(tmp_path) == ['out']
    assert (tmp_path / 'out' / 'x').read_text() == 'old'


def test_replacing_has_to_be_asked_for(tmp_path):
    for text, overwrite in (('first', False), ('second', True)):
        with written_aside(tmp_path / 'out', overwrite=overwrite) as aside:
            (aside / text).write_text(text)
    assert listing(tmp_path / 'out') == ['second']
    with pytest.raises(UserError, match='is there already'), written_aside(tmp_path / 'out') as aside:
        (aside / 'third').write_text('third')
    assert listing(tmp_path) == ['out']
    assert listing(tmp_path / 'out') == ['second']


def test_what_a_killed_run_left_is_removed_or_put_back(tmp_path):
    (tmp_path / '.out.incomplete').mkdir()
    (tmp_path / '.out.incomplete' / 'half').write_text('half')
    (tmp_path / '.out.replaced').mkdir()
    (tmp_path / '.out.replaced' / 'old').write_text('old')
    with pytest.raises(RuntimeError), written_aside(tmp_path / 'out') as aside:
        assert listing(aside) == []
        raise RuntimeError
    assert listing(tmp_path) == ['out']
    assert listing(tmp_path / 'out') == ['old']


def test_kept_work_survives_errors_and_kills_and_goes_in_the_end(tmp_path):
    output = tmp_path / 'a' / 'out'
    with pytest.raises(KeyboardInterrupt), written_aside(output, keep='work') as aside:
        (aside / 'work').mkdir()
        (aside / 'work' / '1').write_text('1')
        (aside / 'half').write_text('half')
        raise KeyboardInterrupt
    assert listing(aside) == ['work']
    (aside / 'half').write_text('of a killed run')
    with written_aside(output, keep='work') as again:
        assert again == aside and listing(aside) == ['work'] and listing(aside / 'work') == ['1']
        (aside / 'done').write_text('done')
    assert listing(output) == ['done'] and listing(tmp_path / 'a') == ['out']
    with pytest.raises(RuntimeError), written_aside(output, keep='work', overwrite=True) as aside:
        (aside / 'other work').write_text('1')
        raise RuntimeError
    assert listing(tmp_path / 'a') == ['out'] and listing(output) == ['done']


def test_work_of_another_kind_is_removed(tmp_path):
    (tmp_path / '.out.incomplete' / 'old work').mkdir(parents=True)
    with written_aside(tmp_path / 'out', keep='new work') as aside:
        assert listing(aside) == []


def test_an_error_takes_the_folders_it_made_and_no_others(tmp_path):
    (tmp_path / 'mine').mkdir()
    with pytest.raises(RuntimeError), written_aside(tmp_path / 'mine' / 'a' / 'b' / 'out'):
        raise RuntimeError
    assert listing(tmp_path / 'mine') == []


def test_two_writers_of_one_output_do_not_meet(tmp_path):
    with written_aside(tmp_path / 'out') as aside:
        (aside / 'x').write_text('1')
        with pytest.raises(UserError, match='another process'), written_aside(tmp_path / 'out'):
            raise AssertionError('both write')
    assert listing(tmp_path / 'out') == ['x']


def test_a_linked_output_stays_a_link(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'out').symlink_to(tmp_path / 'disk' / 'real')
    with written_aside(tmp_path / 'out') as aside:
        (aside / 'x').write_text('1')
    assert (tmp_path / 'out').is_symlink()
    assert listing(tmp_path / 'disk') == ['real']
