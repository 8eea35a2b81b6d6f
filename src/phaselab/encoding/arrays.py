"""Arrays on disk, of anybody: .npy, .npz, .zarr and HDF5, opened without running what a file may hold."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from phaselab.errors import PhaselabError, expect
from phaselab.files import home, refuse_pointer

#: ``[label=]path[:array]``; the shortest path that leaves either nothing or the name of an array.
_WRITTEN = re.compile(r"(?:([^=/\\]+)=)?(.*?\.(?:npy|npz|zarr|h5|hf5|hdf|hdf5))/?(?::/?(.+))?", re.IGNORECASE)


@dataclass(frozen=True)
class Array:
    """An array of real numbers on disk (memory map, Zarr or HDF5), read where it is indexed, as `dtype`."""

    where: str
    label: str
    path: Path
    values: Any
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return tuple(self.values.shape)

    @property
    def name(self) -> str:
        """The label, or that of the file."""
        return self.label or self.path.stem

    @property
    def about(self) -> Mapping[str, Any]:
        """What ``phaselab extract`` says of it (``layers``, ``hemodynamics``); empty for other arrays."""
        found: Mapping[str, Any] = dict(getattr(self.values, "attrs", {})).get("phaselab", {})
        return found

    def __getitem__(self, key: Any) -> np.ndarray:
        try:
            if isinstance(self.values, np.memmap):  # mapped anew, or all that was ever read would stay in memory
                return np.array(np.load(self.path, mmap_mode="r")[key], dtype=self.dtype)
            return np.asarray(self.values[key], dtype=self.dtype)
        except (OSError, RuntimeError, ValueError) as error:
            raise PhaselabError(f"{self.where}: found a part that cannot be read ({error})") from error


def open_array(text: str, option: str) -> Array:
    """Open the array that a user writes as ``[label=]path[:array]`` for an `option`, or say why not."""
    where, match = f"{option}: {text}", _WRITTEN.fullmatch(text)
    if match is None:
        raise PhaselabError(f"{where}: expected [LABEL=]PATH[:ARRAY], PATH with .npy, .npz, .zarr, .h5 or .hdf5")
    label, path = match[1] or "", home(match[2])
    if label and (whole := Path(f"{label}={match[2]}")).exists():  # a file whose own name has the sign
        expect(not path.exists(), where, f"both {path} and {whole}", f"./{whole} or {label}=./{path}")
        label, path = "", whole
    try:
        if path.is_file():
            refuse_pointer(path)
        found = _opened(path)
        if isinstance(found, Mapping):
            name = match[3] or next(iter(found), "")
            known = name in found and (match[3] or len(found) == 1)
            expect(known, "array", ", ".join(sorted(found)[:20]) or "none", f"the name of one, {path}:NAME")
            found = found[name]
        elif match[3]:
            raise PhaselabError("array: found a single one, expected no name")
        check_real(found, "values")
    except (OSError, EOFError, ValueError, ImportError, BadZipFile, zlib.error) as error:
        raise PhaselabError(f"{where}: {error}") from error
    kind = np.float32 if np.can_cast(found.dtype, np.float32) else np.float64  # whatever holds them exactly
    return Array(where, label, path, found, np.dtype(kind))


def check_real(values: Any, where: str) -> None:
    """Refuse what would become numbers in silence: complex numbers, text, objects, what a mask hides; and nothing."""
    shape, kind = values.shape, getattr(values.dtype, "kind", "O")
    full = shape and 0 not in shape  # an empty dataset of HDF5 has none
    right = "real numbers, at least 1 along each axis"
    expect(kind in "biuf" and full, where, f"{values.dtype} of shape {shape}", right)
    expect(not np.ma.is_masked(values), where, "masked values", "none; NaN says that a value is missing")


def _opened(path: Path) -> Any:
    """The array of a file, or a mapping from names to arrays."""
    ending, arrays = path.suffix.lower(), dict[str, Any]()
    if ending in (".npy", ".npz"):
        return np.load(path, mmap_mode="r")
    if ending == ".zarr":
        import zarr

        store = zarr.open(path, mode="r")
        if isinstance(store, zarr.Array):
            return store
        return {name: found for name, found in store.members(max_depth=None) if isinstance(found, zarr.Array)}
    import h5py

    # Left open: a dataset is read from its file when values are asked for.
    h5py.File(path, "r").visititems(lambda name, at: arrays.update({name: at} if isinstance(at, h5py.Dataset) else {}))
    return arrays
