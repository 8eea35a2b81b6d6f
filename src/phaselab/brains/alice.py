"""Real fMRI of people who listen to chapter 1 of Alice in Wonderland: six regions of interest, 362 TRs of 2 s.

Brennan, Stabler, Van Wagenen, Luh, Hale (2016). Abstract linguistic structure correlates with temporal activity during
naturalistic comprehension. Brain and Language 157-158, 81-94. CC BY 4.0. Layout, as published::

    alice2016/alice_stim_shared/*.TextGrid                      words with times
    alice2016/alice_data_shared/{6mm,10mm}/sNN-timecourses.txt  (362, 6)
    alice2016/alice_data_shared/sNN-rp_*.txt                    (372, 6) motion; ten volumes were dropped
    alice2016/alice_data_shared/sNN-sndpwr.txt                  (362,) sound power, convolved

Nuisance regressors (`NUISANCE`): what is known of the sound and of single words. An impulse at each word's onset, and
impulses as high as what is said of the word, less the mean, are convolved with the canonical response; sound power is
as published, the mean over subjects, whose series differ in the fourth digit. All are z-scored.
"""

import io
from functools import cache
from itertools import pairwise
from operator import not_
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from phaselab.brains.base import BrainData, Group, brain
from phaselab.brains.signal import drift_basis, group_ceiling, regress_out, standardise
from phaselab.data import data_missing
from phaselab.errors import PhaselabError, expect, number_of
from phaselab.files import read_text
from phaselab.lazy import Lazy
from phaselab.stats import refuse_gaps
from phaselab.stimuli import Run, Stimulus, convolve_events, read_textgrid
from phaselab.study import BrainSpec, Training
from phaselab.texts.books import BooksText, manifest_of
from phaselab.texts.predictable import predictability

ROIS = ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")
TR, N_TRS = 2.0, 362
#: Volumes discarded before the published responses begin, which the motion files still have: TR 0 begins after them.
DISCARDED = 10
START, END = DISCARDED * TR, (DISCARDED + N_TRS) * TR
#: Seconds: drift of a longer period is removed; a stretch of speech ends at a silence that is not shorter.
CUTOFF, PAUSE = 128.0, 0.25
#: Closed-class words of the chapter's English: everything else counts as content.
FUNCTION_WORDS = (
    "a an the this that these those some any no every each either neither all both such another other i me my you "
    "your he him his she her it its we us our they them their who whom whose which what myself yourself himself "
    "herself itself themselves one somebody nothing anything there here and or but nor so if as than because though "
    "although when while where how why whether then however of to in on at by for with from into onto upon about "
    "over under after before behind between through down up out off round around near along past among without like "
    "am is are was were be been being do does did done have has had having will would shall should can could may "
    "might must ought not never very too also just only even still yet again 's 'd 'll 'm 're 've n't couldn't don't "
    "it's she'd oh "
)
#: Regressors in order. Those of the corpus are there only where the study names one.
NUISANCE = ("word rate", "word length", "position in the passage", "sound power")
OF_CORPUS = ("log frequency in the training books", "surprisal of a trigram model of them")


class AliceSpec(BrainSpec):
    """Section ``brain`` of a study with these data; ``subjects``: the first so many usable ones, by default all.

    ``corpus``: ``books``, for nuisance regressors that say how frequent and how predictable words are in those books of
    them that models are trained on; without it there are none of these, whatever is in the folder of data.
    """

    name: Literal["alice"] = "alice"
    subjects: int | None = Field(default=None, ge=1)
    radius: Literal["6mm", "10mm"] = "6mm"
    corpus: Literal["books"] | None = Field(default=None, exclude_if=not_)


