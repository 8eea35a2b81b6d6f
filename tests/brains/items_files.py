"""Tiny files as Brain-Score packages them: netCDF-4 (HDF5) with text as bytes, and people who lack an experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

NAMES = {"Pereira2018": "Pereira2018_language", "Tuckute2024": "Tuckute2024_language", "Blank2014": "Blank2014_fROI"}
NAMES |= {"Fedorenko2016": "Fedorenko2016_language"}


@dataclass
class Truth:
    """What was written: responses (texts, voxels), texts with what is known of them, and the person of each voxel."""

    values: np.ndarray
    texts: list[str]
    coordinates: dict[str, list[object]] = field(default_factory=dict)
    subjects: list[str] = field(default_factory=list)


def write(path: Path, values: np.ndarray, texts: dict[str, list[object]], voxels: dict[str, list[object]]) -> None:
    """Variable ``data`` with two empty dimensions, and a variable for each coordinate; text is of variable length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, n in zip(("presentation", "neuroid"), values.shape, strict=True):
            file[name] = np.zeros(n, np.float32)
            file[name].make_scale(f"This is a netCDF dimension but not a netCDF variable. {n:9d}")
        data = file.create_dataset("data", data=values, compression="gzip")
        for axis, name in enumerate(("presentation", "neuroid")):
            data.dims[axis].attach_scale(file[name])
        data.attrs["coordinates"] = " ".join((*texts, *voxels))
        for dimension, own in (("presentation", texts), ("neuroid", voxels)):
            for name, content in own.items():
                text = isinstance(content[0], str)
                made = [str(one).encode() for one in content] if text else np.array(content)
                file.create_dataset(name, data=made, dtype=h5py.string_dtype() if text else None)
                file[name].dims[0].attach_scale(file[dimension])


def pereira(data: Path) -> Truth:
    """Two experiments of passages, which lie apart in the file; ``c`` did one alone, ``d`` none; of ``b`` one voxel is
    NaN in a single sentence; the passages of both experiments have the same names.
    """
    rng, texts, experiments, passages = np.random.default_rng(0), list[str](), list[str](), list[str]()
    for turn in range(4):
        for experiment, n in (("384sentences", 12), ("243sentences", 10)):
            for passage in range(n):
                long = " ".join(rng.choice(["dog", "sees", "tree", "and", "naïve"], rng.integers(4, 12)))
                texts.append(f"{experiment[:3]} {passage} {turn} {long}.")
                experiments.append(experiment)
                passages.append(f"topic {passage}")
    subjects = ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d"] * 2
    words = np.array([len(text.split()) for text in texts], dtype=float)
    values = rng.standard_normal((len(texts), len(subjects)))
    values[:, ::2] += 1.5 * (words - words.mean())[:, None]
    one = np.array(experiments) == "384sentences"
    values[one[:, None] & (np.array(subjects) == "c")] = np.nan
    values[:, np.array(subjects) == "d"] = np.nan
    values[3, 6] = np.nan
    of_texts: dict[str, list[object]] = {
        "stimulus": [*texts], "stimulus_id": [*range(len(texts))], "experiment": [*experiments],
        "passage_label": [*passages],
    }  # fmt: skip
    of_voxels: dict[str, list[object]] = {"subject": [*subjects], "neuroid_id": [*range(len(subjects))]}
    write(data / f"brainscore/assy_{NAMES['Pereira2018']}.nc", values.astype(np.float32), of_texts, of_voxels)
    return Truth(values.astype(np.float32), texts, of_texts, subjects)


def blank(data: Path) -> Truth:
    """Three stories, whose parts are not in their order in the file."""
    rng, rows = (
        np.random.default_rng(1),
        [(s, n, p) for s in ("Boar", "Elvis", "Tulips") for n in range(6) for p in (0, 1)],
    )
    rng.shuffle(rows)
    rows = [(str(story), int(number), int(part)) for story, number, part in rows]
    texts = [f"{story} {number} {part} " for story, number, part in rows]
    of_texts: dict[str, list[object]] = {
        "stimulus": [*texts], "story": [row[0] for row in rows], "sentence_number_in_story": [row[1] for row in rows],
        "part_number_in_sentence": [row[2] for row in rows],
    }  # fmt: skip
    of_voxels: dict[str, list[object]] = {"subject_id": ["061", "061", "085", "085"]}
    of_voxels["fROI_area"] = ["03_LH_IFG", "09_RH_IFG"] * 2
    values = rng.standard_normal((len(rows), 4))
    write(data / f"brainscore/assy_{NAMES['Blank2014']}.nc", values, of_texts, of_voxels)
    return Truth(values, texts, of_texts, ["061", "061", "085", "085"])


def tuckute(data: Path) -> Truth:
    """Sentences that belong to no passage, and a single column."""
    rng = np.random.default_rng(2)
    texts = [f"sentence {n} of many" for n in range(60)]
    of_texts: dict[str, list[object]] = {"stimulus": [*texts], "stimulus_id": [*range(60)], "cond": ["B"] * 60}
    of_voxels: dict[str, list[object]] = {"subject_UID": ["848-853"], "roi": ["lang_LH_netw"], "neuroid_id": [1]}
    values = rng.standard_normal((60, 1))
    write(data / f"brainscore/assy_{NAMES['Tuckute2024']}.nc", values, of_texts, of_voxels)
    return Truth(values, texts, of_texts, ["848-853"])


def fedorenko(data: Path) -> Truth:
    """Words of sentences; people are numbers."""
    rng = np.random.default_rng(3)
    texts = [f"S{sentence}W{word}" for sentence in range(5) for word in range(8)]
    of_texts: dict[str, list[object]] = {
        "stimulus": [*texts], "word": [*texts], "word_num": [*range(8)] * 5, "sentence_id": [n // 8 for n in range(40)],
    }  # fmt: skip
    of_voxels: dict[str, list[object]] = {"subject_UID": [1, 1, 2], "electrode": [0, 1, 2]}
    values = rng.standard_normal((40, 3))
    write(data / f"brainscore/assy_{NAMES['Fedorenko2016']}.nc", values, of_texts, of_voxels)
    return Truth(values, texts, of_texts, ["1", "1", "2"])


MAKE = {"Pereira2018": pereira, "Blank2014": blank, "Tuckute2024": tuckute, "Fedorenko2016": fedorenko}
