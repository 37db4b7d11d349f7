"""Over ten thousand damaged inputs: each is read or refused with a reason; nothing crashes, hangs or is written."""

import collections
import io
import os
import random
import resource
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest

from fer_jax.data.pixels import MAX_PIXELS, decode_picture
from fer_jax.data.readers import affectnet, ckplus, fer2013, ferplus, folder, table
from fer_jax.data.readers.npy import parse_npy, parse_number
from fer_jax.errors import UserError
from tests import layouts

# How many inputs each test mutates.
PICTURES, ARRAYS, ROWS, NAMES, ZIPS = 2500, 2000, 480, 420, 80

TOKENS = ['', '0', '-1', '7', '8', '1e999', 'nan', '٣', '"', '""', ',', ';', '\t', '\0', '\ud800', '\u2028', '../', '/']
TOKENS += ['train', 'anger', 'Usage', ' ', '\n', '\r', 'é' * 40, '9' * 400, 'Training', '{', "'O'", '(1,', '\x1b', '\\']


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path, monkeypatch):
    """Runs the test in an empty directory, and sees that it stays empty."""
    empty = tmp_path / 'empty'
    empty.mkdir()
    monkeypatch.chdir(empty)
    yield
    assert os.listdir(empty) == []


def mutate(data, rng):
    """Flips, changes, removes, doubles or inserts some bytes, or cuts the end off."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if place < len(data):
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place : place + 4] = rng.randbytes(4)
            case 2:
                del data[place : place + rng.randint(1, 40)]
            case 3:
                data[place:place] = data[max(0, place - 30) : place]
            case 4:
                data[place:place] = rng.choice(TOKENS).encode('utf-8', 'surrogatepass')
            case 5 if rng.random() < 0.3:
                del data[place:]
    return bytes(data)


def png(header, rows):
    """The parts of a PNG with right lengths and checksums, whatever is in them."""
    chunks = ((b'IHDR', header), (b'IDAT', rows), (b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
        for kind, content in chunks
    )


def mutate_png(rng, channels):
    """Damage in the file, or, under right checksums, in the header or in the rows before they are compressed."""
    header = struct.pack('>IIBBBBB', layouts.SIDE, layouts.SIDE, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = np.pad(layouts.face('fear', channels, channels).reshape(layouts.SIDE, -1), ((0, 0), (1, 0))).tobytes()
    match rng.randrange(3):
        case 0:
            return mutate(png(header, zlib.compress(rows)), rng)
        case 1:
            return png(mutate(header, rng), zlib.compress(rows))
    return png(header, zlib.compress(mutate(rows, rng)))


MUTANTS = {
    'JPEG': lambda rng, channels: mutate(layouts.encode(layouts.face('fear', channels, channels), 'JPEG'), rng),
    'PNG': mutate_png,
}


@pytest.mark.parametrize('kind', MUTANTS)
def test_mutated_pictures(kind):
    rng = random.Random(1)
    outcomes = collections.Counter()
    for _ in range(PICTURES):
        try:
            image = decode_picture(MUTANTS[kind](rng, rng.choice((1, 3))))
        except ValueError as error:
            assert str(error) and '\n' not in str(error)
            outcomes['refused'] += 1
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] in (1, 3)
            outcomes['read'] += 1
    assert sum(outcomes.values()) == PICTURES
    assert min(outcomes.values()) > PICTURES // 20, outcomes


def test_mutated_npy_files():
    rng = random.Random(2)
    arrays = (np.array('3'), np.array(6), np.array(b'0.25'), np.arange(136.0), np.ones((68, 2), np.float32))
    originals = [layouts.npy(array) for array in arrays]
    outcomes = collections.Counter()
    for _ in range(ARRAYS):
        try:
            array = parse_npy(mutate(rng.choice(originals), rng))
        except ValueError as error:
            assert str(error) and '\n' not in str(error)
            outcomes['refused'] += 1
        else:
            assert array.nbytes < 1 << 16
            outcomes['read'] += 1
            try:
                assert isinstance(parse_number(array), float)
            except ValueError as error:
                assert '\n' not in str(error)
    assert sum(outcomes.values()) == ARRAYS
    assert min(outcomes.values()) > ARRAYS // 20


LAYOUTS = {
    'affectnet arrays': (affectnet.open_source, lambda path: layouts.affectnet_arrays(path, 1)),
    'affectnet tables': (affectnet.open_source, lambda path: layouts.affectnet_tables(path, 1)),
    'affectnet folders': (affectnet.open_source, lambda path: layouts.folders(path, 1)),
    'ckplus folders': (ckplus.open_source, lambda path: layouts.ckplus_folders(path, 1)),
    'ckplus original': (ckplus.open_source, lambda path: layouts.ckplus_original(path, 1)),
    'ckplus table': (ckplus.open_source, lambda path: layouts.ckplus_table(path, 1)),
    'fer2013 table': (fer2013.open_source, lambda path: layouts.fer2013(path, 1)),
    'ferplus': (ferplus.open_source, lambda path: layouts.ferplus(path, 1)),
    'folders': (folder.open_source, lambda path: layouts.folders(path, 1)),
    'table': (table.open_source, lambda path: layouts.table(path, 1)),
}
TABLES = {
    'affectnet tables': 'training.csv',
    'ckplus table': 'ckextended.csv',
    'fer2013 table': 'fer2013.csv',
    'ferplus': 'fer2013new.csv',
    'table': 'labels.csv',
}
FILES = [name for name in LAYOUTS if TABLES.get(name) in (None, 'training.csv', 'labels.csv')]  # not tables alone


def read_all(open_source, path, outcomes, decode=False, **options):
    """Reads a damaged source and counts what came of it; one line if it is refused as a whole."""
    try:
        candidates, rejects, _ = layouts.read(open_source, path, **options)
    except UserError as error:
        assert str(error) and len(str(error).splitlines()) == 1
        outcomes['refused'] += 1
        return
    assert all(reject.reason and reject.location for reject in rejects)
    outcomes['accepted'] += len(candidates)
    outcomes['rejected'] += len(rejects)
    for candidate in candidates if decode else ():
        try:
            layouts.decode_candidate(candidate)
        except ValueError as error:
            assert str(error)
            outcomes['undecodable'] += 1


@pytest.mark.parametrize('name', TABLES)
def test_mutated_rows(name, tmp_path):
    open_source, write = LAYOUTS[name]
    write(tmp_path / 'in')
    file = tmp_path / 'in' / TABLES[name]
    header, *rows = file.read_bytes().rstrip().split(b'\n')
    rng = random.Random(name)
    outcomes = collections.Counter()
    # FER+ must have as many rows as FER2013, in its order; of the others, one file can hold any number.
    size = len(rows) if name == 'ferplus' else 60
    for start in range(0, ROWS, size):
        damaged = [rows[index % len(rows)] for index in range(start, start + size)]
        damaged = [row if rng.random() < 0.1 else mutate(row, rng) for row in damaged]
        if name == 'ferplus':  # line breaks would change the number of rows; a word in the Usage stops it all
            damaged = [
                b','.join((row.split(b',')[0], *mutated.replace(b'\n', b'').replace(b'\r', b'').split(b',')[1:]))
                for row, mutated in zip(rows, damaged, strict=True)
            ]
        file.write_bytes(b'\n'.join((header, *damaged)))
        read_all(open_source, tmp_path / 'in', outcomes, decode=start == 0)
    assert outcomes['accepted'] > ROWS // 20
    assert outcomes['rejected'] > ROWS // 10


@pytest.mark.parametrize('name', FILES)
@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_mutated_names_in_a_zip(name, tmp_path):
    open_source, write = LAYOUTS[name]
    write(tmp_path / 'in')
    files = [file for file in (tmp_path / 'in').rglob('*') if file.is_file()]
    rng = random.Random(name)
    outcomes = collections.Counter()
    done = 0
    while done < NAMES:
        with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
            for file in files[:60]:
                old = file.relative_to(tmp_path / 'in').as_posix()
                new = mutate(old.encode(), rng).decode('utf-8', 'replace').partition('\0')[0]
                done += 1
                archive.writestr(new if rng.random() < 0.5 and new else old, file.read_bytes())
        read_all(open_source, tmp_path / 'a.zip', outcomes)
    assert outcomes['accepted'] > 0


@pytest.mark.parametrize('name', LAYOUTS)
@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_mutated_zips(name, tmp_path):
    open_source, write = LAYOUTS[name]
    write(tmp_path / 'in')
    options = {'votes': tmp_path / 'in' / 'fer2013new.csv'} if name == 'ferplus' else {}
    data = layouts.write_zip(tmp_path / 'a.zip', tmp_path / 'in').read_bytes()
    rng = random.Random(name)
    outcomes = collections.Counter()
    for trial in range(ZIPS):
        (tmp_path / 'a.zip').write_bytes(mutate(data, rng))
        read_all(open_source, tmp_path / 'a.zip', outcomes, decode=trial % 10 == 0, **options)
    assert outcomes['accepted'] > 0


def test_there_are_more_than_ten_thousand():
    assert 2 * PICTURES + ARRAYS + len(TABLES) * ROWS + len(FILES) * NAMES + len(LAYOUTS) * ZIPS > 10_000


@pytest.fixture
def quick_and_small():
    """At most three seconds and 200 MB more than before."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.process_time()
    yield
    assert time.process_time() - start < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before.ru_maxrss < 200_000


