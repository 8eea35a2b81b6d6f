"""A simulated brain: responses made from the known latents of held-out narratives, and from no language model.

Each vertex follows five kinds of latents (`LATENTS`), one of them dominant. Only the word latents can be read off the
words themselves: the others have to be carried along from earlier ones. Noise, and so the ceiling, is known.
"""

from itertools import product
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.linalg import toeplitz

from phaselab.brains.base import BrainData, Group, brain
from phaselab.brains.signal import drift_basis, standardise, without_drift
from phaselab.errors import expect, number_of
from phaselab.stimuli import Run, Stimulus, convolve, convolve_events, resample
from phaselab.study import BrainSpec
from phaselab.texts.world import NOBODY, PUNCTUATION, UNKNOWN, narratives

#: Seconds of a word (a part that all have, and one per letter), of marks of punctuation, and between narratives.
WORD_SECONDS, LETTER_SECONDS, PAUSES, BETWEEN = 0.14, 0.05, {".": 0.5, ",": 0.2}, 1.5
#: Period, in seconds, from which on drift is removed: longer than narratives, so that the signal stays.
CUTOFF = 300.0
#: Least and greatest ceiling drawn for a vertex; share of its signal variance that comes from its region's own latents.
CEILINGS, DOMINANT = (0.35, 0.85), (0.75, 0.9)
#: Of what is left, the weight of the word latents (others: about 1); s.d. of the subjects' haemodynamic delay, seconds.
WORD_REST, DELAY_SD = 0.1, 0.3


class SimulatedSpec(BrainSpec):
    """Section ``brain`` of a study with this brain: ``minutes`` of all runs together, ``tr`` in seconds."""

    simulated: ClassVar[bool] = True
    name: Literal["simulated"] = "simulated"
    subjects: int = Field(default=3, ge=1, le=1000)
    runs: int = Field(default=4, ge=2, le=1000)
    minutes: float = Field(default=20.0, gt=0, le=10**5)
    tr: float = Field(default=2.0, ge=0.1, le=60)
    vertices: int = Field(default=160, ge=8)


class Latents(NamedTuple):
    """Latents that one region, ``sim-<name>``, follows."""

    name: str
    window: float  # seconds of the exponential window over which they are integrated; 0 for none
    categories: dict[str, int]  # label -> number of dimensions into which its values are embedded at random
    values: tuple[str, ...]  # labels that are numbers already
    share: float  # of all vertices
    seed: tuple[float, float, float]  # mm on the right by the pial surface, about which the patch lies


LATENTS = (
    Latents("word", 0.0, {"word_class": 1}, ("length", "pronoun", "sentence_onset"), 0.14, (62.0, -22.0, 6.0)),
    Latents("entity", 2.0, {"who": 2, "holder": 2}, (), 0.2, (52.0, -58.0, 22.0)),
    Latents("scene", 4.0, {"place": 2, "object": 1}, (), 0.2, (38.0, -78.0, 22.0)),
    Latents("emotion", 6.0, {"mood": 2}, ("valence",), 0.18, (48.0, 28.0, 4.0)),
    Latents("narrative", 10.0, {"goal": 2}, ("progress",), 0.18, (8.0, -58.0, 34.0)),
)
#: The last region is the negative control, which carries no signal and has the vertices that are left.
REGIONS, NOISE_SEED = (*(f"sim-{latents.name}" for latents in LATENTS), "sim-noise"), (36.0, 36.0, 34.0)
#: TRs of a run, whose noise has a covariance of the square of it.
MOST_TRS = 10_000


