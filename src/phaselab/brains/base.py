"""What a brain data set is: one file, one function that is registered by name, and the data that it gives."""

from __future__ import annotations

import hashlib
import pickletools
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd

from phaselab.data import published
from phaselab.errors import PhaselabError, expect, shown
from phaselab.files import read_bytes, read_text, refuse_linked, refuse_pointer
from phaselab.lazy import Lazy, View
from phaselab.results import digest_file, numbers, read_table, stamped_digest, write_file
from phaselab.stats import check_ceiling, refuse_gaps
from phaselab.stimuli import Stimulus
from phaselab.study import BRAIN_SECTIONS, BrainSpec, digest_of

#: An array (n_trs, n_voxels), or what is read like one: a memory map, an array of Zarr or HDF5.
Array = Any


class Group(NamedTuple):
    """Subjects who share runs and are fitted together; runs in the order of the stimulus."""

    subjects: tuple[str, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class BrainData:
    """Responses of some subjects to one stimulus; by subject, `rois`, `ceiling` and `vertices` are (n_voxels,)."""

    name: str
    description: str
    stimulus: Stimulus  # what the subjects read or heard
    groups: tuple[Group, ...]  # another group may have other runs of the stimulus
    read: Callable[[str, str], Array]  # (subject, run) -> (n_trs, n_voxels) whenever it is asked: best a memory map
    rois: dict[str, np.ndarray]  # name of the region of each voxel; ``L x`` and ``R x`` are sides of x
    ceiling: dict[str, np.ndarray] | None = None  # noise ceiling as a correlation, float32; None when unknown
    ceiling_kind: str = ""  # how it is known, for captions
    nuisance: Mapping[str, np.ndarray] = field(default_factory=dict)  # run -> (n_trs, k): word rate, then others
    vertices: dict[str, np.ndarray] | None = None  # of fsaverage5: 0..10241 left, 10242..20483 right
    latents: dict[str, np.ndarray] = field(default_factory=dict)  # run -> (n_trs, k): simulated brains' true sources
    notes: tuple[str, ...] = ()  # what a reader must know: subjects left out, and why
    folds: dict[str, str] = field(default_factory=dict)  # run -> "test", the fold it trains in, or "" for neither
    stamp: str = ""  # of responses that are too large to be read for a digest: that of the files they come from

    def __post_init__(self) -> None:
        known = [run.name for run in self.stimulus.runs]
        for subjects, runs in self.groups:
            fits, right = list(runs) == [run for run in known if run in runs], f"in order, of {', '.join(known)}"
            expect(fits, f"brain {self.name}: runs of {', '.join(subjects[:3])}", ", ".join(runs), right)
        twice = sorted({subject for subject in self.subjects if self.subjects.count(subject) > 1})
        expect(not twice, f"brain {self.name}: groups", f"{', '.join(twice)} in two", "a subject in one")
        for subject, ceiling in (self.ceiling or {}).items():
            check_ceiling(ceiling, f"brain {self.name}: ceiling of {subject}")

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Of all groups."""
        return tuple(subject for group in self.groups for subject in group.subjects)

    def responses(self, subject: str, run: str) -> Array:
        """Responses of one subject in one run, array-like (n_trs, n_voxels): of a memory map, nothing is read yet."""
        values, n_trs = self.read(subject, run), next(of.n_trs for of in self.stimulus.runs if of.name == run)
        where, shape = f"brain {self.name}: responses of {subject} in {run}", (n_trs, len(self.rois[subject]))
        right = f"{shape}: TRs of the run, voxels of rois"
        expect(tuple(values.shape) == shape, where, f"shape {tuple(values.shape)}", right)
        return values

    def scored(self, trim: int) -> dict[str, Mapping[str, Array]]:
        """Subject -> run -> responses without what `trim` drops of a run, looked up when they are asked for."""
        first = {run.name: run.dropped(trim) for run in self.stimulus.runs} if trim else {}

        def kept(subject: str, run: str) -> Array:
            values, rows = self.responses(subject, run), slice(first.get(run, 0), None)
            return values[rows] if isinstance(values, np.ndarray) else View(values, rows)

        return {subject: Lazy(runs, partial(kept, subject)) for subjects, runs in self.groups for subject in subjects}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (16 digits) of responses, ROI names and ceilings, all of which are read; or `stamp`."""
        if self.stamp:
            return self.stamp
        sha = hashlib.sha256()
        for subject, runs in self.scored(0).items():
            sha.update(subject.encode())
            for run, values in runs.items():
                sha.update(run.encode() + np.ascontiguousarray(values, dtype="<f4").tobytes())
            sha.update("\0".join(map(str, self.rois[subject])).encode())
            if self.ceiling is not None:
                sha.update(np.ascontiguousarray(self.ceiling[subject], dtype="<f4").tobytes())
        return sha.hexdigest()[:16]


#: Of the study's section ``brain`` and the folder of downloaded data: the data, and the files that its ``stimulus``,
#: its ``responses`` and its ``nuisance`` are read from.
Load = Callable[[Any, Path | None], BrainData]
Files = Callable[[Any, Path | None], Mapping[str, Sequence[Path]]]
#: Of a section (None: of all that it may be), published files of which copies stand and that are read no more, whether
#: they are still there or not; never raises DataMissing.
Copied = Callable[[Any, Path | None], Sequence[Path]]
#: Bytes of a pickle before its array, at most.
HEADER = 4096
#: What is said, marks of protocol and memory aside, by the pickle that joblib writes of one array of real numbers.
ONE_ARRAY = re.compile(
    r"joblib\.numpy_pickle NumpyArrayWrapper EMPTY_TUPLE NEWOBJ EMPTY_DICT MARK subclass numpy ndarray "
    r"shape (\d+) (\d+) TUPLE2 order ([CF]) dtype numpy dtype (f[48]) (?:NEWFALSE NEWTRUE|0 1) TUPLE3 REDUCE MARK "
    r"3 ([<>]) NONE NONE NONE -1 -1 0 TUPLE BUILD allow_mmap NEW\w+(?: numpy_array_alignment_bytes \d+)? SETITEMS BUILD"
)
#: Name -> data set.
BRAINS: dict[str, brain] = {}


@dataclass
class brain:  # it is written as a decorator
    """Register a function that gives the data of a study's section ``brain: {name: ...}``."""

    name: str
    section: type[BrainSpec]  # its fields
    version: int  # raised by hand when numbers change
    stimulus: tuple[str, ...] = ()  # fields on which depends what needs the stimulus alone
    nuisance: tuple[str, ...] = ()  # fields on which depend nuisance regressors alone
    files: Files = lambda *_: {}  # whose bytes decide whether results are current; may raise DataMissing
    copied: Copied = lambda *_: ()
    load: Load = field(init=False)

    def __post_init__(self) -> None:
        unknown = ", ".join(sorted({*self.stimulus, *self.nuisance} - {*self.section.model_fields}))
        expect(not unknown, f"brain {self.name}: stimulus, nuisance", unknown, "fields of its section")
        expect(self.name not in BRAINS, "brain", f"a second {self.name!r}", "distinct names")

    def __call__(self, load: Load) -> Load:
        """Register `load`."""
        self.load, BRAINS[self.name], BRAIN_SECTIONS[self.name] = load, self, self.section
        return load


def load_brain(spec: BrainSpec, data: Path | None) -> BrainData:
    """The data of a study's section ``brain``, below the folder `data`; ``DataMissing`` says what to fetch."""
    return BRAINS[spec.name].load(spec, data)


class Published:
    """What a study takes of the files of the set `name` below the folder `data`, where they are as published.

    A reader has, beside `place`, what files are `chosen` by; `make` where it reads float32 copies of responses, which
    lie in ``cache``: these outlive the originals. `people` and `names` are the subjects and the runs.
    """

    people: Sequence[str]
    names: Sequence[str]
    chosen: Mapping[str, str]

    def __init__(self, name: str, data: Path | None) -> None:
        self.name, self.data, self.there, self.notes = name, Path(data or "DATA"), data is not None, list[str]()
        self.cache = self.data / "cache" / name
        self.copies, self.taken = dict[tuple[str, str], Path](), dict[str, tuple[np.ndarray, np.ndarray]]()

    def place(self, what: str, subject: str, run: str) -> str:
        """Where a file lies in the set's folder: ``response`` and ``mask`` (of copies), and others of the reader's."""
        raise NotImplementedError

    def make(self, subject: str, run: str, out: Path) -> None:
        """Write the copy of a response, float32 .npy (n_trs, n_voxels), to `out`.

        Copies are named by what they are made of: who changes how they are made gives `cache` another name.
        """
        raise NotImplementedError

    def path(self, what: str, subject: str = "", run: str = "", dropped: bool = False) -> Path:
        """A published file; DataMissing, where it is not there (unless it may be `dropped`), says how to get it."""
        place = self.place(what, subject, run)
        return published(place, self.name, self.data if self.there else None, self.chosen, dropped)

    def known(self, subject: str, run: str) -> tuple[Path, str]:
        """The file of ``key``, and what it says, if it is there."""
        key = self.cache / subject / f"{run}.key"
        said = read_text(key) if key.is_file() else ""
        return key, said if len(said.split()) == 2 else ""

    def copied(self) -> list[Path]:
        """The responses as published, there or not, of which there are copies by the masks that are here."""
        found = list[Path]()
        for one, run in product(self.people, self.names):
            (key, known), mask = self.known(one, run), self.path("mask", one, dropped=True)
            if known and copy_of(key, known).exists() and (not mask.exists() or known.split()[1] == digest_file(mask)):
                found.append(self.path("response", one, run, dropped=True))
        return found

    def key(self, subject: str, run: str) -> Path:
        """A small file with the SHA-256 of a response and of its mask, made where it is not there or another."""
        # Results depend on it and the copy is named by it: both stay current when the original is dropped.
        key, known = self.known(subject, run)
        of = self.path("response", subject, run, dropped=known != "")
        digest = stamped_digest(of, self.cache / ".stamps") if of.exists() else known.split()[0]
        if known != (now := f"{digest} {digest_file(self.path('mask', subject))}"):
            with write_file(key) as aside:
                aside.write_text(now)
        return key

    def copy(self, subject: str, run: str) -> Path:
        """The copy of a response, made where it is not there."""
        key = self.key(subject, run)
        if not (copy := copy_of(key, key.read_text())).exists():
            self.make(subject, run, copy)
        return copy

    def usable(
        self, who: str, of_runs: Mapping[Path, Array], chosen: tuple[np.ndarray, np.ndarray], named: Any = str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the `chosen` columns of a subject, and their regions, those with numbers in each run; others are noted.

        A voxel that did not vary is 0 / 0 wherever a run was z-scored: what stands in the first TR tells.
        """
        (columns, regions), known = chosen, np.ones(len(chosen[0]), bool)
        for path, values in of_runs.items():
            first = np.isfinite(values[0])
            known &= (here := first[columns])
            expect(first.any(), f"{path}: row 0", "no number", "some: it may lack voxels, but no TR")
            middle = len(values) // 2
            refuse_gaps(values[middle][columns][None], str(path), here, [middle], columns)
        lost = shown(", ".join(map(named, columns[~known])))
        expect(known.any(), f"brain.voxels: {who}", f"no numbers in {lost}", "a voxel that has some in each run")
        same = shown(", ".join(map(named, constant_voxels(of_runs.values(), columns[known]))))
        self.notes += [f"{who}: voxels left out, for in a run they are no numbers: {lost}."] * bool(lost)
        self.notes += [f"{who}: constant in a run, where they score 0: {same}."] * bool(same)
        return columns[known], regions[known]

    def take(self, subject: str, chosen: tuple[np.ndarray, np.ndarray], named: Any = str) -> None:
        """Take what is `usable` of the copies of a subject's responses, made where they are not there."""
        of_runs = dict[Path, Array]()
        for run in self.names:
            copy = self.copies[subject, run] = self.copy(subject, run)
            of_runs[self.path("response", subject, run, dropped=True)] = np.load(copy, mmap_mode="r")
        self.taken[subject] = self.usable(subject, of_runs, chosen, named)

    def read(self, subject: str, run: str, n_trs: int | None = None) -> Array:
        """What is taken of a response, of its first `n_trs`; a memory map, of which nothing is read yet."""
        values, (columns, _) = np.load(self.copies[subject, run], mmap_mode="r")[:n_trs], self.taken[subject]
        return values if len(columns) == values.shape[1] else View(values, columns=columns)


def copy_of(key: Path, known: str) -> Path:
    """Where the copy of a response lies whose file of ``Published.key`` says what is `known`."""
    return key.with_name(f"{key.stem}-{digest_of(known)}.npy")


def choose_voxels(wanted: Path | int | str, subject: str, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The columns of a subject's responses that a study's ``voxels`` takes, ascending, and the region of each.

    `wanted`: ``all``; so many, evenly spaced; or a table of ``subject``, ``voxel`` (one of `known`) and ``roi``.
    """
    n, columns = len(known), np.arange(len(known))
    if isinstance(wanted, Path):
        table = read_table(wanted, "subject", "voxel", "roi")
        own = table[table["subject"] == subject]
        columns = pd.Index(known).get_indexer(numbers(own["voxel"], f"{wanted}: voxel"))
        wrong = own["voxel"][(columns < 0) | own["voxel"].duplicated()].tolist()
        right = f"some of the {n} of the mask, each once"
        expect(len(own) and not wrong, f"{wanted}: voxels of {subject}", wrong, right)
        return np.sort(columns), own["roi"].to_numpy()[np.argsort(columns)]
    if isinstance(wanted, int):
        expect(wanted <= n, "brain.voxels", wanted, f"at most the {n} of {subject}")
        columns = np.arange(wanted) * n // wanted
    return columns, np.full(len(columns), "brain")


def constant_voxels(of_runs: Iterable[Array], columns: np.ndarray) -> list[int]:
    """Those of the `columns`, ascending, of a subject's responses (n_trs, n_voxels) that do not vary in some run."""
    same = set[int]()
    for values in of_runs:
        few = columns[np.ptp(values[:: max(1, len(values) // 8)][:, columns], axis=0) == 0]  # reads little of the file
        same |= {*few[np.ptp(values[:, few], axis=0) == 0].tolist()}
    return sorted(same)


def opened(path: Path, name: str, *shape: int | str, why: str = "") -> Any:
    """An array of numbers of a file of HDF5, which stays open; a text in `shape`: any length from 1, or from 2."""
    refuse_pointer(path)
    try:
        values = (file := h5py.File(path)).get(name)
    except OSError as error:
        raise PhaselabError(f"{path}: cannot be read as HDF5: {error}") from error
    where, right = f"{path}: {name}", f"numbers ({', '.join(map(str, shape))}){why}"
    expect(isinstance(values, h5py.Dataset), where, f"none, but {', '.join(file) or 'nothing'}", right)
    refuse_linked(values, path)
    lengths = zip(values.shape, shape, strict=True) if values.ndim == len(shape) else [(0, "")]
    fits = all(n > wanted.startswith("2 ") if isinstance(wanted, str) else n == wanted for n, wanted in lengths)
    expect(fits and values.dtype.kind in "iuf", where, f"{values.dtype} {values.shape}", right)
    return values


def array_of(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The array, of `shape`, in a compressed file of joblib, whose pickle is looked at and never run."""
    said, memory, end, inflate = list[str](), list[str](), 0, zlib.decompressobj(wbits=47)  # zlib or gzip
    try:
        data = inflate.decompress(read_bytes(path), 8 * shape[0] * shape[1] + HEADER)
        for op, arg, at in pickletools.genops(data[:HEADER]):
            if op.name in ("MEMOIZE", "BINPUT"):
                memory.append(said[-1])
            elif op.name not in ("PROTO", "FRAME", "STACK_GLOBAL"):
                said.append(memory[int(arg or 0)] if op.name == "BINGET" else op.name if arg is None else str(arg))
            end = int(at or 0) + 1
            if said[-2:] == ["SETITEMS", "BUILD"]:
                break
    except (zlib.error, ValueError, LookupError) as error:
        raise PhaselabError(f"{path}: found no compressed array of joblib: {error}") from error
    right = f"one array {shape} of real numbers, by joblib, and nothing else"
    if not (match := ONE_ARRAY.fullmatch(" ".join(said))):
        raise PhaselabError(f"{path}: found a pickle {shown(' '.join(said))}, expected {right}")
    dtype, found = np.dtype(match[5] + match[4]), (int(match[1]), int(match[2]))
    between = len(data) - end - 1 - dtype.itemsize * found[0] * found[1]
    padded = 1 + data[end] if "alignment" in match[0] else 0  # a byte says by how many more
    whole = inflate.eof and between == padded and data[-1:] == b"."
    expect(found == shape and whole, str(path), f"{found}{'' if whole else ', cut or with more'}", right)
    return np.frombuffer(data[end + between : -1], dtype).reshape(shape, order="F" if match[3] == "F" else "C")
