"""Arrays of anybody, opened without running what a file may hold; responses of subjects, read in columns."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phaselab.errors import PhaselabError, expect, number_of
from phaselab.files import home, read_text, refuse_crowd, refuse_linked, refuse_pointer

#: Times that an array may be larger than what is on the disk: numbers that were measured do not get that much smaller.
UNPACKED = 100
#: ``[label=]path[:array]``; the shortest path that leaves either nothing or the name of an array.
_WRITTEN = re.compile(r"(?:([^=/\\]+)=)?(.*?\.(?:npy|npz|zarr|h5|hf5|hdf|hdf5))/?(?::/?(.+))?", re.IGNORECASE)


@dataclass(frozen=True)
class Array:
    """An array of real numbers on disk (memory map, Zarr or HDF5), read where it is indexed, as `dtype`."""

    where: str
    label: str
    path: Path
    name: str  # the label, or that of the file
    values: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    about: Mapping[str, Any]  # what ``phaselab extract`` says of it (``layers``, ``hemodynamics``); else empty

    def __getitem__(self, key: Any) -> np.ndarray:
        try:
            if isinstance(self.values, np.memmap):  # mapped anew, or all that was ever read would stay in memory
                return np.array(np.load(self.path, mmap_mode="r")[key], dtype=self.dtype)
            return np.asarray(self.values[key], dtype=self.dtype)
        except (OSError, RuntimeError, ValueError) as error:
            raise PhaselabError(f"{self.where}: found a part that cannot be read ({error})") from error


def open_array(text: str, option: str, memory: float = 4.0) -> Array:
    """Open the array that a user writes as ``[label=]path[:array]`` for an `option`, or say why not; `memory`: GiB."""
    where, match = f"{option}: {text}", _WRITTEN.fullmatch(text)
    if match is None:
        raise PhaselabError(f"{where}: expected [LABEL=]PATH[:ARRAY], PATH with .npy, .npz, .zarr, .h5 or .hdf5")
    label, path = match[1] or "", home(match[2])
    if label and (whole := Path(f"{label}={match[2]}")).exists():  # a file whose own name has the sign
        expect(not path.exists(), where, f"both {path} and {whole}", f"./{whole} or {label}=./{path}")
        label, path = "", whole
    try:
        if not (path.is_dir() and path.suffix.lower() == ".zarr"):
            refuse_pointer(path)
        found = _opened(path)
        if isinstance(found, Mapping):
            name = match[3] or next(iter(found), "")
            known = name in found and (match[3] or len(found) == 1)
            expect(known, "array", ", ".join(sorted(found)[:20]) or "none", f"the name of one, {path}:NAME")
            if hasattr(found, "zip"):  # .npz, which is read at once
                size, right = found.zip.getinfo(f"{name}.npy").file_size / 2**30, f"at most memory, {memory:g} GiB"
                expect(size <= memory, "values", f"{size:.3g} GiB when unpacked", right)
            found = found[name]
        elif match[3]:
            raise PhaselabError("array: found a single one, expected no name")
        if not isinstance(found, np.ndarray):
            refuse_linked(found, path)
            _refuse_bomb(found, memory)
        check_real(found, "values")
    except MemoryError:
        raise
    except Exception as error:  # of several libraries
        raise PhaselabError(f"{where}: {error}") from error
    kind = np.float32 if np.can_cast(found.dtype, np.float32) else np.float64  # whatever holds them exactly
    about = getattr(found, "attrs", {}).get("phaselab", {})
    return Array(where, label, path, label or path.stem, found, tuple(found.shape), np.dtype(kind), about)


def check_real(values: Any, where: str) -> None:
    """Refuse what would become numbers in silence: complex numbers, text, objects, what a mask hides; and nothing."""
    shape, kind, right = values.shape, getattr(values.dtype, "kind", "O"), "real numbers, at least 1 along each axis"
    full = shape and 0 not in shape  # an empty dataset of HDF5 has none
    expect(kind in "biuf" and full, where, f"{values.dtype} of shape {shape}", right)
    expect(not np.ma.is_masked(values), where, "masked values", "none; NaN says that a value is missing")


def _opened(path: Path) -> Any:
    """The array of a file, or a mapping from names to arrays."""
    ending, arrays = path.suffix.lower(), dict[str, Any]()
    if ending in (".npy", ".npz"):
        return np.load(path, mmap_mode="r")
    if ending == ".zarr":
        import zarr

        for part in path.rglob("*"):  # a pipe would be waited for, and a device read for ever
            expect(part.is_file() or part.is_dir(), str(part), "a pipe, a device or a broken link", "files and folders")
            if part.name == "zarr.json" or part.name.startswith(".z"):
                refuse_crowd(read_text(part), part)
        store = zarr.open(path, mode="r")
        if isinstance(store, zarr.Array):
            return store
        return {name: found for name, found in store.members(max_depth=None) if isinstance(found, zarr.Array)}
    import h5py

    # Left open: a dataset is read from its file when values are asked for.
    h5py.File(path, "r").visititems(lambda name, at: arrays.update({name: at} if isinstance(at, h5py.Dataset) else {}))
    return arrays


def _refuse_bomb(values: Any, memory: float) -> None:
    """Refuse chunks that take more than `memory` GiB, and arrays that do and claim far more than is on the disk."""
    each = values.dtype.itemsize
    size, chunk = each * math.prod(values.shape or ()), each * math.prod(values.chunks or (0,))
    stored = values.id.get_storage_size() if hasattr(values, "id") else values.nbytes_stored()
    right = f"chunks within memory ({memory:g} GiB), and no more than {UNPACKED} times what is on the disk"
    fits = chunk <= memory * 2**30 and (size <= memory * 2**30 or size <= UNPACKED * stored)
    expect(fits, "values", f"{size / 2**30:.3g} GiB when unpacked", right)


#: Layer -> run -> (n_trs, n_features); and subject -> run -> (n_trs, n_voxels), of numpy, a memory map, Zarr or HDF5.
Features = Mapping[int, Mapping[str, np.ndarray]]
Responses = Mapping[str, Mapping[str, Any]]


class Group:
    """(n_trs, n_voxels) of subjects with the same runs, joined where it is read; what was read last is kept."""

    def __init__(self, subjects: Sequence[str], lengths: dict[str, int], parts: Sequence[Sequence[Any]]) -> None:
        self.subjects, self.lengths, self._parts = subjects, lengths, parts  # `lengths`: run -> TRs; parts of each run
        self.ends = np.cumsum([of_subject[0].shape[1] for of_subject in parts])
        self.shape = (sum(lengths.values()), int(self.ends[-1]))
        self.dtype = np.result_type(*(part.dtype for of_subject in parts for part in of_subject))
        self.runs = np.repeat(np.arange(len(lengths)), list(lengths.values()))  # (n_trs,) number of the run of each TR
        self.subject_of = np.searchsorted(self.ends, np.arange(self.shape[1]), side="right")  # (n_voxels,) its number
        self._kept = slice(0, 0), np.empty((self.shape[0], 0), self.dtype)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        start, stop, _ = key[1].indices(self.shape[1])
        where, values = self._kept
        if start < where.start or stop > where.stop:
            where, values = slice(start, stop), np.empty((self.shape[0], stop - start), self.dtype)
            for parts, first, last in zip(self._parts, [0, *self.ends[:-1]], self.ends, strict=True):
                low, high = max(start, first), min(stop, last)
                if low < high:
                    own = [part[:, low - first : high - first] for part in parts]
                    np.concatenate(own, out=values[:, low - start : high - start])
            self._kept = where, values
        return values[:, start - where.start : stop - where.start]

    def features(self, of_run: Mapping[str, np.ndarray], who: str) -> np.ndarray:
        """float64 (n_trs, p), of run -> (n_trs, p) of all runs; `who` they are of, for messages."""
        values = np.concatenate(_checked(who, of_run, self.lengths)).astype(np.float64)
        bad = int(np.count_nonzero(~np.isfinite(values)))
        expect(not bad, who, number_of(bad, "NaN or infinite value"), "none")
        return values

    def split(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Subject -> its columns of (..., n_voxels)."""
        return dict(zip(self.subjects, np.split(values, self.ends[:-1], axis=-1), strict=True))

    def finite(self, columns: slice) -> np.ndarray:
        """float64 (n_trs, b) responses of some columns; refuses NaN and infinite values."""
        values = self[:, columns].astype(np.float64)
        for column, row in np.argwhere(~np.isfinite(values.T))[:1]:
            subject, run = self.subjects[self.subject_of[columns.start + column]], list(self.lengths)[self.runs[row]]
            raise PhaselabError(f"run {run}: subject {subject}: found NaN or infinite values, expected none")
        return values


