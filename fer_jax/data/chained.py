"""Pictures of a prepared directory and an array of further ones behind them, indexed as one."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data.stored import StoredImages


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ChainedImages:
    """Indexes like a uint8 array [N, H, W, C]; of `stored` only what is asked for is read.

    Attributes:
        stored: the first pictures.
        more: uint8 [M, H, W, C] of the same shape, which come after them.
        rows: int64 [N], which of all these; from len(stored) on they are of `more`.
    """

    stored: StoredImages
    more: np.ndarray
    rows: np.ndarray

    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W, C."""
        return len(self.rows), *self.stored.shape[1:]

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures as they are given."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def directory(self) -> Path:
        """Where the stored ones lie."""
        return self.stored.directory

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        rows = np.ravel(self.rows[key])
        images, mine = np.empty((len(rows), *self.shape[1:]), np.uint8), rows < len(self.stored)
        images[mine] = self.stored[rows[mine]]
        images[~mine] = self.more[rows[~mine] - len(self.stored)]
        return images.reshape(*np.shape(self.rows[key]), *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def select(self, keep: np.ndarray) -> ChainedImages:
        """The pictures where `keep` (bool [N] or indices) says so; reads nothing."""
        return dataclasses.replace(self, rows=self.rows[keep])

    def content_hash(self) -> str:
        """SHA-256 (first 32 hex digits) of which pictures these are."""
        mine = self.rows[self.rows < len(self.stored)]
        others = self.more[self.rows[self.rows >= len(self.stored)] - len(self.stored)]
        digest = hashlib.sha256(self.stored.select(mine).content_hash().encode())
        digest.update(np.ascontiguousarray(others).tobytes())
        return digest.hexdigest()[:32]

    def load(self, progress: str = '') -> np.ndarray:
        """All pictures as one array, the stored ones checked against their hashes; see `StoredImages.load`."""
        images, mine = np.empty(self.shape, np.uint8), self.rows < len(self.stored)
        images[mine] = self.stored.select(self.rows[mine]).load(progress)
        images[~mine] = self.more[self.rows[~mine] - len(self.stored)]
        return images
