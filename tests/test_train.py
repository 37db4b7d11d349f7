import dataclasses
import fcntl
import json
import os
import subprocess

import jax
import numpy as np
import pytest

from fer_jax import cli, experiment, feeding, run_json, train
from fer_jax.data import stored
from fer_jax.data.prepared import describe, store_prepared
from fer_jax.data.record_files import RecordFiles
from fer_jax.errors import UserError
from fer_jax.training.checkpoints import Checkpoints
from tests.launches import small_disk


def lines(workdir):
    with open(os.path.join(workdir, 'metrics.jsonl')) as file:
        return [json.loads(line) for line in file]


def test_a_run_leaves_what_the_design_says_and_learns(make_run, dataset):
    workdir = make_run(train__steps=60, evaluation__every_steps=30, log_every_steps=30, optimizer__learning_rate=3e-3)
    found = lines(workdir)
    assert [line['step'] for line in found] == [30, 60]
    assert found[-1]['validation/accuracy'] > 0.9
    assert found[-1]['train/loss'] < found[0]['train/loss']
    assert Checkpoints(workdir).steps() == [30, 60]
    with open(os.path.join(workdir, 'config.json')) as file:
        described = json.load(file)
    assert described['manifest_hash'] == dataset.manifest_hash
    assert described['manifest']['counts']['train'] == {'anger': 14, 'fear': 13, 'happiness': 13}
    assert described['versions']['jax'] == jax.__version__
    assert described['devices']['platform'] == 'cpu'
    assert described['model_summary']['parameters'] == 416 + 14436 + (3 * 3 * 36 * 128 + 128) + (128 * 3 + 3)
    images = dataset.splits['train'].images
    assert described['preprocessing']['mean'] == pytest.approx(images.mean(), abs=1e-4)
    assert described['preprocessing']['deviation'] == pytest.approx(images.std(), abs=1e-4)
    with np.load(os.path.join(workdir, 'predictions', 'validation.npz')) as saved:
        assert saved['logits'].shape == (1, 23, 3)
    with open(os.path.join(workdir, 'scores.json')) as file:
        scores = json.load(file)
    assert list(scores) == ['validation']  # the test split was not asked for
    assert scores['validation']['single']['accuracy'] == pytest.approx(found[-1]['validation/accuracy'])


def test_a_description_is_read_back_as_it_was_trained(make_run, make_config):
    workdir = make_run(data__crop=10, augment__flip=True, evaluation__splits=('validation', 'test'))
    run = run_json.read_run(workdir)
    assert run.config == make_config(data__crop=10, augment__flip=True, evaluation__splits=('validation', 'test'))
    assert (run.preprocessing.crop, run.preprocessing.input_side) == (10, 10)
    assert run.class_names == ('anger', 'fear', 'happiness')


def test_the_end_by_epochs_counts_every_image_once(make_config):
    options = train._loop_options(make_config(train__steps=0, train__epochs=3.0), 40)
    assert (options.total_steps, options.steps_per_epoch) == (round(3 * 40 / 16), 2.5)
    assert train._loop_options(make_config(evaluation__every_steps=0), 40).evaluate_every == round(2.5)
    assert train._loop_options(make_config(evaluation__every_steps=0), 4).evaluate_every == 1


def test_a_repeated_run_may_ask_for_another_evaluation_but_not_for_another_experiment(make_run):
    workdir = make_run()
    logged = lines(workdir)
    make_run(evaluation__splits=('validation', 'test'), evaluation__tta='flip', evaluation__last=2)
    assert lines(workdir) == logged
    with open(os.path.join(workdir, 'scores.json')) as file:
        scores = json.load(file)
    assert sorted(scores) == ['test', 'validation']
    assert [member['step'] for member in scores['test']['members']] == [4, 8]
    with pytest.raises(UserError, match='config.seed is 0 there, 1 here'):
        make_run(seed=1)