def png_claiming(side):
    """A PNG whose header claims side x side pixels, with as many rows as 100 kB hold."""
    return png(struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0), zeros(100))


def zeros(megabytes):
    """A zlib stream of so many MiB of zeros, a thousandth of that long."""
    compressor = zlib.compressobj(9)
    first = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    again = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return first + again * (megabytes - 1) + compressor.flush()


@pytest.mark.parametrize('side', (100_000, 2**31 - 1, 12_000))
def test_a_png_that_claims_too_many_pixels_is_refused_by_its_header(side, quick_and_small):
    data = png_claiming(side)
    with pytest.raises(ValueError, match=f'more than {MAX_PIXELS:,} pixels|undecodable picture'):
        decode_picture(data)


def write_bomb(path, name, claimed, start=b''):
    """A zip with a member that inflates to 3 GB, whatever size its header claims, and two good pictures."""
    content = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = content.compress(start) + content.flush(zlib.Z_FULL_FLUSH) if start else b''
    stream = begin + zeros(3000)[2:]
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(name, stream)
        for number, word in enumerate(('anger', 'fear')):
            archive.writestr(f'train/{word}/1.png', layouts.encode(layouts.face('anger', number)))
    data = bytearray(path.read_bytes())
    central = data.index(b'PK\x01\x02')
    struct.pack_into('<H', data, 8, zipfile.ZIP_DEFLATED)
    struct.pack_into('<H', data, central + 10, zipfile.ZIP_DEFLATED)
    struct.pack_into('<I', data, 22, claimed)
    struct.pack_into('<I', data, central + 24, claimed)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(('claimed', 'reason'), ((3000 << 20, 'more than the'), (5000, 'unreadable: Bad CRC-32')))