def files(section: AliceSpec, data: Path | None) -> dict[str, list[Path]]:
    """The TextGrid; time courses of all subjects, then their motion in the same order; sound power, the books' list."""
    folder = Path(data or "DATA") / "alice2016"

    def found(place: str, pattern: str, many: bool = False) -> list[Path]:
        paths = [path for path in sorted((folder / place).glob(pattern)) if path.name[0] != "."]
        if data is None or not paths:
            raise data_missing(f"{folder / place}: no {pattern}", "alice2016", data)
        expect(many or len(paths) == 1, f"{folder / place}: {pattern}", f"{len(paths)} files", "one")
        return paths

    responses = found(f"alice_data_shared/{section.radius}", "s*-timecourses.txt", many=True)
    motion = [found("alice_data_shared", f"{path.name.split('-')[0]}-rp_*.txt")[0] for path in responses]
    nuisance = [found("alice_data_shared", f"{path.name.split('-')[0]}-sndpwr.txt")[0] for path in responses]
    nuisance += [manifest_of(data)] if section.corpus else []
    return {"stimulus": found("alice_stim_shared", "*.TextGrid"), "responses": responses + motion, "nuisance": nuisance}


@brain("alice", AliceSpec, version=1, nuisance=("corpus",), files=files)
def load(section: AliceSpec, data: Path | None) -> BrainData:
    """Responses in one run, ``alice``: drift (cosines of 128 s and longer) and motion are regressed out, then z-scored.

    The ceiling of a region is the same for every subject (see `group_ceiling`), and comes from all of them always.
    """
    paths = files(section, data)
    responses, left_out = read_responses(paths["responses"])
    n = section.subjects or len(responses)
    expect(n <= len(responses), "brain.subjects", n, f"at most {len(responses)} (usable ones)")
    isc, ceiling = group_ceiling(responses)
    uncorrelated = f"responses that do not correlate between subjects in {', '.join(np.array(ROIS)[ceiling == 0])}"
    expect(ceiling.all(), str(paths["responses"][0].parent), uncorrelated, "a shared response, which gives a ceiling")
    used, run = tuple(responses)[:n], read_stimulus(paths["stimulus"][0])
    power = [file for file in paths["nuisance"] if file.name.split("-")[0] in responses]
    without = "" if section.corpus else f"; without {' and '.join(OF_CORPUS)}, which brain.corpus: books adds"
    known = f"Nuisance regressors: {', '.join(NUISANCE + OF_CORPUS * bool(section.corpus))}{without}."
    numbers = ", ".join(f"{roi} {value:.2f}" for roi, value in zip(ROIS, isc, strict=True))
    return BrainData(
        name="alice",
        description=f"fMRI of {number_of(n, 'person who listens', 'people who listen')} to 12 minutes of Alice in "
        f"Wonderland, six regions of {section.radius} radius (Brennan et al. 2016, CC BY 4.0)",
        stimulus=Stimulus("alice", (run,)),
        groups=(Group(used, (run.name,)),),
        read=lambda subject, _: responses[subject],
        rois=dict.fromkeys(used, np.array(ROIS)),
        ceiling=dict.fromkeys(used, ceiling),
        ceiling_kind="estimated, one value per region: mean leave-one-out inter-subject correlation, corrected for the "
        "noise in the mean of the others",
        # When asked for, and then kept: the corpus takes some ten seconds, and most who want the data do not need it.
        nuisance=Lazy((run.name,), cache(lambda _: regressors(run, power, data if section.corpus else None))),
        notes=(*left_out, f"Leave-one-out inter-subject correlation, mean over subjects: {numbers}.", known),
    )


def regressors(run: Run, power: list[Path], data: Path | None) -> np.ndarray:
    """Nuisance regressors, float32 (362, k), in the order of `NUISANCE`; with `data` those of the books in it too."""
    n = len(run.texts)
    said = np.column_stack([[len(text) for text in run.texts], np.linspace(0, 1, n)])
    if data:
        # Which of all books are held out, and what they say, depends on neither seed nor vocabulary.
        corpus = BooksText("en", 0, Training.model_fields["vocabulary"].default, data).books["training"]
        said = np.hstack([said, predictability(run.texts, corpus)])
    heard = convolve_events(run, np.column_stack([np.ones(n), said - said.mean(axis=0)]))
    loud = np.mean([_read_numbers(file, N_TRS, 1) for file in power], axis=0)
    return standardise(np.insert(heard, [len(NUISANCE) - 1], loud, axis=1))


