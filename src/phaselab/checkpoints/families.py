"""Model families whose training runs are public: one row a family.

What a row states was read in the models' own repositories and cards, or is marked in its ``source``.
Tokens are read from names or tables; they are computed from steps only where the family's source says
how many a step takes and the name does not say more.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from phaselab.checkpoints.revisions import CheckpointError, read_amount

_STEP = r"step-?(?P<step>\d+)"
_TOKENS = r"-tokens(?P<tokens>\d+(?:\.\d+)?[KMBT]?)"
_STAGE = r"(?:stage(?P<stage>\d+)-)?(?:ingredient\d+-)?"
#: ``stage1-step1000-tokens5B``, ``step1000-tokens5B``, ``stage2-ingredient1-step11931-tokens50B``.
OLMO = f"{_STAGE}{_STEP}{_TOKENS}"
#: The same, where some names leave the tokens out.
OLMO_STEPS = f"{_STAGE}{_STEP}(?:{_TOKENS})?"
STEPS = _STEP
LLM360 = r"ckpt_(?P<step>\d+)"
#: Any of the above, for repositories that are in no row.
ANY = f"(?:{OLMO_STEPS}|ckpt_(?P<number>\\d+))"


@dataclass(frozen=True)
class Reading:
    """What a revision's name says: its step, its tokens (None: it does not say) and its stage."""

    step: int
    tokens: int | None
    stage: str


@dataclass(frozen=True)
class Family:
    """One model with a public training run.

    Attributes
    ----------
    name : what a study file and the command line call it.
    repository : on the hub; `early` is a second one with the beginning of the same run.
    pattern : regular expression of a checkpoint's name, with groups ``step``, ``tokens``, ``stage``.
    architecture, licence, languages : facts about the model; languages as ISO 639 codes, ``mul`` for many.
    source : where the row's facts come from, and what to know before using it.
    line : stages that are one line of training, "" for a name without a stage. Other stages (such as
        those that begin several times from the end of the first) are listed and taken only by name.
    tokens_per_step : for names that do not state tokens; None: nothing states them.
    steps_before : checkpoint ``k`` has seen ``(k + steps_before) * tokens_per_step`` tokens.
    table : revision -> tokens, for runs whose checkpoints have names without numbers; in order.
    stands_for : revision -> the name it would have in the run (``main`` is often the last one).
    public : whether the intermediate checkpoints are known to be public.
    manifest : name of the committed list of revisions, for families whose names are certain.
    """

    name: str
    repository: str
    pattern: str
    architecture: str
    licence: str
    languages: tuple[str, ...]
    source: str
    early: str = ""
    line: tuple[str, ...] = ("", "1")
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
            return Reading(list(self.table).index(name) + 1, self.table[name], "")
        match = re.fullmatch(self.pattern, name)
        if match is None:
            return None
        said = match.groupdict()
        step = int(said.get("step") or said.get("number") or 0)
        stage = said.get("stage") or ""
        if said.get("tokens") is not None:
            tokens = read_amount(said["tokens"])
            return None if tokens is None else Reading(step, tokens, stage)
        if self.tokens_per_step is None or stage not in self.line:
            return Reading(step, None, stage)
        return Reading(step, round((step + self.steps_before) * self.tokens_per_step), stage)

    @property
    def tokens_from(self) -> str:
        """Where its tokens come from, in words."""
        if self.table:
            return "a table"
        ways = ["the name (as exact as it is)"] if "<tokens>" in self.pattern else []
        if self.tokens_per_step is not None:
            ways.append(f"{float(self.tokens_per_step):,.0f} a step")
        return ", else ".join(ways) or "nothing: to be filled in the manifest"


def _olmo(name: str, repository: str, source: str, **more: object) -> Family:
    facts = {"architecture": "Olmo2ForCausalLM", "licence": "Apache-2.0", "languages": ("en",)}
    return Family(name, repository, source=source, **{"pattern": OLMO, **facts, **more})  # type: ignore[arg-type]


_PYTHIA_SIZES = ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")


def _pythia(size: str) -> Family:
    return Family(
        f"pythia-{size}",
        f"EleutherAI/pythia-{size}",
        STEPS,
        "GPTNeoXForCausalLM",
        "Apache-2.0",
        ("en",),
        "Model cards: 154 checkpoints, 2,097,152 tokens a step.",
        tokens_per_step=2_097_152,
        manifest="pythia",
    )


def _smollm2(size: str, tokens_per_step: int | None, source: str) -> Family:
    return Family(
        f"smollm2-{size.lower()}",
        f"HuggingFaceTB/SmolLM2-{size}-intermediate-checkpoints",
        STEPS,
        "LlamaForCausalLM",
        "Apache-2.0",
        ("en",),
        source,
        tokens_per_step=tokens_per_step,
    )


