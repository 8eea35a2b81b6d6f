"""Timed text, and how its features become TRs: never across a run's boundary."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse

from phaselab.study import FeatureSpec

#: Seconds after which the canonical response is taken to be over (nilearn's default).
HRF_LENGTH = 32.0
#: Points at which the response is evaluated within one TR before it is averaged.
HRF_OVERSAMPLING = 64
#: Parts of a TR to which the onset of an event is rounded.
EVENT_OVERSAMPLING = 16
#: Lobes of the Lanczos filter on each side (Huth et al. 2016).
LOBES = 3


@dataclass(frozen=True)
class Run:
    """One scanning run of a stimulus.

    Attributes
    ----------
    name : name of the run.
    texts : (n_texts,) words, sentences or captions, in order of onset. What several annotators wrote of
        one moment are several texts with one onset.
    onsets : (n_texts,) seconds from the start of the run's first TR.
    offsets : (n_texts,) seconds.
    tr : repetition time, seconds.
    n_trs : number of TRs.
    labels : one row a text: what is known of it (for probes, nuisance and simulated brains).
    starts : (n_texts,) True where a text begins anew, so that no left context is taken from before.
    """

    name: str
    texts: tuple[str, ...]
    onsets: np.ndarray
    offsets: np.ndarray
    tr: float
    n_trs: int
    labels: pd.DataFrame
    starts: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.texts)
        for field in ("onsets", "offsets", "labels", "starts"):
            if len(getattr(self, field)) != n:
                raise ValueError(f"run {self.name}: {field}: found {len(getattr(self, field))}, expected {n}")
        if n and (np.diff(self.onsets) < 0).any():
            raise ValueError(f"run {self.name}: onsets: expected in ascending order")


@dataclass(frozen=True)
class Stimulus:
    """What was read or heard: runs of timed text."""

    name: str
    runs: tuple[Run, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (16 digits) of texts, times, labels and TR grid."""
        sha = hashlib.sha256()
        for run in self.runs:
            sha.update(repr((run.name, run.tr, run.n_trs, run.texts)).encode())
            for array in (run.onsets, run.offsets):
                sha.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
            sha.update(np.packbits(run.starts.astype(bool)).tobytes())
            sha.update(run.labels.to_csv(index=False).encode())
        return sha.hexdigest()[:16]

    @property
    def n_trs(self) -> int:
        return sum(run.n_trs for run in self.runs)

    @property
    def labels(self) -> pd.DataFrame:
        """Labels of the texts of all runs, with a column ``run``; (n_texts, n_labels + 1)."""
        return pd.concat([run.labels.assign(run=run.name) for run in self.runs], ignore_index=True)


def align(values: np.ndarray, run: Run, spec: FeatureSpec) -> np.ndarray:
    """Features of the texts of one run as features of its TRs, haemodynamics included.

    Texts that begin at one moment, as those of several annotators do, count as one: their mean. A TR
    then takes by ``spec.resample`` the ``mean`` or the ``sum`` of the moments that lie in it, or zeros
    when there is none; or all moments by a filter (``lanczos``). As in the paper's method the step from
    stimulus to response is then either a canonical response or shifts by whole TRs. It works on one
    run: nothing of one run can reach another.

    Parameters
    ----------
    values : (n_texts, p), one row a text of `run`.
    run : gives onsets (seconds) and the TR grid.
    spec : `resample`, `hemodynamics` and `delays` (TRs) are used; `trim` is left to the caller, who must
        drop the same TRs from the responses.

    Returns
    -------
    float32 (n_trs, p): ``hrf``, convolved with the canonical response; ``average``, mean over the delays.
    (n_trs, p * n_delays) for ``stack``: a finite impulse response, first delay first.

    Raises
    ------
    ValueError
        When the rows are not as many as the texts, an onset lies outside the run, or a delay is
        negative or missing.
    """
    grid = RESAMPLERS[spec.resample](values, run)
    if spec.hemodynamics == "hrf":
        return convolve(grid, run.tr)
    return delayed(grid, spec.hemodynamics, spec.delays)


def tr_means(values: np.ndarray, run: Run) -> np.ndarray:
    """Mean of the moments whose onset lies in each TR; float32 (n_trs, p), 0 where none does.

    `values` is (n_texts, p); a moment is the mean of the texts with one onset.
    """
    values, at, _ = _moments(values, run)
    counts = np.bincount(at, minlength=run.n_trs)
    return (_added(values, at, run) / np.maximum(counts, 1)[:, None]).astype(np.float32)


def tr_sums(values: np.ndarray, run: Run) -> np.ndarray:
    """As ``tr_means``, the sum of the moments: it grows with their rate."""
    values, at, _ = _moments(values, run)
    return _added(values, at, run).astype(np.float32)


