"""What is made or read when it is asked for: values of a mapping, rows of an array."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from phaselab.stats import refuse_gaps

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


class View:
    """Rows and ascending columns of an (n, m) array, which may be on disk, rotated by `shift`; read where indexed.

    Of rows that are given by their numbers, (k,) of them, all are read of a column. Of an array of the file `where`
    what is read must be numbers.
    """

    def __init__(
        self, values: Any, rows: Any = slice(None), columns: np.ndarray | None = None, shift: int = 0, where: str = ""
    ) -> None:
        self._values, self._shift, self._where, (n, m) = values, shift, where, values.shape
        self._read = rows if isinstance(rows, slice) else slice(None)
        self._rows: Any = slice(None) if isinstance(rows, slice) else rows
        self._columns = np.arange(m) if columns is None else columns
        self.shape, self.dtype = (len(np.arange(n)[rows]), len(self._columns)), values.dtype

    def __getitem__(self, key: tuple[Any, slice]) -> np.ndarray:
        chosen = self._columns[key[1]]
        values = np.asarray(self._values[self._read, chosen[0] : chosen[-1] + 1])[self._rows]
        if values.shape[1] > len(chosen):
            values = values[:, chosen - chosen[0]]
        if self._where:
            refuse_gaps(values, self._where, rows=np.arange(len(self._values))[self._read][self._rows], columns=chosen)
        return np.asarray((np.roll(values, self._shift, axis=0) if self._shift else values)[key[0]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:, :].astype(dtype or self.dtype, copy=False)
