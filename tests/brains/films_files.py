"""Tiny files in the layout of OpenNeuro ds005531, with its traps, and what a reader must find in them.

The runs are as long as the real ones; the volume is 4 x 5 x 6, all sides different, so that no mistake of order is
hidden. A film is a series of seconds, in which somebody speaks or not; a run repeats the last 20 s of the run before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat

NX, NY, NZ = 4, 5, 6
LAG, OVERLAP = 4, 20
#: A voxel's mean is this times 100 x + 10 y + z; response to speech, and noise.
SCALE, AMPLITUDE, NOISE = 90, 20.0, 5.0
#: Task -> run -> seconds, as published.
SECONDS = {
    "suits": {"01": 754, "02": 968, "03": 680},
    "bigbangtheory": {"01": 747, "02": 647, "03": 663, "04": 623},
    "dreamgirlsSess1": {"01": 764, "02": 821, "03": 817, "04": 592, "05": 1118},
    "dreamgirlsSess2": {"01": 691, "02": 883, "03": 684, "04": 1271},
}
DTYPES = {"S01": np.float32, "S02": np.int16}
TYPES = ("speechTranscription_EN", "speechTranscription", "objectiveAnnot50chara")
#: (subject, place in the mask) of the voxel that is constant.
CONSTANT = ("S01", 7)
#: Run whose annotation lacks its last line, has CRLF, has no final newline.
SHORT, CRLF, BARE = "suits_run-03", "suits_run-02", "suits_run-01"


@dataclass
class Truth:
    """What was written: voxels of the mask (from 1), and by run the seconds of the film, speech, and texts by type."""

    mask: np.ndarray
    first: dict[str, int] = field(default_factory=dict)
    speech: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, dict[str, list[list[str]]]] = field(default_factory=dict)
    signal: np.ndarray = field(default_factory=lambda: np.empty(0))  # (n_voxels,) whether it follows speech


def english(second: int) -> tuple[str, list[str]]:
    """A line of speech in English, and the texts in it."""
    word = f"w{second}"
    stamp = f"[{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}]"
    return [
        (f"{stamp}メイン#Mike:said {word}", [f"said {word}"]),
        (f"{stamp}メイン#Mike:said {word}/Rachel:yes {word}", [f"said {word}", f"yes {word}"]),
        (f"{stamp}メイン#Mike:at 3:15 said {word}", [f"at 3:15 said {word}"]),
        (f"{stamp}メイン#Mike:said [softly] {word}", [f"said [softly] {word}"]),
        (f"{stamp}メイン#Mike:said\u3000{word}", [f"said{word}"]),
        (f"{stamp}メイン#said {word}", [f"said {word}"]),
        (f"{stamp}said {word}", [f"said {word}"]),
        (f"メイン#Mike:said {word}", [f"said {word}"]),
        (f"{stamp}メイン#Mike:../Rachel:said {word}.", [f"said {word}."]),
    ][second % 9]


def nothing(second: int) -> str:
    return [f"[{second}]メイン#..", f"[{second}]メイン#.", f"[{second}]メイン#不明", f"[{second}]メイン#Mike:.."][
        second % 4
    ]


def japanese(second: int) -> tuple[str, list[str]]:
    return f"[{second}]メイン#マイク:はい\u3000{second}/レイチェル:ええ{second}", [f"はい{second}", f"ええ{second}"]


def objects(second: int) -> tuple[str, list[str]]:
    """Five annotators, on some lines four; one writes nothing, and one a bracket."""
    five = [f"男がいる{second}", f"机[白い]と椅子{second}", "..", f"部屋: {second}", f"窓{second}"]
    told = five[: 5 - second % 2]
    return f"[{second}]" + "/".join(told), [text for text in told if text != ".."]


def film(task: str, run: str) -> str:
    """What a run shows a part of; bigbangtheory has two episodes."""
    return task.replace("Sess1", "").replace("Sess2", "") + ("-2" if task == "bigbangtheory" and run > "02" else "")


def make(
    data: Path, subjects: tuple[str, ...] = ("S01", "S02"), tasks: tuple[str, ...] = tuple(SECONDS), lag: int = LAG
) -> Truth:
    """Write the files below `data`, and tell what is in them."""
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(np.arange(NX), np.arange(NY), np.arange(NZ), indexing="ij")
    means = SCALE * (100 * x + 10 * y + z)  # (x, y, z)
    flat = means.ravel(order="F").astype(float)  # as MATLAB does
    mask = np.sort(np.r_[1, 2 + rng.choice(NX * NY * NZ - 2, 38, replace=False), NX * NY * NZ])
    signal = np.arange(len(mask)) % 2 == 0
    truth, ends = Truth(mask, signal=signal), dict[str, int]()
    for task in tasks:
        for number, (run, n) in enumerate(SECONDS[task].items()):
            name = f"{task}_run-{run}"
            first = truth.first[name] = max(0, ends.get(film(task, run), 0) - OVERLAP)
            ends[film(task, run)] = first + n
            seconds = np.arange(first, first + n)
            # Somebody speaks for some seconds, and then nobody: the same in each showing.
            long = np.random.default_rng(abs(hash_of(film(task, run)))).integers(2, 9, 3000).cumsum()
            speech = np.searchsorted(long, seconds) % 2 == 0
            if name == SHORT:
                speech[-1] = False
            truth.speech[name] = speech
            annotate(data, truth, name, seconds, speech)
            for subject in subjects:
                respond(data, truth, (subject, task, run), flat, 2 * (number % 4), lag)
    for subject in subjects:
        folder = data / f"ds005531/derivatives/preprocessed_data/sub-{subject}"
        savemat(folder / "vset_100.mat", {"tvoxels": mask[:, None].astype(float)})
        place = data / f"ds005531/derivatives/localizer/sub-{subject}"
        place.mkdir(parents=True, exist_ok=True)
        stat = np.where(np.arange(len(mask)) % 10 == 4, 9.0, rng.uniform(-1, 1, len(mask)))
        stat[0] = np.nan
        savemat(place / f"sub-{subject}_froi_Language.mat", {"stat": stat[None]})
    return truth


def hash_of(name: str) -> int:
    return sum(ord(letter) * 7**place for place, letter in enumerate(name))


def annotate(data: Path, truth: Truth, name: str, seconds: np.ndarray, speech: np.ndarray) -> None:
    folder = data / "ds005531/derivatives/annotation"
    folder.mkdir(parents=True, exist_ok=True)
    truth.texts[name] = {}
    for kind, told in zip(TYPES, (english, japanese, objects), strict=True):
        pairs = [told(int(at)) if on else (nothing(int(at)), []) for at, on in zip(seconds, speech, strict=True)]
        if kind == TYPES[2]:
            pairs = [pair if pair[1] else ("[0]../../../../.", []) for pair in pairs]
        lines = [line for line, _ in pairs][: -1 if name == SHORT else None]
        end = "" if name == BARE else "\n"
        text = "\n".join(lines) + end
        text = text.replace("\n", "\r\n") if name == CRLF else text
        (folder / f"{name}_{kind}_each1sec.txt").write_bytes(text.encode())
        truth.texts[name][kind] = [texts for _, texts in pairs]


def respond(data: Path, truth: Truth, at: tuple[str, str, str], flat: np.ndarray, extra: int, lag: int) -> None:
    """Write the responses of a subject in a run: (n + extra, voxels), with a user block, as MATLAB 7.3 does."""
    subject, task, run = at
    folder = data / f"ds005531/derivatives/preprocessed_data/sub-{subject}"
    folder.mkdir(parents=True, exist_ok=True)
    speech = truth.speech[f"{task}_run-{run}"].astype(float)
    rng = np.random.default_rng([hash_of(task), int(run), int(subject[1:])])
    values = flat + NOISE * rng.standard_normal((len(speech) + extra, len(flat)))
    heard = AMPLITUDE * np.pad(speech, (lag, 0))[: len(speech)]
    values[: len(speech), truth.mask[truth.signal] - 1] += heard[:, None]
    values[len(speech) :] += 1000
    if subject == CONSTANT[0]:
        column = truth.mask[CONSTANT[1]] - 1
        values[:, column] = flat[column]
    path = folder / f"sub-{subject}_task-{task}_run-{run}.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset(
            "dataDT", data=values.round().astype(DTYPES[subject]) if subject == "S02" else values.astype(np.float32)
        )
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")