def tr_lanczos(values: np.ndarray, run: Run) -> np.ndarray:
    """Moments low-pass filtered to what the TR grid can carry, and read at the middle of each TR.

    A moment adds to a TR ``L(x) = sinc(x) sinc(x / 3)`` of itself for ``|x| < 3`` and nothing beyond,
    ``sinc(x) = sin(pi x) / (pi x)``, x being the time from the middle of the text (between its onset and
    offset) to the middle of the TR, in TRs: a Lanczos filter of three lobes with its cut-off at the
    Nyquist frequency of the grid, 1 / (2 TR), as in Huth et al. 2016 (doi:10.1038/nature17637) and the
    code of that group. Like a sum it grows with the rate of texts; and it is not causal: a text reaches
    up to three TRs into its past.

    Returns
    -------
    float32 (n_trs, p).
    """
    values, _, middles = _moments(values, run)
    x = np.arange(run.n_trs)[:, None] + 0.5 - middles / run.tr
    weights = np.where(np.abs(x) < LOBES, np.sinc(x) * np.sinc(x / LOBES), 0.0)
    return np.asarray(sparse.csr_array(weights) @ values).astype(np.float32)


#: ``features.resample`` -> from (n_texts, p) of a run to float32 (n_trs, p).
RESAMPLERS = {"mean": tr_means, "sum": tr_sums, "lanczos": tr_lanczos}


