import math

import numpy as np
import pytest

from fer_jax.reports import tables


def cells(table, line):
    return [cell.strip() for cell in table.splitlines()[line].strip('|').split('|')]


def test_mean_and_interval_of_a_hand_computed_case():
    # 70, 72, 74: mean 72, standard deviation 2, t(0.975, 2) = 4.302653.
    mean, half = tables.mean_and_interval([70, 72, 74])
    assert mean == 72
    assert half == pytest.approx(4.302653 * 2 / math.sqrt(3), abs=1e-5)


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert tables.mean_and_interval([0.5]) == (0.5, None)
    with pytest.raises(ValueError, match='no values'):
        tables.mean_and_interval([])


def test_row_with_three_seeds():
    row = tables.Row(
        name='VGG | ten crops',
        accuracies={'test': [0.70, 0.72, 0.74], 'validation': [0.70, 0.71, 0.75]},
        seeds=[0, 1, 2],
        published=73.28,
        source='a paper',
        seconds=3 * 3600 + 5 * 60,
        device='1 x H200',
        manifest='0123456789abcdef',
        command='python -m fer_jax.reproduce --table=x.py',
    )
    table = tables.results_table([row])
    assert r'VGG \| ten crops' in table
    assert cells(table.replace(r'\|', '/'), 2) == [
        'VGG / ten crops',
        '73.28 (a paper)',
        '72.00 ± 4.97 (test)',
        '70.00 72.00 74.00',
        '72.00',
        '-1.28',
        '0 1 2',
        '3 h 05 min',
        '1 x H200',
        '0123456789abcdef',
        '`python -m fer_jax.reproduce --table=x.py`',
    ]


def test_the_row_compares_on_the_split_that_was_published():
    row = tables.Row(
        'AffectNet', {'validation': [0.60, 0.62], 'test': [0.1]}, [0, 1], split='validation', published=65.04
    )
    line = cells(tables.results_table([row]), 2)
    assert line[2] == f'61.00 ± {12.7062047 * np.sqrt(2) / np.sqrt(2):.2f} (validation)'
    assert line[5] == '-4.04'


def test_one_seed_shows_no_interval_and_an_untrained_row_shows_dashes():
    table = tables.results_table([tables.Row('one', {'test': [0.7]}, [4], seconds=50), tables.Row('none', {}, [])])
    assert cells(table, 2)[:8] == ['one', '-', '70.00 ± - (test)', '70.00', '-', '-', '4', '50 s']
    assert cells(table, 3) == ['none'] + ['-'] * 10


def cross_validation(mean, sd, f1, pooled, interval=(0.9, 0.99)):
    """One entry of folds.json."""
    return {
        'accuracy': {'mean': mean, 'sd': sd},
        'macro_f1': {'mean': f1, 'sd': 0.0125},
        'pooled': {'accuracy': pooled, 'accuracy_ci95_units': list(interval)},
    }


def test_ways_of_making_folds_stand_side_by_side():
    by_image = [cross_validation(0.99102, 0.01, 0.98, 0.9925), cross_validation(0.995, 0.02, 0.99, 0.9975)]
    rows = [
        tables.FoldRow(
            'VGG19',
            {'image': by_image, 'subject': [cross_validation(0.93, 0.04, 0.9, 0.9312, (0.9, 0.955))]},
            seeds=[0, 1],
            folds=10,
            published=99.185,
            source='seed 003',
            seconds=90,
        ),
        tables.FoldRow('not yet', {'image': [], 'subject': []}, seeds=[], folds=10, published=97.452),
    ]
    table = tables.folds_results_table(rows)
    assert cells(table, 0)[:9] == [
        'row',
        'folds',
        'published',
        'per image: accuracy',
        'per image: macro F1',
        'per image: pooled',
        'per subject: accuracy',
        'per subject: macro F1',
        'per subject: pooled',
    ]
    assert cells(table, 2) == [
        'VGG19',
        '10',
        '99.185 (seed 003)',
        '99.30 ± 1.50',
        '0.9850 ± 0.0125',
        # The mean of 99.25 and 99.75, and t(0.975, 1) = 12.7062 times 0.5 / 2.
        f'99.50 ± {12.7062047 * 0.25:.2f} (99.25 99.75)',
        '93.00 ± 4.00',
        '0.9000 ± 0.0125',
        '93.12 (90.00 to 95.50)',
        '+0.12',  # of the folds per image, to which the published number belongs
        '0 1',
        '2 min',
        '-',
        '-',
        '-',
    ]
    assert cells(table, 3) == ['not yet', '10', '97.452', *['-'] * 12]


@pytest.mark.parametrize(('given', 'shown'), [(62.0, '62.00'), (73.28, '73.28'), (99.185, '99.185'), (None, '-')])
def test_published_numbers_are_shown_as_they_were_published(given, shown):
    assert cells(tables.results_table([tables.Row('a', {}, [], published=given)]), 2)[1] == shown


@pytest.mark.parametrize(('seconds', 'text'), [(None, '-'), (43.2, '43 s'), (754, '13 min'), (3599, '1 h 00 min')])
def test_duration(seconds, text):
    assert tables.duration(seconds) == text


def entry(members):
    of = {
        'accuracy': 0.625,
        'accuracy_ci95': [0.6, 0.65],
        'accuracy_without_twins': None,
        'macro_f1': 0.55,
        'nll': 1.25,
        'ece': 0.085,
    }
    return {
        'num_examples': 3589,
        'num_twins': 288,
        'single': of,
        'ensemble': {**of, 'accuracy': 0.75, 'members': members},
    }


def test_quick_table_has_a_line_per_split_and_classifier():
    lines = tables.quick_table({'validation': entry(9), 'test': entry(1)}).splitlines()
    assert [line.split('  ')[0].strip() for line in lines[2:]] == ['validation', 'validation', 'test']
    assert 'ensemble of 9' in lines[3] and 'only member' in lines[4]
    assert lines[2].split()[3:] == ['62.50', '60.00', 'to', '65.00', '0.5500', '1.2500', '8.50', '-', '3,589', '288']
    assert '75.00' in lines[3] and '75.00' not in lines[4]
    assert len({len(line) for line in lines}) == 1


def test_where_nothing_was_chosen_the_single_member_is_the_last():
    scores = entry(9)
    scores['single'] = {**scores['single'], 'validation_accuracy': None}
    assert [row[1] for row in tables.score_rows({'test': scores})] == ['last member', 'ensemble of 9']
    scores['single']['validation_accuracy'] = 0.5
    assert [row[1] for row in tables.score_rows({'test': scores})] == ['best single', 'ensemble of 9']
