"""What the page says equals what the files say; what is missing, damaged or hostile does no harm."""

import json
from pathlib import Path

import numpy as np
import pytest

from fer_jax import report
from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import load_predictions, save_predictions
from fer_jax.evaluation.scores import ensemble_probabilities, read_scores, update_scores_file
from fer_jax.reports.page.facts import differences
from tests.reports.page.reading import read_page, rows_of

HOSTILE = ('</style><script>document.title="taken"</script>', '"><img src=x onerror=alert(1)>', 'a & b &amp; <b>c')


def make_page(*workdirs, split='validation', **more):
    output = workdirs[0].parent / 'page.html'
    flags = [f'--{name}={value}' for name, value in more.items()]
    names = ','.join(map(str, workdirs))
    assert report.main([names, f'--split={split}', f'--output={output}', '--files-only', *flags]) == 0
    return read_page(output)


def test_every_number_is_that_of_scores_json(make_workdir):
    workdir = make_workdir(splits=('validation', 'test'))
    scores = read_scores(workdir / 'scores.json')
    update_scores_file(workdir / 'scores.json', 'test', {k: v for k, v in scores['test'].items() if k != 'readings'})
    page = make_page(workdir, split='test')
    header, *rows = rows_of(page, 'Scores of every split')
    assert [(row[1], row[-1]) for row in rows] == [('test', '2')] * 2 + [('validation', '1')] * 2
    for row, (split, kind) in zip(
        rows, [(split, kind) for split in ('test', 'validation') for kind in ('single', 'ensemble')], strict=True
    ):
        of = scores[split][kind]
        low, high = of['accuracy_ci95']
        assert row[3:8] == [
            f'{100 * of["accuracy"]:.2f}',
            f'{100 * low:.2f} to {100 * high:.2f}',
            f'{of["macro_f1"]:.4f}',
            f'{of["nll"]:.4f}',
            f'{100 * of["ece"]:.2f}',
        ]
    ensemble = scores['test']['ensemble']
    _, _, *rows = rows_of(page, 'Precision, recall and F1 per class on test')
    for (name, *cells), (wanted, of) in zip(rows, ensemble['per_class'].items(), strict=False):
        assert [name, *cells] == [wanted, str(of['support']), *(f'{of[k]:.4f}' for k in ('precision', 'recall', 'f1'))]
    assert rows[-1][-1] == f'{ensemble["macro_f1"]:.4f}' and len(rows) == 4
    _, *rows = rows_of(page, 'Confusion of run on test')
    assert [[int(cell.split()[0]) for cell in row[1:]] for row in rows] == ensemble['confusion']
    assert f'expected calibration error {100 * ensemble["ece"]:.2f} %' in page.text
    _, *bins = rows_of(page, 'Reliability of run in numbers')
    assert sum(int(row[1]) for row in bins) == 60
    facts = dict(row[:2] for row in rows_of(page, 'How each came about'))
    assert facts['data manifest'] == 'feedbeef' and facts['data set'] == 'toyfaces' and facts['seed'] == '1'
    assert facts['test was read'] == '2 times' and facts['parameters'] == '1,234,567' and 'toy.py' in facts['command']
    assert 'what is changed because of them is chosen on test' in page.text