def _moments(values: np.ndarray, run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of the texts with one onset, float64 (n_moments, p); the TR of each; its middle, seconds."""
    values = np.asarray(values)
    if values.ndim != 2 or len(values) != len(run.texts):
        raise ValueError(f"run {run.name}: values: found shape {values.shape}, expected ({len(run.texts)}, n_features)")
    at = tr_of_texts(run)
    onsets = np.asarray(run.onsets, dtype=float)
    middles = (onsets + np.asarray(run.offsets, dtype=float)) / 2
    _, first, group, counts = np.unique(onsets, return_index=True, return_inverse=True, return_counts=True)
    if len(first) == len(onsets):
        return values.astype(np.float64), at, middles
    together = sparse.csr_array((1 / counts[group], (group, np.arange(len(group)))))
    return np.asarray(together @ values.astype(np.float64)), at[first], together @ middles


def _added(values: np.ndarray, at: np.ndarray, run: Run) -> np.ndarray:
    """Sum of the rows of (n, p) in each TR; float64 (n_trs, p)."""
    ones = (np.ones(len(at)), (at, np.arange(len(at))))
    return np.asarray(sparse.csr_array(ones, shape=(run.n_trs, len(at))) @ values)


def tr_of_texts(run: Run) -> np.ndarray:
    """(n_texts,) index of the TR in which each text begins. Raises ValueError for one outside the run."""
    # The small number keeps an onset on a TR's edge in that TR when tr has no exact binary form.
    at = np.floor(np.asarray(run.onsets, dtype=float) / run.tr + 1e-9).astype(np.int64)
    outside = np.flatnonzero((at < 0) | (at >= run.n_trs))
    if len(outside):
        first = outside[0]
        raise ValueError(
            f"run {run.name}: text {first} ({run.texts[first]!r}): found onset {run.onsets[first]:.3f} s, "
            f"expected one from 0 to {run.n_trs * run.tr:g} s"
        )
    return at


def word_rate(run: Run) -> np.ndarray:
    """Number of texts that begin in each TR; float32 (n_trs, 1), not convolved."""
    return np.bincount(tr_of_texts(run), minlength=run.n_trs).astype(np.float32)[:, None]


def shift(series: np.ndarray, delay: int) -> np.ndarray:
    """(n_trs, p) moved `delay` TRs later; the first `delay` rows are zeros."""
    out = np.zeros_like(series)
    out[delay:] = series[: max(len(series) - delay, 0)]
    return out


def delayed(series: np.ndarray, hemodynamics: Literal["average", "stack"], delays: Sequence[int]) -> np.ndarray:
    """The series of one run, moved later by each of `delays` TRs: averaged, or side by side.

    Parameters
    ----------
    series : (n_trs, p) of one run; the rows that a shift leaves empty are zeros.
    hemodynamics : ``average`` or ``stack``.
    delays : TRs, 0 or more.

    Returns
    -------
    (n_trs, p), or (n_trs, p * n_delays) for ``stack``, first delay first.

    Raises
    ------
    ValueError
        When a delay is negative, or there is none.
    """
    if not delays or min(delays) < 0:
        raise ValueError(f"features.delays: found {tuple(delays)}, expected at least one number of TRs >= 0")
    shifted = [shift(series, delay) for delay in delays]
    if hemodynamics == "average":
        return np.mean(shifted, axis=0)
    return np.concatenate(shifted, axis=1)


def convolve(series: np.ndarray, tr: float, delay: float = 0.0) -> np.ndarray:
    """Causal convolution of (n_trs, p) with the canonical response; float32 of the same shape.

    Parameters
    ----------
    series : one row a TR, taken as constant during the TR.
    tr : seconds.
    delay : seconds by which the response comes later than the canonical one (earlier if negative).
    """
    out = np.zeros(series.shape, dtype=np.float64)
    for lag, weight in enumerate(hrf(tr, delay)[: len(series)]):
        out[lag:] += weight * series[: len(series) - lag]
    return out.astype(np.float32)


def convolve_events(run: Run, amplitudes: np.ndarray) -> np.ndarray:
    """Response to one impulse a text at its very onset: a regressor of what the texts are, not of features.

    Parameters
    ----------
    run : gives the onsets and the TR grid.
    amplitudes : (n_texts, k); a column of ones gives the word rate.

    Returns
    -------
    float32 (n_trs, k), in amplitude a TR: a steady train of `c` impulses of 1 a TR tends to `c`.
    """
    tr_of_texts(run)  # refuses onsets outside the run
    fine = run.tr / EVENT_OVERSAMPLING
    at = np.floor(np.asarray(run.onsets, dtype=float) / fine + 1e-9).astype(np.int64)
    events = np.zeros((run.n_trs * EVENT_OVERSAMPLING, amplitudes.shape[1]))
    np.add.at(events, at, amplitudes)
    return EVENT_OVERSAMPLING * convolve(events, fine)[::EVENT_OVERSAMPLING]


def hrf(tr: float, delay: float = 0.0) -> np.ndarray:
    """The canonical double-gamma haemodynamic response (SPM's, by nilearn) on the TR grid; (n_lags,), sum 1.

    Weight k says what a stimulus that lasts through TR 0 adds to the response at the start of TR k: the
    mean of the response from k - 1 to k TR after an onset, so weight 0 is 0. It is evaluated finely
    and averaged, because single points 2 s apart would miss its peak. With this form the word rate of
    the Alice stimulus reproduces the published predictor and correlates with the responses more than
    with Glover's form or with times half a TR later.
    """
    # Imported here: nilearn takes a second, and reading a stimulus does not need it.
    from nilearn.glm.first_level.hemodynamic_models import spm_hrf

    fine = spm_hrf(tr, oversampling=HRF_OVERSAMPLING, time_length=HRF_LENGTH, onset=delay)
    n_lags = -(-len(fine) // HRF_OVERSAMPLING)
    padded = np.zeros(n_lags * HRF_OVERSAMPLING)
    padded[: len(fine)] = fine
    weights = np.concatenate([[0.0], padded.reshape(n_lags, HRF_OVERSAMPLING).sum(axis=1)])
    return weights / weights.sum()


@dataclass(frozen=True)
class Interval:
    """One labelled stretch of a Praat tier: start and end in seconds, and its line in the file."""

    start: float
    end: float
    text: str
    line: int


def read_textgrid(path: Path) -> dict[str, list[Interval]]:
    """The interval tiers of a Praat TextGrid (long text format, UTF-8): tier name -> intervals in order.

    Raises
    ------
    ValueError
        Naming file and line: what was found, what was expected.
    """
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    if not lines or '"ooTextFile"' not in lines[0]:
        raise ValueError(f"{path}: line 1: expected 'File type = \"ooTextFile\"', the long text format of Praat")
    tiers: dict[str, list[Interval]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    tier: list[Interval] | None = None
    name, inside = "", False
    fields: dict[str, float] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if re.fullmatch(r"item \[\d+\]:", text):
            tier, inside = None, False
        elif match := re.fullmatch(r'name = "(.*)"', text):
            name = match[1]
        elif match := re.fullmatch(r"intervals: size = (\d+)", text):
            tier = tiers.setdefault(name, [])
            sizes[name] = int(match[1]), number
        elif tier is not None and re.fullmatch(r"intervals \[\d+\]:", text):
            fields, inside = {}, True
        elif inside and tier is not None and text:
            match = re.fullmatch(r'(xmin|xmax) = (-?[\d.]+(?:[eE]-?\d+)?)|text = "(.*)"', text)
            if match is None:
                raise ValueError(f"{path}: line {number}: found {text!r}, expected xmin, xmax or text of an interval")
            if match[1]:
                fields[match[1]] = float(match[2])
                continue
            start, end = fields.get("xmin"), fields.get("xmax")
            before = tier[-1].end if tier else float("-inf")
            if start is None or end is None or end < start or start < before - 1e-6:
                raise ValueError(
                    f"{path}: line {number}: found an interval from {start} to {end} s after one that "
                    f"ends at {before} s, expected ascending times"
                )
            tier.append(Interval(start, end, match[3].replace('""', '"').strip(), number))
            inside = False
    for name, (size, number) in sizes.items():
        if len(tiers[name]) != size:
            raise ValueError(
                f"{path}: line {number}: tier {name!r}: found {len(tiers[name])} intervals, expected {size}"
            )
    if not tiers:
        raise ValueError(f"{path}: found no interval tier, expected at least one")
    return tiers
