"""fMRI of people who listen to Le Petit Prince in English, Chinese or French, and of their average: 9 runs, TR 2 s.

Li et al. (2022), OpenNeuro ds003643 (CC0), averaged by Bonnasse-Gahot and Pallier (2024), who leave out 10 TRs at both
ends of a run, as ``features.trim`` and ``tail`` do. ``cache/little-prince`` gets float32 copies, 0.3 GB a subject: of
a person, in the voxels of the average's mask, for 0.7 GB.
"""

import re
from itertools import product, starmap
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from scipy.ndimage import map_coordinates

from phaselab.brains.base import BrainData, Group, Published, array_of, brain
from phaselab.brains.signal import without_drift
from phaselab.data import SETS
from phaselab.errors import PhaselabError, expect, number_of, shown
from phaselab.files import refuse_pointer
from phaselab.results import digest_file, numbers, read_table, write_file
from phaselab.stats import refuse_gaps, unit
from phaselab.stimuli import Run, Stimulus, convolve_events
from phaselab.study import BrainSpec, digest_of

#: Seconds of a TR; drift of a longer period is taken out of a person's runs, as the authors do for the average.
TR, CUTOFF = 2.0, 128.0
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
#: The published files; of a person's runs the numbers differ, and only their order tells the sections of the book.
PLACES = {
    "response": "lpp_{language}_average_subject/average_subject_run-{at}.gz",
    "mask": "mask_lpp_{language}.nii.gz",
    "halves": "isc_10trials_{language}.gz",
    "words": "annotation/{LANGUAGE}/lpp{LANGUAGE}_word_information.csv",
}
PERSON = "derivatives/sub-{one}/func/sub-{one}_task-lpp{LANGUAGE}_run-*_space-MNIColin27_desc-preproc_bold.nii.gz"
#: Share of a mask that may lie outside of a person's volumes; and of its values by which a constant one may vary.
OUTSIDE, ROUNDING = 0.1, 1e-6