def test_a_picture_that_inflates_to_gigabytes_is_refused(claimed, reason, tmp_path, quick_and_small):
    path = write_bomb(tmp_path / 'a.zip', 'train/anger/0.png', claimed)
    candidates, _, _ = layouts.read(folder.open_source, path)
    assert len(candidates) == 3
    with pytest.raises(ValueError, match=reason):
        layouts.decode_candidate(candidates[0])
    layouts.decode_candidate(candidates[1])


@pytest.mark.parametrize('claimed', (3000 << 20, 5000))
def test_a_label_that_inflates_to_gigabytes_is_refused(claimed, tmp_path, quick_and_small):
    path = write_bomb(tmp_path / 'a.zip', 'train_set/annotations/0_exp.npy', claimed)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('train_set/images/0.jpg', b'')
    candidates, rejects, _ = layouts.read(affectnet.open_source, path)
    assert candidates == []
    assert [reject.location for reject in rejects] == ['train_set/images/0.jpg']
    assert 'more than the 65,536 allowed' in rejects[0].reason or 'Bad CRC-32' in rejects[0].reason


def test_a_table_that_inflates_to_gigabytes_is_refused(tmp_path, quick_and_small):
    path = write_bomb(tmp_path / 'a.zip', 'labels.csv', 3000 << 20, b'path,label\ntrain/anger/1.png,a\n')
    with pytest.raises(UserError, match='labels.csv has 3,145,728,000 bytes; a table can have 2,147,483,648'):
        layouts.read(table.open_source, path)


def test_a_pickle_in_a_label_never_runs(tmp_path):
    trap = tmp_path / 'trapped'
    with pytest.raises(ValueError, match='a npy file of objects'):
        parse_npy(layouts.trap_npy(trap))
    layouts.affectnet_arrays(tmp_path / 'in', 1)
    for file in (tmp_path / 'in').rglob('*.npy'):
        file.write_bytes(layouts.trap_npy(trap))
    candidates, rejects, _ = layouts.read(affectnet.open_source, tmp_path / 'in')
    assert candidates == []
    assert len(rejects) == 16
    assert not trap.exists()
    np.load(io.BytesIO(layouts.trap_npy(trap)), allow_pickle=True)  # the trap is a real one
    assert trap.exists()
