"""The study file: what is compared with what, validated once, with errors that name the field.

Everything a run needs to know stands in this YAML file, so that two runs of it on the same data give the same tables.
Paths in it are relative to the file itself, and may begin with ``~``.
"""

import hashlib
import importlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter, not_
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from phaselab.errors import PhaselabError, expect, quoted, shown
from phaselab.files import BOOK, home, parse_yaml, read_text

Section = TypeVar("Section", bound="Strict")
#: A field, values of it, and the fields of the same section that are then ignored.
IGNORED: tuple[tuple[str, tuple[Any, ...], tuple[str, ...]], ...] = (
    ("text", ("world",), ("vocabulary",)),
    ("hemodynamics", ("hrf", "none"), ("delays",)),
    ("hemodynamics", ("none",), ("resample",)),
    ("context", ("text", "words"), ("seconds",)),
    ("context", ("text", "seconds"), ("window", "stride")),
    ("folds", ("runs", "given"), ("n_folds",)),
    ("permutations", (0,), ("block", "null", "fdr")),
    ("null", ("circular",), ("block",)),
    ("probes", ((),), ("sparse", "logistic")),
)
NO_SUCH = "expected no such field: it would be ignored"
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
#: What numpy and torch take; limits here and below are where a slip of the keyboard would cost hours.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
#: Faults of a file that are told at once.
FAULTS = 20
#: How an error names the type of a field that may be of several: no place in the file.
KIND = re.compile(r"(literal|tuple|function-\w+)\[.*|constrained-\w+|str|int|float")
#: Minutes that a stage may take of a checkpoint unless the study says.
MINUTES = 24 * 60.0
#: A text of one line, however it is broken in YAML.
Line = Annotated[str, BeforeValidator(lambda text: " ".join(text.split()) if isinstance(text, str) else text)]
#: How the folder of a model begins that is in the folder of data; what a repository on a hub is called.
IN_DATA, REPOSITORY = "data:", r"\w[\w.-]*/\w[\w.-]*"
_FOLDER = pydantic.AfterValidator(
    lambda p, info: p if str(p).startswith(IN_DATA) else Path((info.context or {}).get("folder", ""), home(p))
)
#: A path in a study file, relative to that file. Results depend on what is in it, and not on the folder that it is in.
_NAME = pydantic.PlainSerializer(lambda path: path.name, return_type=str, when_used="json")
Beside = Annotated[Path, _FOLDER, _NAME]


class StudyError(PhaselabError):
    """A study file that cannot be used."""


def _fault(found: Any, message: str, *at: str | int, kind: Any = "rule") -> InitErrorDetails:
    """A fault of a section at its field `at`; of a broken ``rule`` the message says what was found."""
    return InitErrorDetails(type=PydanticCustomError(kind, "{message}", {"message": message}), loc=at, input=found)


