"""What a stage is, and what it works with: a study with its data and results, a checkpoint that is loaded once."""

import contextlib
import resource
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from importlib import import_module
from operator import attrgetter, getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from phaselab import __version__, results, texts
from phaselab.behaviour.files import digest, library, load_items
from phaselab.brains import BRAINS, BrainData, DataMissing, load_brain
from phaselab.checkpoints import Checkpoint, Family, choose, chosen, find, identity, local_checkpoints, of_repository
from phaselab.checkpoints.manifest import without_absent
from phaselab.errors import PhaselabError, expect, told
from phaselab.files import home
from phaselab.study import IN_DATA, FeatureSpec, Model, Study, StudyError, Task, Training, digest_of
from phaselab.training.folder import place

if TYPE_CHECKING:
    from phaselab.features import Features
    from phaselab.training.loop import Progress

T = TypeVar("T")
#: What a stage may depend on beside fields that it names (stimulus: what was heard and its hidden states; text: that
#: of training) -> fields of the study that come with it, rooms whose code makes it.
DATA: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "checkpoint": ((), ("checkpoints/load",)),
    "stimulus": (tuple(f"features.{name}" for name in FeatureSpec.STATES), ("features", "stimuli")),
    "responses": (tuple(f"features.{name}" for name in FeatureSpec.GRID), ("brains",)),
    "nuisance": ((), ("brains", "texts")),
    "text": ((), ("texts",)),
    "task files": ((), ()),
}
#: The room that computes what a perspective counts.
ROOMS = {"brain": "encoding", "behaviour": "behaviour", "internal": "internals"}
Run = Callable[["Unit", Path], "pd.DataFrame | None"]


@dataclass(frozen=True)
class Stage:
    """A registered stage; its results are current while what it reads is the same.

    `run` takes the ``Unit`` and an empty folder for its files; it returns rows of the curves table without the unit's
    columns, or None. `scope`: made for each checkpoint, for the last, or once for a model from all of its checkpoints.
    """

    name: str  # also of its folder
    version: int  # raised by hand when its numbers change: code is not compared
    run: Run
    reads: tuple[str, ...] = ()  # fields of the study, dotted, beside those of its data; a section: all its fields
    data: tuple[str, ...] = ("checkpoint",)  # names of ``DATA``
    perspective: str = ""  # the column of its rows
    scope: Literal["checkpoint", "last", "model"] = "checkpoint"
    after: str = ""  # for scope ``model``: the stage of all checkpoints whose files it reads
    asked: Callable[[Study, Model], bool] = lambda study, model: True  # whether a study asks for it, for a model
    parts: Callable[[], Mapping[str, int]] = dict  # name -> version of registered parts that it runs (measures)

    @property
    def table(self) -> str:
        """File of its rows: of the curves table, or of the table of controls."""
        return "controls.parquet" if self.scope == "last" else "curves.parquet"

    @property
    def rooms(self) -> list[str]:
        """Rooms of the package whose code makes its numbers, and its module; recorded, not compared."""
        package, _, module = self.run.__module__.partition(".")
        own = [module.replace(".", "/")] if package == "phaselab" else []
        own += [ROOMS[self.perspective]] if self.perspective else []
        return own + [room for name in self.data for room in DATA[name][1]]


#: Name -> stage, in the order in which the stages of a checkpoint run.
STAGES: dict[str, Stage] = {}


def stage(name: str, version: int, **options: Any) -> Callable[[Run], Run]:
    """Register a function as a stage; `options` are attributes of ``Stage``."""

    def register(run: Run) -> Run:
        expect(name not in STAGES, "stage", f"a second {name!r}", "distinct names")
        STAGES[name] = Stage(name, version, run, **options)
        return run

    return register


def when(field: str, trained: bool = False) -> Callable[[Study, Model], bool]:
    """For ``Stage.asked``: a field of the study, dotted, is not 0, False or empty; and the model is `trained` here."""
    return lambda study, model: bool(attrgetter(field)(study) and (model.train or not trained))


def fields(study: Study, names: Iterable[str]) -> dict[str, Any]:
    """The values of dotted `names` in a study, flat: ``{"encoding.fdr": 0.05, "tasks.reading.items": 20}``."""
    dump, found = study.model_dump(mode="json"), dict[str, Any]()
    for name in names:
        found |= _flat(name, reduce(getitem, name.split("."), dump))
    return found


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        value = {item["name"]: item for item in value}
    if isinstance(value, dict) and value:
        return {key: leaf for part, inner in value.items() for key, leaf in _flat(f"{name}.{part}", inner).items()}
    return {name: value}