def read_responses(paths: list[Path]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Cleaned responses, subject -> float32 (362, 6), and a note on each subject left out."""
    responses, left_out = {}, []
    for file, motion_file in zip(paths[: len(paths) // 2], paths[len(paths) // 2 :], strict=True):
        subject, raw = file.name.split("-")[0], _read_numbers(file, N_TRS)
        constant = [roi for roi, column in zip(ROIS, raw.T, strict=True) if np.ptp(column) == 0]
        if constant:
            left_out.append(f"{subject} left out: its response is constant in {', '.join(constant)}.")
            continue
        motion = _read_numbers(motion_file, N_TRS + DISCARDED)[DISCARDED:]
        # Scaled, so that radians and millimetres weigh the same in the rank decision of least squares.
        scaled = motion / np.maximum(np.abs(motion).max(axis=0), np.finfo(float).tiny)
        clean = regress_out(raw - raw.mean(axis=0), np.hstack([drift_basis(N_TRS, TR, CUTOFF), scaled]))
        responses[subject] = standardise(clean)
    expect(len(responses) >= 3, str(paths[0].parent), f"{len(responses)} usable subjects", "at least 3")
    return responses, left_out


def _read_numbers(file: Path, rows: int, columns: int = 6) -> np.ndarray:
    """A table of so many finite numbers without header."""
    text = io.StringIO(read_text(file))
    try:
        table = np.loadtxt(text, ndmin=2)
    except ValueError as error:
        raise PhaselabError(f"{file}: expected {rows} rows of {columns} numbers: {error}") from error
    found, right = ("{} rows of {}".format(*shape) for shape in (table.shape, (rows, columns)))
    expect(found == right, str(file), found, right)
    refuse_gaps(table, str(file), rows=range(1, 1 + rows), columns=range(1, 1 + columns))
    return table


def read_stimulus(file: Path) -> Run:
    """The words of the chapter on the TR grid, with the labels that the words themselves give.

    `previous_pos_class` is of the word before, which a model can only know from context; `frequency` counts words of
    the chapter; `sentence_position` is in a stretch between silences, since the TextGrid has no punctuation.
    """
    tiers = read_textgrid(file)
    expect("word" in tiers, str(file), f"tiers {', '.join(tiers)}", "one called 'word'")
    words = [interval for interval in tiers["word"] if interval.text not in ("sp", "")]  # pauses, and no label
    expect(words, str(file), "no word in tier 'word'", "one at least")
    for word in words:
        where, found = f"{file}: line {word.line}", f"{word.text!r} at {word.start:g} s"
        expect(START <= word.start < END, where, found, f"words from {START:g} to {END:g} s")
    onsets, offsets = np.array([[word.start, word.end] for word in words]).T - START
    labels = pd.DataFrame({"word": [word.text for word in words]}, dtype="str")
    lower = labels["word"].str.lower()
    labels["pos_class"] = np.where(lower.isin(FUNCTION_WORDS.split()), "function", "content")
    labels["previous_pos_class"] = labels["pos_class"].shift(fill_value="none")
    stretch = pd.Series([0, *np.cumsum([after.start - word.end >= PAUSE for word, after in pairwise(words)])])
    place = stretch.groupby(stretch).transform(lambda s: (np.arange(len(s)) + 0.5) / len(s))
    for name, values, bounds, names in (
        ("word_length", lower.str.count("[a-z]"), (3, 5), ("short", "medium", "long")),
        ("frequency", lower.map(lower.value_counts()), (3, 20), ("rare", "common", "frequent")),
        ("sentence_position", place, (1 / 3, 2 / 3), ("early", "mid", "late")),
    ):
        labels[name] = pd.cut(values, [-np.inf, *bounds, np.inf], labels=names).astype("str")
    return Run("alice", tuple(labels["word"]), onsets, offsets, TR, N_TRS, labels, np.arange(len(words)) == 0)