def test_the_best_step_is_scored_where_none_of_the_last_is_asked_for(make_run):
    # A rate of 0 gives all steps the same accuracy, of which the earliest is the best.
    workdir = make_run(optimizer__learning_rate=0.0, evaluation__last=0, checkpoint__keep_last=1)
    with open(os.path.join(workdir, 'scores.json')) as file:
        assert [member['step'] for member in json.load(file)['validation']['members']] == [4]
    assert Checkpoints(workdir).steps() == [4, 8]


def test_of_a_run_that_stops_early_without_a_member_the_best_step_is_scored_once(make_run, capsys):
    changes = {'train__steps': 60, 'train__early_stopping': 1, 'checkpoint__snapshot_steps': 60}
    changes |= {'optimizer__learning_rate': 0.0, 'evaluation__splits': ('test',)}
    workdir = make_run(**changes)
    assert Checkpoints(workdir).members(3) == []
    assert Checkpoints(workdir).steps()[-1] == 8
    with open(os.path.join(workdir, 'scores.json')) as file:
        assert [member['step'] for member in json.load(file)['test']['members']] == [Checkpoints(workdir).best()]
    capsys.readouterr()
    make_run(**changes)
    assert 'is trained and scored already' in capsys.readouterr().out


def test_a_workdir_in_which_another_run_trains_is_refused(make_run):
    workdir = make_run()
    before = (Checkpoints(workdir).steps(), lines(workdir))
    with open(os.path.join(workdir, '.lock')) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=f'another process is training in {workdir}; wait for it, or take another'):
            make_run()
    assert (Checkpoints(workdir).steps(), lines(workdir)) == before
    assert Checkpoints(workdir).newest() == before[0][-1]


def test_a_workdir_that_cannot_be_written_is_one_line(make_run, tmp_path):
    with small_disk(tmp_path / 'disk', 4096) as disk:
        workdir = make_run('disk/run')
        subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)
        for name in ('disk/run', 'disk/other'):
            with pytest.raises(OSError) as caught:
                make_run(name, seed=int(name.endswith('other')))
            code, line = cli.explain(caught.value)
            assert code == 1
            assert line.startswith(f'error: read-only file system ({tmp_path / name}')
            assert line.endswith('; choose a place you can write')
        assert Checkpoints(workdir).newest() == 8