def test_changes_between_runs_are_counted_on_the_same_images(make_workdir):
    workdirs = [
        make_workdir('one', seed=1),
        make_workdir('two', seed=2, bonus=2.0, rate=0.2),
        make_workdir('six', seed=6),
    ]
    right = []
    for workdir in workdirs:
        predictions = load_predictions(workdir / 'predictions' / 'validation.npz')
        named = ensemble_probabilities(predictions.logits).argmax(1)
        right.append(
            {name: k == label for name, k, label in zip(predictions.ids, named, predictions.labels, strict=True)}
        )
    page = make_page(*workdirs)
    for letter, other in (('B', right[1]), ('C', right[2])):
        fixed = sum(not right[0][name] and other[name] for name in right[0])
        broken = sum(right[0][name] and not other[name] for name in right[0])
        points = 100 * (fixed - broken) / 60
        assert fixed and broken
        assert f'Accuracy {points:+.2f} points from A to {letter}' in page.text
        assert f'{fixed} fixed, {broken} broken, {60 - fixed - broken} as before' in page.text
        _, *rows = rows_of(page, f'Recall per class, from A one to {letter}')
        assert (sum(int(row[6]) for row in rows), sum(int(row[7]) for row in rows)) == (fixed, broken)
        for row in rows:
            assert float(row[4]) == pytest.approx(float(row[3]) - float(row[2]), abs=0.011)
            assert float(row[4]) == pytest.approx(100 * (int(row[6]) - int(row[7])) / int(row[1]), abs=0.006)
    header, *rows = rows_of(page, 'Fields of the configuration that differ')
    assert rows == [['config.optimizer.learning_rate', '0.1', '0.2', '0.1']]
    groups, _, *_ = rows_of(page, 'Precision, recall')
    assert groups[1:] == ['A one, ensemble of 2', 'B two, ensemble of 2', 'C six, ensemble of 2']


def test_what_is_not_comparable_is_shown_and_not_subtracted(make_workdir):
    one = make_workdir('one')
    others = {
        'they were read on other data': make_workdir('two', manifest='0ther'),
        'their classes differ': make_workdir('three', names=('anger', 'fear', 'neutral')),
        'they were read on other images': make_workdir('four', examples=59),
        'has no predictions here': make_workdir('five'),
    }
    (others['has no predictions here'] / 'predictions' / 'validation.npz').unlink()
    page = make_page(one, *others.values())
    assert page.text.count('Not subtracted: ') == 4 and 'Recall per class, from' not in page.text
    for reason in others:
        assert reason in page.text
    assert len(rows_of(page, 'Scores of every')) == 11
    assert len([caption for caption in page.tables if caption.startswith('Precision, recall')]) == 2


def test_names_stay_words_whatever_they_hold(make_workdir):
    workdir = make_workdir('a"><script>x', names=HOSTILE)
    page = make_page(workdir, make_workdir('b', seed=2, names=HOSTILE))
    _, _, *rows = rows_of(page, 'Precision, recall')
    assert [row[0] for row in rows[:3]] == list(HOSTILE)
    names = {name for name, _ in page.tags}
    assert 'script' not in names and 'b' in names
    assert all(of['src'].startswith('data:image/') for name, of in page.tags if name == 'img')
    assert not [of for _, of in page.tags if any(key.startswith('on') for key in of)]


def test_what_is_missing_is_said_on_the_page(make_workdir, capsys):
    workdir = make_workdir()
    (workdir / 'metrics.jsonl').unlink()
    (workdir / 'predictions' / 'validation.npz').unlink()
    page = make_page(workdir)
    assert (
        'predictions/validation.npz is not there' in page.text
        and 'predictions/validation.npz' in capsys.readouterr().out
    )
    sections = {of.get('id') for name, of in page.tags if name == 'section'}
    assert sections == {'scores', 'runs', 'classes', 'confusion'}
    links = [of['href'] for name, of in page.tags if name == 'a']
    assert links == ['#content', '#scores', '#runs', '#classes', '#confusion']


def test_predictions_of_another_evaluation_are_not_shown_for_the_scored_ones(make_workdir):
    workdir = make_workdir()
    path = workdir / 'predictions' / 'validation.npz'
    predictions = load_predictions(path)
    object.__setattr__(predictions, 'logits', 1.01 * predictions.logits)  # the same answers, with other confidence
    save_predictions(path, predictions)
    page = make_page(workdir)
    assert 'holds other predictions than those that scores.json speaks of' in page.text
    assert not [caption for caption in page.tables if caption.startswith('Reliability')]