def groups_of(X: Features, Y: Responses) -> Iterator[Group]:
    """Subjects by their runs, in order of appearance; refuses what does not fit, naming run and subject."""
    expect(len(X), "features", "no layer", "one at least")
    lengths = {run: len(values) for run, values in X[next(iter(X))].items()}
    found: dict[tuple[str, ...], list[str]] = {}
    for subject, of_run in Y.items():
        known = of_run and set(of_run) <= set(lengths)
        expect(known, f"subject {subject}: runs", sorted(of_run), f"some of {sorted(lengths)} as in the features")
        found.setdefault(tuple(run for run in lengths if run in of_run), []).append(subject)
    for runs, subjects in found.items():
        own = {run: lengths[run] for run in runs}
        yield Group(subjects, own, [_checked(f"subject {s}", Y[s], own) for s in subjects])


def _checked(who: str, of_run: Mapping[str, Any], lengths: Mapping[str, int]) -> list[Any]:
    """The arrays of the runs of `lengths`, (n_trs, k) with that many TRs and the same k."""
    missing = sorted({*lengths} - {*of_run})
    expect(not missing, f"{who}: runs", sorted(of_run), f"{missing} as well")
    given = {run: of_run[run] for run in lengths}  # lists, frames and tensors become numpy's
    parts = {run: v if hasattr(getattr(v, "dtype", None), "kind") else np.asarray(v) for run, v in given.items()}
    width = parts[next(iter(parts))].shape[1:]
    for run, part in parts.items():
        where, good = f"run {run}: {who}", len(width) == 1 and width[0] and tuple(part.shape) == (lengths[run], *width)
        expect(good, where, f"shape {tuple(part.shape)}", f"({lengths[run]} rows, the same columns in all)")
        check_real(part, where)
    return list(parts.values())


