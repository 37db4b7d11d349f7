"""Reads state dicts from .safetensors, and from PyTorch's .pth without running any code that one may hold."""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fer_jax.errors import UserError

_LARGEST_PICKLE = 16 * 2**20  # bytes; that of vgg19_bn has 30 thousand
_WRAPPERS = ('state_dict', 'model_state_dict', 'model')  # keys under which training scripts keep the state dict
_STORAGES = {
    'FloatStorage': np.float32,
    'DoubleStorage': np.float64,
    'HalfStorage': np.float16,
    'BFloat16Storage': jnp.bfloat16,
    'LongStorage': np.int64,
    'IntStorage': np.int32,
    'ShortStorage': np.int16,
    'CharStorage': np.int8,
    'ByteStorage': np.uint8,
    'BoolStorage': np.bool_,
}


def read_state_dict(path: str) -> dict[str, np.ndarray]:
    """The tensors of a file by name, in its order.

    Of a .pth (.pt, .pth.tar) the form that torch.save writes since PyTorch 1.6 is read: a zip of raw storages and a
    pickle that says how they make tensors. A pickle can call any function; here only dictionaries and
    tensors are built, and everything else is refused. What a file claims of sizes is checked against what it holds.

    Raises:
        UserError: if the file is not there, is damaged, or holds anything but tensors by name.
    """
    if not os.path.isfile(path):
        raise UserError(f'no file {path}; a .safetensors or .pth file is wanted, or the directory of a run')
    try:
        tensors = load_file(path) if path.endswith('.safetensors') else _read_pth(path)
    except (SafetensorError, KeyError) as error:
        raise UserError(f'{path} cannot be read: {_line(error)}') from None
    if not tensors:
        raise UserError(f'{path} holds no tensors')
    for name in tensors:
        if not isinstance(name, str) or not name.isprintable() or len(name) > 200:
            raise UserError(f'{path} holds a tensor whose name is no name of a parameter')
    return tensors


def _read_pth(path: str) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        with open(path, 'rb') as file:
            old = file.read(1) == b'\x80'
        raise UserError(
            f'{path} is in the form of PyTorch before 1.6, which is not read; convert it: '
            f'torch.save(torch.load({path!r}, weights_only=True), NEW)'
            if old
            else f'{path} is no file of torch.save; a .safetensors or .pth file with a state dict is wanted'
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive, os.path.getsize(path)).tensors()
    except UserError as error:
        raise UserError(f'{path} {error}') from None
    except Exception as error:  # whatever a damaged or hostile file makes the parsers say is one line
        raise UserError(f'{path} cannot be read as a state dict: {_line(error)}') from None


def _line(error: Exception) -> str:
    return f'{type(error).__name__} {error}'.splitlines()[0][:200]


