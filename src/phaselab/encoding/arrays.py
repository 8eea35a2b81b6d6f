"""Arrays on disk, of anybody: .npy, .npz, .zarr and .h5, opened without running what a file may hold."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from phaselab.errors import PhaselabError, expect

#: Bytes that are read and converted at once.
PIECE = 64 * 2**20
#: ``[label=]path[:array]``; the shortest path that leaves either nothing or the name of an array.
_WRITTEN = re.compile(r"(?:([^=/\\]+)=)?(.*?\.(?:npy|npz|zarr|h5|hdf5))/?(?::(.+))?", re.IGNORECASE)


@dataclass(frozen=True)
class Array:
    """An array of real numbers on disk; values are read when it is indexed.

    Attributes
    ----------
    option : the option of the command line that names it, for messages.
    label : what the user calls it; empty when not said.
    path, name : file, or folder of a Zarr store; and the array in it, empty for the only one.
    values : memory map (.npy), array (.npz, read whole), or handle of a Zarr array or HDF5 dataset.
    """

    option: str
    label: str
    path: Path
    name: str
    values: Any = None

    def __str__(self) -> str:
        return f"{self.option} {self.path}{f':{self.name}' if self.name else ''}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return tuple(self.values.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What values are given as: float32 where that holds them exactly, else float64."""
        return np.dtype(np.float32 if np.can_cast(self.values.dtype, np.float32) else np.float64)

    def __getitem__(self, key: Any) -> np.ndarray:
        """The values at `key`; a view of the memory map where nothing is to be converted."""
        try:
            return np.asarray(self.values[key], dtype=self.dtype)
        except (OSError, RuntimeError, ValueError) as error:
            raise PhaselabError(f"{self}: found a part that cannot be read ({error})") from error

    def pieces(self) -> Iterator[slice]:
        """Slices over the last axis but one, of about 64 MiB and of whole chunks, which are decompressed as a whole."""
        n, width = self.shape[-2:]
        chunk = (getattr(self.values, "chunks", None) or (1, 1))[-2]
        step = chunk * max(1, PIECE // (chunk * width * self.dtype.itemsize))
        return (slice(start, min(start + step, n)) for start in range(0, n, step))


@dataclass(frozen=True)
class Part:
    """Some `rows` and ascending `columns` of an (n, m) array on disk: array-like, and read when it is indexed.

    An index of rows and one of columns choose each by itself.
    """

    array: Array
    rows: range
    columns: np.ndarray
    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        """Of the part."""
        return len(self.rows), len(self.columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the array."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        if not isinstance(rows, slice) or (rows.step or 1) < 1:
            return self[:, columns][rows]
        at, chosen = self.rows[rows], np.atleast_1d(self.columns[columns])
        # Neither Zarr nor HDF5 takes any choice of columns: what lies between the outermost ones is read.
        low, high = chosen.min(initial=self.array.shape[1]), chosen.max(initial=-1) + 1
        values = self.array[at.start : at.stop : at.step, min(low, high) : high]
        if len(chosen) != high - low or (np.diff(chosen) != 1).any():
            values = values[:, chosen - low]
        return values if np.ndim(self.columns[columns]) else values[:, 0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype=dtype, copy=copy)


def open_array(text: str, option: str) -> Array:
    """Open the array that a user writes as ``[label=]path[:array]``, for an `option` of the command line.

    Raises
    ------
    PhaselabError
        When it is not there, cannot be read, is one of several and not named, or does not hold real numbers
        (object arrays are pickled, and never read).
    """
    match = _WRITTEN.fullmatch(text)
    if match is None:
        endings = ".npy, .npz, .zarr, .h5 or .hdf5, with :NAME for one of several arrays and LABEL= for a label"
        raise PhaselabError(f"{option}: found {text!r}, expected a file that ends in {endings}")
    label, path = match[1] or "", Path(match[2])
    if label and (whole := Path(f"{label}={path}")).exists():
        label, path = "", whole
    array = Array(option, label, path, (match[3] or "").strip("/"))
    if not path.exists():
        raise PhaselabError(f"{array}: not there, expected a file (from {Path.cwd()})")
    try:
        array = replace(array, values=_opened(array, path.suffix.lower()))
        kind = str(array.values.dtype)
    except PhaselabError:
        raise
    except (OSError, EOFError, ValueError, BadZipFile, zlib.error) as error:
        if not re.search("Python objects in dtype|Object arrays|pickled", str(error)):
            raise PhaselabError(f"{array}: found no array that can be read ({error})") from error
        array = replace(array, values=np.empty(1, object))
        kind = "object (pickled Python objects, which are not read)"
    # b, i, u, f: truth values, integers and floats
    numbers = array.values.dtype.kind in "biuf"
    expect(numbers, str(array), f"data type {kind}", "real numbers: save it with .astype('float32')")
    expect(0 not in array.shape, str(array), f"shape {array.shape}", "at least 1 along each axis")
    return array


def _opened(array: Array, ending: str) -> Any:
    """What `array.values` is to be, of a file with that ending."""
    if ending == ".npy":
        expect(not array.name, str(array), f"the name {array.name!r}", "none: an .npy file holds one array")
        return np.lib.format.open_memmap(array.path, mode="r")
    if ending == ".npz":
        file = np.load(array.path, allow_pickle=False)
        expect(isinstance(file, np.lib.npyio.NpzFile), str(array), "an .npy file", "an .npz file: rename it")
        with file:
            return file[_named(array, dict.fromkeys(file.files))]
    there: dict[str, Any] = {}
    if ending == ".zarr":
        import zarr

        store = zarr.open(array.path, mode="r")
        if isinstance(store, zarr.Array):
            expect(not array.name, str(array), "a single array", f"no name: leave :{array.name} out")
            return store
        there.update((name, at) for name, at in store.members(max_depth=None) if isinstance(at, zarr.Array))
    else:
        try:
            import h5py
        except ImportError as error:
            raise PhaselabError(f"{array}: needs the package h5py, which is not here: pip install h5py") from error

        # Left open: a dataset is read from its file when values are asked for.
        found = h5py.File(array.path, "r")
        found.visititems(lambda name, at: there.update({name: at} if isinstance(at, h5py.Dataset) else {}))
    return there[_named(array, there)]


def _named(array: Array, there: dict[str, Any]) -> str:
    """The name of the array that is meant; the error lists what is there, with shapes where they are known."""
    if array.name in there or (len(there) == 1 and not array.name):
        return array.name or next(iter(there))
    expect(there, str(array), "no array in it", "at least one")
    kinds = [f"\n  {name}" + ("" if at is None else f" {tuple(at.shape)} {at.dtype}") for name, at in there.items()]
    more = f"\n  and {len(there) - 20} more" if len(there) > 20 else ""
    found = f"no array {array.name!r}" if array.name else f"{len(there)} arrays"
    as_in = f"the name of one, as in {array.path}:{min(there)}; there are:{''.join(sorted(kinds)[:20])}{more}"
    raise PhaselabError(f"{array}: found {found}, expected {as_in}")
