"""fMRI of nine people who listen to spoken stories, with the words and their times: OpenNeuro ds003020.

LeBel et al. 2023, Scientific Data 10 (3.1.0, 2025; CC0): 84 stories for three people, 26 to 54 for six, TR 2 s. Of each
story ``ds003020_stories.csv`` has the TRs of its run, as ``derivative/respdict.json``, and its fold: ``test``, or 1 to
5, the session of the 26 that train in the authors' code; the 57 others, of unknown session, take turns.
"""

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pandas as pd
from pydantic import Field

from phaselab.brains.base import BrainData, Group, Published, brain, choose_voxels, opened
from phaselab.brains.signal import repeats_ceiling
from phaselab.data import SETS
from phaselab.errors import expect, number_of, shown
from phaselab.files import parse_yaml, read_text
from phaselab.lazy import View
from phaselab.results import read_table, stamped_digest, write_file
from phaselab.stimuli import Run, Stimulus, convolve_events, read_textgrid
from phaselab.study import Beside, BrainSpec, digest_of

PLACES = {"response": "preprocessed_data/{subject}/{story}.hf5", "words": "TextGrids/{story}.TextGrid"}
PLACES["respdict"] = "respdict.json"
#: The story that was heard several times.
TEST = "wheretheressmoke"
#: TRs at the start of a run, and at its end, that a published file lacks; seconds of a run until the sound begins.
CUT, SILENCE = 10, 10.0
#: What is no word: silence, breath, laughter, noise of lips or of the scanner (the lists of the authors' two codes).
NO_WORD = re.compile("(sentence_(start|end)|(br|cg|ig|lg|ls|ns|sl|sp)(_.*)?)?")
Subject = Literal["UTS01", "UTS02", "UTS03", "UTS04", "UTS05", "UTS06", "UTS07", "UTS08", "UTS09"]


class StoriesSpec(BrainSpec):
    """Section ``brain`` of a study with these data.

    ``stories``: of these, or of ``all``, each subject has those that are published for them. ``voxels``: ``all`` of the
    cortex; so many, evenly spaced; or a table with columns ``subject``, ``voxel`` (column of the files, from 0) and
    ``roi``. ``tr_time``: seconds from one TR to the next, 2.0 as the authors' code is run; its class alone has 2.0045.
    ``features.trim`` drops nothing: the files lack the first TRs of a run, whose words are known all the same.
    """

    name: Literal["stories"] = "stories"
    subjects: Literal["all"] | Annotated[tuple[Subject, ...], Field(min_length=1)] = "all"
    stories: Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all"
    voxels: Literal["all"] | Annotated[int, Field(ge=1)] | Beside = "all"
    tr_time: float = Field(default=2.0, ge=2.0, le=2.01)


