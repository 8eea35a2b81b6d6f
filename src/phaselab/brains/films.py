"""fMRI of six people who watch nine films and series, with what is said or seen in every second: OpenNeuro ds005531.

Yamaguchi, Koide-Majima, Kubo, Nakai, Nishimoto (1.0.0, 2024; CC0): 43 runs, 8.86 h, TR 1 s, 96 x 96 x 72 voxels.
Beside the published files ``cache/ds005531`` gets float32 copies of the brain's voxels alone: 11 GB a person, for 23.
"""

from itertools import product, starmap
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.io import loadmat

from phaselab.brains.base import BrainData, Group, Published, brain, choose_voxels, opened
from phaselab.errors import PhaselabError, expect, number_of
from phaselab.files import read_text, refuse_pointer
from phaselab.results import digest_file, read_table, write_file
from phaselab.stats import refuse_gaps
from phaselab.stimuli import Run, Stimulus, convolve_events
from phaselab.study import Beside, BrainSpec, digest_of

Subject = Literal["S01", "S02", "S03", "S04", "S05", "S06"]
Title = Literal["breakingbad", "bigbangtheory", "crown", "heroes", "suits", "dreamgirls", "glee", "mentalist", "gis"]
#: The published files; a response is dataDT (volumes, all voxels), a mask tvoxels (voxels of the brain, from 1).
PLACES = {
    "response": "preprocessed_data/sub-{subject}/sub-{subject}_task-{run}.mat",
    "mask": "preprocessed_data/sub-{subject}/vset_100.mat",
    "localizer": "localizer/sub-{subject}/sub-{subject}_froi_Language.mat",
    "speech_en": "annotation/{run}_speechTranscription_EN_each1sec.txt",
    "speech": "annotation/{run}_speechTranscription_each1sec.txt",
    "object": "annotation/{run}_objectiveAnnot50chara_each1sec.txt",
    "story": "annotation/{run}_story_each1sec.txt",
}
#: Voxels along x, which runs fastest, y and z.
SHAPE = (96, 96, 72)
#: Bytes of responses read at once; lines that an annotation may lack; share of the voxels that ``language`` takes.
BLOCK, LACKING, LANGUAGE = 2**28, 5, 0.1
NO_CEILING = (
    "No noise ceiling is known: each film was shown once, to people whose voxels do not correspond. Scores are r "
    "itself: its course in training can be compared, its height between people or regions only with care."
)


class FilmsSpec(BrainSpec):
    """Section ``brain`` of a study with these data.

    ``annotation``: ``speech_en`` is the only one in English; ``speech``, ``object`` (five annotators) and ``story``
    (two) are Japanese. ``rule``: with ``dataset`` ``features.trim`` drops 20 s of every run, which repeat the end of
    the one before (31,045 samples are left); with ``authors``, as in Nakagi et al. 2024, none of a title's first run,
    and episode 2 of bigbangtheory is left out (``folds: given``: 22,262 samples train, 7,737 test). ``voxels``:
    ``all`` of the brain; ``language``, the tenth with the greatest statistic of the language localizer; so many, evenly
    spaced; or a table with columns ``subject``, ``voxel`` (as in the mask, from 1) and ``roi``.
    """

    name: Literal["films"] = "films"
    subjects: Literal["all"] | tuple[Subject, ...] = "all"
    titles: Literal["all"] | tuple[Title, ...] = "all"
    annotation: Literal["speech_en", "speech", "object", "story"] = "speech_en"
    rule: Literal["dataset", "authors"] = "dataset"
    voxels: Literal["all", "language"] | Annotated[int, Field(ge=1)] | Beside = "all"