@brain("simulated", SimulatedSpec, version=1, stimulus=("seed", "runs", "minutes", "tr"))
def load(section: SimulatedSpec, data: Path | None = None) -> BrainData:
    """Simulate the responses of a study; the same `section` gives the same numbers.

    The response of vertex v is ``D (sum_g sqrt(share_vg) S_g w_vg + noise_v)``, z-scored per run: S_g (n_trs, d_g) are
    the latents g after integration and convolution, w_vg random weights scaled to unit variance, and D takes out the
    mean and the cosines of 300 s and longer. Ceiling: ``sqrt(V_s / (V_s + V_n))``, mean over runs, V_s being the
    variance of the noiseless response and V_n the expected one of the noise, both after D.
    """
    seed, n_trs = section.seed, round(section.minutes * 60 / section.runs / section.tr)
    found = f"{section.minutes:g} for {number_of(section.runs, 'run')}"
    expect(n_trs * section.tr >= 60, "brain.minutes", found, "at least 1 minute a run")
    expect(n_trs <= MOST_TRS, "brain.minutes", f"{found} of TRs of {section.tr:g} s", f"at most {MOST_TRS} TRs a run")
    vertices, rois = patches(section.vertices)
    stimulus = present(seed, section.runs, n_trs, section.tr)
    names = tuple(run.name for run in stimulus.runs)
    sources = [integrated(stimulus, of, np.random.default_rng([seed, 1, g])) for g, of in enumerate(LATENTS)]
    random = {f"sub-{number + 1:02d}": np.random.default_rng([seed, 2, number]) for number in range(section.subjects)}
    made = {subject: simulate(stimulus, sources, rois, rng) for subject, rng in random.items()}
    latents = np.hstack([_responses(stimulus, source, 0.0) for source in sources]).astype(np.float32)
    events = ["spoken", "letters", "sentence_onset"]
    return BrainData(
        name="simulated",
        description=f"Simulated responses of {number_of(len(made), 'subject')} to {number_of(len(names), 'run')} of "
        f"generated narratives, {section.vertices} vertices of fsaverage5 each",
        stimulus=stimulus,
        groups=(Group(tuple(made), names),),
        read=lambda subject, run: made[subject][0][run],
        rois=dict.fromkeys(made, rois),
        ceiling={subject: ceiling for subject, (_, ceiling) in made.items()},
        ceiling_kind="known: the expected correlation of the simulated response with its noiseless part",
        nuisance={run.name: convolve_events(run, word_labels(run)[events].to_numpy(float)) for run in stimulus.runs},
        vertices=dict.fromkeys(made, vertices),
        latents=dict(zip(names, np.split(latents, len(names)), strict=True)),
        notes=(
            "Simulated: the regions' names say which latents they follow, not what the cortex does there.",
            "sim-noise carries no signal: its scores show what chance gives.",
        ),
    )


def present(seed: int, n_runs: int, n_trs: int, tr: float) -> Stimulus:
    """Held-out narratives at a natural pace (about 2.5 words per second); a run's last is cut. Labels: the world's."""
    length, runs, told = n_trs * tr, [], enumerate(narratives(seed))
    for index in range(n_runs):
        clock, heard = 0.0, []
        while clock < length:
            number, labels = next(told)
            seconds = labels["word"].map(lambda w: PAUSES.get(w, WORD_SECONDS + LETTER_SECONDS * len(w)))
            offset = clock + seconds.cumsum()
            timed = labels.assign(narrative=number, onset=offset - seconds, offset=offset, start=labels.index == 0)
            heard.append(timed[offset <= length])
            clock = offset.iloc[-1] + BETWEEN
        table = pd.concat(heard, ignore_index=True)
        onsets, offsets, starts = (table.pop(column).to_numpy() for column in ("onset", "offset", "start"))
        runs.append(Run(f"run-{index + 1}", tuple(table["word"]), onsets, offsets, tr, n_trs, table, starts))
    return Stimulus("simulated", tuple(runs))


