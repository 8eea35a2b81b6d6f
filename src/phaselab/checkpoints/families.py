"""Model families whose training runs are public: the entries of ``families.yaml``, and how their names are read."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from phaselab.checkpoints.names import Reading, read_name
from phaselab.errors import expect
from phaselab.files import parse_yaml
from phaselab.study import REPOSITORY

#: Stages that are one line of training, "" for a name without one. Another stage, such as those that begin several
#: times from the end of the first, is a branch: listed, and taken only by name.
LINE = ("", "1")


@dataclass(frozen=True)
class Family:
    """One model with a public training run; ``families.yaml`` says what its fields are."""

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
    size: Mapping[str, int] = field(default_factory=dict)
    unconfirmed: bool = False
    seeds: int = 0
    seed: int = 0
    run: str = ""  # of another seed: the family with seed 0

    @property
    def repositories(self) -> tuple[str, ...]:
        """The main repository first: of two checkpoints of one step its own is taken."""
        return (self.repository, self.early) if self.early else (self.repository,)

    def read(self, revision: str) -> Reading | None:
        """What the name of a revision says, if it is a checkpoint's; with a `table` its step is its number, from 1."""
        name = self.stands_for.get(revision, revision)
        if name in self.table:
            return Reading(list(self.table).index(name) + 1, self.table[name])
        said = read_name(name, self.names)
        if said is None or said.tokens is not None or self.tokens_per_step is None or said.stage not in LINE:
            return said
        return Reading(said.step, round((said.step + self.steps_before) * self.tokens_per_step), said.stage)

    @property
    def tokens_from(self) -> str:
        """Where its tokens come from, in words."""
        named = ["the name (as exact as it is)"] if "{tokens}" in "".join(self.names) else []
        counted = [f"{float(self.tokens_per_step):,.0f} a step"] if self.tokens_per_step else []
        ways = ["a table"] if self.table else [*named, *counted]
        return ", else ".join(ways) or "nothing: to be filled in the manifest"


def read_families(text: str) -> dict[str, Family]:
    """Name -> family, of a text such as that of ``families.yaml``; after all of them the further seeds of some."""
    entries = parse_yaml(text, "families.yaml")[0]["families"]
    for entry in entries:
        entry |= {name: tuple(entry.get(name, "").split()) for name in ("names", "languages")}
        if "tokens_per_step" in entry:
            entry["tokens_per_step"] = Fraction(entry["tokens_per_step"])
    found = [Family(**entry) for entry in entries]
    for of, seed in [(family, seed) for family in found for seed in range(1, 1 + family.seeds)]:
        name, repository = (f"{name}-seed{seed}" for name in (of.name, of.repository))
        found.append(replace(of, name=name, repository=repository, public=False, seed=seed, run=of.name))
    return {family.name: family for family in found}


#: Name -> family.
FAMILIES = read_families(Path(__file__).with_name("families.yaml").read_text(encoding="utf-8"))
#: Forms of names of all families, and that of transformers' Trainer: for runs that are in no entry.
ANY = (*dict.fromkeys(form for family in FAMILIES.values() for form in family.names), "checkpoint-{step}")


def find(name: str) -> Family:
    """The family called `name`, or of a repository ``organisation/name``; a PhaselabError with the nearest ones."""
    if re.fullmatch(REPOSITORY, name):
        return of_repository(name)
    near = ", ".join(difflib.get_close_matches(name, FAMILIES, 5) or [n for n in FAMILIES if "-seed" not in n])
    expected = f"one of {near} (phaselab models list), or 'repository' for any other one on the hub"
    expect(name in FAMILIES, "family", repr(name), expected)
    return FAMILIES[name]


def of_repository(repository: str, tokens_per_step: int | None = None) -> Family:
    """A family of one repository that is in no entry; its names are read by all known forms."""
    return Family(repository, repository, ANY, source="In no entry.", tokens_per_step=tokens_per_step)
