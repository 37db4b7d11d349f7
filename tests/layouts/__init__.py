"""Writes every layout of the field's data sets, small, drawn by the synthetic faces, and says what reading must give.

Each writer fills a directory and returns what is expected of it. With `faults=True` it adds one of every fault that its
reader knows; they add rejects (and examples whose pictures turn out broken when decoded) and change nothing else.
"""

from tests.layouts.affectnet import AFFECTNET, affectnet_arrays, affectnet_tables
from tests.layouts.ckplus import CKEXTENDED, CKPLUS, ckplus_folders, ckplus_original, ckplus_table
from tests.layouts.drawn import (
    SIDE,
    Expected,
    Row,
    compare,
    cut_anew,
    decode_candidate,
    encode,
    face,
    huge_npy,
    npy,
    pixels,
    read,
    trap_npy,
    write,
    write_zip,
)
from tests.layouts.fer2013 import FER2013, FERPLUS, USAGES, fer2013, fer2013_noise, ferplus
from tests.layouts.own import WORDS, folders, table

__all__ = [
    'AFFECTNET',
    'CKEXTENDED',
    'CKPLUS',
    'FER2013',
    'FERPLUS',
    'SIDE',
    'USAGES',
    'WORDS',
    'Expected',
    'Row',
    'affectnet_arrays',
    'affectnet_tables',
    'ckplus_folders',
    'ckplus_original',
    'ckplus_table',
    'compare',
    'cut_anew',
    'decode_candidate',
    'encode',
    'face',
    'fer2013',
    'fer2013_noise',
    'ferplus',
    'folders',
    'huge_npy',
    'npy',
    'pixels',
    'read',
    'table',
    'trap_npy',
    'write',
    'write_zip',
]