def test_other_data_under_the_same_name_is_another_experiment(make_run, make_dataset):
    workdir = make_run()
    with pytest.raises(UserError, match='data'):
        make_run(data=make_dataset(seed=1))
    with open(os.path.join(workdir, 'config.json')) as file:
        assert json.load(file)['manifest_hash'] == make_dataset().manifest_hash


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'task': 'paint'}, "task is 'paint'"),
        ({'evaluation__splits': ('train',)}, "names 'train'; it can hold validation and test"),
        ({'evaluation__tta': 'flop'}, "tta is 'flop'"),
        ({'train__batch_size': 0}, 'batch_size is 0; at least 1'),
        ({'log_every_steps': 0}, 'log_every_steps is 0'),
        ({'evaluation__last': 4}, 'keep_last=3'),
        ({'train__steps': 0, 'train__epochs': 0.01}, 'makes no step'),
        ({'model__name': 'resnet43'}, 'resnet34'),
        ({'model__dtype': 'float16'}, 'float32 or bfloat16'),
        ({'optimizer__name': 'sgdm'}, 'sgd, adam'),
        ({'schedule__name': 'cos'}, 'cosine'),
        ({'schedule__warmup_epochs': 10.0}, 'warmup_epochs'),
        ({'data__normalize': 'x'}, 'dataset or image'),
        ({'data__crop': 13}, 'crop is 13'),
        ({'data__channels': 2}, 'channels is 2'),
        ({'data__drop': ('fer',)}, "did you mean 'fear'"),
        ({'data__rename': ('fer=anger',)}, "did you mean 'fear'"),
        ({'data__limit': ('fear',)}, 'CLASS=N'),
        ({'data__soft_labels': True}, 'needs the votes'),
        ({'data__feed': 'x'}, 'auto, resident, sharded, streaming'),
        ({'data__folds': 2}, 'at least 3 are wanted'),
        ({'data__remove_twins': 'x'}, 'none, evaluation or all'),
        ({'model__norm_groups': 0}, 'norm_groups is 0; at least 1'),
        ({'model__norm_groups': 3, 'model__name': 'resnet18'}, 'norm_groups=3 does not cut config.train.batch_size=16'),
        ({'model__norm_groups': 16, 'model__name': 'resnet18'}, 'equal parts of two images or more'),
        ({'model__norm_groups': 4}, 'shallow_cnn has no BatchNorm; leave it at 1'),
        ({'optimizer__scale_rate': 'square'}, 'none, linear, sqrt'),
        ({'optimizer__scale_rate': 'linear'}, 'scale_rate=linear needs the batch'),
        ({'optimizer__base_batch_size': 64}, 'scale_rate=none scales nothing'),
        ({'train__class_weights': 'x'}, 'none or balanced'),
        ({'train__steps': -5}, 'steps'),
        ({'evaluation__every_steps': -1}, 'every_steps'),
        ({'checkpoint__every_steps': -1}, 'every_steps'),
        ({'train__max_bad_steps': 0}, 'max_bad_steps'),
        ({'train__steps_per_dispatch': -1}, 'steps_per_dispatch'),
        ({'train__label_smoothing': 1.5}, 'label_smoothing'),
        ({'train__ema': 1.0}, 'ema'),
        ({'train__mixup': -0.1}, 'mixup'),
        ({'model__dropout': 1.5}, 'dropout'),
        ({'data__size': -3}, 'size'),
        ({'augment__crop_scale': 0.0}, 'crop_scale'),
        ({'augment__zoom': 1.0}, 'zoom'),
        ({'augment__erase': 2.0}, 'erase'),
    ],
)
def test_what_cannot_be_is_refused_before_any_step(make_run, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        make_run(**changes)
    assert not (tmp_path / 'run' / 'checkpoints').exists()


@pytest.mark.parametrize('content', [None, '', '{}', '[]', '{"config": {"seed": "x"}}', '{"config": 3}'])
def test_a_folder_that_is_no_run_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / 'config.json').write_text(content)
    with pytest.raises(UserError, match=str(tmp_path)):
        run_json.read_run(str(tmp_path))


# --- prepared data: feeds, classes, splits ---


@pytest.fixture
def prepared(make_dataset, tmp_path):
    """The rows as prepared data, of which nothing is read yet."""
    data = make_dataset()
    manifest = describe('rows', data.class_names, data.splits, (12, 12, 1)) | {'source': 'a test'}
    (tmp_path / 'rows').mkdir()
    store_prepared(dataclasses.replace(data, manifest=manifest), tmp_path / 'rows')
    return stored.load_prepared(tmp_path / 'rows', lazy=True)


def logits(workdir):
    with np.load(os.path.join(workdir, 'predictions', 'validation.npz')) as saved:
        return saved['logits']


def without_times(found):
    return [{key: line[key] for key in line if key not in ('seconds', 'train/wait_share')} for line in found]


def test_a_run_is_the_same_with_either_feed_and_may_go_on_with_the_other(
    make_run, make_config, prepared, monkeypatch, capsys, tmp_path
):
    resident = make_run('resident', data=prepared, data__feed='resident')
    monkeypatch.setattr(feeding, '_HELD_SHARE', 10**12)  # so that validation is not held in memory either
    streaming = make_run('streaming', data=prepared, data__feed='streaming')
    said = [line for line in capsys.readouterr().out.splitlines() if 'steps of 16 images' in line]
    assert 'resident feed (5.62 KiB of images, ' in said[0]
    assert 'streaming feed (5.62 KiB of images, ' in said[1]
    assert all(0 <= line['train/wait_share'] <= 1 for line in lines(streaming))
    assert not any('train/wait_share' in line for line in lines(resident))
    assert without_times(lines(streaming)) == without_times(lines(resident))
    np.testing.assert_array_equal(logits(streaming), logits(resident))

    advance = train.make_advance

    def breaking(*arguments):
        step_of = advance(*arguments)
        return lambda state, step, count: step_of(state, step, count) if step < 6 else 1 / 0

    broken = str(tmp_path / 'broken')
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(train, 'make_advance', breaking)
        train.train(make_config(data__feed='streaming'), broken)
    assert Checkpoints(broken).steps() == [4]
    train.train(make_config(data__feed='resident'), broken)
    assert without_times(lines(broken)) == without_times(lines(resident))
    np.testing.assert_array_equal(logits(broken), logits(resident))


