"""What a weight file holds is read; what it claims and does not hold, or would do, is refused with one line."""

import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models.state_dicts import read_state_dict


def pack(path, data_pkl, members=None, compression=zipfile.ZIP_STORED, order=b'little'):
    """A zip as torch.save lays it out, from a pickle and raw storages."""
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', data_pkl)
        archive.writestr('archive/byteorder', order)
        for name, raw in (members or {}).items():
            archive.writestr(f'archive/data/{name}', raw)
    return str(path)


class Persistent(tuple):
    """Stands for a storage in a pickle."""


class Call:
    """Pickles as a call of whatever stands behind a module and a name."""

    def __init__(self, module, name, arguments):
        self.arguments = arguments
        self.function = Global(module, name)


class Global:
    def __init__(self, module, name):
        self.module, self.name = module, name


class Pickler(pickle._Pickler):
    """Writes references by name, whether or not there is something of that name."""

    def persistent_id(self, thing):
        return tuple(thing) if isinstance(thing, Persistent) else None

    def save(self, thing, save_persistent_id=True):
        if isinstance(thing, Global):
            self.write(pickle.GLOBAL + f'{thing.module}\n{thing.name}\n'.encode())
        elif isinstance(thing, Call):
            self.save(thing.function)
            self.save(thing.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(thing, save_persistent_id)


def dumps(thing):
    stream = io.BytesIO()
    Pickler(stream, 2).dump(thing)
    return stream.getvalue()


def tensor(shape=(2, 3), strides=(3, 1), offset=0, count=6, key='0', kind='FloatStorage', module='torch'):
    storage = Persistent(('storage', Global(module, kind), key, 'cpu', count))
    return Call('torch._utils', '_rebuild_tensor_v2', (storage, offset, shape, strides, False, ordered()))


def ordered():
    return Call('collections', 'OrderedDict', ())


RAW = np.arange(6, dtype='<f4').tobytes()


def test_a_hand_made_file_is_read(tmp_path):
    path = pack(tmp_path / 'a.pth', dumps({'w': tensor(), 'part': tensor((2,), (2,), 1)}), {'0': RAW})
    found = read_state_dict(path)
    np.testing.assert_array_equal(found['w'], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found['part'], [1, 3])


def test_big_endian_files_are_read(tmp_path):
    raw = np.arange(6, dtype='>f4').tobytes()
    found = read_state_dict(pack(tmp_path / 'a.pth', dumps({'w': tensor()}), {'0': raw}, order=b'big'))
    np.testing.assert_array_equal(found['w'], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize('key', ['state_dict', 'model_state_dict', 'model'])
def test_a_checkpoint_around_the_state_dict_is_opened(tmp_path, key):
    path = pack(tmp_path / 'a.pth.tar', dumps({'epoch': 3, key: {'w': tensor()}, 'lr': [0.1, None]}), {'0': RAW})
    assert list(read_state_dict(path)) == ['w']


REFUSED = {
    'beyond the end': ({'w': tensor(offset=1)}, 'storage is too small'),
    'a shape too large': ({'w': tensor((3, 3))}, 'storage is too small'),
    'strides too large': ({'w': tensor((2, 3), (4, 1))}, 'storage is too small'),
    'one value as many': ({'w': tensor((10**6, 10**6), (0, 0))}, 'storage is too small'),
    'a large number of values': ({'w': tensor((2**40,), (0,))}, 'storage is too small'),
    'a negative stride': ({'w': tensor((2, 3), (-3, 1), 3)}, 'shape or strides'),
    'a negative offset': ({'w': tensor(offset=-1)}, 'shape or strides'),
    'an offset that is none': ({'w': tensor(offset='a')}, 'shape or strides'),
    'a shape that is none': ({'w': tensor(shape=3)}, 'cannot be read'),
    'fewer strides': ({'w': tensor((2, 3), (1,))}, 'shape or strides'),
    'very many dimensions': ({'w': tensor((1,) * 40, (1,) * 40)}, 'shape or strides'),
    'nothing': ({'w': tensor((0, 3))}, 'empty'),
    'a storage too large': ({'w': tensor(count=7)}, 'says that storage 0 has 7 values; it has 24 bytes'),
    'a huge storage': ({'w': tensor(count=10**30)}, 'says that storage 0'),
    'a storage that is not there': ({'w': tensor(key='7')}, 'no item named'),
    'a storage elsewhere': ({'w': tensor(key='../../../etc/passwd')}, 'no item named'),
    'an unknown type': ({'w': tensor(kind='QInt8Storage')}, 'torch.QInt8Storage'),
    'no tensor': ({'w': 3}, "under 'w' a int; a tensor is wanted"),
    'no dictionary': ([tensor()], 'holds a list'),
    'no names': ({3: tensor()}, 'no name of a parameter'),
    'names for the terminal': ({'\x1b[2J': tensor()}, 'no name of a parameter'),
    'no entries': ({}, 'holds no tensors'),
    'a module': (Call('torchvision.models.resnet', 'ResNet', ()), r'torchvision.models.resnet.ResNet.*state_dict\(\)'),
    'a call of a class of ours': ({'w': Call('collections', 'OrderedDict', ([],))}, 'a call that makes no tensor'),
    'a tensor of nothing': ({'w': Call('torch._utils', '_rebuild_tensor_v2', (1, 2, 3, 4))}, 'makes no tensor'),
    'getattr': (Call('builtins', 'getattr', ('x', '__class__')), 'builtins.getattr'),
    'a parent of an allowed name': (Global('torch._utils', '_rebuild_tensor_v2.__globals__'), '__globals__'),
    'another storage': (Persistent(('module', Global('torch', 'FloatStorage'), '0', 'cpu', 1)), 'unknown kind'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_does_not_fit_its_storage_or_is_no_tensor_is_refused(tmp_path, name):
    content, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as caught:
        read_state_dict(pack(tmp_path / 'a.pth', dumps(content), {'0': RAW}))
    assert '\n' not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path):
    trap = str(tmp_path / 'trap')
    harmless = pickle.dumps({'w': Evil(trap)}, 2)
    with pytest.raises(UserError, match="refers to '(posix|nt).mkdir'.*could run code"):
        read_state_dict(pack(tmp_path / 'a.pth', harmless))
    assert not os.path.exists(trap)
    pickle.loads(harmless)  # the trap does work
    assert os.path.exists(trap)


@pytest.mark.parametrize(
    'stream',
    [
        b'cos\nsystem\n(X\x04\x00\x00\x00true\x85R.',
        b'(X\x04\x00\x00\x00trueios\nsystem\n.',  # INST
        b'c__builtin__\neval\n.',
        b'\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.',  # STACK_GLOBAL
        b'\x80\x02ccollections\nOrderedDict\n)\x81.',  # NEWOBJ
        b'\x80\x02\x82\x01.',  # EXT1
        b'\x80\x02r\xff\xff\xff\xff.',  # a memo index of four thousand million
        b'\x80\x02X\xff\xff\xff\x7f.',  # a string of 2 GB that is not there
        b'\x80\x04\x96\xff\xff\xff\xff\xff\x00\x00\x00.',  # BYTEARRAY8
        b'\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.',  # FRAME
        b'\x80\x02}(.',
        b'\x80\x02t.',
        b'R.',
        b'b.',
        b'.',
        b'',
        b'(' * 20_000,
        b'\x80\x02' + b']' * 20_000 + b'a' * 19_999 + b'.',  # lists within lists
    ],
)
def test_pickles_that_no_state_dict_needs_are_refused(tmp_path, stream):
    with pytest.raises(UserError) as caught:
        read_state_dict(pack(tmp_path / 'a.pth', stream))
    assert '\n' not in str(caught.value)


def test_archives_that_torch_does_not_write_are_refused(tmp_path):
    fine = dumps({'w': tensor()})
    with pytest.raises(UserError, match='compressed'):
        read_state_dict(pack(tmp_path / 'a.pth', fine, {'0': bytes(10**6)}, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(tmp_path / 'b.pth', 'w') as archive:
        archive.writestr('other.txt', 'x')
    with pytest.raises(UserError, match='0 members data.pkl'):
        read_state_dict(str(tmp_path / 'b.pth'))
    path = pack(tmp_path / 'c.pth', fine, {'0': RAW})
    raw = bytearray((tmp_path / 'c.pth').read_bytes())
    place = raw.rindex(b'PK\x01\x02')  # the last entry of the directory, that of the storage: its sizes, made 1 GB
    raw[place + 20 : place + 28] = struct.pack('<II', 2**30, 2**30)
    (tmp_path / 'c.pth').write_bytes(raw)
    with pytest.raises(UserError, match='overlap'):
        read_state_dict(path)


def test_damaged_files_are_refused(tmp_path):
    path = pack(tmp_path / 'a.pth', dumps({'w': tensor()}), {'0': RAW})
    whole = (tmp_path / 'a.pth').read_bytes()
    place = whole.index(RAW)
    flipped = bytearray(whole)
    flipped[place + 5] ^= 1
    for damaged, message in ((whole[:-40], 'no file of torch.save'), (flipped, 'CRC'), (b'', 'no file of torch.save')):
        (tmp_path / 'a.pth').write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            read_state_dict(path)


def test_random_damage_never_ends_in_anything_but_one_line(tmp_path):
    """Of the archive, which checksums mostly notice, and of the pickle in an archive that is whole."""
    random = np.random.default_rng(0)
    content = collections.OrderedDict((f'layer{n}.weight', tensor(key=str(n))) for n in range(3))
    storages = {str(n): RAW for n in range(3)}
    whole = (tmp_path / 'a.pth', dumps(content), storages)
    pack(*whole)
    archive = np.frombuffer(whole[0].read_bytes(), np.uint8)
    accepted = []
    for trial in range(400):
        damaged = (archive if trial % 2 else np.frombuffer(whole[1], np.uint8)).copy()
        damaged[random.integers(0, len(damaged), random.integers(1, 4))] = random.integers(0, 256)
        path = tmp_path / 'a.pth'
        if trial % 2:
            path.write_bytes(damaged.tobytes())
        else:
            pack(path, damaged.tobytes(), storages)
        try:
            accepted.append(len(read_state_dict(str(path))))
        except UserError as error:
            assert '\n' not in str(error)
    assert 0 < len(accepted) < 400


def test_missing_files_and_files_of_other_kinds_are_named(tmp_path):
    with pytest.raises(UserError, match='no file .*nowhere.pth'):
        read_state_dict(str(tmp_path / 'nowhere.pth'))
    (tmp_path / 'a.pth').write_text('hello')
    with pytest.raises(UserError, match='no file of torch.save'):
        read_state_dict(str(tmp_path / 'a.pth'))
    (tmp_path / 'a.safetensors').write_text('hello')
    with pytest.raises(UserError, match='a.safetensors cannot be read'):
        read_state_dict(str(tmp_path / 'a.safetensors'))


def test_files_of_torch_itself_are_read_and_the_old_form_says_how_to_convert_it(tmp_path):
    torch = pytest.importorskip('torch', reason='writes the files')
    layer = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    more = {f'as.{dtype}': torch.arange(4).to(dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16)}
    state = {**layer.state_dict(), **more, 'transposed': torch.arange(6.0).reshape(2, 3).T}
    path = str(tmp_path / 'a.pth')
    torch.save(layer.state_dict() | state, path)
    found = read_state_dict(path)
    assert list(found) == list(state)
    for name, expected in state.items():
        np.testing.assert_array_equal(found[name].astype(np.float64), expected.to(torch.float64).numpy())
    torch.save(layer, path)
    with pytest.raises(UserError, match=r'torch.nn.modules.*state_dict\(\)'):
        read_state_dict(path)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r'before 1.6.*torch.save\(torch.load\('):
        read_state_dict(path)
