"""Arrays on disk, of anybody: .npy, .npz, .zarr and .h5, opened without running what a file may hold."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from phaselab.errors import PhaselabError

#: Bytes that are read and converted at once.
PIECE = 64 * 2**20

#: ``[label=]path[:array]``; the shortest path that leaves either nothing or the name of an array.
_WRITTEN = re.compile(
    r"(?:(?P<label>[^=/\\]+)=)?(?P<path>.*?\.(?:npy|npz|zarr|h5|hdf5))/?(?::(?P<array>.+))?", re.IGNORECASE
)


class ArrayError(PhaselabError):
    """An array, a table or an option that cannot be used; the message names it, and what was expected."""


@dataclass(frozen=True)
class Source:
    """Where an array lies, as a user writes it: ``[label=]path[:array]``.

    Attributes
    ----------
    option : the option of the command line, for messages.
    label : what the user calls it; empty when not said.
    path : file, or folder of a Zarr store.
    array : name of the array in the file; empty: the only one.
    """

    option: str
    label: str
    path: Path
    array: str

    def __str__(self) -> str:
        return f"{self.option} {self.path}{f':{self.array}' if self.array else ''}"


def parse(text: str, option: str) -> Source:
    """Read ``[label=]path[:array]``. Raises ArrayError for an ending that is not known."""
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise ArrayError(
            f"{option}: found {text!r}, expected a file that ends in .npy, .npz, .zarr, .h5 or .hdf5, "
            "with :NAME for one of several arrays and LABEL= for a label"
        )
    label, path = match["label"] or "", match["path"]
    if label and Path(f"{label}={path}").exists():
        label, path = "", f"{label}={path}"
    return Source(option, label, Path(path), (match["array"] or "").strip("/"))


@dataclass(frozen=True)
class Array:
    """An array of real numbers on disk; its values are read when asked for.

    Attributes
    ----------
    source : where it lies.
    values : memory map (.npy), array (.npz), or the handle of a Zarr array or HDF5 dataset.
    """

    source: Source
    values: Any

    @property
    def shape(self) -> tuple[int, ...]:
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
            raise ArrayError(f"{self.source}: found a part that cannot be read ({error})") from error

    def load(self) -> np.ndarray:
        """All values; the memory map itself where nothing is to be converted, else read in pieces."""
        if isinstance(self.values, np.ndarray) and self.values.dtype == self.dtype:
            return self[...]
        out = np.empty(self.shape, dtype=self.dtype)
        # By whole chunks of the file: a chunk is decompressed as a whole whatever is asked of it.
        chunk = (getattr(self.values, "chunks", None) or (1,))[0]
        for rows in pieces(self.shape[0], out[:1].nbytes, chunk):
            out[rows] = self[rows]
        return out


def pieces(n_rows: int, row_bytes: int, multiple: int = 1) -> Iterator[slice]:
    """Slices over `n_rows` rows of about 64 MiB each, of a multiple of `multiple` rows."""
    step = multiple * max(1, PIECE // max(1, row_bytes * multiple))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def open_array(source: Source) -> Array:
    """Open an array of real numbers; no value is read yet (except of an .npz, which is read whole).

    Raises
    ------
    ArrayError
        When it is not there, cannot be read, is one of several and not named, or does not hold
        real numbers (object arrays are pickled, and never read).
    """
    if not source.path.exists():
        raise ArrayError(f"{source}: not there, expected a file (from {Path.cwd()})")
    openers = {".npy": _open_npy, ".npz": _open_npz, ".zarr": _open_zarr}
    try:
        values = openers.get(source.path.suffix.lower(), _open_h5)(source)
    except ArrayError:
        raise
    except (OSError, EOFError, ValueError, BadZipFile, zlib.error) as error:
        if re.search("Python objects in dtype|Object arrays|pickled", str(error)):
            raise _not_numbers(source, "object (pickled Python objects, which are not read)") from error
        raise ArrayError(f"{source}: found no array that can be read ({error})") from error
    # b, i, u, f: truth values, integers and floats
    if values.dtype.kind not in "biuf":
        raise _not_numbers(source, str(values.dtype))
    if 0 in values.shape:
        raise ArrayError(f"{source}: found shape {tuple(values.shape)}, expected at least 1 along each axis")
    return Array(source, values)


def _not_numbers(source: Source, found: str) -> ArrayError:
    return ArrayError(f"{source}: found data type {found}, expected real numbers: save it with .astype('float32')")


def _open_npy(source: Source) -> np.ndarray:
    if source.array:
        raise ArrayError(f"{source}: found the name {source.array!r}, expected none: an .npy file holds one array")
    return np.lib.format.open_memmap(source.path, mode="r")


def _open_npz(source: Source) -> np.ndarray:
    file = np.load(source.path, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise ArrayError(f"{source}: found an .npy file, expected an .npz file: rename it")
    with file:
        return file[_named(source, {name: "" for name in file.files})]


def _open_zarr(source: Source) -> Any:
    import zarr

    store = zarr.open(source.path, mode="r")
    if isinstance(store, zarr.Group):
        arrays = {name: at for name, at in store.members(max_depth=None) if isinstance(at, zarr.Array)}
        return arrays[_named(source, {name: _kind(at) for name, at in arrays.items()})]
    if source.array:
        raise ArrayError(f"{source}: found a single array, expected no name: leave :{source.array} out")
    return store


def _open_h5(source: Source) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ArrayError(f"{source}: needs the package h5py, which is not here: pip install h5py") from error

    arrays: dict[str, Any] = {}

    def visit(name: str, at: Any) -> None:
        if isinstance(at, h5py.Dataset):
            arrays[name] = at

    # Left open: a dataset is read from its file when values are asked for.
    h5py.File(source.path, "r").visititems(visit)
    return arrays[_named(source, {name: _kind(at) for name, at in arrays.items()})]


def _kind(values: Any) -> str:
    return f" {tuple(values.shape)} {values.dtype}"


def _named(source: Source, there: dict[str, str]) -> str:
    """The array of a file that is meant; the error lists what is there, with shapes where they are known."""
    if source.array in there:
        return source.array
    if len(there) == 1 and not source.array:
        return next(iter(there))
    if not there:
        raise ArrayError(f"{source}: found no array in it, expected at least one")
    listed = "".join(f"\n  {name}{kind}" for name, kind in sorted(there.items())[:20])
    more = f"\n  and {len(there) - 20} more" if len(there) > 20 else ""
    found = f"no array {source.array!r}" if source.array else f"{len(there)} arrays"
    raise ArrayError(
        f"{source}: found {found}, expected the name of one, as in {source.path}:{min(there)}; there are:{listed}{more}"
    )