class Strict(BaseModel):
    """Base of all sections: an unknown field is an error, and nothing changes after validation.

    Fields with ``exclude_if=not_`` are younger than the others: sections without them are the same as before.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _known_fields(cls, content: Any, handler: Callable[[Any], Self]) -> Self:
        if not isinstance(content, dict):
            return handler(content)
        content = {"null" if name is None else name: value for name, value in content.items()}  # as YAML reads null:
        right = f"unknown field; expected one of {', '.join(sorted(cls.model_fields))}"
        faults = [_fault({}, right, shown(name)) for name in content if name not in cls.model_fields]
        try:
            made = handler({name: content[name] for name in cls.model_fields if name in content})
        except ValidationError as error:
            faults += [_fault(one["input"], one["msg"], *one["loc"], kind=one["type"]) for one in error.errors()]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return made

    def given(self, name: str) -> bool:
        """Whether a field was given; by what ``model_dump`` wrote, which has all of them, only another value is."""
        fields, found = type(self).model_fields, self.model_fields_set
        dumped = found >= {field for field, of in fields.items() if of.exclude_if is None}
        return name in found and not (dumped and getattr(self, name) == fields[name].default)

    def ignored(self) -> Iterator[tuple[str, str]]:
        """Fields that were given and would be ignored, and the sentence of each."""
        for field, values, names in IGNORED:
            for name in filter(self.given, names if (value := getattr(self, field, None)) in values else ()):
                why = f"with {field}: {value}" if value != () else f"without {field}"
                yield name, f"found {shown(getattr(self, name))} {why}, {NO_SUCH}"


class Mix(Strict):
    """A stage of a schedule: what is trained on up to the share ``until`` of all steps."""

    until: float = Field(gt=0, le=1)
    mix: str


class Training(Strict):
    """A language model trained from scratch, with checkpoints.

    ``mix``: which mixture of the ``text``, for ``world`` ``en`` (one language) or ``en+vo`` (two). ``mixes``: a
    schedule, for ``world`` of these and of ``narrative`` (mostly stories alone) and ``off-domain`` (mostly arithmetic,
    code-like lines, look-ups, logs); held-out loss and tasks are then still of ``mix``. ``vocabulary``: tokens of
    ``books``; ``world`` has one per word. ``context``: tokens of a sequence; ``batch``: sequences of a step.
    ``checkpoints``: how many, evenly spaced in log steps, first and last included.
    """

    text: Literal["world", "books"]
    mix: str = "en"
    mixes: tuple[Mix, ...] = Field(default=(), exclude_if=not_)
    architecture: Literal["gpt_neox", "olmo2", "llama"]
    hidden_size: int = Field(default=128, ge=8, le=2**16)
    layers: int = Field(default=3, ge=1, le=1000)
    heads: int = Field(default=4, ge=1, le=2**12)
    intermediate_size: int = Field(default=512, ge=8, le=2**20)
    vocabulary: int = Field(default=2048, ge=64, le=2**20)
    context: int = Field(default=128, ge=16, le=2**17)
    batch: int = Field(default=16, ge=1, le=2**16)
    steps: int = Field(default=1000, ge=1, le=10**8)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    warmup: int = Field(default=40, ge=0, le=10**8)
    checkpoints: int = Field(default=20, ge=2, le=10**4)
    seed: Seed = 0


class Model(Strict):
    """One language model with its checkpoints: trained here, or found in a folder or on a hub.

    Exactly one of ``train``, ``folder`` (one sub-folder per checkpoint; ``data:NAME`` is in the folder of data),
    ``family`` (a row of ``phaselab models list``) and ``repository`` (any other one on the hub; ``tokens_per_step``
    where the names of its revisions do not tell the tokens). ``checkpoints``: ``all``, ``log:20``, ``every:3``, each
    also with a range of tokens (``log:20@1B-1T``), or revisions. ``trust_remote_code``: run the model's own modules,
    for an architecture that transformers lacks. ``label``: what pages call it.
    """

    name: Slug
    label: Line = ""
    train: Training | None = None
    folder: Beside | None = None
    family: Slug | None = None
    repository: Annotated[str, Field(pattern=rf"^{REPOSITORY}$")] | None = None
    tokens_per_step: int | None = Field(default=None, ge=1, le=10**12)
    checkpoints: str | tuple[str, ...] = "all"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [name for name in ("train", "folder", "family", "repository") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"expected exactly one of 'train', 'folder', 'family', 'repository', found {found}")
        if self.tokens_per_step is not None and self.repository is None:
            raise ValueError("tokens_per_step: expected only with 'repository'")
        return self


class BrainSpec(Strict):
    """The brain data: a data set, and what its file adds; ``seed``: of permutations, shuffles and a simulated brain."""

    simulated: ClassVar[bool] = False  # where it is, every page and figure says so
    name: Slug
    seed: Seed = 0


#: Name of a data set -> model of its section; the files of ``phaselab.brains`` fill it when they are imported.
BRAIN_SECTIONS: dict[str, type[BrainSpec]] = {}


def _brain(value: Any, info: pydantic.ValidationInfo) -> Any:
    """A mapping of fields as the section of the data set that it names."""
    if not isinstance(value, dict):
        return value
    name = str(value.get("name"))
    importlib.import_module("phaselab.brains")  # by name: this is the ground floor, and brains stand on it
    if name not in BRAIN_SECTIONS:
        fault = _fault(value.get("name"), f"expected one of {', '.join(sorted(BRAIN_SECTIONS))}", "name", kind="brain")
        raise ValidationError.from_exception_data("brain", [fault])
    return BRAIN_SECTIONS[name].model_validate(value, context=info.context)


class FeatureSpec(Strict):
    """Hidden states, and how they become TRs.

    ``context``: ``text`` (each text alone, as in the paper), ``seconds`` (after the texts of the last ``seconds``
    seconds) or ``words`` (a sliding window). ``layers``: ``all``, or numbers: 0 is the embedding output, -1 the last
    layer. ``first_token``: ``drop`` begins each pass with BOS (or EOS), whose state is left out: at position 0 a
    trained network has an attention sink, a hundred times as large as other states; ``keep``: passes begin as the
    tokenizer alone begins them, and what stands there is pooled. ``hemodynamics``: ``hrf`` (canonical, nilearn's),
    ``average`` or ``stack`` over ``delays`` (TRs); ``none`` for items, which have no time axis: one row each, in order.
    """

    #: Fields that change the hidden states, and those that only bring them to TRs.
    STATES: ClassVar = ("context", "pooling", "layers", "seconds", "window", "stride", "empty", "first_token")
    GRID: ClassVar = ("resample", "hemodynamics", "delays", "trim")

    context: Literal["text", "seconds", "words"] = Field(default="words", description="what a text is read with")
    pooling: Literal["mean", "last", "max"] = Field(default="last", description="over a text's tokens")
    layers: Literal["all"] | Annotated[tuple[int, ...], Field(min_length=1)] = "all"
    seconds: float = Field(default=10.0, gt=0, le=10**5, description="context of seconds: its length, seconds")
    window: int = Field(default=96, ge=1, le=10**6, description="context of words: left context at most, words")
    stride: int = Field(default=32, ge=1, le=10**6, description="context of words: new ones a forward pass")
    empty: Literal["zero", "carry"] = Field(default="zero", description="a text without a state: 0 or as before")
    first_token: Literal["drop", "keep"] = Field(default="drop", description="whether position 0 is pooled")
    resample: Literal["mean", "sum", "lanczos"] = Field(default="mean", description="of the texts in a TR")
    hemodynamics: Literal["hrf", "average", "stack", "none"] = "hrf"
    delays: tuple[Annotated[int, Field(le=1000)], ...] = (1, 2, 3)
    trim: int = Field(default=5, ge=0, le=10**6, description="TRs dropped at the start of each run")


class EncodingSpec(Strict):
    """Ridge regression from features to responses, and its test.

    ``folds``: ``runs`` (each run left out once), ``groups`` (``n_folds`` folds of whole runs), ``contiguous``, or
    ``given`` by the brain data: some runs are tested once, others train, in folds of their own to choose alpha.
    ``null``: ``block`` or ``circular`` permutation of the test response, or ``pooled``, the single shuffle of the
    paper's authors. ``similarity``: also representational similarity and centred kernel alignment of each layer with
    each region. ``solver``: phaselab's own ridge, or himalaya's, which scores the same and takes longer. ``unique``:
    also what the layer of the phases' rule (with ``mean`` or ``best`` each layer) explains beyond the nuisance
    regressors of the stimulus.
    """

    log10_alphas: tuple[float, float, int] = (-1.0, 7.0, 17)
    folds: Literal["runs", "groups", "contiguous", "given"] = "runs"
    n_folds: int = Field(default=4, ge=2, le=10**4, description="folds; with 'runs' they are as many as the runs")
    gap: int = Field(default=0, ge=0, le=10**6, description="TRs left out on both sides of a contiguous test fold")
    permutations: int = Field(default=200, ge=0, le=10**6)
    block: int = Field(default=10, ge=1, le=10**6, description="TRs in a permuted block")
    null: Literal["block", "circular", "pooled"] = "block"
    fdr: float = Field(default=0.05, gt=0, lt=1, description="False discovery rate in a layer.")
    shuffles: int = Field(default=5, ge=0, le=1000, description="shuffled stimuli for the control")
    similarity: tuple[Literal["rsa", "cka"], ...] = ()
    solver: Literal["phaselab", "himalaya"] = Field(default="phaselab", description="Of the ridge regressions.")
    unique: bool = False
    memory: float = Field(default=4.0, gt=0, le=10**5, description="GiB of factorised features and a batch of voxels.")


class Task(Strict):
    """A task of the text source, of phaselab's library, or a file of one's own.

    ``file``: a YAML file of lm-evaluation-harness; without it `name` is a task of the models' text, or of the library
    (``phaselab tasks list``). For tasks of files only: ``shots`` (examples before each question), ``permute`` (each
    item's choices in an order drawn with ``seed``), ``data`` (split -> JSON file to read in place of a hub).
    ``generate``: tokens of a greedy answer, for the strict and the lenient rule of instruction following; 0: none.
    ``text``: the text (``world`` in one language, ``books``) whose held-out items these are, the same for all models;
    without it each model's own, or that of the first trained one, or of none the one that has it, of whatever seed.
    ``trust_task_code``: run functions that the file names (``!function``); refused without it.
    """

    name: Slug
    text: Literal["world", "books"] | None = Field(default=None, exclude_if=not_)
    items: int = Field(default=150, ge=1, le=10**6)
    seed: Seed = 0
    file: Beside | None = None
    shots: int = Field(0, ge=0, le=5)
    permute: bool = False
    data: dict[str, Beside] = {}
    generate: int = Field(0, ge=0, le=64)
    trust_task_code: bool = Field(default=False, exclude_if=not_)


class InternalSpec(Strict):
    """Measures of the hidden states themselves, and of attention and log-probabilities where asked for.

    ``sparse``: also probes of the k best single neurons, for each k given. ``logistic``: logistic probes beside the
    linear ones, which cost some seconds a checkpoint. ``attention``: each head's induction and previous-token scores on
    so many sequences; 0: none. ``ngrams``: correlations of the model's log-probabilities on held-out text with n-gram
    statistics of so many batches, and held-out loss; 0: none of these. ``compare``: each checkpoint with the last and
    with the one before (alignment, drift); the hidden states of ``samples`` words are then kept with each unit.
    """

    probes: tuple[str, ...] = ()
    samples: int = Field(default=1000, ge=50, le=10**6, description="words used at most, evenly spaced")
    sparse: tuple[Annotated[int, Field(ge=1)], ...] = ()
    logistic: bool = False
    attention: int = Field(default=0, ge=0, le=10**4, description="repeated random sequences")
    ngrams: int = Field(default=0, ge=0, le=10**6, description="batches of training text that are counted")
    compare: bool = False


class PhaseSpec(Strict):
    """The rule by which the three phases are told, fixed before anybody looks; its digest stands beside each verdict.

    ``layer``: the brain curve's: a relative depth (0.0 the embedding, 1.0 the last), the same for all models of a
    study; a layer's number; ``mean`` over layers, or ``best`` over all checkpoints, the embedding left out.
    ``measure``: of the brain curve; empty: a share of the ceiling where one is known, else r. ``accuracy``: the measure
    of behaviour that stands for it. ``margin``: change of accuracy, in its own unit, from which on it does not stand
    still. ``lag``: decades of tokens within which two rises are together. ``seeds``: models that differ in their seed
    alone are replicates of one curve (``all``), or judged one by one (``each``). ``max_changes``, ``penalty``: change
    points of a curve at most, and the parameters that each costs in BIC.
    """

    layer: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)] | Literal["mean", "best"] = 2 / 3
    roi: str = "all"
    measure: str = ""
    accuracy: str = "accuracy"
    margin: float = Field(default=0.05, gt=0)
    lag: float = Field(default=0.5, gt=0)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    seeds: Literal["all", "each"] = "all"
    max_changes: int = Field(default=6, ge=1, le=8)
    penalty: float = Field(default=3.0, gt=0)


class Study(Strict):
    """A whole study; see ``src/phaselab/studies/*.yaml`` for the ones that come with the package.

    ``minutes``: stage -> minutes that it may take of a checkpoint, after which its worker is ended (without it a day);
    also ``train`` (of a step) and ``page``. Results do not depend on it.
    """

    name: Slug
    title: Line
    description: str = ""
    brain: Annotated[SerializeAsAny[BrainSpec], BeforeValidator(_brain)]
    models: tuple[Model, ...] = Field(min_length=1)
    features: FeatureSpec = FeatureSpec()
    encoding: EncodingSpec = EncodingSpec()
    tasks: tuple[Task, ...] = ()
    internals: InternalSpec = InternalSpec()
    phases: PhaseSpec = PhaseSpec()
    minutes: dict[str, Annotated[float, Field(gt=0, le=10**5)]] = Field(default={}, exclude_if=not_)

    _file: str = ""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        broken = (*self._twice(), *self._unused(), *self._impossible())
        if faults := [_fault({}, message, *at.split(".")) for at, message in broken]:
            raise ValidationError.from_exception_data("study", faults)
        return self

    def _twice(self) -> Iterator[tuple[str, str]]:
        """What is given more than once: the field and the sentence of each fault."""
        # Capitals aside: to labels of pages, and to file systems of some machines, they are the same.
        named = {"models": [model.name.lower() for model in self.models], "tasks": [task.name for task in self.tasks]}
        lists = ("features.layers", "features.delays", "encoding.similarity", "internals.probes", "internals.sparse")
        for at, values in (named | {at: attrgetter(at)(self) for at in lists}).items():
            twice = [str(one) for one, times in Counter[object](values).items() if times > 1 and values != "all"]
            if twice:
                what = "names" if at in named else "values"
                yield at, f"expected distinct {what}, found {shown(', '.join(twice))} more than once"

    def _unused(self) -> Iterator[tuple[str, str]]:
        """Fields that were given and would be ignored."""
        trained = {f"models.{n}.train": model.train for n, model in enumerate(self.models) if model.train}
        sections = {at: getattr(self, at) for at in ("features", "encoding", "internals")}
        for at, section in (sections | trained).items():
            yield from ((f"{at}.{name}", why) for name, why in section.ignored())
        if not trained and self.internals.given("ngrams"):
            yield "internals.ngrams", f"found {self.internals.ngrams} without a model to 'train', {NO_SUCH}"

    def _impossible(self) -> Iterator[tuple[str, str]]:
        """Values that do not go together."""
        features, (low, high, n) = self.features, self.encoding.log10_alphas
        if min(features.delays, default=-1) < 0:
            yield "features.delays", f"found {shown(features.delays)}, expected at least one number of TRs >= 0"
        if features.hemodynamics == "none" and features.trim:
            yield "features.trim", f"found {features.trim} with hemodynamics: none, expected 0: each item is a row"
        if not (-300 <= low <= high <= 300 and n <= 1000 and (low < high) == (n > 1)):
            right = "the lowest before the highest, both from -300 to 300, and 2 to 1000 of them; or one that is both"
            yield "encoding.log10_alphas", f"found {n} from {low:g} to {high:g}, expected {right}"
        taken = "expected another: results lie there"
        if self.name in ("trained", "notebooks"):
            yield "name", f"found {self.name!r}, {taken}"
        for number, model in enumerate(self.models):
            if model.name in ("pages", "curves.parquet", "phases.parquet"):
                yield f"models.{number}.name", f"found {model.name!r}, {taken}"
            if (train := model.train) and train.given("checkpoints") and train.checkpoints > train.steps + 1:
                right = f"at most {train.steps + 1} with steps: {train.steps}"
                yield f"models.{number}.train.checkpoints", f"found {train.checkpoints}, expected {right}"
            ends = [stage.until for stage in train.mixes] if train else []
            if ends and (ends[-1] != 1 or sorted({*ends}) != ends):
                right = "shares that rise to 1"
                yield f"models.{number}.train.mixes", f"found until {', '.join(map(str, ends))}, expected {right}"

    @property
    def where(self) -> str:
        """What a message about the study begins with: its file, or its name."""
        return self._file or f"study {self.name}"

    def seconds(self, part: str) -> float:
        """The longest that a stage, a step of training or a page may take."""
        return 60 * self.minutes.get(part, MINUTES)

    def model(self, name: str) -> Model:
        """The model called `name`; the first one for an empty name. Raises StudyError if there is none."""
        if not name:
            return self.models[0]
        known = {model.name: model for model in self.models}
        expect(name in known, f"{self.where}: model", repr(name), f"one of {', '.join(known)}", StudyError)
        return known[name]


def at_depth(layers: Sequence[int], depth: float) -> int:
    """The layer of some, ascending, that is nearest to a relative depth from 0 to 1, the last one's."""
    return min(layers, key=lambda layer: abs(layer - depth * layers[-1]))


def embedded() -> dict[str, Path]:
    """Name -> file of the studies that come with the package."""
    return {path.stem: path for path in sorted(Path(__file__).with_name("studies").glob("*.yaml"))}


#: Folder of published studies, in the current one or in ``BOOK``; how a study asks for its published tables.
PUBLISHED, OF_TABLES = Path("published"), "published:"


def published() -> dict[str, Path]:
    """``published:NAME`` -> file of each published study: those that come with the package, and those that are here."""
    files = [path for root in (BOOK / PUBLISHED, PUBLISHED) for path in sorted(root.glob("*/study.yaml"))]
    return {f"{OF_TABLES}{path.parent.name}": path for path in files}


def load_study(name_or_path: str | Path) -> Study:
    """The embedded study of this name, that of a YAML file, or ``published:NAME``, of which there are tables alone.

    A StudyError names each field that is wrong.
    """
    asked = str(name_or_path)
    known = published() if (of_tables := asked.startswith(OF_TABLES)) else embedded()
    path = known.get(asked, home(asked))
    right = "one of " * bool(known) + (", ".join(known) or f"a folder of {PUBLISHED.absolute()}")
    expect(path.is_file(), "study", repr(asked), right if of_tables else f"a YAML file or {right}", StudyError)
    study = read_section(path, Study)
    study._file = str(path)
    return study


def read_section(path: Path | None, section: type[Section], **given: Any) -> Section:
    """The section that is the content of a YAML file (None: empty), with the fields `given` in place of its own."""
    path = path and home(path)
    content, _ = parse_yaml(read_text(path, StudyError), path, StudyError) if path else ({}, {})
    expect(isinstance(content, dict), str(path), type(content).__name__, "a mapping of fields", StudyError)
    try:
        made = section.model_validate(content | given, context={"folder": path.parent} if path else None)
        if faults := [_fault({}, why, name) for name, why in made.ignored()]:
            raise ValidationError.from_exception_data("ignored", faults)
        return made
    except ValidationError as error:
        # Of a list whose items are wrong it is said too that it has none.
        wrong = [one for one in error.errors() if one["type"] != "too_short" or not one["input"]]
        found = [*_each_once(wrong)]
        lines = [*map(_told, found[:FAULTS]), *[f"and {len(found) - FAULTS} more"] * (len(found) > FAULTS)]
        raise StudyError((f"{path}: " if path else "") + "\n  ".join(lines)) from error


def _each_once(errors: Sequence[Any]) -> Iterator[Any]:
    """Of a field that may be of several types only the errors in its parts, if there are any; else a single one."""
    found = dict[Any, list[Any]]()
    for number, wrong in enumerate(errors):
        kinds = [at for at, part in enumerate(wrong["loc"]) if KIND.fullmatch(str(part))]
        loc = tuple(part for at, part in enumerate(wrong["loc"]) if at not in kinds)
        msg = "a path" if wrong["type"] == "path_type" and kinds else wrong["msg"]
        found.setdefault(loc[: kinds[0]] if kinds else number, []).append(wrong | {"loc": loc, "msg": msg})
    for first, *others in found.values():
        said = "; or ".join([first["msg"], *(one["msg"].removeprefix("Input should be ") for one in others)])
        yield from [one for one in others if len(one["loc"]) > len(first["loc"])] or [first | {"msg": said}]


def _told(wrong: Any) -> str:
    """Where a wrong field is, what was found, what was expected."""
    places = [shown(part) for part in wrong["loc"]]
    where = ".".join(places) + ": " * bool(places)
    if wrong["type"] == "missing":
        return f"{where}missing; expected a value"
    found = "" if isinstance(wrong["input"], dict) else f"found {quoted(wrong['input'])}; "
    return f"{where}{found}{wrong['msg'].removeprefix('Value error, ')}"


def digest_of(value: Any) -> str:
    """SHA-256 (first 16 hexadecimal digits) of a value that JSON can hold, or of a study section."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