def word_labels(run: Run) -> pd.DataFrame:
    """Labels of a run, and what the word latents follow: `word_class`, and numbers of about unit size."""
    labels, word = run.labels, run.labels["word"]
    spoken = ~word.isin(PUNCTUATION)
    classes = pd.Series("other", index=labels.index, dtype="str")
    for name, label in (("place", "place"), ("object", "object"), ("mood", "mood"), ("name", "who")):
        classes = classes.mask(word.isin(set(labels[label]) - {UNKNOWN, NOBODY}), name)
    classes = classes.mask(labels["pronoun"], "pronoun").mask(~spoken, UNKNOWN)
    first = (labels[["sentence", "narrative"]].diff() != 0).any(axis=1).astype(float)
    letters = word.str.len().where(spoken, 0)
    length = ((letters - 4.0) / 2.0).where(spoken, 0.0)
    # How far the story is runs from 0 to 1: centred as the other latents are.
    labels = labels.assign(progress=2 * labels["progress"] - 1, word_class=classes, spoken=spoken, letters=letters)
    return labels.assign(length=length, sentence_onset=first)


def integrated(stimulus: Stimulus, latents: Latents, rng: np.random.Generator) -> list[np.ndarray]:
    """Latents at each word of each run, (n_texts, d), integrated over their window.

    A category is coded one-hot and embedded at random, with the mean over its values taken out, so that silence and
    what is unknown (both 0) do not stand apart. A value heard in a single narrative is 0 too: it would be that one's
    mark. The window, ``m_i = a m_(i-1) + (1 - a) x_i`` with ``a = exp(-dt / window)``, begins anew with each narrative.
    """
    table, codes = pd.concat(map(word_labels, stimulus.runs)), []
    for label, dimensions in latents.categories.items():
        heard = table.groupby(label)["narrative"].nunique()
        values = sorted(set(heard[heard >= 2].index) - {UNKNOWN})
        embedding = rng.standard_normal((len(values), dimensions))
        embedding -= embedding.mean(axis=0) if values else 0.0
        codes.append((table[label].to_numpy()[:, None] == np.array(values, dtype=object)).astype(float) @ embedding)
    codes += [table[[label]].to_numpy(dtype=float) for label in latents.values]
    parts = np.split(np.hstack(codes), np.cumsum([len(run.texts) for run in stimulus.runs])[:-1])
    for part, run in zip(parts, stimulus.runs, strict=True) if latents.window else ():
        passed = np.where(run.starts, run.offsets - run.onsets, np.diff(run.onsets, prepend=0.0))
        state = np.zeros(part.shape[1])
        for index, (keep, start) in enumerate(zip(np.exp(-passed / latents.window), run.starts, strict=True)):
            part[index] = state = (0.0 if start else keep) * state + (1 - keep) * part[index]
    return parts


def _responses(stimulus: Stimulus, source: list[np.ndarray], delay: float) -> np.ndarray:
    """Sources of each run on the TR grid of all, convolved, without drift; each column of unit power."""
    of_runs = zip(source, stimulus.runs, strict=True)
    parts = [without_drift(convolve(resample(part, run), run.tr, delay), run.tr, CUTOFF) for part, run in of_runs]
    series = np.concatenate(parts)
    return np.asarray(series * _inverse_root(series))


def _inverse_root(series: np.ndarray) -> np.ndarray:
    """1 / sqrt(power), and 0 where nothing is (a latent that a very short stimulus never shows)."""
    power = np.mean(series**2, axis=0)
    return np.where(power > 0, 1 / np.sqrt(np.where(power > 0, power, 1.0)), 0.0)


