"""fMRI of the average of people who listen to Le Petit Prince in English, Chinese or French: 9 runs, 94 min, TR 2 s.

Li et al. (2022), OpenNeuro ds003643 (CC0), averaged by Bonnasse-Gahot and Pallier (2024), who leave out 10 TRs at both
ends of a run, as ``features.trim`` and ``tail`` do.
"""

import pickletools
import re
import zlib
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from phaselab.brains.base import BrainData, Group, brain
from phaselab.data import published
from phaselab.errors import PhaselabError, expect, shown
from phaselab.files import read_bytes
from phaselab.results import numbers, read_table
from phaselab.stimuli import Run, Stimulus, convolve_events
from phaselab.study import BrainSpec

TR = 2.0
#: Scans of each run, as published, those after the end of the sound among them (en 4, fr 2, cn none).
TRS = {
    "en": (282, 298, 340, 303, 265, 343, 325, 292, 368),
    "cn": (283, 322, 322, 307, 293, 392, 364, 293, 401),
    "fr": (309, 326, 354, 315, 293, 378, 332, 294, 336),
}
#: Faulty rows of the tables of words, from 0: what was said there, "" for nothing.
FAULTY: dict[str, dict[int, str]] = {"en": dict.fromkeys((3919, 6775, 6781), ""), "cn": {}}
FAULTY["fr"] = dict.fromkeys((338, 1204, 3333), "") | {3332: "de", 3379: "trois", 3405: "trois", 4587: "l"}
FAULTY["fr"] |= {5325: "la", 5326: "première", 5328: "habitée", 11257: "À", 12249: "il"}
#: Bytes of a pickle before its array, at most.
HEADER = 4096
#: What is said, marks of protocol and memory aside, by the pickle that joblib writes of one array of real numbers.
ONE_ARRAY = re.compile(
    r"joblib\.numpy_pickle NumpyArrayWrapper EMPTY_TUPLE NEWOBJ EMPTY_DICT MARK subclass numpy ndarray "
    r"shape (\d+) (\d+) TUPLE2 order ([CF]) dtype numpy dtype (f[48]) (?:NEWFALSE NEWTRUE|0 1) TUPLE3 REDUCE MARK "
    r"3 ([<>]) NONE NONE NONE -1 -1 0 TUPLE BUILD allow_mmap NEW\w+(?: numpy_array_alignment_bytes \d+)? SETITEMS BUILD"
)


class LittlePrinceSpec(BrainSpec):
    """Section ``brain`` of a study with these data.

    ``voxels``: all of the mask, or ``reliable``: the quarter with the greatest published correlation between halves of
    the people (of a voxel and its mirror, mean). ``tail``: TRs left out at the end of each run.
    """

    name: Literal["little-prince"] = "little-prince"
    language: Literal["en", "cn", "fr"] = "en"
    subject: Literal["average"] = "average"
    voxels: Literal["all", "reliable"] = "all"
    tail: int = Field(default=10, ge=0, le=200)


def files(section: LittlePrinceSpec, data: Path | None) -> dict[str, list[Path]]:
    """The table of words; correlations between halves, nine runs, mask, and seven regions, in this order."""
    *others, words = published("little-prince", data, {"languages": section.language, "subjects": section.subject})
    return {"stimulus": [words], "responses": others}


