"""What audits and reviews say is carried out on training images, and on no others."""

import numpy as np
import pytest

from fer_jax.data.change_files import changes_in_words
from fer_jax.data.corrections import exclude_suspects
from fer_jax.data.dataset import drop_classes, rename_classes
from fer_jax.errors import UserError


@pytest.fixture
def write(tmp_path):
    def write(*lines, name='audit.csv'):
        (tmp_path / name).write_text('\n'.join(lines))
        return str(tmp_path / name)

    return write


def labels(dataset):
    split = dataset.splits['train']
    return {i: dataset.class_names[k] for i, k in zip(split.ids.tolist(), split.labels, strict=True)}


def assert_evaluation_is_whole(changed, dataset):
    for name in ('validation', 'test'):
        assert changed.splits[name] is dataset.splits[name]
    assert changed.manifest_hash == dataset.manifest_hash


def test_flagged_images_go_and_evaluation_stays(dataset, write):
    path = write('id,score,flag', 'train_3,.9,1', 'train_5,.1,0', 'test_2,.9,1', 'test_3,,0', 'train_0,,1')
    changed = exclude_suspects(dataset, (path,), (), ())
    gone = {'train_3', 'train_0'}
    assert labels(changed) == {i: label for i, label in labels(dataset).items() if i not in gone}
    kept = np.array([i not in gone for i in dataset.splits['train'].ids.tolist()])
    np.testing.assert_array_equal(changed.splits['train'].images, dataset.splits['train'].images[kept])
    assert_evaluation_is_whole(changed, dataset)
    (line,) = changes_in_words(changed.manifest['changes'])
    assert line == (
        'exclude: 5 rows read; 0 training images relabelled, 2 left out: 40 - 2 = 38; 1 rows would change evaluation '
        'images, which stay as they are'
    )


def test_a_review_relabels_and_has_the_last_word(dataset, write):
    audit = write('id,flag', 'train_1,1', 'train_2,1', 'train_4,1')
    of = labels(dataset)
    other = 'fear' if of['train_2'] != 'fear' else 'anger'
    review = write(
        'id,label,decision,new_label',
        f'train_1,{of["train_1"]},keep,',
        f'train_2,{of["train_2"]},relabel,{other}',
        'validation_3,anger,relabel,fear',
        name='review.csv',
    )
    changed = exclude_suspects(dataset, (audit, review), (), ())
    assert labels(changed) == {i: k for i, k in of.items() if i != 'train_4'} | {'train_2': other}
    assert_evaluation_is_whole(changed, dataset)
    told = changed.manifest['changes']['exclude']
    assert (told['relabelled'], told['left_out'], told['evaluation']) == (1, 1, 1)
    # A later audit of what the review made speaks of the new label.
    again = write('id,label,flag', f'train_2,{other},1', name='again.csv')
    assert 'train_2' not in labels(exclude_suspects(dataset, (audit, review, again), (), ()))


def test_classes_that_are_dropped_or_renamed_are_followed(dataset, write):
    of = labels(dataset)
    gone = next(i for i, k in of.items() if k == 'fear')
    angry = next(i for i, k in of.items() if k == 'anger')
    happy = next(i for i, k in of.items() if k == 'happiness')
    small = rename_classes(drop_classes(dataset, ('fear',)), ('anger=rage',))
    path = write(
        'id,label,decision,new_label', f'{gone},fear,drop,', f'{happy},happiness,relabel,anger', f'{angry},anger,keep,'
    )
    changed = exclude_suspects(small, (path,), ('fear',), ('anger=rage',))
    assert labels(changed)[happy] == 'rage' and labels(changed)[angry] == 'rage'
    assert changed.manifest['changes']['exclude']['dropped'] == 1


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        (
            ['id,flag', 'train_1,1', 'train_99,1'],
            "audit.csv:3: rows has no image 'train_99'; is the file of other data",
        ),
        (['id,flag', 'train_1,yes'], "audit.csv:2: flag is 'yes'; it can be 0 or 1"),
        (['id,flag', 'train_1,1', '', 'train_1,0'], 'audit.csv:4: train_1 stands in line 2 already'),
        (['id,flag', 'train_1'], 'audit.csv:2: 1 cells, and the header has 2'),
        (['id,score', 'train_1,1'], 'has the columns id,score; config.data.exclude wants id,flag or id,decision,new'),
        (['id,decision,new_label', 'train_1,relable,fear'], "decision is 'relable'; it can be keep, relabel, drop"),
        (['id,decision,new_label', 'train_1,relabel,fea'], "no class 'fea'; did you mean 'fear'.*anger, fear, happ"),
        (['id,decision,new_label', 'train_1,relabel,'], "audit.csv:2: there is no class ''"),
    ],
)
def test_a_row_that_cannot_be_meant_is_one_line(dataset, write, lines, message):
    with pytest.raises(UserError, match=message) as caught:
        exclude_suspects(dataset, (write(*lines),), (), ())
    assert '\n' not in str(caught.value)


def test_a_file_of_other_labels_is_refused(dataset, write):
    other = 'fear' if labels(dataset)['train_1'] != 'fear' else 'anger'
    path = write('id,label,flag', f'train_1,{other},0')
    with pytest.raises(UserError, match=rf'audit.csv:2: train_1 is labelled {other} there and .* the file is of other'):
        exclude_suspects(dataset, (path,), (), ())
    with pytest.raises(UserError, match='names nowhere.csv, which is not there'):
        exclude_suspects(dataset, ('nowhere.csv',), (), ())
