"""What a brain data set is: one file, one function that is registered by name, and the data that it gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from phaselab.errors import expect
from phaselab.results import DataMissing
from phaselab.stimuli import Stimulus
from phaselab.study import BRAIN_SECTIONS, BrainSpec

__all__ = ["BRAINS", "BrainData", "DataMissing", "Group", "Registered", "brain", "load_brain", "registered"]

#: An array, or what is read like one: a memory map, an array of Zarr or HDF5.
Array = Any


@dataclass(frozen=True)
class Group:
    """Subjects who share runs and are fitted together; runs in the order of the stimulus."""

    subjects: tuple[str, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class BrainData:
    """Responses of some subjects to one stimulus.

    Attributes
    ----------
    name, simulated, description : what it is; `simulated` is shown on every figure.
    stimulus : what the subjects read or heard.
    groups : subjects with the runs that they share; another group may have other runs of the stimulus.
    read : (subject, run) -> array-like (n_trs, n_voxels), called whenever it is asked for (see `responses`).
    rois : subject -> (n_voxels,) name of the region of each voxel.
    ceiling : subject -> float32 (n_voxels,) noise ceiling as a correlation, or None when unknown.
    ceiling_kind : how the ceiling is known, for captions.
    nuisance : run -> (n_trs, k) regressors of no interest that belong to the stimulus (word rate ...).
    nuisance_names : names of the k columns.
    vertices : subject -> (n_voxels,) vertex of fsaverage5 (0..10241 left, 10242..20483 right), if any.
    latents : run -> (n_trs, k) the true sources of a simulated brain, already convolved; empty for real brains.
    notes : what a reader must know: subjects left out, and why.
    """

    name: str
    simulated: bool
    description: str
    stimulus: Stimulus
    groups: tuple[Group, ...]
    read: Callable[[str, str], Array]
    rois: Mapping[str, np.ndarray]
    ceiling: Mapping[str, np.ndarray] | None = None
    ceiling_kind: str = ""
    nuisance: Mapping[str, np.ndarray] = field(default_factory=dict)
    nuisance_names: tuple[str, ...] = ()
    vertices: Mapping[str, np.ndarray] | None = None
    latents: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = [run.name for run in self.stimulus.runs]
        for group in self.groups:
            right = tuple(run for run in known if run in group.runs)
            where = f"brain {self.name}: runs of {', '.join(group.subjects[:3])}"
            expect(group.runs == right, where, ", ".join(group.runs), f"those of the stimulus in order: {', '.join(known)}")
        twice = {subject for subject in self.subjects if self.subjects.count(subject) > 1}
        expect(not twice, f"brain {self.name}: groups", f"{', '.join(sorted(twice))} in more than one", "a subject in one")

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        return tuple(subject for group in self.groups for subject in group.subjects)

    @cached_property
    def _shapes(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(subject, run) -> what the shape of the response must be."""
        n_trs = {run.name: run.n_trs for run in self.stimulus.runs}
        return {(s, r): (n_trs[r], len(self.rois[s])) for g in self.groups for s in g.subjects for r in g.runs}

    def responses(self, subject: str, run: str) -> Array:
        """Responses of one subject in one run, array-like (n_trs, n_voxels): a memory map is not read by this."""
        where = f"brain {self.name}: responses of {subject} in {run}"
        shape = self._shapes.get((subject, run))
        expect(shape, where, "none", "a subject of one of the groups, in one of the group's runs")
        values = self.read(subject, run)
        expect(tuple(values.shape) == shape, where, f"shape {tuple(values.shape)}", f"{shape}: TRs of the run, voxels of rois")
        return values

    def scored(self, trim: int) -> dict[str, Mapping[str, Array]]:
        """Subject -> run -> responses without the first `trim` TRs, each looked up when it is asked for."""
        return {subject: _Runs(self, subject, group.runs, trim) for group in self.groups for subject in group.subjects}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (16 digits) of responses, ROI names and ceilings: reads all of them."""
        sha = hashlib.sha256()
        for subject, runs in self.scored(0).items():
            sha.update(subject.encode())
            for run, values in runs.items():
                sha.update(run.encode() + np.ascontiguousarray(values, dtype="<f4").tobytes())
            sha.update("\0".join(map(str, self.rois[subject])).encode())
            if self.ceiling is not None:
                sha.update(np.ascontiguousarray(self.ceiling[subject], dtype="<f4").tobytes())
        return sha.hexdigest()[:16]


@dataclass(frozen=True)
class _Runs(Mapping[str, Array]):
    """Run -> responses of one subject from TR `trim` on."""

    brain: BrainData
    subject: str
    runs: tuple[str, ...]
    trim: int

    def __getitem__(self, run: str) -> Array:
        if run not in self.runs:
            raise KeyError(run)
        values = self.brain.responses(self.subject, run)
        return values[self.trim :] if isinstance(values, np.ndarray) else Rows(values, self.trim)

    def __iter__(self) -> Iterator[str]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)


class Rows:
    """The rows of an array of Zarr or HDF5 from `start` on, read by index: such arrays have no views of their own."""

    def __init__(self, values: Array, start: int) -> None:
        self.values, self.start = values, start
        self.shape, self.dtype, self.ndim = (max(values.shape[0] - start, 0), *values.shape[1:]), values.dtype, values.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, *columns = index if isinstance(index, tuple) else (index,)
        if isinstance(rows, slice) and (rows.step or 1) > 0:
            kept = range(self.start, self.start + len(self))[rows]
            rows = slice(kept.start, kept.stop, kept.step)
        else:
            rows = np.arange(self.start, self.start + len(self))[rows]
        return np.asarray(self.values[(rows, *columns)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


#: From the study's section ``brain`` and the folder of downloaded data (``PHASELAB_DATA``), or None.
Load = Callable[[Any, Path | None], BrainData]
#: The files that stimulus and responses are read from: their bytes decide whether results are current.
Files = Callable[[Any, Path | None], Mapping[str, Sequence[Path]]]


@dataclass(frozen=True)
class Registered:
    """A registered data set; see `brain` for what its attributes mean."""

    section: type[BrainSpec]
    version: int
    stimulus: tuple[str, ...]
    files: Files
    load: Load


#: Name -> data set.
BRAINS: dict[str, Registered] = {}


def brain(
    name: str,
    section: type[BrainSpec],
    *,
    version: int,
    stimulus: tuple[str, ...] = (),
    files: Files = lambda section, data: {},
) -> Callable[[Load], Load]:
    """Register a function that gives the data of a study's section ``brain: {name: ...}``.

    Parameters
    ----------
    name : in studies.
    section : its section: a subclass of ``BrainSpec`` with the fields that the data set knows.
    version : raised by hand when its numbers change.
    stimulus : fields of the section that change the stimulus; what is computed from it alone does not read the others.
    files : (section, data) -> the files read, those of ``stimulus`` and of ``responses``; none for a simulation.
        May raise ``DataMissing``, as the function itself: what to fetch and where to put it.
    """
    unknown = set(stimulus) - set(section.model_fields)
    expect(not unknown, f"brain {name}: stimulus", ", ".join(sorted(unknown)), "fields of its section")

    expect(name not in BRAINS, "brain", f"a second {name!r}", "distinct names")

    def register(load: Load) -> Load:
        BRAINS[name] = Registered(section, version, stimulus, files, load)
        BRAIN_SECTIONS[name] = section
        return load

    return register


def registered(spec: BrainSpec) -> Registered:
    """The data set of a study's section ``brain``."""
    expect(spec.name in BRAINS, "brain.name", repr(spec.name), f"one of {', '.join(sorted(BRAINS))}")
    return BRAINS[spec.name]


def load_brain(spec: BrainSpec, data: Path | None) -> BrainData:
    """The brain data of a study, from its section ``brain`` and the folder of downloaded data (``PHASELAB_DATA``).

    Raises
    ------
    DataMissing
        When the files are not there: says what to fetch and where to put it.
    """
    return registered(spec).load(spec, data)
