"""Real fMRI of people who listen to chapter 1 of Alice in Wonderland (Brennan et al. 2016, CC BY 4.0).

Six regions of interest, 362 TRs of 2 s; 28 people were published, of whom one is constant. Layout
below the folder of data, as published::

    alice2016/alice_stim_shared/*.TextGrid                      words with times
    alice2016/alice_data_shared/{6mm,10mm}/sNN-timecourses.txt  (362, 6)
    alice2016/alice_data_shared/sNN-rp_*.txt                    (372, 6) motion; ten volumes were dropped

References
----------
Brennan, Stabler, Van Wagenen, Luh, Hale (2016). Abstract linguistic structure correlates with
temporal activity during naturalistic comprehension. Brain and Language 157-158, 81-94.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from phaselab.brains import BrainData, DataMissing, drift_basis, regress_out, standardise
from phaselab.brains.signal import group_ceiling, inter_subject_correlation
from phaselab.stimuli import Interval, Run, Stimulus, convolve_events, read_textgrid
from phaselab.study import BrainSpec

ROIS = ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")
TR = 2.0
N_TRS = 362
#: Volumes discarded before the published responses begin; the motion files still have them.
DISCARDED = 10
#: Seconds of the TextGrid at which TR 0 begins.
START = DISCARDED * TR
#: Period, in seconds, above which drift is removed.
CUTOFF = 128.0
#: Intervals of the TextGrid that are no words: pauses, and stretches left without a label.
NOT_WORDS = ("sp", "")
#: A stretch of speech ends at a silence of at least this many seconds.
PAUSE = 0.25

FETCH = (
    "fetch the responses and stimulus of Brennan et al. 2016 (CC BY 4.0; a public copy is the folder "
    "brain-data/syntax-in-rnng of https://github.com/daandouwe/Thesis at commit ec54039b), put the folders "
    "alice_data_shared and alice_stim_shared in {folder}, and name its parent with --data or PHASELAB_DATA"
)

#: Closed-class words of the chapter's English: everything else counts as content.
# fmt: off
FUNCTION_WORDS = frozenset((
    "a", "an", "the", "this", "that", "these", "those", "some", "any", "no", "every", "each", "either",
    "neither", "all", "both", "such", "another", "other", "i", "me", "my", "you", "your", "he", "him",
    "his", "she", "her", "it", "its", "we", "us", "our", "they", "them", "their", "who", "whom", "whose",
    "which", "what", "myself", "yourself", "himself", "herself", "itself", "themselves", "one", "somebody",
    "nothing", "anything", "there", "here", "and", "or", "but", "nor", "so", "if", "as", "than", "because",
    "though", "although", "when", "while", "where", "how", "why", "whether", "then", "however", "of", "to",
    "in", "on", "at", "by", "for", "with", "from", "into", "onto", "upon", "about", "over", "under",
    "after", "before", "behind", "between", "through", "down", "up", "out", "off", "round", "around",
    "near", "along", "past", "among", "without", "like", "am", "is", "are", "was", "were", "be", "been",
    "being", "do", "does", "did", "done", "have", "has", "had", "having", "will", "would", "shall",
    "should", "can", "could", "may", "might", "must", "ought", "not", "never", "very", "too", "also",
    "just", "only", "even", "still", "yet", "again", "'s", "'d", "'ll", "'m", "'re", "'ve", "n't",
    "couldn't", "don't", "it's", "she'd", "oh",
))
# fmt: on


def load(spec: BrainSpec, data: Path | None) -> BrainData:
    """Responses of the usable subjects, or of the first ``spec.subjects`` of them.

    Slow drift (cosines of 128 s and longer) and six motion parameters are regressed out of each
    response, which is then z-scored. The one run is called ``alice``.

    The ceiling of a region is the same for every subject: see `group_ceiling`. It always comes from
    all usable subjects, also when fewer are asked for.

    Parameters
    ----------
    spec : `radius` and `subjects` are used.
    data : folder that has ``alice2016`` in it.

    Raises
    ------
    DataMissing
        When the folder or a file is not there: what to fetch, and where to put it.
    ValueError
        Naming the file that is not as published.
    """
    if data is None:
        raise DataMissing("alice: no folder of data given; " + FETCH.format(folder="DATA/alice2016"))
    folder = Path(data) / "alice2016"
    responses, left_out = read_responses(folder, spec.radius)
    if spec.subjects is not None and spec.subjects > len(responses):
        raise ValueError(f"brain.subjects: found {spec.subjects}, expected at most {len(responses)} (usable ones)")
    isc = inter_subject_correlation(responses)
    ceiling = group_ceiling(responses)
    if not ceiling.all():
        raise ValueError(
            f"{folder / 'alice_data_shared' / spec.radius}: responses do not correlate between subjects in "
            f"{', '.join(roi for roi, value in zip(ROIS, ceiling, strict=True) if not value)}: expected a "
            "shared response, which gives a region its ceiling"
        )
    used = tuple(responses)[: spec.subjects]
    run = read_stimulus(folder)
    numbers = ", ".join(f"{roi} {value:.2f}" for roi, value in zip(ROIS, isc.mean(axis=0), strict=True))
    return BrainData(
        name="alice",
        simulated=False,
        description=(
            f"fMRI of {len(used)} people who listen to 12 minutes of Alice in Wonderland, six regions of "
            f"{spec.radius} radius (Brennan et al. 2016, CC BY 4.0)"
        ),
        stimulus=Stimulus("alice", (run,)),
        responses={subject: {run.name: responses[subject]} for subject in used},
        rois={subject: np.array(ROIS) for subject in used},
        ceiling={subject: ceiling for subject in used},
        ceiling_kind=(
            "estimated, one value a region: mean leave-one-out inter-subject correlation, corrected for the "
            "noise in the mean of the others"
        ),
        nuisance={run.name: _nuisance(run)},
        nuisance_names=("word rate", "letters"),
        notes=(*left_out, f"Leave-one-out inter-subject correlation, mean over subjects: {numbers}."),
    )


def read_responses(folder: Path, radius: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Cleaned responses, subject -> float32 (362, 6), and a note on each subject left out."""
    shared = folder / "alice_data_shared"
    files = sorted((shared / radius).glob("s*-timecourses.txt"))
    if not files:
        raise DataMissing(f"{shared / radius}: no sNN-timecourses.txt; " + FETCH.format(folder=folder))
    responses: dict[str, np.ndarray] = {}
    left_out = []
    for file in files:
        subject = file.name.split("-")[0]
        raw = _read_numbers(file, N_TRS)
        constant = [roi for roi, column in zip(ROIS, raw.T, strict=True) if np.ptp(column) == 0]
        if constant:
            left_out.append(f"{subject} left out: its response is constant in {', '.join(constant)}.")
            continue
        motion_files = sorted(shared.glob(f"{subject}-rp_*.txt"))
        if len(motion_files) != 1:
            raise DataMissing(
                f"{shared}: {subject}-rp_*.txt: found {len(motion_files)} files of motion, expected 1; "
                + FETCH.format(folder=folder)
            )
        motion = _read_numbers(motion_files[0], N_TRS + DISCARDED)[DISCARDED:]
        # Scaled, so that radians and millimetres weigh the same in the rank decision of least squares.
        scaled = motion / np.maximum(np.abs(motion).max(axis=0), np.finfo(float).tiny)
        clean = regress_out(raw - raw.mean(axis=0), np.hstack([drift_basis(N_TRS, TR, CUTOFF), scaled]))
        responses[subject] = standardise(clean)
    if len(responses) < 3:
        raise ValueError(f"{shared / radius}: found {len(responses)} usable subjects, expected at least 3")
    return responses, tuple(left_out)


