import os

import pytest

from fer_jax.apps.inputs import find_inputs
from fer_jax.errors import UserError


@pytest.fixture
def tree(tmp_path):
    for name in ('a/1.jpg', 'a/deep/2.PNG', 'a/film.MP4', 'a/notes.txt', 'a/.hidden.jpg', 'b/1.jpg', 'b/odd'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'x')
    return tmp_path


def names(tree, *words, output='nowhere'):
    inputs, skipped = find_inputs([str(tree / word) for word in words], tree / output)
    return [source.name for source in inputs], skipped


def test_a_folder_gives_its_pictures_and_films_and_says_what_it_skips(tree):
    assert names(tree, 'a') == (['1.jpg', 'deep/2.PNG', 'film.MP4'], ['notes.txt'])
    inputs, _ = find_inputs([str(tree / 'a')], tree / 'x')
    assert [source.is_film for source in inputs] == [False, False, True]
    assert inputs[0].member.read(10) == b'x' and inputs[0].modified == os.stat(tree / 'a/1.jpg').st_mtime_ns


def test_names_tell_files_of_several_folders_apart_and_none_counts_twice(tree):
    assert names(tree, 'a/1.jpg', 'b/1.jpg')[0] == ['a/1.jpg', 'b/1.jpg']
    assert names(tree, 'b', 'a/1.jpg', 'b/1.jpg')[0] == ['b/1.jpg', 'a/1.jpg']
    assert names(tree, 'b/1.jpg')[0] == ['1.jpg']


def test_a_file_that_is_named_is_read_whatever_it_is_called(tree):
    assert names(tree, 'b/odd') == (['odd'], [])


def test_patterns(tree):
    assert names(tree, '*/1.jpg')[0] == ['a/1.jpg', 'b/1.jpg']
    assert names(tree, 'a/**/*.PNG')[0] == ['2.PNG']
    (tree / 'a' / '[1].jpg').write_bytes(b'x')
    assert names(tree, 'a/[1].jpg')[0] == ['[1].jpg']  # a file of that name, before any pattern


def test_results_of_an_earlier_call_are_no_inputs(tree):
    assert names(tree, '', output='a')[0] == ['b/1.jpg']


@pytest.mark.parametrize(
    ('word', 'message'),
    [
        ('https://example.org/face.jpg', 'is an address'),
        ('rtsp://camera', 'is an address'),
        ('file:///etc/hostname', 'is an address'),
        ('missing.jpg', 'missing.jpg does not exist'),
        ('*.none', 'matches no file'),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, monkeypatch, word, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        find_inputs([word], tmp_path / 'x')


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / 'notes.txt').write_text('x')
    with pytest.raises(UserError, match='no picture and no film'):
        find_inputs([str(tmp_path)], tmp_path / 'x')
