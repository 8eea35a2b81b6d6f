"""Model families whose training runs are public: the entries of ``families.yaml``, and how their names are read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import resources

import yaml

from phaselab.checkpoints.names import CheckpointError, Reading, read_name
from phaselab.errors import expect

#: Stages that are one line of training, "" for a name without one. Another stage, such as those that begin several
#: times from the end of the first, is a branch: listed, and taken only by name.
LINE = ("", "1")


@dataclass(frozen=True)
class Family:
    """One model with a public training run.

    Attributes
    ----------
    name : what a study file and the command line call it.
    repository : on the hub; `early` is a second one with the beginning of the same run.
    names : forms of a checkpoint's name, see ``read_name``.
    architecture, licence, languages : facts about the model; languages as ISO 639 codes, ``mul`` for many.
    source : where the entry's facts come from, and what to know before using it.
    tokens_per_step : for names that do not state tokens; None: nothing states them.
    steps_before : checkpoint ``k`` has seen ``(k + steps_before) * tokens_per_step`` tokens.
    table : revision -> tokens, for runs whose checkpoints have names without numbers; in order.
    stands_for : revision -> the name it would have in the run (``main`` is often the last one).
    public : whether the intermediate checkpoints are known to be public.
    manifest : name of the committed list of revisions, for families whose names are certain.
    """

    name: str
    repository: str
    names: tuple[str, ...] = ()
    architecture: str = ""
    licence: str = ""
    languages: tuple[str, ...] = ()
    source: str = ""
    early: str = ""
    tokens_per_step: int | Fraction | None = None
    steps_before: int = 0
    table: Mapping[str, int] = field(default_factory=dict)
    stands_for: Mapping[str, str] = field(default_factory=dict)
    public: bool = True
    manifest: str = ""

    @property
    def repositories(self) -> tuple[str, ...]:
        """The main repository first: of two checkpoints of one step its own is taken."""
        return (self.repository, self.early) if self.early else (self.repository,)

    def read(self, revision: str) -> Reading | None:
        """What the name of a revision says; None when it is not the name of a checkpoint.

        Where no steps are counted (`table`), the step is the number of the checkpoint, from 1.
        """
        name = self.stands_for.get(revision, revision)
        if name in self.table:
            return Reading(list(self.table).index(name) + 1, self.table[name])
        said = read_name(name, self.names)
        if said is None or said.tokens is not None or self.tokens_per_step is None or said.stage not in LINE:
            return said
        return Reading(said.step, round((said.step + self.steps_before) * self.tokens_per_step), said.stage)


def _read_families() -> dict[str, Family]:
    text = (resources.files("phaselab.checkpoints") / "families.yaml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)["families"]
    for entry in entries:
        entry |= {name: tuple(entry.get(name, "").split()) for name in ("names", "languages")}
        if "tokens_per_step" in entry:
            entry["tokens_per_step"] = Fraction(entry["tokens_per_step"])
    return {entry["name"]: Family(**entry) for entry in entries}


#: Name -> family.
FAMILIES = _read_families()
#: Forms of names of all families, and that of transformers' Trainer: for runs that are in no entry.
ANY = (*dict.fromkeys(form for family in FAMILIES.values() for form in family.names), "checkpoint-{step}")


def find(name: str) -> Family:
    """The family called `name`; a CheckpointError with the nearest ones when there is none."""
    near = ", ".join(difflib.get_close_matches(name, FAMILIES, 5) or FAMILIES)
    also = "(phaselab models list), or 'repository' for any other one on the hub"
    expect(name in FAMILIES, "family", repr(name), f"one of {near} {also}", CheckpointError)
    return FAMILIES[name]


def of_repository(repository: str, tokens_per_step: int | None = None) -> Family:
    """A family of one repository that is in no entry; its names are read by all known forms."""
    source = "In no entry of the table: all known forms of names are tried."
    return Family(repository, repository, ANY, source=source, tokens_per_step=tokens_per_step)
