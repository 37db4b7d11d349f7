import glob
import json
import struct

from tensorboardX.proto.event_pb2 import Event

from fer_jax.training.record import Record


def lines(folder):
    with open(folder / 'metrics.jsonl') as file:
        return [json.loads(line) for line in file]


def events(folder):
    """(step, name, value) of every scalar, and the steps from which TensorBoard drops what came before."""
    scalars, restarts = [], []
    for path in sorted(glob.glob(str(folder / 'events' / '*'))):
        with open(path, 'rb') as file:
            while header := file.read(12):  # a TFRecord: length, its sum, the record, its sum
                event = Event.FromString(file.read(struct.unpack('<Q', header[:8])[0]))
                file.read(4)
                scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
                if event.session_log.status == 1:
                    restarts.append(event.step)
    return scalars, restarts


def write(folder, start, steps):
    record = Record(str(folder), start)
    for step in steps:
        record.write({'step': step, 'train/loss': step / 2})
    record.close()


def test_the_same_numbers_go_to_both_files(tmp_path):
    write(tmp_path, 0, [1, 2])
    assert lines(tmp_path) == [{'step': 1, 'train/loss': 0.5}, {'step': 2, 'train/loss': 1.0}]
    assert events(tmp_path)[0] == [(1, 'train/loss', 0.5), (2, 'train/loss', 1.0)]


def test_reopening_drops_what_came_after_the_checkpoint(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4])
    write(tmp_path, 2, [3, 4, 5])
    assert [line['step'] for line in lines(tmp_path)] == [1, 2, 3, 4, 5]
    assert events(tmp_path)[1][-1] == 3


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    write(tmp_path, 0, [1, 2])
    with open(tmp_path / 'metrics.jsonl', 'a') as file:
        file.write('{"step": 3, "tra')
    write(tmp_path, 2, [3])
    assert [line['step'] for line in lines(tmp_path)] == [1, 2, 3]


def test_what_is_not_finite_is_null_in_one_and_absent_in_the_other(tmp_path):
    record = Record(str(tmp_path), 0)
    record.write({'step': 7, 'train/loss': None, 'train/accuracy': 0.25})
    record.close()
    assert lines(tmp_path) == [{'step': 7, 'train/loss': None, 'train/accuracy': 0.25}]
    assert events(tmp_path)[0] == [(7, 'train/accuracy', 0.25)]


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    record = Record(str(tmp_path), 0)
    record.write({'step': 1})
    assert lines(tmp_path) == [{'step': 1}]
    record.close()