def batches(n_voxels: int, size: int) -> list[slice]:
    """Ranges of `size` columns, of which the last may be shorter."""
    return [slice(start, min(start + size, n_voxels)) for start in range(0, n_voxels, size)]


def by_region(measures: Mapping[str, np.ndarray], layers: tuple[int, ...], subject: str, rois: np.ndarray) -> list[Any]:
    """Means of (n_layers, n_voxels) measures over the voxels of each region that are not NaN, as rows of the curves."""
    rows, regions = [], regions_of(rois)
    for measure, values in measures.items():
        for layer, of_layer in zip(layers, values.astype(np.float64), strict=True):
            for roi, inside in regions.items():
                known = of_layer[inside & ~np.isnan(of_layer)]
                value = known.mean() if len(known) else np.nan
                stderr = known.std(ddof=1) / len(known) ** 0.5 if len(known) > 1 else np.nan
                key = {"measure": measure, "layer": layer, "subject": subject, "roi": roi}
                rows.append(key | {"value": value, "stderr": stderr})
    return rows


def mirrored(rois: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Region -> bool (n_voxels,) of its left and of its right side, of regions ``L x`` and ``R x``; ``all`` of them."""
    of = regions_of(rois)
    found = {name[2:]: [of[name], of[f"R{name[1:]}"]] for name in of if name[:2] == "L " and f"R{name[1:]}" in of}
    return {"all": [np.any(side, axis=0) for side in zip(*found.values(), strict=True)]} | found if found else {}


def regions_of(rois: np.ndarray) -> dict[str, np.ndarray]:
    """Region -> bool (n_voxels,) which of them are in it: ``all``, then each by name."""
    names = np.asarray(rois).astype(str)
    return {"all": np.ones(len(names), bool)} | {name: names == name for name in sorted({*names})}
