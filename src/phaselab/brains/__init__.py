"""Brain data: one module a data set, all giving the same ``BrainData``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from phaselab.results import DataMissing
from phaselab.stimuli import Stimulus
from phaselab.study import BrainSpec

__all__ = ["BrainData", "DataMissing", "load_brain"]


@dataclass(frozen=True)
class BrainData:
    """Responses of some subjects to one stimulus.

    Attributes
    ----------
    name, simulated, description : what it is; `simulated` is shown on every figure.
    stimulus : what the subjects read or heard; the run names are the keys of `responses`.
    responses : subject -> run -> float32 (n_trs, n_voxels).
    rois : subject -> (n_voxels,) name of the region of each voxel.
    ceiling : subject -> float32 (n_voxels,) noise ceiling as a correlation, or None when unknown.
    ceiling_kind : how the ceiling is known, for captions.
    nuisance : run -> (n_trs, k) regressors of no interest that belong to the stimulus (word rate ...).
    nuisance_names : names of the k columns.
    vertices : subject -> (n_voxels,) vertex of fsaverage5 (0..10241 left, 10242..20483 right), if any.
    latents : run -> (n_trs, k) the true sources of a simulated brain, before the HRF is applied to
        nothing else: already convolved; empty for real brains.
    notes : what a reader must know: subjects left out, and why.
    """

    name: str
    simulated: bool
    description: str
    stimulus: Stimulus
    responses: dict[str, dict[str, np.ndarray]]
    rois: dict[str, np.ndarray]
    ceiling: dict[str, np.ndarray] | None = None
    ceiling_kind: str = ""
    nuisance: dict[str, np.ndarray] = field(default_factory=dict)
    nuisance_names: tuple[str, ...] = ()
    vertices: dict[str, np.ndarray] | None = None
    latents: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(self.responses)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (16 digits) of responses, ROI names and ceilings."""
        sha = hashlib.sha256()
        for subject, runs in self.responses.items():
            sha.update(subject.encode())
            for run, values in runs.items():
                sha.update(run.encode() + np.ascontiguousarray(values, dtype="<f4").tobytes())
            sha.update("\0".join(map(str, self.rois[subject])).encode())
            if self.ceiling is not None:
                sha.update(np.ascontiguousarray(self.ceiling[subject], dtype="<f4").tobytes())
        return sha.hexdigest()[:16]


def load_brain(spec: BrainSpec, data: Path | None) -> BrainData:
    """The brain data of a study.

    Parameters
    ----------
    spec : the study's section ``brain``.
    data : folder of downloaded data (``PHASELAB_DATA``); not needed by the simulated brain.

    Raises
    ------
    DataMissing
        When the files are not there: says what to fetch and where to put it.
    """
    # Imported here so that reading one data set never needs what another one needs.
    if spec.name == "simulated":
        from phaselab.brains import simulated

        return simulated.load(spec)
    from phaselab.brains import alice

    return alice.load(spec, data)


def drift_basis(n_trs: int, tr: float, cutoff: float) -> np.ndarray:
    """Constant and slow cosines (discrete cosine transform II) below 1 / `cutoff` Hz, orthonormal.

    Parameters
    ----------
    n_trs, tr, cutoff : TRs; seconds; seconds (128 is the field's habit).

    Returns
    -------
    (n_trs, 1 + n_cosines) with n_cosines = floor(2 * n_trs * tr / cutoff).
    """
    order = int(np.floor(2 * n_trs * tr / cutoff))
    times = (np.arange(n_trs) + 0.5) / n_trs
    basis = np.cos(np.pi * times[:, None] * np.arange(order + 1))
    return basis / np.linalg.norm(basis, axis=0)


def regress_out(series: np.ndarray, regressors: np.ndarray) -> np.ndarray:
    """Residuals of (n_trs, n_voxels) after least squares on (n_trs, k) `regressors`; float64."""
    weights, *_ = np.linalg.lstsq(regressors, series, rcond=None)
    return series - regressors @ weights


def standardise(series: np.ndarray) -> np.ndarray:
    """Each column of (n_trs, n_voxels) with mean 0 and standard deviation 1; float32. None is constant."""
    centred = series - series.mean(axis=0)
    return (centred / centred.std(axis=0)).astype(np.float32)


def registered(spec):  # stub
    from types import SimpleNamespace

    return SimpleNamespace(version=1, stimulus=("seed", "runs", "minutes", "tr"), files=lambda section, data: {})
