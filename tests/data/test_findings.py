from fer_jax.data.dataset import Dataset
from fer_jax.data.findings import report_lines

NO_TWINS = {'groups': 0, 'spare_copies': 0, 'conflicting_groups': 0, 'distance': 4}


def test_a_split_that_lacks_a_class_is_named():
    counts = {'train': {'anger': 3, 'fear': 2}, 'validation': {'anger': 1, 'fear': 0}, 'test': {'anger': 0, 'fear': 0}}
    manifest = {'counts': counts, 'accepted': 6, 'total': 6, 'faces': None, 'oblong': 0}
    manifest |= {'duplicates': NO_TWINS, 'near_duplicates': NO_TWINS}
    lines = list(report_lines(Dataset('toy', ('anger', 'fear'), {}, manifest), [], []))
    assert [line for line in lines if 'no image of' in line] == ['Mind: validation has no image of fear']
    assert lines[1].split() == ['anger', '3', '1', '0']


def test_pictures_that_a_square_squeezes_are_counted():
    manifest = {'counts': {'train': {'anger': 1}}, 'accepted': 1, 'total': 1, 'faces': None, 'oblong': 1234}
    manifest |= {'duplicates': NO_TWINS, 'near_duplicates': NO_TWINS}
    (line,) = (line for line in report_lines(Dataset('toy', ('anger',), {}, manifest), [], []) if 'oblong' in line)
    assert line.startswith('Mind: 1,234 pictures are oblong')
