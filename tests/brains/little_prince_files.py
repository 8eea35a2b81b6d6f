"""Tiny files in the layout of Le Petit Prince, average and people, with its traps, and what a reader must find in them.

Runs are as long as the real ones; the mask is small, with no two sides alike, and its middle plane is not empty. Words
come at a real pace; the row of each table that its publisher got wrong is there, at its own place.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import joblib
import nibabel
import numpy as np
import pandas as pd

SHAPE, AFFINE = (7, 4, 5), np.diag([4.0, 4, 4, 1])
AFFINE[:3, 3] = -12, -106, -64
TRS = {
    "en": [282, 298, 340, 303, 265, 343, 325, 292, 368],
    "cn": [283, 322, 322, 307, 293, 392, 364, 293, 401],
    "fr": [309, 326, 354, 315, 293, 378, 332, 294, 336],
}
#: Scans after the sound has ended; rows that are dropped; and words that are others.
TRAILING = {"en": 4, "cn": 0, "fr": 2}
DROPPED = {"en": [3919, 6775, 6781], "cn": [], "fr": [338, 1204, 3333]}
WRONG = {3332: "du", 3379: "quatre", 3405: "quatre", 4587: "d", 5325: "le"}
WRONG |= {5326: "premier", 5328: "habité", 11257: "Â", 12249: "ll"}
RIGHT = {3332: "de", 3379: "trois", 3405: "trois", 4587: "l", 5325: "la"}
RIGHT |= {5326: "première", 5328: "habitée", 11257: "À", 12249: "il"}
#: Rows without a word, and one whose word is the text NA; one that stands after a later one; one that ends too early.
EMPTY, NA, LATE, SHORT = 200, 300, 400, 500
ROIS = ("AG_TPJ", "BA44", "BA45", "BA47", "TP", "aSTS", "pSTS")
#: Numbers of the runs of two people: with gaps, and from below ten to above it. Volumes of theirs have voxels half as
#: wide; those of the second run from right to left, and are half of one further back.
PEOPLE = {"EN059": (7, 8, 9, 10, 11, 12, 13, 14, 17), "EN061": (9, 11, 12, 13, 14, 19, 20, 21, 22)}
FINE = (13, 9, 10)
#: Columns in which nothing varies: outside of a person's brain, and in one run alone, at another number than 0.
OUTSIDE, STUCK = ("EN059", 5), ("EN059", 20, 4)
#: Half of each run is loud: the response of voxels that follow it, 4 s later.
LAG = 4.0


@dataclass
class Truth:
    """What was written: (n_voxels, 3) places of the mask, words and onsets by run, responses, and r between halves."""

    places: np.ndarray
    words: list[list[str]] = field(default_factory=list)
    onsets: list[np.ndarray] = field(default_factory=list)
    responses: list[np.ndarray] = field(default_factory=list)
    halves: np.ndarray = field(default_factory=lambda: np.empty(0))
    rois: dict[str, np.ndarray] = field(default_factory=dict)  # bool (x, y, z), as published
    people: dict[str, list[np.ndarray]] = field(default_factory=dict)  # by run, (n_trs, n_voxels) before it is cleaned

    @property
    def follows(self) -> np.ndarray:
        """Which voxels follow the words: those at even y; on the left with less noise."""
        return self.places[:, 1] % 2 == 0


def dump(values: Any, path: Path, by: str = "gzip") -> None:
    """As joblib does: into a file whose name ends in .gz, or into a stream."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if by == "gzip":
        joblib.dump(values, path, compress=4)
    else:
        joblib.dump(values, stream := BytesIO(), compress=4)
        path.write_bytes(stream.getvalue())


def raw(path: Path) -> bytes:
    """The pickle of a file."""
    return zlib.decompressobj(47).decompress(path.read_bytes())


def put(pickled: bytes, path: Path) -> None:
    path.write_bytes(gzip.compress(pickled))


def table(language: str, rng: np.random.Generator) -> pd.DataFrame:
    """Words of all sections, in the published columns: loud and quiet parts of 20 to 40 s."""
    rows = []
    for section, n_trs in enumerate(TRS[language], 1):
        clock, end = 1.0, 2.0 * (n_trs - TRAILING[language]) - 1
        while clock < end:
            part = min(clock + rng.uniform(20, 40), end)
            for onset in np.arange(clock, part, 0.21):
                rows.append((f"w{len(rows)}", round(onset, 3), round(onset + 0.2, 3), section))
            clock = part + rng.uniform(15, 30)
    made = pd.DataFrame(rows, columns=["word", "onset", "offset", "section"])
    made.loc[DROPPED[language], "word"] = ["wrong"] * len(DROPPED[language])
    if language == "fr":
        made.loc[[*WRONG], "word"] = [*WRONG.values()]
        made.loc[1204, ["word", "onset", "offset"]] = None
    made.loc[EMPTY, "word"], made.loc[NA, "word"] = " ", "NA"
    made.loc[[LATE, LATE + 1], ["onset", "offset"]] = made.loc[[LATE + 1, LATE], ["onset", "offset"]].to_numpy()
    made.loc[SHORT, "offset"] = made.loc[SHORT, "onset"] - 0.1
    return made