class Films(Published):
    """What a study takes; `runs` has a row per run, by its name."""

    def __init__(self, section: FilmsSpec, data: Path | None) -> None:
        super().__init__("ds005531", data)
        self.section = section
        self.people = [one for one in get_args(Subject) if section.subjects == "all" or one in section.subjects]
        durations, split = (read_table(Path(__file__).with_name(f"ds005531_{n}.csv")) for n in ("runs", "paper_split"))
        table = durations.merge(split, on=["task", "run", "duration_s"])
        table["n_trs"], table["overlap"] = table["duration_s"].astype(int), table["first_sample_1based"].astype(int) - 1
        if section.titles != "all":  # dreamgirls was shown in two sessions
            table = table[table["task"].str.replace("Sess[12]$", "", regex=True).isin(section.titles)]
        if section.rule == "authors":
            table = table[table["split"] != "unused"]
            table["overlap"] = table["first_samples_dropped_drama2brain"].astype(int)
        table["fold"] = table["cv_fold"].mask(table["split"] == "test", "test")
        self.runs = table.set_index(table["task"] + "_run-" + table["run"])
        self.names = [*map(str, self.runs.index)]
        expect(self.people and self.names, "brain: subjects, titles", "none", "one at least of each, or all")
        titles = table["task"].replace("bigbangtheory", f"bigbangtheory{'-1' * (section.rule == 'authors')}").unique()
        self.chosen = {"subjects": ",".join(self.people), "titles": ",".join(titles), "annotation": section.annotation}

    def place(self, what: str, subject: str, run: str) -> str:
        """Where a file of ``PLACES`` lies."""
        return f"derivatives/{PLACES[what].format(subject=subject, run=run)}"

    def make(self, subject: str, run: str, out: Path) -> None:
        """Copy the brain's voxels of a response, in about 20 s."""
        mask, n_trs = mask_of(self.path("mask", subject)), int(self.runs["n_trs"][run])
        copy_voxels(self.path("response", subject, run), mask, n_trs, out)

    def voxels(self, subject: str) -> tuple[np.ndarray, np.ndarray]:
        """The columns of a subject's copies that are taken, ascending, and the region of each."""
        mask, wanted = mask_of(self.path("mask", subject)), self.section.voxels
        if wanted != "language":
            return choose_voxels(wanted, subject, mask + 1)
        n, stat = len(mask), vector(path := self.path("localizer", subject), "stat")
        few, known = int(np.ceil(LANGUAGE * n)), np.isfinite(stat).sum()
        right = f"{n}, one for each voxel of the mask, {few} known at least"
        expect(len(stat) == n and known >= few, f"{path}: stat", f"{len(stat)} numbers, {known} known", right)
        columns = np.sort(np.argsort(-stat, kind="stable")[:few])  # what is not known comes last
        return columns, np.full(len(columns), "language")

    def run(self, name: str) -> Run:
        """A run with its texts; where the file lacks its last seconds it is noted."""
        path, n_trs = self.path(self.section.annotation, run=name), int(self.runs["n_trs"][name])
        lines, speech = read_text(path).removesuffix("\n").split("\n"), self.section.annotation.startswith("speech")
        lacks = n_trs - len(lines)
        expect(lacks <= LACKING, str(path), f"{len(lines) if lines != [''] else 0} lines", f"{n_trs}, one a second")
        self.notes += [f"{path.name} lacks its last {lacks} s: nothing is taken to be there."] * (lacks > 0)
        texts = [(at, text) for at, line in enumerate(lines[:n_trs]) for text in said(line, speech)]
        expect(texts, str(path), "nothing that is said or seen", "something in one second at least")
        labels = pd.DataFrame(texts, columns=["second", "text"]).assign(task=self.runs["task"][name])
        onsets = labels["second"].to_numpy(float)
        heard = (tuple(labels["text"]), onsets, onsets + 1, 1.0, n_trs, labels, labels.index == 0)
        return Run(name, *heard, overlap=int(self.runs["overlap"][name]))


def files(section: FilmsSpec, data: Path | None) -> dict[str, list[Path]]:
    """The annotations; the keys of responses (``Published.key``), and what voxels are chosen by."""
    films = Films(section, data)
    texts = [films.path(section.annotation, run=run) for run in films.names]
    of = list(starmap(films.key, product(films.people, films.names)))
    of += [films.path("localizer", subject) for subject in films.people if section.voxels == "language"]
    return {"stimulus": texts, "responses": [*of, section.voxels] if isinstance(section.voxels, Path) else of}


def copied(section: FilmsSpec | None, data: Path | None) -> list[Path]:
    """The responses as published, of which there are copies."""
    return Films(section or FilmsSpec(), data).copied()


