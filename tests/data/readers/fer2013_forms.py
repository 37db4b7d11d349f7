"""FER2013 in every form that is read, and what a reader makes of one."""

import dataclasses
import io
import shutil
import zipfile

import numpy as np
from PIL import Image

from fer_jax.data.files import PictureFiles
from fer_jax.data.preparing import read_face
from fer_jax.data.readers import fer2013
from fer_jax.data.records import ReaderOptions, Reject

USAGES = ('Training', 'PublicTest', 'PrivateTest')
FOLDERS = ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')
EMOTIONS = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise', 'neutral')
SPLITS = ('train', 'validation', 'test')

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 48, 48), np.uint8)


def text_of(image):
    return ' '.join(map(str, image.ravel()))


def rows_of_all():
    """One face per usage and emotion: (emotion number, pixels, usage)."""
    return [(index % 7, text_of(image), USAGES[index // 7]) for index, image in enumerate(IMAGES)]


def write_table(path, rows, header='emotion,pixels,Usage', end='\n', start=''):
    lines = [header, *(','.join(map(str, row)) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((start + end.join(lines) + end).encode())
    return path


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_icml(path):
    return write_table(path, [(a, c, b) for a, b, c in rows_of_all()], 'emotion, Usage, pixels')


def png_of(image, mode=None):
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(buffer, 'PNG')
    return buffer.getvalue()


def write_folders(root):
    """PNG bytes under the names of the folder form, so that the pixels stay exact."""
    for index, image in enumerate(IMAGES):
        usage = USAGES[index // 7]
        path = root / ('train' if usage == 'Training' else 'test') / FOLDERS[index % 7] / f'{usage}_{index:05d}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png_of(image))
    return root


def write_zip(path, folder, top=''):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob('*'), reverse=True):
            archive.write(file, top + file.relative_to(folder).as_posix())
    return path


def kaggle_download(folder):
    write_icml(folder / 'icml_face_data.csv')
    write_table(folder / 'train.csv', [row[:2] for row in rows_of_all()], 'emotion,pixels')
    write_table(folder / 'test.csv', [row[1:2] for row in rows_of_all()], 'pixels')
    (folder / 'fer2013.tar.gz').write_bytes(b'\x1f\x8b whatever')
    return folder


def zip_of_table(folder):
    return write_zip(folder / 'a.zip', write_table(folder / 'in' / 'fer2013.csv', rows_of_all()).parent, 'fer2013/')


def folder_around_zip(folder):
    write_zip(folder / 'fer2013.zip', write_folders(folder / 'in'))
    shutil.rmtree(folder / 'in')
    return folder


FORMS = {
    'csv': lambda p: write_table(p / 'fer2013.csv', rows_of_all()),
    'csv with BOM, CRLF and quotes': lambda p: write_table(
        p / 'fer2013.csv', [(a, f'"{b}"', c) for a, b, c in rows_of_all()], end='\r\n', start='\ufeff'
    ),
    'icml csv': lambda p: write_icml(p / 'icml_face_data.csv'),
    'csv without suffix': lambda p: write_table(p / 'table', rows_of_all()),
    'folder around csv': lambda p: write_table(p / 'fer2013.csv', rows_of_all()).parent,
    'kaggle download': kaggle_download,
    'folders': write_folders,
    'folders in a folder': lambda p: write_folders(p / 'fer 2013 é').parent,
    'csv beside folders': lambda p: write_table(write_folders(p) / 'fer2013.csv', rows_of_all()).parent,
    'zip of csv': zip_of_table,
    'zip of folders': lambda p: write_zip(p / 'a.zip', write_folders(p / 'in')),
    'zip of folders in a folder': lambda p: write_zip(p / 'ä b.zip', write_folders(p / 'in'), 'FER 2013/'),
    'zip without suffix': lambda p: write_zip(p / 'download', write_folders(p / 'in')),
    'folder around zip': folder_around_zip,
}


@dataclasses.dataclass
class Example:
    location: str
    split: str
    emotion: str
    id: str
    image: np.ndarray


def read(path, **options):
    """What becomes of every record once its picture is read: examples, rejects; and the source."""
    examples, rejects = [], []
    with fer2013.open_source(path, ReaderOptions(**options)) as source, PictureFiles() as files:
        for record in source.read():
            if isinstance(record, Reject):
                rejects.append(record)
                continue
            try:
                image, _ = read_face(record, source.image_shape, files)
            except ValueError as error:
                rejects.append(Reject(record.location, str(error)))
            else:
                examples.append(Example(record.location, record.split, record.emotion, record.id, image))
    assert len(examples) + len(rejects) == source.total
    if source.cut:
        split_of = source.cut((row.id, row.emotion, '') for row in examples if row.split == 'train')
        examples = [dataclasses.replace(row, split=split_of.get(row.id, row.split)) for row in examples]
    return examples, rejects, source
