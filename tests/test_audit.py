"""The audit command: out-of-fold predictions of training alone, every image once, files that training reads back."""

import csv
import json
import types

import jax
import numpy as np
import pytest

from fer_jax import audit, crossvalidate, evidence, experiment, train
from fer_jax.audit import Options
from fer_jax.errors import UserError
from fer_jax.evaluation.ssim import ssim
from fer_jax.training.stopping import Stopped


@pytest.fixture
def data(monkeypatch, make_dataset):
    """Noise of 46, 9 and 7 images, runs on one device and without the pictures of runs."""
    data = make_dataset((46, 9, 7))
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: data)
    monkeypatch.setattr(jax, 'devices', lambda *_: jax.local_devices()[:1])
    monkeypatch.setattr('fer_jax.evaluate.write_report', lambda *_, **__: None)
    monkeypatch.setattr(crossvalidate, 'write_folds_report', lambda *_: 'report.md')
    return data


@pytest.fixture
def config(make_config):
    return make_config(
        data__noise__rate=0.2, train__steps=30, evaluation__every_steps=0, optimizer__learning_rate=1e-2
    )  # fmt: skip


def rows_of(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_methods_share_folds_and_their_files_clean_the_training_split(data, config, tmp_path, monkeypatch, capsys):
    trained = []
    whole = train.train

    def count(config, workdir):
        trained.append(workdir.rsplit('/', 1)[-1])
        if trained == ['fold0', 'fold1']:
            raise Stopped(15, 3)
        whole(config, workdir)

    monkeypatch.setattr(train, 'train', count)
    names, output = ['margin', 'self_confidence', 'aum', 'consensus'], str(tmp_path / 'out')
    with pytest.raises(Stopped):
        audit.audit(config, names, output, Options(folds=2))
    table = audit.audit(config, names, output, Options(folds=2))
    assert trained == ['fold0', 'fold1', 'fold1', 'epochs']  # it went on, and both methods read the same folds
    assert 'label noise: 9 of 46' in capsys.readouterr().out
    noisy = experiment.load_data(config).splits['train']
    wrong = set(noisy.ids[noisy.labels != noisy.extra['true_label']].tolist())
    told = json.loads((tmp_path / 'out' / 'audit.json').read_text())
    for name in names:
        rows = rows_of(tmp_path / 'out' / f'{name}.csv')
        assert [row['id'] for row in rows] == noisy.ids.tolist()
        assert [row['label'] for row in rows] == [data.class_names[k] for k in noisy.labels]
        flagged = {row['id'] for row in rows if row['flag'] == '1'}
        scores = told['methods'][name]['detection']
        assert scores['flags']['flagged'] == len(flagged) == told['methods'][name]['flagged']
        assert scores['flags']['recall'] == pytest.approx(len(flagged & wrong) / 9)
        assert scores['auroc'] > 0.9 and name in table
    assert told['methods']['margin']['folds'] == {'count': 2, 'by': 'image'}
    with open(tmp_path / 'out' / 'runs' / 'folds2' / 'folds.csv', newline='') as file:
        assert {row['id'] for row in csv.DictReader(file)} == set(data.splits['train'].ids)
    cleaned = config.copy_and_resolve_references()
    with cleaned.unlocked():
        cleaned.data.exclude = (f'{output}/margin.csv',)
    left = experiment.load_data(cleaned)
    flagged = {row['id'] for row in rows_of(f'{output}/margin.csv') if row['flag'] == '1'}
    assert set(left.splits['train'].ids) == set(noisy.ids) - flagged
    assert (tmp_path / 'out' / 'review.html').exists()
    report = (tmp_path / 'out' / 'audit.md').read_text()
    for line in report.splitlines():
        if line.startswith('!['):
            assert (tmp_path / 'out' / line.split('(')[1].rstrip(')')).stat().st_size > 1000


def test_margins_are_of_every_epoch_and_read_once(data, make_config, tmp_path, monkeypatch):
    config = evidence.audited_config(make_config(train__steps=0, train__epochs=3.0, checkpoint__keep_last=1))
    dataset = experiment.load_data(config)
    margins, rivals = evidence.margins_in_training(config, dataset, tmp_path / 'epochs')
    assert margins.shape == rivals.shape == (3, 46)
    assert (rivals != dataset.splits['train'].labels).all()
    monkeypatch.setattr(evidence, 'load_group', None)
    again, _ = evidence.margins_in_training(config, dataset, tmp_path / 'epochs')
    np.testing.assert_array_equal(again, margins)


def test_margins_of_data_without_validation_read_no_test_image(data, make_config, tmp_path, monkeypatch):
    splits = {name: data.splits[name] for name in ('train', 'test')}
    bare = type(data)(data.name, data.class_names, splits, {**data.manifest, 'source': 'without validation'})
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: bare)
    config = evidence.audited_config(make_config(train__steps=0, train__epochs=2.0, evaluation__splits=('test',)))
    margins, _ = evidence.margins_in_training(config, experiment.load_data(config), tmp_path / 'epochs')
    assert margins.shape == (2, 46)
    assert not {'scores.json', 'predictions', 'report.md'} & {path.name for path in (tmp_path / 'epochs').iterdir()}