@brain("films", FilmsSpec, 1, ("titles", "annotation", "rule"), files=files, copied=copied)
def load(section: FilmsSpec, data: Path | None) -> BrainData:
    """Responses as published (detrended, not z-scored: a ridge has an intercept), cut to the seconds of the film."""
    films, fields = Films(section, data), section.model_dump(mode="json")
    runs, of = tuple(map(films.run, films.names)), files(section, data)["responses"]
    for subject in films.people:
        mask = mask_of(films.path("mask", subject))

        def named(column: int, mask: np.ndarray = mask) -> str:
            return "{} (x {}, y {}, z {})".format(1 + mask[column], *np.unravel_index(mask[column], SHAPE, order="F"))

        films.take(subject, films.voxels(subject), named)
    return BrainData(
        name="films",
        description=f"fMRI of {number_of(len(films.people), 'person who watches', 'people who watch')} films and "
        f"series, {number_of(len(runs), 'run')} (OpenNeuro ds005531, CC0); annotation {section.annotation}, "
        f"voxels {fields['voxels']}",
        stimulus=Stimulus("films", runs),
        groups=(Group(tuple(films.people), tuple(films.names)),),
        read=films.read,
        rois={subject: regions for subject, (_, regions) in films.taken.items()},
        nuisance={run.name: convolve_events(run, np.c_[[1] * len(run.texts), [*map(len, run.texts)]]) for run in runs},
        notes=(NO_CEILING, *films.notes),
        stamp=digest_of([fields, *map(digest_file, of)]),
        folds=dict(zip(films.names, films.runs["fold"], strict=True)),
    )


def copy_voxels(mat: Path, mask: np.ndarray, n_trs: int, out: Path) -> None:
    """Write the first `n_trs` volumes of a response, and of them the voxels `mask`, as float32 .npy, block by block."""
    values = opened(mat, "dataDT", "volumes", "voxels", why=" of MATLAB 7.3")
    right = f"numbers of {n_trs} volumes or more, {mask.max() + 1} voxels or more in each"
    fits = values.shape[0] >= n_trs and values.shape[1] > mask.max()
    expect(fits, f"{mat}: dataDT", f"{values.dtype} {values.shape}", right)
    try:
        with values.file, write_file(out) as aside:
            copy = np.lib.format.open_memmap(aside, "w+", np.float32, (n_trs, len(mask)))
            step = max(1, BLOCK // (values.shape[1] * values.dtype.itemsize))
            known = np.isfinite(values[0][mask])  # of a voxel all volumes are numbers, or none is
            for start in range(0, n_trs, step):
                copy[start : start + step] = values[start : min(start + step, n_trs)][:, mask]
                refuse_gaps(copy[start : start + step], f"{mat}: dataDT", known, range(start, n_trs), mask)
            copy.flush()
    except OSError as error:
        raise PhaselabError(f"{mat}: cannot be read, or copied to {out}: {error}") from error


def vector(path: Path, name: str) -> np.ndarray:
    """A variable of a file of MATLAB 5, float64 (n,)."""
    refuse_pointer(path)
    try:
        return np.asarray(loadmat(path)[name], dtype=float).ravel()
    except Exception as error:  # SciPy has many kinds, and none names the file
        raise PhaselabError(f"{path}: found no numbers {name} of MATLAB 5: {error}") from error


def mask_of(path: Path) -> np.ndarray:
    """(n_voxels,) numbers, from 0, of the brain's voxels in the volume, in the order of the file."""
    voxels = vector(path, "tvoxels")
    fits = len(voxels) and voxels.min() >= 1 and len({*voxels}) == len(voxels) and not (voxels % 1).any()
    expect(fits, f"{path}: tvoxels", voxels[:5].tolist(), "distinct whole numbers from 1")
    return voxels.astype(np.int64) - 1


def said(line: str, speech: bool) -> list[str]:
    """What there is in a second: utterances, or what each annotator wrote; nobody's ``..`` is left out.

    A line begins with a time stamp, through its first bracket; speech with a prefix, and each speaker before a colon.
    """
    line = line[line.find("]") + 1 :].replace("\u3000", "").replace("不明", "..")
    parts = line.split("メイン#", 1)[-1].split("/") if speech else line.split("/")
    texts = (part.split(":", 1)[-1].strip() if speech else part.strip() for part in parts)
    return [text for text in texts if text not in ("", ".", "..")]