def test_mistakes_are_the_surest_first_and_stale_pictures_are_not_shown(make_workdir):
    workdir = make_workdir()
    predictions = load_predictions(workdir / 'predictions' / 'validation.npz')
    probabilities = ensemble_probabilities(predictions.logits)
    wrong = np.flatnonzero(probabilities.argmax(1) != predictions.labels)
    surest = predictions.ids[wrong[np.argsort(-probabilities[wrong].max(1))]][:24]
    page = make_page(workdir)
    said = [f'{page.text} '.index(f' {identity} ') for identity in surest]
    assert said == sorted(said)
    pictures = [of for name, of in page.tags if name == 'img']
    assert len(pictures) == 3 * min(len(wrong), 24) and all(of['alt'] for of in pictures)
    path = workdir / 'mistakes' / 'validation.npz'
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **(arrays | {'confidence': arrays['confidence'] - 0.1}))
    page = make_page(workdir)
    assert not [of for name, of in page.tags if name == 'img']
    assert 'No faces and maps are kept in this workdir' in page.text
    assert [row[0] for row in rows_of(page, 'Worst mistakes of run')[1:]] == surest.tolist()


def test_a_run_that_has_only_begun_shows_its_curves(make_workdir):
    workdir = make_workdir(splits=())
    page = make_page(workdir)
    assert 'It has no scores on validation.' in page.text and 'Nothing has been scored here yet.' in page.text
    assert 'best 62.5 % at epoch 5, last 62.5 %' in page.text  # 50 / 80
    assert {of.get('id') for name, of in page.tags if name == 'section'} == {'runs', 'training'}


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('config.json', None, 'has no config.json; is it a workdir?'),
        ('config.json', '{"config": ', 'config.json is not JSON'),
        ('config.json', '[]', 'config.json holds no JSON object'),
        ('config.json', '{"config": [1]}', 'holds no configuration'),
        ('scores.json', '{"validation": ', 'scores.json is not JSON'),
        ('scores.json', '{"validation": {"single": 3}}', 'scores.json: validation lacks dataset'),
        ('scores.json', '{"validation": []}', 'scores.json holds no object'),
        ('predictions/validation.npz', 'no archive', 'validation.npz is damaged'),
        ('folds.csv', 'id,unit,fold', 'is a cross-validation that is not done yet'),
        ('folds.json', '{"folds": [{"fold": 0}]}', 'fold0/scores.json does not exist'),
        ('folds.json', '{"folds": 3}', 'folds.json is damaged'),
    ],
)
def test_a_damaged_file_is_named_in_one_line(make_workdir, name, content, message):
    workdir = make_workdir()
    path = workdir / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message.replace('?', r'\?')) as caught:
        make_page(workdir)
    assert '\n' not in str(caught.value)
    assert not (workdir.parent / 'page.html').exists()


def test_odd_metrics_do_no_harm(make_workdir):
    workdir = make_workdir()
    with (workdir / 'metrics.jsonl').open('a') as file:
        file.write('\n{"step": "x"}\n[1]\n{"step": 60, "train/loss": "much", "validation/accuracy": null}\n')
        file.write('{"step": 61, "train/loss": NaN, "epoch": 6.1, "validation/loss": Infinity}\n{"step": 62, "tra')
    page = make_page(workdir)
    assert 'over steps' in page.text  # not every record has its epoch
    assert 'first 1.98, last 1' in page.text


def test_it_takes_the_place_of_its_own_pages_alone(make_workdir, tmp_path):
    workdir = make_workdir()
    output = tmp_path / 'page.html'
    make_page(workdir)
    make_page(workdir)
    output.write_text('<p>mine</p>')
    with pytest.raises(UserError, match='is no page of this command'):
        make_page(workdir)
    assert output.read_text() == '<p>mine</p>'
    with pytest.raises(UserError, match='is a directory; a file is wanted'):
        report.main([str(workdir), f'--output={tmp_path}', '--files-only'])


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'give workdirs'),
        (['a', '--runs=b'], 'give workdirs'),
        (['a,,b'], 'empty name'),
        (['--runs='], 'empty name'),
        (['nowhere'], 'nowhere does not exist'),
        (['.,./'], 'is named twice'),
        ([','.join(map(str, range(13)))], '13 workdirs are too many'),
        (['a', '--split=train'], 'train'),
        (['a', '--out=b'], 'did you mean --output'),
    ],
)
def test_wrong_words_are_named(words, message):
    with pytest.raises(UserError, match=message):
        report.main(words)


