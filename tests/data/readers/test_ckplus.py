"""CK+ in its three forms: people and sequences are parsed, everything is training, every fault has its reason."""

import collections

import numpy as np
import pytest

from fer_jax.data.readers import ckplus
from fer_jax.errors import UserError
from tests import layouts

WRITERS = {
    'folders': layouts.ckplus_folders,
    'original': layouts.ckplus_original,
    'table': layouts.ckplus_table,
}


@pytest.mark.parametrize('form', WRITERS)
@pytest.mark.parametrize('zipped', (False, True))
def test_every_form(form, zipped, tmp_path):
    expected = WRITERS[form](tmp_path / 'C K+', faults=True)
    path = layouts.write_zip(tmp_path / 'a.zip', expected.path) if zipped else None
    source = layouts.compare(ckplus.open_source, expected, path)
    assert 'everything is training' in source.form


def test_four_people_make_four_sequences_of_three_frames_in_each_class(tmp_path):
    for form in ('folders', 'original'):
        WRITERS[form](tmp_path / form)
        candidates, rejects, _ = layouts.read(ckplus.open_source, tmp_path / form)
        assert rejects == []
        sequences = collections.Counter((row.emotion, row.subject, row.sequence) for row in candidates)
        assert set(sequences.values()) == {3}
        assert collections.Counter(emotion for emotion, _, _ in sequences) == dict.fromkeys(layouts.CKPLUS, 4)
        assert {row.subject for row in candidates} == {'S010', 'S011', 'S012', 'S013'}
        assert all(row.sequence.startswith(row.subject + '_') for row in candidates)


def test_the_original_release_asks_for_alignment_and_keeps_the_last_three_frames(tmp_path):
    layouts.ckplus_original(tmp_path, people=1)
    candidates, _, source = layouts.read(ckplus.open_source, tmp_path)
    assert '--align' in source.form
    assert {row.id[-8:] for row in candidates} == {'00000014', '00000015', '00000016'}
    assert source.total == 21


def test_the_table_names_no_subjects_and_says_what_that_means(tmp_path):
    layouts.ckplus_table(tmp_path)
    candidates, _, source = layouts.read(ckplus.open_source, tmp_path / 'ckextended.csv')
    assert {(row.subject, row.sequence) for row in candidates} == {('', '')}
    assert 'folds per subject or sequence cannot be made' in source.form
    assert source.image_shape == (48, 48, 1)
    counts = collections.Counter(row.emotion for row in candidates)
    assert counts == dict.fromkeys(layouts.CKPLUS, 3) | {'neutral': 12}
    np.testing.assert_array_equal(layouts.decode_candidate(candidates[0]), layouts.face('anger', 0, 1))


def test_two_labels_for_a_sequence_are_no_label(tmp_path):
    layouts.ckplus_original(tmp_path, people=1)
    layouts.write(tmp_path / 'Emotion/S010/001/S010_001_00000001_emotion.txt', '   2.0000000e+00')
    _, rejects, _ = layouts.read(ckplus.open_source, tmp_path)
    assert [reject.reason for reject in rejects] == ['2 label files for one sequence'] * 3


USELESS = {
    'nothing': (lambda p: layouts.write(p / 'notes.txt', 'x'), {}, 'holds no CK+'),
    'other folders': (lambda p: layouts.write(p / 'anger' / '1.png', 'x'), {}, 'holds no CK+'),
    'two tables': (
        lambda p: [layouts.write(p / f'{n}.csv', 'emotion,pixels,Usage\n') for n in 'ab'],
        {},
        'holds more than one table (a.csv, b.csv)',
    ),
    'six may be contempt': (
        lambda p: layouts.write(p / 'ck.csv', 'emotion,pixels,Usage\n6,1 2,Training\n0,1 2,Training\n'),
        {},
        'ck.csv has emotions to 6 only: in ckextended.csv 6 is neutral and 7 contempt',
    ),
    'split': (layouts.ckplus_folders, {'split': (0.8, 0.1, 0.1)}, 'CK+ has no option split: it is evaluated in folds'),
    'classes': (layouts.ckplus_folders, {'classes': 7}, 'CK+ has no option classes'),
}


@pytest.mark.parametrize('case', USELESS)
def test_a_useless_source_is_one_clear_line(case, tmp_path):
    make, options, message = USELESS[case]
    make(tmp_path)
    with pytest.raises(UserError) as raised:
        layouts.read(ckplus.open_source, tmp_path, **options)
    assert message in str(raised.value)
    assert '\n' not in str(raised.value)
