"""Tiny files in the layout of OpenNeuro ds003020, with its traps, and what a reader must find in them.

Stories are as long as the real ones. In each somebody speaks now fast, now slowly or not at all, and half of the voxels
follow how many words there are, two TRs later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from phaselab.brains import stories

#: TRs of 2 s by which responses are later; seconds of a run before the sound; TRs that files lack on each side.
LAG, SILENCE, CUT = 2, 10.0, 10
TEST = "wheretheressmoke"
#: Story -> TRs of its run, of those that are made.
ALL = pd.read_csv(Path(stories.__file__).with_name("ds003020_stories.csv")).set_index("story")["trs"].to_dict()
STORIES = ("alternateithicatom", "life", "naked", "souls", TEST)
#: Subject -> voxels, repeats, stories that are not there.
SUBJECTS = {"UTS01": (40, 10, ()), "UTS04": (36, 5, ("life",))}
#: (subject, voxel) of what does not vary, and of what is no number.
CONSTANT, LOST = ("UTS01", 7), ("UTS04", 3)
#: What is between words, as it is written, and stories in Praat's short format, in UTF-16, with a CRLF.
NOISES = ("{SP}", "{LS}", "{BR}", "{NS_COUGH}", "", "sp", "{ns}", "{CG}", "{IG}", "{lg}", "SL")
SHORT, UTF16, CRLF = "life", "naked", "souls"
#: Names of the tiers, of which the words are in one called word, or in the second.
TIERS = {"souls": ("phone", "transcript", "dialogue"), TEST: ("phones", "Words")}
WORDS = ("the", "I", "CAT", "don't", 'says "hi"', "ns", "SPOKE")


@dataclass
class Truth:
    """What was written: words (text, onset, offset; seconds of the sound), and how many of them a row follows."""

    words: dict[str, list[tuple[str, float, float]]] = field(default_factory=dict)
    rate: dict[str, np.ndarray] = field(default_factory=dict)  # (rows,)
    true: dict[str, np.ndarray] = field(default_factory=dict)  # subject -> (n_voxels,) whether it follows


def make(data: Path, subjects: tuple[str, ...] = tuple(SUBJECTS), names: tuple[str, ...] = STORIES) -> Truth:
    """Write the files below `data`, and tell what is in them."""
    truth = Truth()
    for story in names:
        intervals, truth.words[story] = told(story)
        write_textgrid(data, story, intervals)
        # Row j is TR j + 10, which begins 2 (j + 10) - 10 s after the sound.
        begins = 2.0 * (np.arange(ALL[story] - 2 * CUT) + CUT - LAG) - SILENCE
        onsets = np.array([onset for _, onset, _ in truth.words[story]])
        truth.rate[story] = ((onsets >= begins[:, None]) & (onsets < begins[:, None] + 2)).sum(axis=1).astype(float)
    for subject in subjects:
        n, repeats, without = SUBJECTS[subject]
        truth.true[subject] = np.arange(n) % 2 == 0
        for story in names:
            if story not in without:
                respond(data, truth, subject, story, repeats)
    return truth


def told(story: str) -> tuple[list[tuple[str, float, float]], list[tuple[str, float, float]]]:
    """Intervals of the word tier, and the words in them."""
    rng, clock, end = np.random.default_rng(ALL[story]), 0.0, 2.0 * (ALL[story] - 10)
    intervals, words = [("sentence_start", 0.0, 0.1)], []
    clock, pace = 0.1, 0.3
    while True:
        if rng.random() < 0.12:
            pace = rng.choice([0.2, 0.4, 1.0, 3.0])  # seconds from word to word
        length = round(float(rng.uniform(0.08, 0.15)), 3)
        rest = round(float(pace * rng.uniform(0.8, 1.2)) - length, 3)
        if clock + length + rest > end - 2:
            return [*intervals, ("{sentence_end}", round(clock, 3), end)], words
        text = WORDS[rng.integers(len(WORDS))] if rng.random() < 0.5 else f"Word{len(words)}"
        if text == "ns":  # which is no word anywhere
            text = "{NS}"
        else:
            words.append((text.lower(), round(clock, 3), round(clock + length, 3)))
        intervals.append((text, round(clock, 3), round(clock + length, 3)))
        clock = round(clock + length, 3)
        if rest > 0.05:
            intervals.append((str(rng.choice(NOISES)), clock, round(clock + rest, 3)))
            clock = round(clock + rest, 3)


def write_textgrid(data: Path, story: str, intervals: list[tuple[str, float, float]]) -> None:
    """A tier of phones, one of words, and in some a third; as Praat writes them."""
    folder, end = data / "ds003020/derivative/TextGrids", intervals[-1][2]
    folder.mkdir(parents=True, exist_ok=True)
    names = TIERS.get(story, ("phone", "word"))
    phones = [(f"P{i}", on, off) for i, (_, on, off) in enumerate(intervals)]
    tiers = dict(zip(names, (phones, intervals, [("somebody", 0.0, end)]), strict=False))
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
    if story == SHORT:
        text = head + f"0\n{end}\n<exists>\n{len(tiers)}\n"
        for name, tier in tiers.items():
            text += f'"IntervalTier"\n"{name}"\n0\n{end}\n{len(tier)}\n'
            text += "".join(f"{on}\n{off}\n{quoted(label)}\n" for label, on, off in tier)
    else:
        text = head + f"xmin = 0 \nxmax = {end} \ntiers? <exists> \nsize = {len(tiers)} \nitem []: \n"
        for number, (name, tier) in enumerate(tiers.items(), 1):
            text += f'    item [{number}]:\n        class = "IntervalTier" \n        name = "{name}" \n'
            text += f"        xmin = 0 \n        xmax = {end} \n        intervals: size = {len(tier)} \n"
            for i, (label, on, off) in enumerate(tier, 1):
                text += f"        intervals [{i}]:\n            xmin = {on} \n            xmax = {off} \n"
                text += f"            text = {quoted(label)} \n"
    text = text.replace("\n", "\r\n") if story == CRLF else text
    (folder / f"{story}.TextGrid").write_bytes(text.encode("utf-16" if story == UTF16 else "utf-8"))


def quoted(label: str) -> str:
    return '"' + label.replace('"', '""') + '"'


def z(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=-2, keepdims=True)) / values.std(axis=-2, keepdims=True)


def respond(data: Path, truth: Truth, subject: str, story: str, repeats: int) -> None:
    """Write the responses of a subject: float64, contiguous, z-scored; of the test story with its repeats."""
    folder = data / f"ds003020/derivative/preprocessed_data/{subject}"
    folder.mkdir(parents=True, exist_ok=True)
    rng, follows = np.random.default_rng([ALL[story], int(subject[3:])]), truth.true[subject]
    signal = z(truth.rate[story][:, None]) * follows
    n = repeats if story == TEST else 1
    # Voxels of the test story differ in their noise, so that their ceilings do.
    scale = np.linspace(0.5, 3, len(follows)) if story == TEST else np.full(len(follows), 0.3)
    values = z(signal + scale * rng.standard_normal((n, *signal.shape)))
    for (whose, voxel), value in ((CONSTANT, 0.0), (LOST, np.nan)):
        if whose == subject:
            values[..., voxel] = value
    mean = values.mean(axis=0)
    spread = mean.std(axis=0)
    with h5py.File(folder / f"{story}.hf5", "w") as file:
        file["data"] = (mean - mean.mean(axis=0)) / np.where(spread > 0, spread, 1)
        if story == TEST:
            file["individual_repeats"] = values
            if subject == "UTS01":
                file["note"] = np.arange(3)  # something small besides