def patches(n_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Contiguous patches of fsaverage5, a region and hemisphere; vertex indices (right: + 10242) and region names."""
    from nilearn.datasets import load_fsaverage  # here: it takes a second; the surface comes with it

    meshes = load_fsaverage("fsaverage5")
    pial, sphere = ([meshes[name].parts[side].coordinates for side in ("left", "right")] for name in ("pial", "sphere"))
    n_side, fewest = len(pial[0]), 2 * len(REGIONS)
    expect(fewest <= n_vertices <= 2 * n_side, "brain.vertices", n_vertices, f"{fewest} to {2 * n_side}")
    # Whole numbers in proportion to the shares, at least 1 each, by largest remainder.
    shares = [latents.share for latents in LATENTS]
    each = np.repeat([*shares, 1 - sum(shares)], 2) / 2
    rest = (n_vertices - len(each)) * each / each.sum()
    sizes = 1 + np.floor(rest).astype(int)
    sizes[np.argsort(np.floor(rest) - rest, kind="stable")[: n_vertices - sizes.sum()]] += 1
    vertices, taken = [], np.zeros((2, n_side), dtype=bool)
    places = product((*(latents.seed for latents in LATENTS), NOISE_SEED), (0, 1))
    for (seed, side), size in zip(places, sizes, strict=True):
        # It grows about the vertex of the pial surface nearest to the region's seed, by distance on the sphere.
        centre = np.argmin(np.linalg.norm(pial[side] - np.array(seed) * (2 * side - 1, 1, 1), axis=1))
        distance = np.linalg.norm(sphere[side] - sphere[side][centre], axis=1)
        patch = np.sort(np.argsort(np.where(taken[side], np.inf, distance), kind="stable")[:size])
        taken[side][patch] = True
        vertices.append(patch + side * n_side)
    return np.concatenate(vertices), np.repeat(np.repeat(np.array(REGIONS), 2), sizes)


def _shares(region: str, rng: np.random.Generator) -> np.ndarray:
    """Share of a vertex's signal variance by latents, (n,), sum 1; zeros in the noise region."""
    if region == REGIONS[-1]:
        return np.zeros(len(LATENTS))
    own, dominant = np.array(REGIONS[:-1]) == region, rng.uniform(*DOMINANT)
    weights = np.array([WORD_REST if name == "sim-word" else rng.uniform(0.5, 1.5) for name in REGIONS[:-1]])
    rest = np.where(own, 0, weights)
    return np.where(own, dominant, (1 - dominant) * rest / rest.sum())


def simulate(
    stimulus: Stimulus, sources: list[list[np.ndarray]], rois: np.ndarray, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One subject: responses, run -> float32 (n_trs, n_vertices), and ceiling, float32 (n_vertices,)."""
    run, n_runs = stimulus.runs[0], len(stimulus.runs)
    delay, autocorrelation = float(rng.normal(0, DELAY_SD)), float(rng.uniform(0.15, 0.35))
    heard = [_responses(stimulus, source, delay) for source in sources]
    shares = np.array([_shares(region, rng) for region in rois])  # (n_vertices, n_latents)
    target = rng.uniform(*CEILINGS, size=len(rois))
    whole = np.zeros((stimulus.n_trs, len(rois)))
    for of, share in zip(heard, shares.T, strict=True):
        part = of @ rng.standard_normal((of.shape[1], len(rois)))
        whole += np.sqrt(share) * _inverse_root(part) * part
    signal = whole.reshape(n_runs, run.n_trs, len(rois))
    # Noise is an AR(1) process of unit variance, and drift: a random slope and slow cosines.
    slope, basis = np.linspace(-1, 1, run.n_trs), drift_basis(run.n_trs, run.tr, CUTOFF)
    covariance = toeplitz(autocorrelation ** np.arange(run.n_trs)) + np.outer(slope, slope)
    covariance += run.n_trs * 0.1 * basis[:, 1:] @ basis[:, 1:].T
    noise = without_drift(np.linalg.cholesky(covariance) @ rng.standard_normal(signal.shape), run.tr, CUTOFF)
    power_s = (signal**2).mean(axis=1)  # (n_runs, n_vertices)
    power_n = (np.trace(covariance) - np.trace(basis.T @ covariance @ basis)) / run.n_trs
    # Noise of the size that gives the target over all runs; any size will do where there is no signal.
    mean_s = power_s.mean(axis=0)
    size = np.where(mean_s > 0, mean_s * (1 / target**2 - 1) / power_n, 1.0)
    ceiling = np.sqrt(power_s / (power_s + size * power_n)).mean(axis=0)
    responses = map(standardise, signal + np.sqrt(size) * noise)
    return dict(zip([run.name for run in stimulus.runs], responses, strict=True)), ceiling.astype(np.float32)
