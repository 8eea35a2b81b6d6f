"""Brain-Score's language benchmarks: responses to sentences, or parts of them, without a time axis, in netCDF-4.

Pereira et al. 2018 (fMRI, 627 sentences, 10 people), Tuckute et al. 2024 (fMRI, 1,000 sentences, the mean of five),
Blank et al. 2014 (fMRI, 1,317 parts of stories, five), Fedorenko et al. 2016 (ECoG, 416 words of sentences, five).
"""

from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd

from phaselab.brains.base import BrainData, Group, brain, opened
from phaselab.data import SETS, published
from phaselab.errors import PhaselabError, expect, number_of
from phaselab.files import refuse_linked
from phaselab.stimuli import items
from phaselab.study import BrainSpec

#: What a text has, and a voxel, and the coordinates that say so, of which a file has one or none.
TEXTS = {"text": "stimulus", "experiment": "experiment", "sentence": "sentence_number_in_story word_num"}
TEXTS |= {"part": "part_number_in_sentence", "passage": "passage_label passage_category story sentence_id"}
VOXELS = {"subject": "subject subject_id subject_UID", "region": "fROI_area roi"}


class BrainScoreSpec(BrainSpec):
    """Section ``brain`` of a study with these data."""

    name: Literal["brainscore"] = "brainscore"
    benchmark: Literal["Pereira2018", "Tuckute2024", "Blank2014", "Fedorenko2016"]


def files(section: BrainScoreSpec, data: Path | None) -> dict[str, list[Path]]:
    """The file of the benchmark, which has texts and responses."""
    chosen = {"benchmarks": section.benchmark}
    return {"stimulus": [published(of.path, "brainscore", data, chosen) for of in SETS["brainscore"].select(chosen)]}


@brain("brainscore", BrainScoreSpec, version=1, stimulus=("benchmark",), files=files)
def load(section: BrainScoreSpec, data: Path | None) -> BrainData:
    """Responses as published, without voxels that lack some in an experiment.

    A run is a passage, story or sentence, read from its beginning: folds of whole runs never part it. Texts that belong
    to none (Tuckute2024) are one run, each read alone. Who took part in two experiments is a subject in each.
    """
    values, texts, voxels = read_netcdf(path := files(section, data)["stimulus"][0])
    named = (texts["text"] != "").all() and (voxels["subject"] != "").all()
    expect(named, str(path), "nothing in a place of stimulus or subject", "each text, and whose a voxel is")
    parted = section.benchmark == "Tuckute2024" or (texts["passage"] != "").all()  # of whose texts each is one
    expect(parted, str(path), "texts that belong to none", f"one of {TEXTS['passage']}, which folds never part")
    groups, columns, notes = list[Group](), dict[str, np.ndarray](), list[str]()
    stimulus = items(section.benchmark, texts)
    rows = {run.name: run.labels["item"].to_numpy(int) for run in stimulus.runs}
    for experiment, own in texts.groupby("experiment", sort=False):
        known, people = np.isfinite(values[own["item"]]), list[str]()
        for row in own["item"][known.any() & ~known.any(axis=1)]:
            expect(False, f"{path}: data: text {row}", "no number", "a response to each text of an experiment")
        there = known.all(axis=0)
        for subject, of in voxels.groupby("subject", sort=False).indices.items():
            name, kept = f"{subject}-{experiment}".removesuffix("-"), of[there[of]]
            if n_lost := len(of) - len(kept):
                notes.append(f"{name}: {n_lost:,} of {number_of(len(of), 'voxel')} left out for want of responses.")
            if len(kept):
                people, columns[name] = [*people, name], kept
        groups += [Group(tuple(people), tuple(own["group"].unique()))] * bool(people)
    expect(columns, str(path), "no voxel with a response to each text of an experiment", "some")
    return BrainData(
        name="brainscore",
        description=f"Responses to {number_of(len(texts), 'text')} without a time axis "
        f"({section.benchmark}, of Brain-Score)",
        stimulus=stimulus,
        groups=tuple(groups),
        read=lambda subject, run: values[np.ix_(rows[run], columns[subject])],
        rois={subject: voxels["region"].to_numpy()[own] for subject, own in columns.items()},
        nuisance={r.name: np.c_[[len(t.split()) for t in r.texts], range(r.n_trs)] for r in stimulus.runs},
        notes=("No noise ceiling is published with the responses: scores are r itself.", *notes),
    )


def read_netcdf(path: Path) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Responses, float32 (n_texts, n_voxels); tables of texts, each passage in order (`item`: its row), and voxels."""
    data = opened(path, "data", "texts", "voxels", why=" of netCDF-4")
    try:
        with data.file as file:
            turned = len(data.dims[0]) and data.dims[0][0].name == "/neuroid"
            n, k = (values := np.asarray(data, np.float32).T if turned else np.asarray(data, np.float32)).shape
            found: dict[str, Any] = dict.fromkeys([*TEXTS][1:], "") | {"region": "language"}
            for what, names in (TEXTS | VOXELS).items():
                for of in [file[name] for name in names.split() if name in file][:1]:
                    refuse_linked(of, path)
                    found[what] = (of.asstr() if h5py.check_string_dtype(of.dtype) else of)[...]
            right = f"coordinates {TEXTS['text']} and {VOXELS['subject'].replace(' ', ' or ')}"
            expect({"text", "subject"} <= {*found}, str(path), ", ".join(file), right)
            texts = pd.DataFrame({what: found[what] for what in TEXTS}, range(n))
            voxels = pd.DataFrame({what: found[what] for what in VOXELS}, range(k)).astype(str)
    except PhaselabError:
        raise
    except (OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        right = "data (texts, voxels), and coordinates of texts or voxels of these lengths"
        raise PhaselabError(f"{path}: {error}; expected {right}") from error
    texts[["text", "experiment", "passage"]] = texts[["text", "experiment", "passage"]].astype(str)
    texts["group"] = (texts["experiment"] + " " + texts["passage"]).str.strip().replace("", "texts")
    texts["item"], texts["first"] = range(n), pd.factorize(texts["group"])[0]
    texts = texts.sort_values(["first", "sentence", "part"], kind="stable", ignore_index=True)
    return values, texts.assign(start=(texts["passage"] == "") | ~texts["group"].duplicated()), voxels