def on_devices(make_config, data, monkeypatch, workdir, number, **changes):
    """Trains as `make_run` does, but on so many devices."""
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: data)
    monkeypatch.setattr(jax, 'devices', lambda *_: jax.local_devices()[:number])
    monkeypatch.setattr('fer_jax.evaluate.write_report', lambda *_, **__: None)
    train.train(make_config(**changes), str(workdir))
    with open(workdir / 'config.json') as file:
        return lines(workdir), logits(workdir), json.load(file)


def test_a_run_on_two_or_eight_devices_is_the_run_on_one(make_config, prepared, monkeypatch, tmp_path, capsys):
    how = (make_config, prepared, monkeypatch)
    changes = {'train__steps': 10, 'evaluation__every_steps': 5, 'log_every_steps': 1, 'schedule__name': 'plateau'}
    entries, expected, _ = on_devices(*how, tmp_path / 'one', 1, data__feed='resident', **changes)
    losses = lambda entries: [entry['train/loss'] for entry in entries]
    for number, feed in ((2, 'sharded'), (8, 'sharded'), (8, 'resident')):
        found, said, description = on_devices(*how, tmp_path / f'{number}{feed}', number, data__feed=feed, **changes)
        np.testing.assert_allclose(losses(found), losses(entries), rtol=1e-5)
        np.testing.assert_allclose(said, expected, atol=1e-4)
        assert description['batch_per_device'] == 16 // number
        assert description['feed'] == feed
        assert f'on {number} cpu device(s), {16 // number} images on each, {feed} feed' in capsys.readouterr().out
    # The feed changes no bit of what a number of devices does.
    assert without_times(lines(tmp_path / '8sharded')) == without_times(lines(tmp_path / '8resident'))
    np.testing.assert_array_equal(logits(tmp_path / '8sharded'), logits(tmp_path / '8resident'))


def test_a_rate_that_is_scaled_is_told_and_kept(make_config, make_dataset, monkeypatch, tmp_path, capsys):
    scaled = {'optimizer__learning_rate': 0.01, 'optimizer__base_batch_size': 4, 'train__steps': 4}
    how = (make_config, make_dataset(), monkeypatch)
    for rule, peak in (('linear', 0.04), ('sqrt', 0.02)):
        entries, _, description = on_devices(*how, tmp_path / rule, 1, optimizer__scale_rate=rule, **scaled)
        assert description['peak_learning_rate'] == pytest.approx(peak)
        assert entries[0]['learning_rate'] == pytest.approx(peak)
        said = f'peak learning rate {peak}: 0.01 for batches of 4, scaled ({rule}) to 16'
        assert said in capsys.readouterr().out


def test_pixel_figures_of_streamed_data_are_those_of_the_images_in_use_and_kept(make_config, prepared, monkeypatch):
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: prepared)
    path = os.path.join(prepared.splits['train'].images.directory, 'figures.json')
    read = type(prepared.splits['train'].images.records).read
    reads = []
    monkeypatch.setattr(RecordFiles, 'read', lambda self, rows: reads.append(len(rows)) or read(self, rows))
    for changes in ({}, {'data__drop': ('fear',)}, {'data__limit': ('fear=2',)}, {'data__size': 8}):
        data = experiment.load_data(make_config(**changes))
        images = np.asarray(data.splits['train'].images)
        expected = (pytest.approx(images.mean(), abs=1e-4), pytest.approx(images.std(), abs=1e-4))
        reads.clear()
        for _ in range(2):
            found = experiment.make_preprocessing(make_config(**changes), data)
            assert (found.mean, found.deviation) == expected
        assert reads == [len(images)]
        held = experiment.make_preprocessing(make_config(**changes), experiment.hold_images(data, 'train'))
        assert held == found
    with open(path) as file:
        assert len(json.load(file)) == 4
    with open(path, 'w') as file:
        file.write('{"x": ')
    assert experiment.make_preprocessing(make_config(**changes), data) == found


