"""Effects over seeds, paired, with what each row was trained without and with."""

import math

import pytest

from fer_jax.reports.effects import Effect, effects_table


def rows(table):
    lines = [line.strip('|').split('|') for line in table.splitlines() if line.startswith('|')]
    header, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_an_effect_is_paired_over_seeds():
    # Differences +1, +2, +3 points: mean 2, sd 1, t(.975, 2) = 4.302653. Unpaired the interval would be far wider.
    half = 4.302653 / math.sqrt(3)
    effect = Effect('b', 'a', [0.01, 0.02, 0.03], [0.51, 0.62, 0.73], trained_on=[80, 80, 80])
    base = Effect('a', '', accuracies=[0.50, 0.60, 0.70])
    first, second = rows(effects_table([base, effect]))
    assert first == {
        'row': 'a',
        'accuracy': '60.00 (test)',
        'effect, points (95 %)': '-',
        'per seed': '-',
        'against': '-',
        'trained on': '-',
        'left out': '-',
        'wrong among them': '-',
        'added': '-',
        'validation': '-',
    }
    assert second['effect, points (95 %)'] == f'+2.00 ± {half:.2f}'
    assert (second['per seed'], second['against']) == ('+1.00 +2.00 +3.00', 'a')


def test_one_seed_has_no_interval_and_none_no_effect():
    alone, nothing = rows(effects_table([Effect('b', 'a', [-0.1], [0.5]), Effect('c', 'a')]))
    assert alone['effect, points (95 %)'] == '-10.00 ± -'
    assert (nothing['accuracy'], nothing['effect, points (95 %)']) == ('-', '-')


def test_what_was_left_out_and_how_much_of_it_was_wrong():
    effect = Effect('b', '', [], [0.5, 0.5], left_out=[10, 20], wrong=[5, 5], added=[1800, 1800], trained_on=[1, 3])
    (row,) = rows(effects_table([effect]))
    assert (row['left out'], row['wrong among them'], row['added'], row['trained on']) == ('15', '37.5 %', '1,800', '2')
    nobody = Effect('b', '', [], [0.5], left_out=[10])
    assert rows(effects_table([nobody]))[0]['wrong among them'] == '-'


def test_a_filtered_number_is_marked_as_no_result_and_stands_beside_the_honest_one():
    text = effects_table([Effect('b', '', [], [0.5], honest=[0.6], filtered=[0.75], kept=[0.65])])
    (row,) = rows(text)
    assert row['validation'] == '60.00'
    assert row['*filtered* validation, no result'] == '*75.00 on 65.0 % of it*'
    assert 'is **no result**' in text
    without = effects_table([Effect('b', '', [], [0.5], honest=[0.6])])
    assert 'filtered' not in without and pytest.approx(0.6) == float(rows(without)[0]['validation']) / 100