def _read_numbers(file: Path, rows: int) -> np.ndarray:
    """A table of `rows` by 6 finite numbers without header; ValueError naming the file otherwise."""
    try:
        table = np.loadtxt(file, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{file}: expected {rows} rows of 6 numbers: {error}") from error
    if table.shape != (rows, len(ROIS)):
        raise ValueError(f"{file}: found {table.shape[0]} rows of {table.shape[1]}, expected {rows} rows of 6")
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise ValueError(f"{file}: row {row + 1}, column {column + 1}: found {table[row, column]}, expected a number")
    return table


def read_stimulus(folder: Path) -> Run:
    """The words of the chapter on the TR grid, with the labels that the words themselves give.

    Labels: `word`; `pos_class` (function or content, by a closed list) and `previous_pos_class` (of the
    word before, which a model can only know from context); `word_length` (short, medium, long: at most
    3, at most 5, more letters); `frequency` in the chapter (rare: at most 3 times; common: at most 20;
    frequent); `sentence_position`, where the word stands in its stretch between silences of at least
    0.25 s (early, mid, late thirds), since the TextGrid has no punctuation.
    """
    shared = folder / "alice_stim_shared"
    files = sorted(shared.glob("*.TextGrid"))
    if not files:
        raise DataMissing(f"{shared}: no *.TextGrid; " + FETCH.format(folder=folder))
    file = files[0]
    tiers = read_textgrid(file)
    if "word" not in tiers:
        raise ValueError(f"{file}: found tiers {', '.join(tiers)}, expected one called 'word'")
    words = [interval for interval in tiers["word"] if interval.text not in NOT_WORDS]
    outside = [w for w in words if not START <= w.start < START + N_TRS * TR]
    if outside:
        raise ValueError(
            f"{file}: line {outside[0].line}: found {outside[0].text!r} at {outside[0].start:g} s, "
            f"expected words from {START:g} to {START + N_TRS * TR:g} s"
        )
    starts = np.zeros(len(words), dtype=bool)
    starts[0] = True
    return Run(
        name="alice",
        texts=tuple(word.text for word in words),
        onsets=np.array([word.start for word in words]) - START,
        offsets=np.array([word.end for word in words]) - START,
        tr=TR,
        n_trs=N_TRS,
        labels=_labels(words),
        starts=starts,
    )


def _labels(words: list[Interval]) -> pd.DataFrame:
    text = pd.Series([word.text for word in words], dtype="str")
    lower = text.str.lower()
    letters = lower.str.replace(r"[^a-z]", "", regex=True).str.len()
    times = lower.map(lower.value_counts())
    pos = pd.Series(np.where(lower.isin(FUNCTION_WORDS), "function", "content"), dtype="str")
    silences = np.array([after.start - word.end for word, after in pairwise(words)])
    stretch = np.concatenate([[0], np.cumsum(silences >= PAUSE)])
    place = pd.Series(stretch).groupby(stretch).transform(lambda s: (np.arange(len(s)) + 0.5) / len(s))
    return pd.DataFrame(
        {
            "word": text,
            "pos_class": pos,
            "previous_pos_class": pos.shift(fill_value="none"),
            "word_length": _classes(letters, (3, 5), ("short", "medium", "long")),
            "frequency": _classes(times, (3, 20), ("rare", "common", "frequent")),
            "sentence_position": _classes(place, (1 / 3, 2 / 3), ("early", "mid", "late")),
        }
    )


def _classes(values: pd.Series, bounds: tuple[float, float], names: tuple[str, str, str]) -> pd.Series:
    """The first name up to and with the first bound, the second up to and with the second, else the third."""
    return pd.Series(np.array(names)[np.searchsorted(bounds, values.to_numpy(dtype=float))], dtype="str")


def _nuisance(run: Run) -> np.ndarray:
    """Words and letters a TR, convolved with the canonical response; float32 (n_trs, 2)."""
    return convolve_events(run, np.array([[1, len(text)] for text in run.texts], dtype=float))
