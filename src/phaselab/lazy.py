"""What is made or read when it is asked for: values of a mapping, rows of an array."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

Key = TypeVar("Key")
Value = TypeVar("Value")


class Lazy(Mapping[Key, Value]):
    """A mapping from `keys` to what `make` gives for them, made anew whenever it is asked for."""

    def __init__(self, keys: Iterable[Key], make: Callable[[Key], Value]) -> None:
        self._keys, self._make = tuple(keys), make

    def __getitem__(self, key: Key) -> Value:
        if key not in self._keys:
            raise KeyError(key)
        return self._make(key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class Rows:
    """Rows of an array of Zarr or HDF5 from `start` on, read where they are sliced: such arrays have no views."""

    def __init__(self, values: Any, start: int) -> None:
        self._values, self._rows = values, range(start, values.shape[0])
        self.shape, self.dtype, self.ndim = (len(self._rows), *values.shape[1:]), values.dtype, values.ndim

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        row, *columns = key if isinstance(key, tuple) else (key,)
        rows = self._rows[row]
        at = slice(rows.start, rows.stop, rows.step) if isinstance(rows, range) else rows
        return np.asarray(self._values[(at, *columns)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)