def test_validation_has_no_say_in_what_an_audit_trains(data, make_config, tmp_path):
    config = evidence.audited_config(make_config(schedule__name='plateau', train__early_stopping=2))
    dataset = experiment.load_data(config)
    for train_one in (
        lambda: evidence.fold_config(config, dataset, 3),
        lambda: evidence.margins_in_training(config, dataset, tmp_path / 'epochs'),
    ):
        with pytest.raises(UserError, match='plateau goes by the validation loss, which has no say in an audit'):
            train_one()
    fixed = evidence.fold_config(evidence.audited_config(make_config(train__early_stopping=2)), dataset, 3)
    assert fixed.train.early_stopping == 0


@pytest.fixture
def pairs(monkeypatch):
    """Pairs for anger and fear that darken a face by as much as its first pixel says, in batches of five."""

    def translator(source, target):
        def translate(images):
            images = np.asarray(images)
            return (images // (1 + images[:, :1, :1, :1] % 3)).astype(np.uint8)

        named = types.SimpleNamespace(workdir=source, source=source, target=target, step=7, size=12, channels=1)
        return type('Fake', (), {'__call__': lambda self, images: translate(images), **vars(named)})()

    found = {(a, b): translator(a, b) for a, b in (('anger', 'fear'), ('fear', 'anger'))}
    monkeypatch.setattr(evidence.translators, 'find_pairs', lambda paths: list(paths))
    monkeypatch.setattr(evidence.translators, 'load_translators', lambda paths: found)
    monkeypatch.setattr(evidence.Translations, '_trained_as', staticmethod(lambda of: of.source == 'anger'))
    monkeypatch.setattr(evidence, '_BATCH', 5)
    return found


def test_ssim_scores_every_image_once_also_in_a_last_partial_batch(data, make_config, pairs, tmp_path):
    output = tmp_path / 'out'
    audit.audit(make_config(), ['ssim'], str(output), Options(pairs=('p',), threshold=0.9))
    split = data.splits['train']
    assert (split.labels == 0).sum() % 5  # there is a last partial batch
    rows = {row['id']: row for row in rows_of(output / 'ssim.csv')}
    assert list(rows) == split.ids.tolist()
    for index, identity in enumerate(split.ids.tolist()):
        row, name = rows[identity], data.class_names[split.labels[index]]
        if name == 'happiness':
            assert (row['score'], row['flag']) == ('', '0')
            continue
        image = split.images[index : index + 1]
        alone = float(ssim(image, pairs[name, 'fear' if name == 'anger' else 'anger'](image))[0])
        assert float(row['score']) == pytest.approx(alone, abs=1e-6)
        assert row['flag'] == str(int(alone > 0.9))
    page = (output / 'review.html').read_text()
    shown = json.loads(page.split('type="application/json">')[1].split('</script>')[0])['suspects']
    assert shown and all(of['translation'] for of in shown)
    assert {of['target'] for of in shown if of['label'] == 'anger'} <= {'fear'}
    told = json.loads((output / 'audit.json').read_text())['methods']['ssim']
    happy = int((split.labels == 2).sum())
    assert told['translated']['fear'] == {'target': 'anger', 'run': 'fear', 'step': 7}
    assert told['scored'] == 46 - happy and told['not_scored_classes'] == ['happiness']
    assert f'{happy} images are not scored: no pair translates happiness' in (output / 'audit.md').read_text()


def test_ssim_of_classes_that_no_pair_translates_is_one_line(data, make_config, pairs, tmp_path):
    strange = {('joy', 'grief'): pairs['anger', 'fear']}
    pairs.clear()
    pairs.update(strange)
    with pytest.raises(UserError, match='ssim: the pairs translate joy, and rows has no image of these'):
        audit.audit(make_config(), ['ssim'], str(tmp_path), Options(pairs=('p',)))


def test_random_flags_as_many_per_class_as_another_audit(data, make_config, tmp_path):
    config, output = make_config(), tmp_path / 'out'
    other = tmp_path / 'other.csv'
    other.write_text('id,label,score,flag,suggested\n' + 'x,fear,,1,\ny,fear,,1,\nz,anger,,1,\nw,anger,,0,\n')
    audit.audit(config, ['random'], str(output), Options(like=str(other)))
    flagged = [row['label'] for row in rows_of(output / 'random.csv') if row['flag'] == '1']
    assert sorted(flagged) == ['anger', 'fear', 'fear']
    other.write_text('id,label,flag\nx,fear,1\ny,joy,1\n')
    with pytest.raises(UserError, match=r"other.csv:3: there is no class 'joy'"):
        audit.audit(config, ['random'], str(tmp_path / 'none'), Options(like=str(other)))
    with pytest.raises(UserError, match='random flags --share=S of the images, or as many per class'):
        audit.audit(config, ['random'], str(tmp_path / 'none'), Options())


def test_votes_are_judged_where_there_are_some(data, make_config, tmp_path, monkeypatch):
    with pytest.raises(UserError, match='votes of annotators .so does vote_entropy., which rows does not have'):
        audit.audit(make_config(), ['vote_entropy'], str(tmp_path / 'none'), Options())
    votes = np.zeros((46, 10), np.float32)
    votes[np.arange(46), np.array([4, 6, 1])[data.splits['train'].labels]] = 9  # the label, but for one image:
    votes[5] = np.eye(10)[[4, 6, 1]].sum(0) * 3
    split = data.splits['train']
    voted = type(split)(split.images, split.labels, split.ids, split.pixel_hashes, {'votes': votes})
    dataset = type(data)(data.name, data.class_names, {**data.splits, 'train': voted}, data.manifest)
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: dataset)
    audit.audit(make_config(), ['vote_entropy'], str(tmp_path / 'out'), Options())
    rows = rows_of(tmp_path / 'out' / 'vote_entropy.csv')
    assert [row['id'] for row in rows if row['flag'] == '1'] == ['train_5']
    assert float(rows[5]['score']) == pytest.approx(1.0) and float(rows[6]['score']) == 0.0