class LittlePrinceSpec(BrainSpec):
    """Section ``brain`` of a study with these data.

    ``subjects``: ``average``; ``all`` people of the language; or some, as ``[EN057, EN058]``. ``voxels``: all of the
    mask, or ``reliable``: the quarter with the greatest published correlation between halves of the people (of a voxel
    and its mirror, mean). ``tail``: TRs left out at the end of each run.
    """

    name: Literal["little-prince"] = "little-prince"
    language: Literal["en", "cn", "fr"] = "en"
    subjects: Literal["average", "all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "average"
    voxels: Literal["all", "reliable"] = "all"
    tail: int = Field(default=10, ge=0, le=200)


class LittlePrince(Published):
    """What a study takes; `trs` has the scans of each run, which is a section of the book."""

    def __init__(self, section: LittlePrinceSpec, data: Path | None) -> None:
        super().__init__("little-prince", data)
        self.language, asked, table = section.language, section.subjects, SETS["little-prince"].table
        self.cache /= section.language  # each has an average
        self.trs = {f"section-{number}": n_trs for number, n_trs in enumerate(TRS[section.language], 1)}
        self.files = dict(zip(table["path"], table["subjects"], strict=True))
        people = sorted({*table["subjects"][table["languages"] == section.language]} - {"", "average"})
        strange = "" if isinstance(asked, str) else ", ".join(sorted({*asked} - {*people}))
        expect(not strange, "brain.subjects", strange, f"average, all, or some of {', '.join(people)}")
        self.people = ["average"] if asked == "average" else people if asked == "all" else sorted({*asked})
        self.names, self.rois = [*self.trs], [path for path in self.files if path.startswith("roi_masks/")]
        self.chosen = {"languages": section.language, "subjects": ",".join(self.people)}

    def place(self, what: str, subject: str, run: str) -> str:
        """Where a file of ``PLACES``, or of that name, lies."""
        if what == "response" and subject != "average":
            return self.runs(subject)[run]
        of = {"language": self.language, "LANGUAGE": self.language.upper(), "at": run and self.names.index(run)}
        return PLACES.get(what, what).format(**of)

    def runs(self, subject: str) -> dict[str, str]:
        """Where the files of a person's runs lie: what is there, if it is enough, else what is published."""
        folder, form = self.data / self.name, PERSON.format(one=subject, LANGUAGE=self.language.upper())
        here = [path.relative_to(folder).as_posix() for path in folder.glob(form.replace("*", "[0-9]*"))]
        if len(here) < len(self.names):
            here = [path for path, one in self.files.items() if one == subject]
        found = sorted((int(re.findall(r"_run-(\d+)", path)[0]), path) for path in here)
        right = f"{len(self.names)}, a section of the book each"
        expect(len(found) == len(self.names), str(folder / form), f"runs {[number for number, _ in found]}", right)
        return dict(zip(self.names, [path for _, path in found], strict=True))

    def make(self, subject: str, run: str, out: Path) -> None:
        """Copy a response: the average's as it is, a person's in the voxels of the mask, cleaned, in some seconds."""
        path, mask, n_trs = self.path("response", subject, run), self.path("mask"), self.trs[run]
        if subject == "average":
            values = array_of(path, (n_trs, int(mask_of(mask, mask)[0].sum()))).astype(np.float32)
            refuse_gaps(values, str(path))
        else:
            values = cleaned(path, mask, n_trs)
        with write_file(out) as aside, aside.open("wb") as stream:
            np.save(stream, values)


def files(section: LittlePrinceSpec, data: Path | None) -> dict[str, list[Path]]:
    """The table of words; keys of the responses (``Published.key``), correlations between halves, mask, and regions."""
    prince = LittlePrince(section, data)
    beside = [prince.path(what) for what in ("halves", "mask", *prince.rois)]
    keys = list(starmap(prince.key, product(prince.people, prince.names)))
    return {"stimulus": [prince.path("words")], "responses": keys + beside}


def copied(section: LittlePrinceSpec | None, data: Path | None) -> list[Path]:
    """The responses as published, of which there are copies."""
    every: list[Any] = [{"language": of, "subjects": who} for of, who in product(TRS, ("average", "all"))]
    sections = [section] if section else [LittlePrinceSpec(**fields) for fields in every]
    return [path for of in sections for path in LittlePrince(of, data).copied()]


@brain("little-prince", LittlePrinceSpec, version=1, stimulus=("language", "tail"), files=files, copied=copied)
def load(section: LittlePrinceSpec, data: Path | None) -> BrainData:
    """Responses of the average as published, z-scored over whole runs, and of people made alike, less ``tail``.

    Of people drift is taken out (cosines of 128 s and longer); nothing is smoothed. The average's ceiling: root of
    2 r / (1 + r) (Spearman 1910, Brown 1910), r of a half of the people with what a ridge predicts of it from all
    voxels of the other half, mean of ten draws: if anything too high. A region is a published mask or its mirror, on
    one side: ``L TP``; ``L rest`` is in none; ``unpaired``: in the middle, or without a mirror in the mask.
    """
    prince, of = LittlePrince(section, data), files(section, data)
    runs, changed = read_words(of["stimulus"][0], section)
    mirror, rois = regions(prince.path("mask"), [*map(prince.path, prince.rois)])
    n, order, of_average = len(mirror), np.arange(len(mirror)), section.subjects == "average"
    refuse_gaps(halves := array_of(prince.path("halves"), (10, n)), str(prince.path("halves")))
    r = halves.mean(axis=0).clip(0)
    if section.voxels == "reliable":
        both = r + r[np.where(mirror < 0, order, mirror)]
        order = np.sort(np.argsort(-both, kind="stable")[: -(-n // 4)])
    for one in prince.people:
        prince.take(one, (order, rois[order]))
    who = number_of(len(prince.people), "person who listens", "people who listen")
    kind = "estimated from the published correlation between halves of the people (Spearman, Brown)"
    unknown = "No noise ceiling is known of a person, who listened once: what is published is of averages."
    cut = f"The last {section.tail} TRs of each run, and words that begin in them, are left out."
    return BrainData(
        name="little-prince",
        description=f"fMRI of {'an average listener of' if of_average else f'{who} to'} Le Petit Prince "
        f"({section.language}), {len(order)} voxels",
        stimulus=Stimulus("little-prince", runs),
        groups=(Group(tuple(prince.people), tuple(prince.names)),),
        read=lambda one, run: prince.read(one, run, prince.trs[run] - section.tail),
        rois={one: names for one, (_, names) in prince.taken.items()},
        ceiling={"average": np.sqrt(2 * r / (1 + r))[order].astype(np.float32)} if of_average else None,
        ceiling_kind=kind if of_average else "",
        nuisance={run.name: convolve_events(run, np.c_[[1] * len(run.texts), [*map(len, run.texts)]]) for run in runs},
        notes=(changed, cut, *prince.notes, *[unknown] * (not of_average)),
        stamp=digest_of([section, *map(digest_file, of["responses"])]),
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


def mask_of(path: Path, grid: Path) -> tuple[np.ndarray, np.ndarray]:
    """Where the mask `path` is in the volume of the mask `grid`, bool (x, y, z), and the affine (4, 4) of that one."""
    from nilearn.image import resample_to_img  # here: it takes a second

    try:
        image = resample_to_img(path, grid, "nearest", copy_header=True, force_resample=True)
        _, _, _ = image.shape
        within = image.get_fdata() != 0
    except Exception as error:  # nibabel has many kinds, and they name neither file nor format
        raise PhaselabError(f"{path}: found no mask (x, y, z) in NIfTI: {error}") from error
    expect(within.any(), str(path), "no voxel where the brain is", "one at least")
    return within, image.affine


def regions(mask: Path, masks: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Of each voxel of `mask`, in C order of x, y, z: its mirror (-1: none), and its region; (n_voxels,) each."""
    inside, affine = mask_of(mask, mask)
    places = np.full(inside.shape, -1)
    places[inside] = order = np.arange(inside.sum())
    mirror, names = places[::-1][inside], np.full(len(order), "rest", dtype=object)
    for path in reversed(masks):  # where two overlap, the first has the voxel
        own = mask_of(path, mask)[0][inside]
        names[own | (own[mirror] & (mirror >= 0))] = path.name.removesuffix(".nii.gz")
    left = (np.argwhere(inside)[:, 0] < (len(inside) - 1) / 2) == (affine[0, 0] > 0)
    sided = np.where(left, "L ", "R ") + names
    return mirror, np.where((mirror >= 0) & (mirror != order), sided, "unpaired").astype(str)


def cleaned(path: Path, mask: Path, n_trs: int) -> np.ndarray:
    """A person's run in the voxels of `mask`, (n_trs, n_voxels): without drift, z-scored; 0 where it does not vary.

    A voxel of the mask, 4 mm wide, has what stands at its centre in volumes of 2 mm, linear between their voxels.
    """
    import nibabel  # here: as nilearn

    nifti: Any = nibabel.Nifti1Image
    inside, affine = mask_of(mask, mask)
    refuse_pointer(path)
    try:
        image = nifti.load(path)
        at = np.linalg.solve(image.affine, affine @ np.c_[np.argwhere(inside), np.ones(inside.sum())].T)[:3].T
        fits = image.shape[3:] == (n_trs,) and image.get_data_dtype().kind in "iuf"
        volumes = image.get_fdata(dtype=np.float32) if fits else np.empty(0)
    except Exception as error:
        raise PhaselabError(f"{path}: found no scans (x, y, z, scans) in NIfTI: {error}") from error
    right = f"numbers (x, y, z, {n_trs}): the scans of the section that its run is by rank"
    expect(fits, str(path), f"{image.get_data_dtype()} {image.shape}", right)
    outside = ((at < -0.5) | (at > np.array(image.shape[:3]) - 0.5)).any(axis=1)
    lacks = f"volumes {image.shape[:3]} that lack {outside.sum()} of the {number_of(len(at), 'voxel')} of {mask.name}"
    expect(outside.mean() <= OUTSIDE, str(path), lacks, "those of the mask's space, MNIColin27")
    values = np.array([map_coordinates(volumes[..., scan], at.T, order=1, mode="nearest") for scan in range(n_trs)])
    values[:, outside] = 0
    refuse_gaps(values, str(path))
    varies = np.ptp(values, axis=0) > ROUNDING * np.abs(values).max(axis=0)
    expect(varies.any(), str(path), "scans that are all alike", "ones that vary")
    z_scored = unit(np.where(varies, without_drift(values, TR, CUTOFF), 0)) * n_trs**0.5
    return np.asarray(z_scored, dtype=np.float32)