def make(data: Path, language: str = "en", people: Sequence[str] = ()) -> Truth:
    """Write the files below `data`, and tell what is in them."""
    root, rng = data / "little-prince", np.random.default_rng(0)
    x, y, z = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    mask = (x + np.abs(2 * y - z) != 3) & (SHAPE[0] - 1 - x + np.abs(2 * y - z) != 3)  # as its mirror
    truth = Truth(np.argwhere(mask))
    root.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(mask.astype(np.uint8), AFFINE).to_filename(root / f"mask_lpp_{language}.nii.gz")
    for number, roi in enumerate(ROIS):
        # TP on the left alone, aSTS on the right alone; BA45 overlaps BA44.
        own = (y == 0) & (z == min(number, 4)) & (x != 3)
        truth.rois[roi] = own = {
            "TP": (y == 1) & (x < 3),
            "aSTS": (y == 2) & (x > 3),
            "BA45": own | (z == 1) & (y < 2),
        }.get(roi, own)
        (root / "roi_masks").mkdir(exist_ok=True)
        nibabel.Nifti1Image(own.astype(np.float32), AFFINE).to_filename(root / f"roi_masks/{roi}.nii.gz")
    words = table(language, rng)
    place = root / f"annotation/{language.upper()}/lpp{language.upper()}_word_information.csv"
    place.parent.mkdir(parents=True, exist_ok=True)
    words.assign(lemma="x").to_csv(place)
    good = words.drop(index=[*DROPPED[language], EMPTY])
    if language == "fr":
        good.loc[[*RIGHT], "word"] = [*RIGHT.values()]
    n = len(truth.places)
    noise = np.where(truth.places[:, 0] < 3, 0.5, 1.5)
    for section, n_trs in enumerate(TRS[language], 1):
        own = good[good["section"] == section].sort_values("onset")
        truth.words.append([*own["word"]])
        truth.onsets.append(own["onset"].to_numpy())
        middles = 2.0 * np.arange(n_trs) + 1
        loud = np.array([np.abs(own["onset"] + LAG - at).min() < 1 for at in middles])
        values = noise * rng.standard_normal((n_trs, n)) + np.outer(2.0 * loud, truth.follows)
        values = (values - values.mean(0)) / values.std(0)
        # Doubles and floats, C and Fortran order, by name and by stream.
        values = values.astype([np.float64, np.float32][section % 2])
        values = np.asfortranarray(values) if section % 3 == 0 else values
        truth.responses.append(values)
        by = ["gzip", "zlib"][section % 2]
        dump(values, root / f"lpp_{language}_average_subject/average_subject_run-{section - 1}.gz", by)
        for person in people:
            make_run(root, person, section, truth, loud, np.random.default_rng([section, int(person[2:])]))
    half = np.where(truth.follows, 0.4, -0.1)
    truth.halves = half + 0.01 * rng.standard_normal((10, n))
    dump(truth.halves, root / f"isc_10trials_{language}.gz")
    return truth


def make_run(root: Path, person: str, section: int, truth: Truth, loud: np.ndarray, rng: np.random.Generator) -> None:
    """Write a run of a person, with drift and a level that tells the place; between the mask's centres is noise."""
    n, (x, y, z) = len(loud), truth.places.T
    values = 1000 + 100 * x + 10 * y + z + np.outer(np.linspace(-80, 80, n), np.ones(len(x)))
    values = values + 5 * rng.standard_normal((n, len(x))) + np.outer(20.0 * loud, truth.follows)
    if person == OUTSIDE[0]:
        values[:, OUTSIDE[1]] = 0
    if (person, section) == (STUCK[0], STUCK[2]):
        values[:, STUCK[1]] = 1234.56
    volumes, affine = 1000 * rng.standard_normal((*FINE, n)), np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = AFFINE[:3, 3]
    if person == "EN059":
        volumes[2 * x, 2 * y, 2 * z] = values.T
    else:  # a centre lies between two of the voxels
        affine[0, 0], affine[0, 3], affine[1, 3] = -2, affine[0, 3] + 2 * (FINE[0] - 1), affine[1, 3] - 1
        apart = 30 * rng.standard_normal(values.T.shape)
        volumes[FINE[0] - 1 - 2 * x, 2 * y, 2 * z] = values.T - apart
        volumes[FINE[0] - 1 - 2 * x, 2 * y + 1, 2 * z] = values.T + apart
    truth.people.setdefault(person, []).append(values)
    name = f"sub-{person}_task-lppEN_run-{PEOPLE[person][section - 1]:02d}_space-MNIColin27_desc-preproc_bold.nii.gz"
    folder = root / f"derivatives/sub-{person}/func"
    folder.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(volumes.astype(np.float32), affine).to_filename(folder / name)
    (folder / f"._{name}").touch()  # as some file systems leave
    (folder / name.replace("space-MNIColin27_desc-preproc", "space-T1w_desc-raw")).touch()