def test_another_audit_is_not_overwritten(data, make_config, tmp_path):
    audit.audit(make_config(), ['random'], str(tmp_path), Options(share=0.1))
    with pytest.raises(UserError, match='holds an audit of other images or labels; choose another --output'):
        audit.audit(make_config(data__noise__rate=0.5), ['random'], str(tmp_path), Options(share=0.1))


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--method=confident'], 'no such method; there are ssim, confident_learning'),
        (['--method=margin', '--share=0.1', '--threshold=0.2'], 'give one'),
        (['--method=margin', '--share=10'], '--share=10.0: a share of the images is wanted, such as 0.1'),
        (['--method=random', '--threshold=0.5'], 'means nothing to random'),
        (['--method=margin', '--review=0'], '--review=0'),
        (['--method=margin', '--folds=1'], '--folds=1: 2 or more are wanted'),
        (['--method=random', '--share=.1', '--seed=-1'], '--seed=-1'),
        (['--method=random', '--like=nowhere.csv'], '--like names nowhere.csv, which is not there'),
        (['--method=margin', '--config.data.folds=3'], '--config.data.folds=0 and, if other than 3'),
        (['--method=ssim'], 'give --pairs=DIR'),
        (['--metod=margin'], 'did you mean --method'),
    ],
)
def test_what_cannot_be_is_one_line(data, tmp_path, flags, message):
    (tmp_path / 'config.py').write_text('from fer_jax.config import default_config as get_config')
    more = ['--config.data.name=rows', f'--config={tmp_path}/config.py', f'--output={tmp_path}/out']
    with pytest.raises(UserError, match=message) as caught:
        audit.main([*flags, *more])
    assert '\n' not in str(caught.value)


def test_folds_keep_people_together_where_they_are_named(data, make_config):
    config = evidence.audited_config(make_config(data__extra=('more.csv',)))
    assert config.data.extra == ()
    split = data.splits['train']
    people = type(split)(split.images, split.labels, split.ids, split.pixel_hashes, {'subject': np.full(46, 'ann')})
    named = type(data)(data.name, data.class_names, {**data.splits, 'train': people}, data.manifest)
    assert evidence.fold_config(config, named, 4).data.fold_by == 'subject'
    folds = evidence.fold_config(config, data, 4).data
    assert (folds.fold_by, folds.folds, folds.fold_of, folds.fold_validation) == ('image', 4, 'train', False)
