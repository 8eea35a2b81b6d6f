"""How features of texts become features of TRs: moments, the TR grid, haemodynamics. One run at a time."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import sparse

from phaselab.errors import PhaselabError, expect
from phaselab.stimuli.run import Run
from phaselab.study import FeatureSpec

#: Points at which the response is evaluated within one TR before it is averaged.
HRF_OVERSAMPLING = 64
#: Share of the greatest response that counts as none when it is asked how long a TR is carried.
FAINT = 0.05
#: Parts of a TR to which the onset of an event is rounded.
EVENT_OVERSAMPLING = 16


def align(values: np.ndarray, run: Run, spec: FeatureSpec) -> np.ndarray:
    """Features (n_texts, p) of the texts of a run as features of its TRs, convolved; float32 (n_trs, p).

    ``stack`` gives (n_trs, p * n_delays), first delay first. The caller trims. Items stay as they are.
    """
    expected = "none, for its items have no time" if run.items else "hrf, average or stack, for its texts have times"
    fits = run.items == (spec.hemodynamics == "none")
    expect(fits, f"run {run.name}: features.hemodynamics", spec.hemodynamics, expected)
    if spec.hemodynamics == "none":
        return values.astype(np.float32)
    grid = resample(values, run, spec.resample)
    return convolve(grid, run.tr) if spec.hemodynamics == "hrf" else delayed(grid, spec.hemodynamics, spec.delays)


def carried(tr: float, spec: FeatureSpec) -> int:
    """TRs of a run, from its first one, in whose features there is a part of what is in that first one (``trim``)."""
    if spec.hemodynamics != "hrf":
        return 0 if spec.hemodynamics == "none" else 1 + max(spec.delays)
    weights = np.abs(hrf(tr))
    return int(1 + np.flatnonzero(weights > FAINT * weights.max())[-1])


def resample(values: np.ndarray, run: Run, how: Literal["mean", "sum", "lanczos"] = "mean") -> np.ndarray:
    """Features (n_texts, p) on the TR grid; float32 (n_trs, p).

    Texts that begin at one moment, as those of several annotators do, count as one: their mean. A TR then takes the
    ``mean`` or the ``sum`` of the moments that begin in it, zeros when there is none; or (``lanczos``) of all moments
    ``sinc(x) sinc(x / 3)`` for ``|x| < 3``, x being the TRs from the middle of the text to that of the TR (Huth et al.
    2016, doi:10.1038/nature17637), which is not causal: a text reaches up to three TRs into its past.
    """
    moments, at = values.astype(np.float64), tr_of_texts(run)
    middles = (np.asarray(run.onsets, dtype=float) + run.offsets) / 2
    _, first, group, counts = np.unique(run.onsets, return_index=True, return_inverse=True, return_counts=True)
    if len(first) < len(at):
        together = sparse.csr_array((1 / counts[group], (group, np.arange(len(group)))))
        moments, at, middles = together @ moments, at[first], together @ middles
    if how == "lanczos":
        x = np.arange(run.n_trs)[:, None] + 0.5 - middles / run.tr
        weights = sparse.csr_array(np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0))
    else:
        weights = sparse.csr_array((np.ones(len(at)), (at, np.arange(len(at)))), shape=(run.n_trs, len(at)))
    grid = np.asarray(weights @ moments)
    if how == "mean":
        grid /= np.maximum(np.bincount(at, minlength=run.n_trs), 1)[:, None]
    return grid.astype(np.float32)


def tr_of_texts(run: Run) -> np.ndarray:
    """(n_texts,) index of the TR in which each text begins; an onset outside the run is refused."""
    at = _steps(run, run.tr)
    for text in np.flatnonzero((at < 0) | (at >= run.n_trs)):
        where, found = f"run {run.name}: text {text} ({run.texts[text]!r})", f"onset {run.onsets[text]:.3f} s"
        raise PhaselabError(f"{where}: found {found}, expected one from 0 to {run.n_trs * run.tr:g} s")
    return at


def _steps(run: Run, step: float) -> np.ndarray:
    # The small number keeps an onset on an edge in the step that begins when `step` has no exact binary form.
    return np.floor(np.asarray(run.onsets, dtype=float) / step + 1e-9).astype(np.int64)


def word_rate(run: Run) -> np.ndarray:
    """Texts that begin in each TR; float32 (n_trs, 1), not convolved."""
    return np.bincount(tr_of_texts(run), minlength=run.n_trs).astype(np.float32)[:, None]


def delayed(series: np.ndarray, hemodynamics: Literal["average", "stack"], delays: Sequence[int]) -> np.ndarray:
    """The series (n_trs, p) of one run, later by each of `delays` TRs, zeros before it: averaged, or side by side."""
    expect(delays and min(delays) >= 0, "features.delays", tuple(delays), "at least one number of TRs >= 0")
    shifted = [np.pad(series, ((delay, 0), (0, 0)))[: len(series)] for delay in delays]
    return np.mean(shifted, axis=0) if hemodynamics == "average" else np.concatenate(shifted, axis=1)


def convolve(series: np.ndarray, tr: float, delay: float = 0.0) -> np.ndarray:
    """Convolution of (n_trs, p), constant during each TR, with the response of `hrf`; float32 (n_trs, p)."""
    out = np.zeros(series.shape, dtype=np.float64)
    for lag, weight in enumerate(hrf(tr, delay)[: len(series)]):
        out[lag:] += weight * series[: len(series) - lag]
    return out.astype(np.float32)


def convolve_events(run: Run, amplitudes: np.ndarray) -> np.ndarray:
    """Response to an impulse at each text's very onset, of `amplitudes` (n_texts, k); float32 (n_trs, k) per TR."""
    tr_of_texts(run)  # refuses onsets outside the run
    fine = run.tr / EVENT_OVERSAMPLING
    events = np.zeros((run.n_trs * EVENT_OVERSAMPLING, amplitudes.shape[1]))
    np.add.at(events, _steps(run, fine), amplitudes)
    return EVENT_OVERSAMPLING * convolve(events, fine)[::EVENT_OVERSAMPLING]


def hrf(tr: float, delay: float = 0.0) -> np.ndarray:
    """The canonical double-gamma response (SPM's, by nilearn), `delay` seconds later, on the TR grid; (n_lags,), sum 1.

    Weight k: what a stimulus that lasts through TR 0 adds to the response at the start of TR k, the mean from k - 1 to
    k TR after an onset. So the word rate of Alice's stimulus reproduces the published predictor.
    """
    from nilearn.glm.first_level.hemodynamic_models import spm_hrf  # here: it takes a second

    fine = spm_hrf(tr, oversampling=HRF_OVERSAMPLING, onset=delay)
    padded = np.pad(fine, (0, -len(fine) % HRF_OVERSAMPLING))
    weights = np.concatenate([[0.0], padded.reshape(-1, HRF_OVERSAMPLING).sum(axis=1)])
    return np.asarray(weights / weights.sum())