def test_a_split_that_nobody_was_scored_on_is_refused(make_workdir):
    with pytest.raises(UserError, match='no scores on test; it has some on validation: --split=validation'):
        make_page(make_workdir(), split='test')


def test_a_folder_of_workdirs_names_them(make_workdir):
    workdir = make_workdir('runs')
    (workdir / 'config.json').rename(workdir.parent / 'config.json')
    with pytest.raises(UserError, match='name the workdirs in it'):
        Path(workdir / 'sub').mkdir()
        (workdir.parent / 'config.json').rename(workdir / 'sub' / 'config.json')
        make_page(workdir)


def test_differences_of_nested_fields():
    configs = [{'a': {'b': 1, 'c': 2}, 'd': 'x'}, {'a': {'b': 1, 'c': 3}, 'e': True}, {}]
    assert differences(configs) == [('a.c', ['2', '3', '–']), ('d', ["'x'", '–', '–']), ('e', ['–', 'True', '–'])]


def test_a_pair_shows_its_rule_its_scores_and_its_samples(make_workdir, tmp_path):
    from PIL import Image

    workdir = make_workdir(splits=())
    described = json.loads((workdir / 'config.json').read_text())
    described['config']['task'] = 'cyclegan'
    (workdir / 'config.json').write_text(json.dumps(described))
    page = make_page(workdir)
    assert 'has no pair.json yet' in page.text and 'It has drawn no samples' in page.text
    pair = {'pair': ['anger', 'fear'], 'step': 20, 'chosen_by': 'the judge', 'metrics': {'validation/kid_a_to_b': 0.25}}
    (workdir / 'pair.json').write_text(json.dumps(pair))
    (workdir / 'figures').mkdir()
    Image.new('RGB', (40, 30), 'red').save(workdir / 'figures' / 'samples_0000020.png')
    (workdir / 'figures' / 'samples_0000030.png').write_bytes(b'broken')
    page = make_page(workdir, make_workdir('other'))
    assert 'anger and fear: step 20 is the one to translate with (the judge).' in page.text
    assert rows_of(page, 'anger and fear on validation')[1:] == [['kid_a_to_b', '0.25']]
    assert [of['alt'] for name, of in page.tags if name == 'img'][-1].endswith('after 20 steps')
    (workdir / 'figures' / 'samples_0000020.png').unlink()
    assert 'samples_0000030.png is damaged' in make_page(workdir).text


def test_a_cross_validation_shows_its_pooled_scores(make_folds, make_workdir):
    workdir = make_folds()
    told = json.loads((workdir / 'folds.json').read_text())
    page = make_page(workdir, make_folds('again', seed=5), make_workdir('run'))
    pooled = told['ensemble']['pooled']
    low, high = pooled['accuracy_ci95_units']
    (row,) = (row for row in rows_of(page, 'Scores of every') if row[:3] == ['A folds', 'all folds', 'ensemble of 2'])
    assert row[3:5] == [f'{100 * pooled["accuracy"]:.2f}', f'{100 * low:.2f} to {100 * high:.2f}']
    assert row[-1] == '1 per fold, at most'
    mean, deviation = told['ensemble']['accuracy'].values()
    _, *rows = rows_of(page, 'folds: 2 folds by subject')
    assert rows[-1][:2] == ['ensemble', f'{100 * mean:.2f} ± {100 * deviation:.2f}']
    _, *rows = rows_of(page, 'Confusion of folds on all folds pooled')
    assert [[int(cell.split()[0]) for cell in row[1:]] for row in rows] == pooled['confusion']
    assert f'expected calibration error {100 * pooled["ece"]:.2f} %' in page.text
    assert 'Recall per class, from A folds to B again' in ' '.join(page.tables)
    assert 'A → C run Not subtracted: they were read on other images.' in page.text
    assert page.text.count('Faces are in the pages of its folds: name one of them.') == 2
    assert 'by each fold, at most once' in page.text
    (workdir / 'fold1' / 'predictions' / 'test.npz').unlink()
    assert 'The predictions of its folds are not those of folds.json' in make_page(workdir).text