def test_classes_are_dropped_renamed_and_limited_in_this_order(make_config, make_dataset, monkeypatch):
    data = make_dataset((40, 23, 17), classes=('anger', 'contempt', 'disgust', 'fear'))
    votes = np.zeros((40, 10), np.float32)
    votes[:, 4:8] = [6, 4, 8, 2]  # anger, disgust, fear, contempt
    train_split = dataclasses.replace(data.splits['train'], extra={'votes': votes})
    data = dataclasses.replace(data, splits={**data.splits, 'train': train_split})
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: data)
    changes = {'data__drop': ('fear',), 'data__rename': ('contempt=disgust',), 'data__limit': ('disgust=7',)}
    found = experiment.load_data(make_config(**changes, data__soft_labels=True))
    assert found.class_names == ('anger', 'disgust')
    counts = {name: np.bincount(split.labels).tolist() for name, split in found.splits.items()}
    assert counts == {'train': [10, 7], 'validation': [6, 12], 'test': [5, 8]}
    np.testing.assert_allclose(found.splits['train'].extra['targets'], [[0.5, 0.5]] * 17)
    whole = experiment.load_whole(make_config(**changes))
    assert np.bincount(whole.splits['train'].labels).tolist() == [10, 20]
    with pytest.raises(UserError, match='rows has one class, anger; at least two'):
        only = dataclasses.replace(data, class_names=('anger',), splits={'train': data.splits['train']})
        monkeypatch.setattr(experiment, 'load_prepared', lambda _: only)
        experiment.load_data(make_config())


def test_soft_labels_change_what_is_learnt(make_run, make_dataset):
    data = make_dataset()
    votes = np.zeros((40, 10), np.float32)
    votes[np.arange(40), np.array([4, 6, 1])[data.splits['train'].labels]] = 10
    soft = votes + np.float32(10 / 3) * np.isin(np.arange(10), [4, 6, 1])
    runs = {}
    for name, given in (('hard', None), ('sure', votes), ('soft', soft)):
        extra = {} if given is None else {'votes': given}
        split = dataclasses.replace(data.splits['train'], extra=extra)
        given_data = dataclasses.replace(
            data, splits={**data.splits, 'train': split}, manifest={**data.manifest, 'votes': name}
        )
        runs[name] = logits(make_run(name, data=given_data, data__soft_labels=given is not None))
    np.testing.assert_array_equal(runs['sure'], runs['hard'])
    assert np.abs(runs['soft'] - runs['hard']).max() > 1e-3


def test_data_without_validation_trains_and_nothing_is_chosen(make_run, make_dataset, monkeypatch):
    data = make_dataset()
    splits = {name: data.splits[name] for name in ('train', 'test')}
    data = dataclasses.replace(data, splits=splits, manifest={**data.manifest, 'source': 'without validation'})
    evaluated = []
    monkeypatch.setattr('fer_jax.evaluate.evaluate_runs', lambda *given, **_: evaluated.append(given))
    workdir = make_run(data=data, evaluation__splits=('test',))
    assert [sorted(line) for line in lines(workdir)] == [
        ['epoch', 'examples', 'learning_rate', 'seconds', 'step', 'train/accuracy', 'train/loss']
    ] * 4
    assert Checkpoints(workdir).members(9) == [4, 8]
    assert Checkpoints(workdir).best() is None
    assert evaluated == [([workdir], ('test',), workdir)]
    for changes, message in (
        ({}, 'evaluation.splits names validation, and rows has train, test'),
        ({'evaluation__splits': ('test',), 'train__early_stopping': 2}, 'train.early_stopping goes by the validation'),
        (
            {'evaluation__splits': ('test',), 'schedule__name': 'plateau'},
            'schedule.name=plateau goes by the validation',
        ),
    ):
        with pytest.raises(UserError, match=message):
            make_run('other', data=data, **changes)