class _Storage(NamedTuple):
    kind: str
    key: str
    count: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Archive:
    """A zip of torch.save. Errors of its own are UserErrors that go on after the file's name."""

    def __init__(self, archive: zipfile.ZipFile, size: int):
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise UserError('is compressed, which torch.save never does')
        if sum(member.file_size for member in members) > size:
            raise UserError('has members that overlap')
        pickles = [member.filename for member in members if member.filename.split('/')[1:] == ['data.pkl']]
        if len(pickles) != 1:
            raise UserError(f'has {len(pickles)} members data.pkl; a file of torch.save has one')
        self.archive, self.root = archive, pickles[0].removesuffix('data.pkl')
        self.storages: dict[str, np.ndarray] = {}
        names = {member.filename for member in members}
        order = archive.read(f'{self.root}byteorder') if f'{self.root}byteorder' in names else b'little'
        self.order = {b'little': '<', b'big': '>'}[order]

    def tensors(self) -> dict[str, np.ndarray]:
        if self.archive.getinfo(f'{self.root}data.pkl').file_size > _LARGEST_PICKLE:
            raise UserError(f'describes its tensors in more than {_LARGEST_PICKLE:,} bytes')
        found = _Unpickler(io.BytesIO(self.archive.read(f'{self.root}data.pkl'))).load()
        for key in _WRAPPERS:
            if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
                found = found[key]
        if not isinstance(found, Mapping):
            raise UserError(f'holds a {type(found).__name__}; a dictionary of tensors by name is wanted')
        for name, value in found.items():
            if not isinstance(value, _Tensor):
                raise UserError(f'holds under {str(name)[:80]!r} a {type(value).__name__}; a tensor is wanted')
        return {name: self._array(value) for name, value in found.items()}

    def _array(self, tensor: _Tensor) -> np.ndarray:
        """A view of the tensor's storage, once it is certain that it lies inside it and names no element twice."""
        numbers = [tensor.offset, *tensor.shape, *tensor.strides]
        well_formed = len(tensor.shape) == len(tensor.strides) <= 8
        if not well_formed or any(type(number) is not int or not 0 <= number < 2**48 for number in numbers):
            raise UserError('holds a tensor whose shape or strides are none')
        values = self._storage(tensor.storage)
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
        if 0 in tensor.shape:
            raise UserError(f'holds a tensor of shape {tensor.shape}, which is empty')
        if last >= len(values) or math.prod(tensor.shape) > len(values) - tensor.offset:
            raise UserError(f'holds a tensor of shape {tensor.shape}, for which its storage is too small')
        strides = [stride * values.itemsize for stride in tensor.strides]
        return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)

    def _storage(self, storage: _Storage) -> np.ndarray:
        dtype = np.dtype(_STORAGES[storage.kind])
        if storage.key not in self.storages:
            self.storages[storage.key] = np.frombuffer(self.archive.read(f'{self.root}data/{storage.key}'), np.uint8)
        raw = self.storages[storage.key]
        if type(storage.count) is not int or not 0 < storage.count * dtype.itemsize <= len(raw):
            raise UserError(f'says that storage {storage.key} has {storage.count} values; it has {len(raw)} bytes')
        values = raw[: storage.count * dtype.itemsize]
        if self.order == '>':
            values = values.reshape(-1, dtype.itemsize)[:, ::-1].reshape(-1)
        return values.view(dtype)


class _Opcodes(dict):
    """Python's own reading of the named opcodes, by their byte."""

    def __init__(self, *names: str):
        codes = [getattr(pickle, name)[0] for name in names]
        super().__init__({code: pickle._Unpickler.dispatch[code] for code in codes})

    def __missing__(self, code: int) -> None:
        raise UserError(f'has a pickle with the instruction {code:#04x}, which no state dict needs')


class _Unpickler(pickle._Unpickler):
    """Builds dictionaries, lists, tuples, plain values and `_Tensor`; knows no other type and calls nothing.

    Python's own implementation, since its table of opcodes can be cut down to those that state dicts use, and
    since the one in C takes memory for whatever index of its memo a pickle names.
    """

    dispatch = _Opcodes(
        *('PROTO', 'FRAME', 'STOP', 'MARK', 'GLOBAL', 'STACK_GLOBAL', 'BINPERSID'),
        *('BINPUT', 'LONG_BINPUT', 'MEMOIZE', 'BINGET', 'LONG_BINGET'),
        *('EMPTY_TUPLE', 'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'EMPTY_LIST', 'APPEND', 'APPENDS'),
        *('EMPTY_DICT', 'SETITEM', 'SETITEMS', 'NONE', 'NEWTRUE', 'NEWFALSE'),
        *('BINUNICODE', 'SHORT_BINUNICODE', 'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT'),
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (('collections', 'OrderedDict'), ('torch._utils', '_rebuild_tensor_v2')):
            return name
        if module in ('torch', 'torch.cuda') and name in _STORAGES:
            return name
        where = f'{module}.{name}'
        raise UserError(
            f'refers to {where[:80]!r}, which is not loaded, since a pickle could run code that way; '
            'save the tensors alone: torch.save(model.state_dict(), FILE)'
        )

    def persistent_load(self, pid: Any) -> _Storage:
        tag, kind, key, _, count = pid
        if tag != 'storage' or kind not in _STORAGES or not isinstance(key, str):
            raise UserError('holds a storage of an unknown kind')
        return _Storage(kind, key, count)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        if function == 'OrderedDict' and not arguments:
            self.append(collections.OrderedDict())
        elif function == '_rebuild_tensor_v2' and isinstance(arguments[0], _Storage):
            self.append(_Tensor(*arguments[:4]))
        else:
            raise UserError('holds a call that makes no tensor')

    def load_build(self) -> None:
        self.stack.pop()  # attributes of a dictionary: the versions of its modules, which nothing reads

    dispatch.update({pickle.REDUCE[0]: load_reduce, pickle.BUILD[0]: load_build})