@contextlib.contextmanager
def one_thread(device: str = "cpu", threads: int = 1) -> Iterator[None]:
    """Compute on one thread of the CPU, or `threads`; on another device, where no bits are promised, as it comes.

    More threads order sums differently: with one a sweep, a notebook and another machine agree to the bit.
    """
    if device != "cpu":
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str) -> str:
    """The torch device that `name` means (``auto``: CUDA if there is one); PhaselabError if torch does not see it."""
    # On a CPU without a second for torch.
    return name if name == "cpu" else str(import_module("phaselab.encoding.ridge").find_device(name))


def _peak(reset: bool = False) -> float:
    """GiB that this process has held at most: since `reset`, where the system can forget (Linux), or ever."""
    with contextlib.suppress(OSError, LookupError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return round(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30, 3)  # bytes on macOS


def hub_family(model: Model) -> Family | None:
    """The family of a model that is on a hub; None for one that is not."""
    if model.family is not None:
        return find(model.family)
    return None if model.repository is None else of_repository(model.repository, model.tokens_per_step)


class UnitFailed(PhaselabError):
    """Stages of a unit that failed, with its folder; `made` others were made."""

    def __init__(self, said: str, made: int) -> None:
        super().__init__(said)
        self.made = made


class _once(cached_property[T]):
    """A property that is made once, and that fails once: what has failed is not tried again by the next stage."""

    def __get__(self, unit: Any, owner: Any = None) -> T:  # type: ignore[override]
        if (error := unit.failed.get(self.attrname)) is not None:
            raise error
        try:
            made: T = super().__get__(unit, owner)
        except Exception as error:
            unit.failed[self.attrname] = error
            raise
        return made


@dataclass
class Workbench:
    """A study, its data and its results; everything is made when first asked for."""

    study: Study
    store: results.Store
    data: Path | None = None  # folder of downloaded data
    say: Callable[[str], None] = field(default=lambda line: None)  # when something unusual happens
    keep_downloads: bool = True  # whether a checkpoint from a hub stays in the cache after its stages
    device: str = "cpu"  # cpu, cuda or cuda:N; results of another one are reused: they differ by rounding alone
    keep_features: bool = False  # whether hidden states are kept (stage ``features``)
    began: Callable[[str], None] = field(default=lambda part: None)  # when a stage or training begins
    fresh: frozenset[str] = frozenset()  # stages that are made again whatever there is; each result once

    def __post_init__(self) -> None:
        self.study = without_absent(self.study, self.say)
        if not any(model.train for model in self.study.models):  # tasks are of the text that has them
            texts_of = [t.text or (None if t.file else texts.TASKS.get(t.name)) for t in self.study.tasks]
            tasks = [t.model_copy(update={"text": text}) for t, text in zip(self.study.tasks, texts_of, strict=True)]
            self.study = self.study.model_copy(update={"tasks": tuple(tasks)})
        self.data = home(self.data) if self.data else None
        unknown = sorted(self.fresh - set(STAGES))
        expect(not unknown, "--fresh", ", ".join(unknown), f"stages: {', '.join(STAGES)}", StudyError)
        unknown = sorted({*self.study.minutes} - {*STAGES, "train", "page"})
        expect(not unknown, f"{self.study.where}: minutes", unknown, f"train, page, {', '.join(STAGES)}", StudyError)
        self._current, self._trained, self._made = set[Path](), dict[str, Path](), dict[Any, Any]()

    def once(self, key: Any, make: Callable[..., Any], *arguments: Any) -> Any:
        """What ``make(*arguments)`` gave when it was first asked for under this key."""
        if key not in self._made:
            self._made[key] = make(*arguments)
        return self._made[key]

    @cached_property
    def brain(self) -> BrainData:
        """Stimulus, responses, regions and ceilings."""
        with threadpool_limits(1):  # as one_thread, without a second for torch, which no brain needs
            return load_brain(self.study.brain, self.data)

    @cached_property
    def responses(self) -> dict[str, Any]:
        """Subject -> run -> responses (n_trs, n_voxels) without the first ``trim`` TRs, read when asked for."""
        return self.brain.scored(self.study.features.trim)

    def trimmed(self, runs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by run (n_trs, k) without the first ``trim`` TRs, as the responses."""
        first = {run.name: run.dropped(self.study.features.trim) for run in self.brain.stimulus.runs}
        return {run: values[first[run] :] for run, values in runs.items()}

    def training_of(self, model: Model, task: Task | None = None) -> Training:
        """What names the text of `model`, or of a task: its own, else the model's, else the first trained model's."""
        # Of an architecture that no text heeds.
        own = Training(text=task.text, architecture="llama") if task and task.text else model.train
        for training in filter(None, [own, *(other.train for other in self.study.models)]):
            return training
        where, of = f"{self.study.where}: tasks", f": {task.name}" if task else ""
        right = f"one, or a task with a 'file', of the library (phaselab tasks list), or {', '.join(texts.TASKS)}"
        raise StudyError(f"{where}{of}: found no model with 'train', expected {right}")

    def source(self, model: Model, task: Task | None = None) -> texts.TextSource:
        """The text that `model` was trained on, or from which it takes a task (see `training_of`)."""
        training = self.training_of(model, task)
        schedule = ["mixes", "steps"] * bool(training.mixes)
        key = digest_of(training.model_dump(include={"text", "mix", "seed", "vocabulary", *schedule}))
        return cast(texts.TextSource, self.once(key, texts.source, training, self.data))

    @cached_property
    def task_files(self) -> dict[str, Path]:
        """Task name -> its file, for the tasks of the study that have one."""
        return {task.name: file for task in self.study.tasks if (file := task.file or library().get(task.name))}

    def items(self, model: Model) -> dict[str, list[texts.Item]]:
        """Task name -> items, for the tasks of files and those that the text of `model` has; errors as `items_of`."""
        return {task.name: items for task in self.study.tasks if (items := self.items_of(task, model))}

    def items_of(self, task: Task, model: Model) -> list[texts.Item]:
        """Items of a task, none where it is of a text other than the model's; PhaselabError for wrong ones."""
        where = f"{self.study.where}: tasks"
        if file := self.task_files.get(task.name):
            expect(not task.text, f"{where}: {task.name}", f"text {task.text}", "none with a task file", StudyError)
            how = (file, task.items, task.seed, task.shots, task.permute, task.data, task.trust_task_code)
            return cast(list[texts.Item], self.once(("items", task.name), load_items, *how))
        known = {name for one in self.study.models for name in self.source(one, task).tasks}
        right = f"the library (phaselab tasks list), with a 'file', or of the study's texts: {', '.join(sorted(known))}"
        expect(task.name in known, where, repr(task.name), f"a task of {right}", StudyError)
        given = [option for option in ("shots", "permute", "data", "trust_task_code") if getattr(task, option)]
        expect(not given, f"{where}: {task.name}", ", ".join(given), "it only with a task file", StudyError)
        if task.name not in (source := self.source(model, task)).tasks:
            return []
        key = ("items", task.name, id(source))
        return cast(list[texts.Item], self.once(key, source.items, task.name, task.items, task.seed))

    def tasks(self, model: Model) -> list[str]:
        """Tasks in the languages of a model's training text, over which means are taken; all of a model found."""
        languages = model.train.mix.split("+") if model.train else None
        return [task for task, own in self.items(model).items() if languages is None or own[0].language in languages]

    def folder(self, model: Model, progress: "Progress" = None, until: int | None = None) -> Path:
        """The folder of a model's checkpoints, trained (up to a step) if not there; StudyError for one on a hub."""
        if model.train is not None and not self.there(model):
            from phaselab.training.loop import train

            at = place(model.name, model.train, self.store, self.source(model)).folder
            with results.claim(at), one_thread():
                self.began("train")
                self._trained[model.name] = train(model.name, model.train, self.store, self.data, progress, until)
        folder, where = self._trained.get(model.name, model.folder), f"{self.study.where}: {model.name}"
        expect(folder, where, "a model on a hub", "one with 'train' or 'folder'", StudyError)
        if (below := str(folder)).startswith(IN_DATA):
            right = "it in the folder of data (--data or PHASELAB_DATA; 'phaselab models anchor' makes smollm2)"
            folder = self.data and self.data / below.removeprefix(IN_DATA)
            expect(folder and folder.is_dir(), f"{where}: folder", below, right, DataMissing)
        return cast(Path, folder)

    def there(self, model: Model) -> bool:
        """Whether the checkpoints of `model` can be listed without training it."""
        if model.train and model.name not in self._trained:
            at = place(model.name, model.train, self.store, self.source(model))
            for why in at.damaged.values():
                self.say(f"{why}: made again")
            if at.log.is_file() and not at.missing and not at.damaged:
                self._trained[model.name] = at.folder
        return model.train is None or model.name in self._trained

    def checkpoints(self, model: Model, wanted: str | tuple[str, ...] | None = None) -> list[Checkpoint]:
        """The checkpoints of `model` that the study (or `wanted`) asks for, in order of tokens."""
        if (family := hub_family(model)) is not None:
            return chosen(family, wanted or model.checkpoints, self.say)
        return choose(local_checkpoints(self.folder(model)), wanted or model.checkpoints)

    def expected(self, model: Model) -> list[Checkpoint]:
        """These, also of a model that is not trained yet."""
        if not (train := model.train) or self.there(model):
            return self.checkpoints(model)
        steps, each = place(model.name, train, self.store, self.source(model)).revisions, train.batch * train.context
        return choose([Checkpoint(name, n, n * each, None) for n, name in steps.items()], model.checkpoints)

    def asked(self, model: Model, checkpoint: Checkpoint | None) -> list[Stage]:
        """The stages that the study asks for, of a checkpoint of `model`, or of the whole model for None."""
        scopes = {"model"}
        if checkpoint is not None:
            last = self.once(("last", model.name), lambda: self.checkpoints(model)[-1].revision)
            scopes = {"checkpoint", "last"} if checkpoint.revision == last else {"checkpoint"}
        kept = "features" if self.keep_features else ""
        return [s for s in STAGES.values() if s.scope in scopes and (s.name == kept or s.asked(self.study, model))]

    def place(self, stage: Stage, model: Model, checkpoint: Checkpoint | None) -> Path:
        """The folder of a stage's results; no revision begins with an underscore."""
        return self.store.study(self.study.name) / model.name / getattr(checkpoint, "revision", "_model") / stage.name

    def inputs(self, stage: Stage, model: Model, checkpoint: Checkpoint | None) -> dict[str, Any]:
        """What the results of a stage depend on, flat; they are current while all of it is the same."""
        found = dict(self.once(("inputs", stage.name, model.name), self._shared_inputs, stage, model))
        if checkpoint is None:
            folders = [self.place(STAGES[stage.after], model, c) for c in self.checkpoints(model)]
            found[stage.after] = digest_of([results.read_manifest(folder).get("outputs") for folder in folders])
        elif "checkpoint" in stage.data:
            key = ("identity", model.name, checkpoint.revision)
            found["checkpoint"] = self.once(key, identity, checkpoint, self.store.stamps)
            found["position"] = [checkpoint.revision, checkpoint.step, checkpoint.tokens]
        return found

    def _shared_inputs(self, stage: Stage, model: Model) -> dict[str, Any]:
        names = [*stage.reads, *(name for kind in stage.data for name in DATA[kind][0])]
        found = {"version": stage.version, **fields(self.study, names)}
        found |= {f"version of {part}": version for part, version in stage.parts().items()}
        if "checkpoint" in stage.data:
            found |= {"dtype": model.dtype, "trust_remote_code": model.trust_remote_code}
        if "task files" in stage.data:
            own = {task.name: task.data for task in self.study.tasks}
            found |= {f"file of task {name}": digest(file, own[name]) for name, file in self.task_files.items()}
        of_texts = [task for task in self.study.tasks if task.name not in self.task_files]
        for task in of_texts if "task files" in stage.data else [None] if "text" in stage.data else []:
            name = f"text of task {task.name}" if task and task.text else "text"
            found[name] = texts.key(self.training_of(model, task), self.data, self.store.stamps)
        for part in {*self._brain_inputs} & {*stage.data}:
            found |= self._brain_inputs[part]
        return found

    @cached_property
    def _brain_inputs(self) -> dict[str, dict[str, Any]]:
        """What stimulus, responses and nuisance depend on: version, fields of the section, and bytes of their files."""
        brain, own = BRAINS[self.study.brain.name], fields(self.study, ["brain"])
        others = {f"brain.{name}": own.pop(f"brain.{name}", None) for name in brain.nuisance}
        heard = {name: own[name] for name in ("brain.name", *(f"brain.{name}" for name in brain.stimulus))}
        parts = {"stimulus": heard | {"version of the brain": brain.version}, "responses": own, "nuisance": others}
        for part, paths in brain.files(self.study.brain, self.data).items():
            stamps = {f"data: {p.parent.name}/{p.name}": results.stamped_digest(p, self.store.stamps) for p in paths}
            parts[part if part in parts else "responses"] |= stamps
        return parts | {"responses": parts["stimulus"] | parts["responses"]}

    def state(self, stage: Stage, model: Model, checkpoint: Checkpoint | None) -> results.State:
        """Whether a stage's results are there, current and undamaged; each is looked through once a process."""
        folder = self.place(stage, model, checkpoint)
        if folder in self._current:
            return results.State("current")
        if state := results.check(folder, self.inputs(stage, model, checkpoint)):
            if stage.name in self.fresh:
                return results.State("stale", f"{folder}: asked for anew")
            self._current.add(folder)
        return state

    def stale(self, model: Model, at: Checkpoint | None, among: Any = None, take: bool = False) -> list[Stage]:
        """The stages of a unit, of `among` or all, to be made; says damage; if `take`, takes what another study has."""
        asked = [s for s in self.asked(model, at) if among is None or s in among]
        states = {stage.name: self.state(stage, model, at) for stage in asked}
        for state in states.values():
            if state.kind == "damaged":
                self.say(f"{state.why}: made again")
        missing = (STAGES[name] for name, state in states.items() if not state)
        return [stage for stage in missing if not (take and self._taken(stage, model, at))]

    def _taken(self, stage: Stage, model: Model, checkpoint: Checkpoint | None) -> bool:
        """Whether the same was made for another study, or under another name of the model: then it is copied."""
        inputs, folder = self.inputs(stage, model, checkpoint), self.place(stage, model, checkpoint)
        known = sorted(self.store.root.glob(f"[!.]*/[!.]*/{folder.parent.name}/{folder.name}"))
        there = next((at for at in known if at != folder and results.check(at, inputs)), None)
        # Not what is asked for anew, and no hidden states that are kept: their files say whose they are.
        if not there or stage.name in {"features", *self.fresh}:
            return False
        notes = {k: note for k, note in results.read_manifest(there).items() if k not in ("inputs", "outputs")}
        with results.write_folder(folder, inputs, **notes | {"taken_from": "/".join(there.parts[-4:])}) as aside:
            shutil.copytree(there, aside, ignore=shutil.ignore_patterns(results.MANIFEST), dirs_exist_ok=True)
            if (table := aside / stage.table).is_file():
                of = {"study": self.study.name, "task" if stage.scope == "last" else "model": model.name}
                results.write_table(results.read_curves([table]).assign(**of), table)
        self._current.add(folder)
        self.say(f"what is the same in {there.parts[-4]} is taken from there")
        return True

    def make(self, model: Model, checkpoint: Checkpoint | None, stages: Iterable[Stage] | None = None) -> int:
        """Make what is stale of a unit (or of a model, for None), of `stages` or of all; the number that was made.

        When a stage fails the others are made all the same, and then a UnitFailed tells what went wrong in which.
        Where another process is at the unit this waits until it has ended.
        """
        if not (stale := self.stale(model, checkpoint, stages, take=True)):
            return 0
        folder = self.place(stale[0], model, checkpoint).parent
        failed: dict[str, list[str]] = {}  # sentence -> stages
        with results.claim(folder), one_thread(self.device), contextlib.ExitStack() as stack:
            unit = Unit(self, model, checkpoint, stack)
            stale = self.stale(model, checkpoint, stages)  # another process may have made some meanwhile
            for stage in stale:
                try:
                    self._run(stage, unit)
                except Exception as error:
                    failed.setdefault(told(error), []).append(stage.name)
                    self.log(stage, model, checkpoint, f"{told(error)}\n\n{traceback.format_exc()}")
                    cause = error
        made = len(stale) - sum(map(len, failed.values()))
        if failed:
            said = "; ".join(f"{', '.join(names)} ({folder}): {why}" for why, names in failed.items())
            raise UnitFailed(said, made) from cause
        return made

    def _run(self, stage: Stage, unit: "Unit") -> None:
        folder = self.place(stage, unit.model, unit.checkpoint)
        for at in self.checkpoints(unit.model) if stage.after else ():
            before = STAGES[stage.after]
            place = self.place(before, unit.model, at)
            there = results.check(place, self.inputs(before, unit.model, at))
            expect(there, str(place), f"{there.kind} results", f"current ones, which {stage.name} reads")
        inputs = self.inputs(stage, unit.model, unit.checkpoint)
        made_by: dict[str, Any] = {"phaselab": __version__, "code": self.code(stage), "device": self.device}
        notes: dict[str, Any] = {}
        self.began(stage.name)
        started, _ = time.perf_counter(), _peak(reset=True)
        with results.write_folder(folder, inputs, made_by=made_by, notes=notes) as aside:
            if (rows := stage.run(unit, aside)) is not None:
                notes |= rows.attrs.get("notes", {})
                table = results.curve_table(rows.to_dict("records"), **unit.same, perspective=stage.perspective)
                results.write_table(table, aside / stage.table)
            made_by |= {"seconds": round(time.perf_counter() - started, 1), "memory": _peak()}
        self._current.add(folder)
        self.log(stage, unit.model, unit.checkpoint).unlink(missing_ok=True)

    def log(self, stage: Stage, model: Model, checkpoint: Checkpoint | None, text: str = "") -> Path:
        """The file that says why a stage has failed, a sentence first, until it is made; with `text` it is written."""
        path = self.place(stage, model, checkpoint).with_suffix(".log")
        if text:
            with contextlib.suppress(PhaselabError, OSError), results.write_file(path) as aside:
                aside.write_text(text, encoding="utf-8")
        return path

    def code(self, stage: Stage) -> str:
        """Digest of the code that makes the numbers of a stage; recorded with results, never compared."""
        return str(self.once(("code", stage.name), results.digest_code, *stage.rooms))

    def trust(self, model: Model, checkpoint: Checkpoint | None) -> None:
        """Take the results of a unit for current: another process of this run has just made them."""
        self._current |= {self.place(stage, model, checkpoint) for stage in self.asked(model, checkpoint)}

    def result(self, name: str, model: Model, checkpoint: Checkpoint | None) -> Path:
        """The folder of a stage's current results, made when they are not there."""
        stage = STAGES[name]
        self.make(model, checkpoint, [stage])
        return self.place(stage, model, checkpoint)

    def tables(self, model: Model) -> list[Path]:
        """The files that hold the curves of `model`, all of them current; what is missing is made."""
        found = []
        for unit in (*self.checkpoints(model), None):
            self.make(model, unit)
            stages = [s for s in self.asked(model, unit) if s.perspective and s.scope != "last"]
            found += [self.place(stage, model, unit) / stage.table for stage in stages]
        return found


@dataclass
class Unit:
    """A checkpoint of a model, or None for all of it, while stages run: what they share is made once, if asked for."""

    bench: Workbench
    model: Model
    checkpoint: Checkpoint | None
    stack: contextlib.ExitStack
    failed: dict[str, Exception] = field(default_factory=dict, init=False)

    @_once
    def loaded(self) -> tuple[Any, Any]:
        """Network and tokenizer; a checkpoint of a hub is downloaded, and removed after the last stage if asked."""
        from phaselab.checkpoints import load, present

        assert self.checkpoint is not None
        bench, model = self.bench, self.model
        there = present(self.checkpoint, lambda: bench.keep_downloads, model.trust_remote_code, bench.say)
        return load(self.stack.enter_context(there), bench.device, model.dtype, model.trust_remote_code)

    @_once
    def features(self) -> "Features":
        """Hidden states of the stimulus."""
        from phaselab.features import extract

        study, stimulus, scratch = self.bench.study, self.bench.brain.stimulus, self.bench.store.root
        return extract(*self.loaded, stimulus, study.features, scratch=scratch, say=self.bench.say)

    @_once
    def aligned(self) -> Mapping[int, Mapping[str, np.ndarray]]:
        """Layer -> run -> features (n_trs, p) on the TRs of the responses, with haemodynamics."""
        from phaselab.features import to_trs

        return to_trs(self.features, self.bench.brain.stimulus, self.bench.study.features, self.bench.say)

    @property
    def same(self) -> dict[str, Any]:
        """What all rows have in common: study, model and, of a checkpoint, its name and its place in the training."""
        of: dict[str, Any] = {"study": self.bench.study.name, "model": self.model.name}
        if at := self.checkpoint:
            of |= {"checkpoint": at.revision, "step": at.step, "tokens": at.tokens}
        return of