@brain("little-prince", LittlePrinceSpec, version=1, stimulus=("language", "tail"), files=files)
def load(section: LittlePrinceSpec, data: Path | None) -> BrainData:
    """Responses as published, z-scored over whole runs, less ``tail``.

    Ceiling: root of 2 r / (1 + r) (Spearman 1910, Brown 1910), r of a half of the people with what a ridge predicts of
    it from all voxels of the other half, mean of ten draws: if anything too high. A region is a published mask or its
    mirror, on one side: ``L TP``; ``L rest`` is in none; ``unpaired``: in the middle, or without a mirror in the mask.
    """
    of, trs = files(section, data), TRS[section.language]
    (runs, changed), (isc, *others) = read_words(of["stimulus"][0], section), of["responses"]
    mirror, rois = regions(others[len(trs)], others[len(trs) + 1 :])
    n, order, names = len(mirror), np.arange(len(mirror)), tuple(run.name for run in runs)
    r = array_of(isc, (10, n)).mean(axis=0).clip(0)
    if section.voxels == "reliable":
        both = r + r[np.where(mirror < 0, order, mirror)]
        order = np.sort(np.argsort(-both, kind="stable")[: -(-n // 4)])

    @cache  # 0.3 GB for all: a run is read once, whatever is asked of it
    def read(_: str, run: str) -> np.ndarray:
        n_trs = trs[at := names.index(run)]
        values = array_of(others[at], (n_trs, n))[: n_trs - section.tail, order]
        for row, column in np.argwhere(~np.isfinite(values))[:1]:
            expect(False, f"{others[at]}: scan {row}, voxel {order[column]}", values[row, column], "a number")
        return values.astype(np.float32)

    return BrainData(
        name="little-prince",
        description=f"fMRI of an average listener of Le Petit Prince ({section.language}), {len(order)} voxels",
        stimulus=Stimulus("little-prince", runs),
        groups=(Group(("average",), names),),
        read=read,
        rois={"average": rois[order]},
        ceiling={"average": np.sqrt(2 * r / (1 + r))[order].astype(np.float32)},
        ceiling_kind="estimated from the published correlation between halves of the people (Spearman, Brown)",
        nuisance={run.name: convolve_events(run, np.c_[[1] * len(run.texts), [*map(len, run.texts)]]) for run in runs},
        notes=(changed, f"The last {section.tail} TRs of each run, and words that begin in them, are left out."),
    )


def read_words(path: Path, section: LittlePrinceSpec) -> tuple[tuple[Run, ...], str]:
    """The words of each run, one a section of the book, and what was not taken as it stands in the table."""
    table, trs, runs = read_table(path, "word", "onset", "offset", "section"), TRS[section.language], list[Run]()
    for name in ("onset", "offset", "section"):
        table[name] = numbers(table[name], f"{path}: {name}")
    other = dict.fromkeys(table.index[table["word"] == ""], "") | FAULTY[section.language]
    other = {row: word for row, word in other.items() if row in table.index}
    told = [f"{row} ({table['word'][row]!r}) {f'is {word!r}' if word else 'dropped'}" for row, word in other.items()]
    table.loc[[*other], "word"] = [*other.values()]
    table = table[table["word"] != ""]
    ends = table["section"].map({number: TR * n_trs for number, n_trs in enumerate(trs, 1)})
    for row in table.index[~(table["onset"].between(0, ends, inclusive="left") & np.isfinite(table["offset"]))]:
        found = {name: float(table[name][row]) for name in ("section", "onset", "offset")}
        expect(False, f"{path}: row {row}", found, f"section 1 to {len(trs)}, seconds in that section's own run")
    for number, n_trs in enumerate(trs, 1):
        own = table[(table["section"] == number) & (table["onset"] < TR * (n_trs - section.tail))]
        own = own.sort_values("onset", kind="stable").reset_index()
        expect(len(own), f"{path}: section {number}", "no word", "words of each section")
        late = own["index"][(own["index"].diff() < 0) | (own["offset"] < own["onset"])]
        told += [f"{row} put in order of onset, its end not before it" for row in late]
        said = tuple(own["word"]), own["onset"].to_numpy(), own[["onset", "offset"]].max(axis=1).to_numpy()
        runs.append(Run(f"section-{number}", *said, TR, n_trs - section.tail, own[["word"]], own.index == 0))
    return tuple(runs), f"{path.name}, rows from 0: {shown('; '.join(told), 2000) or 'all as they stand'}."


def regions(mask: Path, masks: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Of each voxel of `mask`, in C order of x, y, z: its mirror (-1: none), and its region; (n_voxels,) each."""
    from nilearn.image import resample_to_img  # here: it takes a second

    def read(path: Path) -> tuple[np.ndarray, bool]:
        try:
            image = resample_to_img(path, mask, "nearest", copy_header=True, force_resample=True)
            _, _, _ = image.shape
            within = image.get_fdata() != 0
        except Exception as error:  # nibabel has many kinds, and they name neither file nor format
            raise PhaselabError(f"{path}: found no mask (x, y, z) in NIfTI: {error}") from error
        expect(within.any(), str(path), "no voxel where the brain is", "one at least")
        return within, bool(image.affine[0, 0] > 0)

    inside, rightward = read(mask)
    places = np.full(inside.shape, -1)
    places[inside] = order = np.arange(inside.sum())
    mirror, names = places[::-1][inside], np.full(len(order), "rest", dtype=object)
    for path in reversed(masks):  # where two overlap, the first has the voxel
        own = read(path)[0][inside]
        names[own | (own[mirror] & (mirror >= 0))] = path.name.removesuffix(".nii.gz")
    left = (np.argwhere(inside)[:, 0] < (len(inside) - 1) / 2) == rightward
    sided = np.where(left, "L ", "R ") + names
    return mirror, np.where((mirror >= 0) & (mirror != order), sided, "unpaired").astype(str)


def array_of(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The array, of `shape`, in a compressed file of joblib, whose pickle is looked at and never run."""
    said, memory, end, inflate = list[str](), list[str](), 0, zlib.decompressobj(wbits=47)  # zlib or gzip
    try:
        data = inflate.decompress(read_bytes(path), 8 * shape[0] * shape[1] + HEADER)
        for op, arg, at in pickletools.genops(data[:HEADER]):
            if op.name in ("MEMOIZE", "BINPUT"):
                memory.append(said[-1])
            elif op.name not in ("PROTO", "FRAME", "STACK_GLOBAL"):
                said.append(memory[int(arg or 0)] if op.name == "BINGET" else op.name if arg is None else str(arg))
            end = int(at or 0) + 1
            if said[-2:] == ["SETITEMS", "BUILD"]:
                break
    except (zlib.error, ValueError, LookupError) as error:
        raise PhaselabError(f"{path}: found no compressed array of joblib: {error}") from error
    right = f"one array {shape} of real numbers, by joblib, and nothing else"
    if not (match := ONE_ARRAY.fullmatch(" ".join(said))):
        raise PhaselabError(f"{path}: found a pickle {shown(' '.join(said))}, expected {right}")
    dtype, found = np.dtype(match[5] + match[4]), (int(match[1]), int(match[2]))
    between = len(data) - end - 1 - dtype.itemsize * found[0] * found[1]
    padded = 1 + data[end] if "alignment" in match[0] else 0  # a byte says by how many more
    whole = inflate.eof and between == padded and data[-1:] == b"."
    expect(found == shape and whole, str(path), f"{found}{'' if whole else ', cut or with more'}", right)
    return np.frombuffer(data[end + between : -1], dtype).reshape(shape, order="F" if match[3] == "F" else "C")