class Stories(Published):
    """What a study takes; `own` has the stories of each subject."""

    def __init__(self, section: StoriesSpec, data: Path | None) -> None:
        super().__init__("ds003020", data)
        self.section, self.digest = section, partial(stamped_digest, stamps=self.cache / ".stamps")
        table = read_table(Path(__file__).with_name("ds003020_stories.csv")).set_index("story")
        published = {*SETS["ds003020"].table[["subjects", "stories"]].itertuples(index=False, name=None)}
        self.people = get_args(Subject) if section.subjects == "all" else sorted({*section.subjects})
        heard = {story for one, story in published if one in self.people}
        asked = heard if section.stories == "all" else {*section.stories}
        expect(asked <= {*table.index}, "brain.stories", sorted(asked), f"all, or some of {', '.join(table.index)}")
        self.names = sorted(asked & heard)
        self.own = {one: tuple(story for story in self.names if (one, story) in published) for one in self.people}
        for one, own in self.own.items():
            lacks = ", ".join(sorted(asked - {*own}))
            expect(own, f"brain.stories: {one}", lacks, "one at least that is published for this subject")
            self.notes += [f"{one}: left out, for they are not published: {shown(lacks)}."] * bool(lacks)
        every = "all" if section.stories == "all" else ",".join(self.names)
        self.chosen = {"subjects": ",".join(self.own), "stories": every}
        self.folds, self.trs = table["fold"].to_dict(), table["trs"].astype(int).to_dict()
        respdict = self.path("respdict", dropped=True)
        self.respdict = [respdict] * (self.there and respdict.exists())
        for path in self.respdict:  # what is published with the files holds for them
            given, _ = parse_yaml(read_text(path), path)
            trs = given if isinstance(given, dict) else {}
            wrong = ", ".join(story for story in self.names if type(trs.get(story)) is not int)
            expect(not wrong, str(path), f"no number for {wrong}", "the TRs of each story")
            self.trs |= trs

    def place(self, what: str, subject: str, run: str) -> str:
        """Where a file of ``PLACES`` lies."""
        return f"derivative/{PLACES[what].format(subject=subject, story=run)}"

    def response(self, subject: str, story: str, voxels: int | str = "voxels") -> Any:
        """The published response, (n_trs, n_voxels), whose file stays open."""
        n, why = self.trs[story], f": {self.trs[story]} TRs of respdict.json less {2 * CUT}, voxels as in all"
        return opened(self.path("response", subject, story), "data", n - 2 * CUT, voxels, why=why)

    def voxels(self, subject: str) -> tuple[np.ndarray, np.ndarray]:
        """The columns of a subject's responses that are taken, ascending, and the region of each."""
        n = self.response(subject, self.own[subject][0]).shape[1]
        of_stories = {self.path("response", subject, of): self.response(subject, of, n) for of in self.own[subject]}
        return self.usable(subject, of_stories, choose_voxels(self.section.voxels, subject, np.arange(n)))

    def ceiling(self, subject: str, columns: np.ndarray) -> tuple[np.ndarray, int]:
        """The noise ceiling of some columns, from the repeats of the test story, kept in ``cache``; their number."""
        path, shape = self.path("response", subject, TEST), self.response(subject, TEST).shape
        repeats = opened(path, "individual_repeats", "2 repeats or more", *shape)
        kept = self.cache / f"{subject}-ceiling-{self.digest(path)[:16]}.npy"
        if not kept.exists():
            with write_file(kept) as aside, aside.open("wb") as stream:
                np.save(stream, repeats_ceiling(repeats))
        found = np.load(kept)[columns]
        expect(np.isfinite(found).any(), f"{path}: individual_repeats", "a TR without numbers", "numbers, as in data")
        return found, len(repeats)

    def run(self, story: str) -> Run:
        """The words of a story, of the tier called word or else the second; TR 0 is the first row of its files."""
        tiers, tr = read_textgrid(path := self.path("words", run=story)), self.section.tr_time
        tier = next((tier for tier in tiers if tier.lower() in ("word", "words")), (*tiers, "", "")[1])
        expect(tier, f"{path}: tiers", ", ".join(tiers), "one called 'word', or two, of which the second has words")
        heard = [(one.text.lower().strip("{} "), one.start, one.end) for one in tiers[tier]]
        table = pd.DataFrame([word for word in heard if not NO_WORD.fullmatch(word[0])], columns=["word", "on", "off"])
        expect(len(table), f"{path}: tier {tier!r}", "no word", "one at least")
        onsets, offsets = table[["on", "off"]].to_numpy(dtype=float).T - (CUT * tr - SILENCE)
        n_trs, labels, starts = self.trs[story] - 2 * CUT, table[["word"]], table.index == 0
        last, end = table["on"].max(), self.trs[story] * tr - SILENCE
        expect(last < end, f"{path}: tier {tier!r}", f"a word at {last:g} s", f"none after the run, at {end:g} s")
        return Run(story, tuple(table["word"]), onsets, offsets, tr, n_trs, labels, starts, overlap=0, margin=CUT)


def files(section: StoriesSpec, data: Path | None) -> dict[str, list[Path]]:
    """The TextGrids, and respdict.json if it is there; the responses, and the table that voxels are chosen by."""
    stories, voxels = Stories(section, data), [section.voxels] if isinstance(section.voxels, Path) else []
    of = [stories.path("response", one, story) for one, own in stories.own.items() for story in own]
    words = [stories.path("words", run=story) for story in stories.names]
    return {"stimulus": words + stories.respdict, "responses": of + voxels}


@brain("stories", StoriesSpec, version=1, stimulus=("subjects", "stories", "tr_time"), files=files)
def load(section: StoriesSpec, data: Path | None) -> BrainData:
    """Responses as published (detrended, z-scored in each story), of the test story the mean of its repeats."""
    stories, fields = Stories(section, data), section.model_dump(mode="json")
    own, runs = stories.own, tuple(map(stories.run, stories.names))
    taken = {one: stories.voxels(one) for one in own}
    ceilings = {one: stories.ceiling(one, taken[one][0]) for one in own if TEST in own[one]}

    def read(one: str, story: str) -> View:
        values, where = stories.response(one, story).astype(np.float32), f"{stories.path('response', one, story)}: data"
        return View(values, columns=taken[one][0], where=where)

    counts = ", ".join(f"{one} {n}" for one, (_, n) in ceilings.items())
    kind = f"estimated: root of the reliability (Spearman-Brown) of the mean of the repeats of {TEST} ({counts})"
    note = "Of another story, heard once, it is too high" if ceilings else "Without it none is known"
    return BrainData(
        name="stories",
        description=f"fMRI of {number_of(len(own), 'person', 'people')}, "
        f"{number_of(len(runs), 'spoken story', 'spoken stories')} (ds003020, CC0), voxels {fields['voxels']}",
        stimulus=Stimulus("stories", runs),
        groups=tuple(Group(tuple(one for one in own if own[one] == of), of) for of in dict.fromkeys(own.values())),
        read=read,
        rois={one: regions for one, (_, regions) in taken.items()},
        ceiling={one: values for one, (values, _) in ceilings.items()} or None,
        ceiling_kind=kind if ceilings else "",
        nuisance={run.name: convolve_events(run, np.c_[[1] * len(run.texts), [*map(len, run.texts)]]) for run in runs},
        notes=(*stories.notes, f"The noise ceiling is from the repeats of {TEST}. {note}."),
        stamp=digest_of([fields, *map(stories.digest, files(section, data)["responses"])]),
        folds={story: stories.folds[story] for story in stories.names},
    )