_ROWS = (
    _olmo(
        "olmo2-1b",
        "allenai/OLMo-2-0425-1B",
        "Names: the last of stage 1 is stage1-step1907359-tokens4001B, every 10,000 steps; steps 0 to "
        "37,000 are in the early-training repository (third party). Names without tokens are taken as "
        "2,097,152 a step, which is approximate: the card says 2.1 M.",
        early="allenai/OLMo-2-0425-1B-early-training",
        pattern=OLMO_STEPS,
        tokens_per_step=2_097_152,
    ),
    _olmo(
        "olmo2-7b",
        "allenai/OLMo-2-1124-7B",
        "Names: the last of stage 1 is stage1-step928646-tokens3896B; early steps are odd, and there is no "
        "step 0 (third party); main is the average of the three ingredients of stage 2.",
    ),
    _olmo(
        "olmo2-13b",
        "allenai/OLMo-2-1124-13B",
        "Names: the last of stage 1 is stage1-step596057-tokens5001B; steps 0 to 102,500 were reported missing.",
    ),
    _olmo(
        "olmo2-32b",
        "allenai/OLMo-2-0325-32B",
        "The last step of stage 1 is 721901; how its names are spelt has not been verified.",
    ),
    _olmo(
        "olmo-0724-7b",
        "allenai/OLMo-7B-0724-hf",
        "Names: step0-tokens0B to step650650-tokens2729B, irregular suffixes.",
        architecture="OlmoForCausalLM",
    ),
    _olmo(
        "olmo3-7b",
        "allenai/Olmo-3-1025-7B",
        "The table in OLMo-core has step 1000 at 4,194,304,000 tokens; 1,421 branches of stage 1, and others "
        "of stages 2 and 3 (third party).",
        architecture="Olmo3ForCausalLM",
        pattern=OLMO_STEPS,
        tokens_per_step=4_194_304,
    ),
    Family(
        "amber-7b",
        "LLM360/Amber",
        LLM360,
        "LlamaForCausalLM",
        "Apache-2.0",
        ("en",),
        "Card: 360 checkpoints of 1259.13 B tokens in all, taken as equal parts; main is ckpt_359. A step is "
        "the number of a checkpoint.",
        tokens_per_step=Fraction(1_259_130_000_000, 360),
        steps_before=1,
        stands_for={"main": "ckpt_359"},
        manifest="amber-7b",
    ),
    Family(
        "k2-65b",
        "LLM360/K2",
        LLM360,
        "LlamaForCausalLM",
        "Apache-2.0",
        ("en",),
        "The card links ckpt_351 to ckpt_360; no source says the tokens of one. A step is the number of a checkpoint.",
    ),
    Family(
        "llm-jp-3-7.2b",
        "yu-takagi/jv3-7",
        STEPS,
        "LlamaForCausalLM",
        "Apache-2.0",
        ("ja", "en"),
        "No intermediate checkpoints were found at llm-jp; the code of the paper's authors loads this "
        "repository. Its siblings list 2.1 T tokens in all.",
        public=False,
    ),
    *(_pythia(f"{size}{kind}") for size in _PYTHIA_SIZES for kind in ("", "-deduped")),
    _smollm2("135M", 1_048_576, "Card: 1,048,576 tokens a step, a checkpoint every 240,000 steps."),
    _smollm2("360M", None, "Card: every 160,000 steps, about 250 B tokens; the tokens of a step are not known."),
    _smollm2("1.7B", None, "The tokens of a step are not known."),
    Family(
        "smollm3-3b",
        "HuggingFaceTB/SmolLM3-3B-checkpoints",
        r"stage(?P<stage>[123])-step-(?P<step>\d+)",
        "SmolLM3ForCausalLM",
        "Apache-2.0",
        ("en", "fr", "es", "de", "it", "pt"),
        "Card: 2,359,296 tokens a step, a checkpoint every 40,000; steps go on counting through the three stages.",
        line=("1", "2", "3"),
        tokens_per_step=2_359_296,
    ),
    Family(
        "marin-8b",
        "marin-community/marin-8b-base",
        STEPS,
        "LlamaForCausalLM",
        "Apache-2.0",
        ("en",),
        "Card: the ends of its phases and their tokens. A step is the number of a phase.",
        table={
            "kestrel": 2_700_000_000_000,
            "ocelot": 3_780_000_000_000,
            "jellyfish": 4_780_000_000_000,
            "phoenix": 11_100_000_000_000,
            "starling": 12_400_000_000_000,
            "deeper-starling": 12_700_000_000_000,
        },
    ),
    Family(
        "apertus-8b",
        "swiss-ai/Apertus-8B-2509",
        OLMO,
        "ApertusForCausalLM",
        "Apache-2.0",
        ("mul",),
        "Names: step50000-tokens210B to step2627139-tokens15T, 44 in all (third party); the first is late.",
    ),
)

#: Name -> family.
FAMILIES = {family.name: family for family in _ROWS}


def find(name: str) -> Family:
    """The family called `name`.

    Raises
    ------
    CheckpointError
        When there is none: names the nearest ones.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    near = difflib.get_close_matches(name, FAMILIES, 5) or list(FAMILIES)
    raise CheckpointError(
        f"family: found {name!r}, expected one of {', '.join(near)} (phaselab models list), or 'repository' "
        "for any other one on the hub"
    )


def of_repository(repository: str, tokens_per_step: int | None = None) -> Family:
    """A family of one repository that is in no row; its names are read by all known patterns."""
    return Family(
        repository,
        repository,
        ANY,
        "",
        "",
        (),
        "In no row of the table: all known patterns of names are tried.",
        tokens_per_step=tokens_per_step,
    )
