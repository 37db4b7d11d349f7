"""FER+ votes joined to FER2013's rows; labels by the majority rule of the authors' code."""

import numpy as np
import pytest

from fer_jax.data.readers import ferplus
from fer_jax.errors import UserError
from tests import layouts


@pytest.mark.parametrize('given', ('directory', 'table', 'zip and votes', 'votes elsewhere'))
def test_votes_are_joined_by_row(given, tmp_path):
    root = tmp_path / 'in é'
    expected = layouts.ferplus(root, faults=True)
    votes = root / 'fer2013new.csv'
    if given == 'votes elsewhere':
        votes = votes.rename(tmp_path / 'votes.csv')
        expected.rejects = {key: value.replace('fer2013new', 'votes') for key, value in expected.rejects.items()}
    options = {} if given in ('directory', 'table') else {'votes': votes}
    path = {'table': root / 'fer2013.csv', 'zip and votes': tmp_path / 'a.zip'}.get(given, root)
    if given == 'zip and votes':
        layouts.write_zip(path, root)
    source = layouts.compare(ferplus.open_source, expected, path, **options)
    assert 'with the votes of' in source.form
    assert source.image_shape == (48, 48, 1)


# By hand from `_process_data` in mode 'majority': single votes struck out, then more than half of the rest.
# Order: neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF.
VOTES = {
    (4, 0, 0, 1, 3, 2, 0, 0, 0, 0): None,  # 4 of 9
    (6, 0, 1, 1, 0, 0, 0, 0, 2, 0): 'neutral',  # 6 of 8
    (5, 0, 0, 3, 1, 0, 0, 0, 1, 0): 'neutral',  # 5 of 8, half of all ten
    (4, 0, 0, 4, 1, 0, 0, 0, 1, 0): None,
    (2, 2, 3, 1, 0, 1, 1, 0, 0, 0): None,  # 3 of 7
    (0, 0, 0, 0, 0, 0, 0, 10, 0, 0): 'contempt',
    (1, 1, 1, 1, 0, 2, 1, 1, 1, 1): 'disgust',  # 2 of 2
    (0, 0, 2, 0, 0, 0, 2, 0, 0, 0): None,  # exactly half
    (0, 0, 0, 0, 0, 0, 3, 0, 2, 0): 'fear',
    (0, 0, 0, 0, 0, 0, 0, 0, 0, 0): None,
}


@pytest.mark.parametrize('votes', VOTES)
def test_the_majority_rule_by_hand(votes):
    if VOTES[votes]:
        assert ferplus.majority(votes) == VOTES[votes]
    else:
        with pytest.raises(ValueError, match='no emotion has more than half of the votes'):
            ferplus.majority(votes)


def reference(votes):
    """The authors' rule, written from its description with arrays: argmax of what is left, if it passes half."""
    left = np.where(np.array(votes, float) < 1 + np.finfo(float).eps, 0, votes)
    best = int(left.argmax())
    return best if left[best] > 0.5 * left.sum() and best < 8 else None


def test_the_majority_rule_against_a_reference():
    random = np.random.default_rng(0)
    kept = 0
    for _ in range(3000):
        votes = random.multinomial(10, random.dirichlet(np.full(10, 0.3)))
        wanted = reference(votes)
        try:
            found = ferplus.VOTES.index(ferplus.majority(votes.tolist()))
        except ValueError:
            found = None
        assert found == wanted, votes
        kept += found is not None
    assert 1000 < kept < 2500


def test_a_row_that_fer2013_rejects_stays_rejected_and_the_rest_keeps_its_votes(tmp_path):
    expected = layouts.ferplus(tmp_path)
    lines = (tmp_path / 'fer2013.csv').read_text().splitlines()
    lines[5] = '9' + lines[5][1:]
    layouts.write(tmp_path / 'fer2013.csv', '\n'.join(lines))
    del expected.rows['Training_00004']
    expected.rejects['fer2013.csv:6'] = "unknown emotion '9'; it can be 0 to 6"
    source = layouts.compare(ferplus.open_source, expected)
    assert source.total == len(expected.rows) + len(expected.rejects)


def test_the_fingerprint_tells_other_votes(tmp_path):
    layouts.ferplus(tmp_path)

    def digest():
        with ferplus.open_source(tmp_path, ferplus.ReaderOptions()) as source:
            return source.fingerprint()[0]

    first = digest()
    votes = (tmp_path / 'fer2013new.csv').read_text()
    layouts.write(tmp_path / 'fer2013new.csv', votes.replace(',10,', ',9,'))
    assert digest() != first


def folder_form(root):
    layouts.ferplus(root)
    (root / 'fer2013.csv').unlink()
    layouts.write(root / 'train' / 'angry' / 'Training_3908.jpg', layouts.encode(layouts.face('anger', 0, 1), 'JPEG'))


def without_votes(root):
    layouts.ferplus(root)
    (root / 'fer2013new.csv').unlink()


def edited(name, change):
    def make(root):
        layouts.ferplus(root)
        layouts.write(root / name, '\n'.join(change((root / name).read_text().splitlines())))

    return make


USELESS = {
    'folders': (folder_form, 'FER+ needs fer2013.csv (or icml_face_data.csv), not the folder form'),
    'no votes': (without_votes, 'FER+ needs its votes: --votes=fer2013new.csv'),
    'rows missing': (
        edited('fer2013new.csv', lambda lines: lines[:-1]),
        'has 41 rows and the table fer2013.csv has 42; all of both are needed',
    ),
    'another order': (
        edited('fer2013new.csv', lambda lines: [lines[0], *reversed(lines[1:])]),
        "fer2013new.csv:2 has Usage 'PrivateTest', fer2013.csv:2 is in train: the rows do not belong together",
    ),
    'no column': (
        edited('fer2013new.csv', lambda lines: [lines[0].replace('contempt', 'contmpt'), *lines[1:]]),
        "lacks the column contempt; it should be FER+'s fer2013new.csv",
    ),
}


@pytest.mark.parametrize('case', USELESS)
def test_a_useless_source_is_one_clear_line(case, tmp_path):
    make, message = USELESS[case]
    make(tmp_path)
    with pytest.raises(UserError) as raised:
        layouts.read(ferplus.open_source, tmp_path)
    assert message in str(raised.value)
    assert '\n' not in str(raised.value)
