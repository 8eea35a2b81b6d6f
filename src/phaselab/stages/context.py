"""What stages work with: a study with its data and results, and one checkpoint that is loaded once.

A ``Workbench`` knows a study and where its results lie, and makes what is missing. The command line sweeps over
it; a notebook uses the same one for what it needs. Whatever is made first, by whichever of the two, the other finds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from phaselab import __version__, results
from phaselab.checkpoints import Checkpoint, Family, choose, chosen, find, identity, local_checkpoints, of_repository
from phaselab.results import State
from phaselab.stages.registry import STAGES, Stage, fields
from phaselab.study import Model, Study, StudyError, Task, digest_of

if TYPE_CHECKING:
    import numpy as np

    from phaselab.brains import BrainData
    from phaselab.features import Features
    from phaselab.texts.base import Item, TextSource

Say = Callable[[str], None]


@contextlib.contextmanager
def one_thread(device: str = "cpu") -> Iterator[None]:
    """Compute on one thread of the CPU; on another device, where no bits are promised, as it comes.

    Sums are ordered differently on another number of threads, and the last digits then differ: with one thread a
    sweep, a notebook and a machine with more cores agree to the bit.
    """
    if device != "cpu":
        yield
        return
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str) -> str:
    """The torch device that `name` means; ``auto`` is a CUDA device if there is one, else the CPU.

    Raises
    ------
    PhaselabError
        When it is no such name, or torch does not see the device.
    """
    if name == "cpu":
        return name  # without a second for torch
    from phaselab.encoding.ridge import find_device

    return str(find_device(name))


def hub_family(model: Model) -> Family | None:
    """The family of a model that is on a hub; None for one that is not."""
    if model.family is not None:
        return find(model.family)
    return None if model.repository is None else of_repository(model.repository, model.tokens_per_step)


@dataclass
class Workbench:
    """A study, its data and its results; everything is made when first asked for.

    Parameters
    ----------
    study : a validated study.
    store : where results lie.
    data : folder of downloaded data, or None.
    say : receives a line when something unusual happens (a damaged result is made again).
    keep_downloads : whether a checkpoint from a hub stays in the cache after its stages.
    device : where checkpoints are read and ridges are solved: ``cpu``, ``cuda`` or ``cuda:N``. Results of another
        device are reused: they differ by rounding alone.
    keep_features : keep the hidden states of each checkpoint (stage ``features``).
    fresh : names of stages that are made again whatever there is; each result once.
    """

    study: Study
    store: results.Store
    data: Path | None = None
    say: Say = field(default=lambda line: None)
    keep_downloads: bool = True
    device: str = "cpu"
    keep_features: bool = False
    fresh: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if unknown := sorted(self.fresh - set(STAGES)):
            raise StudyError(f"--fresh: found {', '.join(unknown)}, expected stages: {', '.join(STAGES)}")
        self._current: set[Path] = set()
        self._sources: dict[str, TextSource] = {}
        self._items: dict[str, list[Item]] = {}
        self._trained: dict[str, Path] = {}
        self._last: dict[str, str] = {}
        self._codes: dict[str, str] = {}
        self._identities: dict[tuple[str, str], str] = {}
        self._inputs: dict[tuple[str, str], dict[str, Any]] = {}
        #: What stages keep from one checkpoint to the next, by their own keys.
        self.kept: dict[Any, Any] = {}

    # ---------------------------------------------------------------------------------------- brain, text, tasks

    @cached_property
    def brain(self) -> BrainData:
        """Stimulus, responses, regions and ceilings; loaded when first asked for."""
        from threadpoolctl import threadpool_limits

        from phaselab.brains import load_brain

        with threadpool_limits(1):  # as one_thread, without a second for torch, which no brain needs
            return load_brain(self.study.brain, self.data)

    @cached_property
    def responses(self) -> dict[str, Any]:
        """Subject -> run -> responses (n_trs, n_voxels) without the first ``trim`` TRs, read when asked for."""
        return self.brain.scored(self.study.features.trim)

    @property
    def seed(self) -> int:
        """Seed of permutations and shuffles."""
        return self.study.brain.seed

    def training_of(self, model: Model) -> Any:
        """The section ``train`` that names the text of `model`: its own, else that of the first trained model."""
        trained = model.train or next((m.train for m in self.study.models if m.train), None)
        if trained is None:
            raise StudyError(f"study {self.study.name}: tasks: expected a model with 'train' to take them from")
        return trained

    def source(self, model: Model) -> TextSource:
        """The text that `model` was trained on, which is also the source of its tasks (see `training_of`)."""
        from phaselab.texts import source

        training = self.training_of(model)
        key = digest_of(training.model_dump(include={"text", "mix", "seed", "vocabulary"}))
        if key not in self._sources:
            self._sources[key] = source(training, self.data)
        return self._sources[key]

    @cached_property
    def task_files(self) -> dict[str, Path]:
        """Task name -> its file, for the tasks of the study that have one."""
        from phaselab.behaviour.files import library

        known = library()
        files = {task.name: task.file or known.get(task.name) for task in self.study.tasks}
        return {name: file for name, file in files.items() if file is not None}

    def items(self, model: Model) -> dict[str, list[Item]]:
        """Task name -> items, for the tasks of files and those that the text of `model` has.

        Raises
        ------
        phaselab.behaviour.TaskError
            For a task file that cannot be used.
        StudyError
            For a task that is neither of a file nor of any text of the study, and for options of task files that
            are given to a task of a text.
        """
        from phaselab.behaviour.files import load_items

        found = {}
        for task in self.study.tasks:
            if task.name in self.task_files:
                if task.name not in self._items:
                    self._items[task.name] = load_items(
                        self.task_files[task.name], task.items, task.seed, task.shots, task.permute, task.data
                    )
                found[task.name] = self._items[task.name]
                continue
            self._check_text_task(task)
            if task.name in (source := self.source(model)).tasks:
                found[task.name] = source.items(task.name, task.items, task.seed)
        return found

    def _check_text_task(self, task: Task) -> None:
        where = f"study {self.study.name}: tasks: {task.name}"
        known = sorted({name for m in self.study.models for name in self.source(m).tasks})
        if task.name not in known:
            raise StudyError(
                f"{where}: expected a task of the library (phaselab tasks list), a task with 'file', or one "
                f"of the study's texts: {', '.join(known)}"
            )
        for option in ("shots", "permute", "data"):
            if getattr(task, option):
                raise StudyError(f"{where}: {option}: expected only with a task file, not with a task of a text")

    # ------------------------------------------------------------------------------------------------ checkpoints

    def folder(self, model: Model, progress: Callable[[int, int], None] | None = None) -> Path:
        """The folder of the checkpoints of `model`; trains the model when it is not there.

        Raises
        ------
        StudyError
            For a model on a hub, whose checkpoints come one by one.
        """
        if model.train is None:
            if model.folder is None:
                raise StudyError(
                    f"study {self.study.name}: {model.name}: found a model on a hub, expected one with "
                    "'train' or 'folder'"
                )
            return model.folder
        if model.name not in self._trained:
            from phaselab.training.folder import trained

            folder = trained(model.name, model.train, self.store, self.data)
            if folder is None:
                from phaselab.training.loop import train

                with one_thread():
                    folder = train(model.name, model.train, self.store, self.data, progress)
            self._trained[model.name] = folder
        return self._trained[model.name]

    def there(self, model: Model) -> bool:
        """Whether the checkpoints of `model` can be listed without training it."""
        if model.train is None or model.name in self._trained:
            return True
        from phaselab.training.folder import trained

        if (folder := trained(model.name, model.train, self.store, self.data)) is None:
            return False
        self._trained[model.name] = folder
        return True

    def checkpoints(self, model: Model, wanted: str | tuple[str, ...] | None = None) -> list[Checkpoint]:
        """The checkpoints of `model` that the study (or `wanted`) asks for, in order of tokens."""
        if (family := hub_family(model)) is not None:
            return chosen(family, wanted or model.checkpoints, self.say)
        return choose(local_checkpoints(self.folder(model)), wanted or model.checkpoints)

    # ----------------------------------------------------------------------------------------------------- stages

    def asked(self, model: Model, checkpoint: Checkpoint | None) -> list[Stage]:
        """The stages that the study asks for, of a checkpoint of `model`, or of the whole model for None."""
        scopes = {"model"} if checkpoint is None else {"checkpoint"}
        if checkpoint is not None:
            if model.name not in self._last:
                self._last[model.name] = self.checkpoints(model)[-1].revision
            if checkpoint.revision == self._last[model.name]:
                scopes.add("last")
        kept = {"features"} if self.keep_features else set()
        return [s for s in STAGES.values() if s.scope in scopes and (s.name in kept or s.asked(self.study, model))]

    def place(self, stage: Stage, model: Model, checkpoint: Checkpoint | None) -> Path:
        """The folder of a stage's results."""
        revision = None if checkpoint is None else checkpoint.revision
        return self.store.stage(self.study.name, model.name, revision, stage.name)

    def inputs(self, stage: Stage, model: Model, checkpoint: Checkpoint | None) -> dict[str, Any]:
        """What the results of a stage depend on, flat; they are current while all of it is the same."""
        if (key := (stage.name, model.name)) not in self._inputs:
            self._inputs[key] = self._shared_inputs(stage, model)
        found = dict(self._inputs[key])
        if checkpoint is None:
            folders = [self.place(STAGES[stage.after], model, c) for c in self.checkpoints(model)]
            found[stage.after] = digest_of([results.read_manifest(folder).get("outputs") for folder in folders])
        elif "checkpoint" in stage.data:
            named = (model.name, checkpoint.revision)
            if named not in self._identities:
                self._identities[named] = identity(checkpoint, self.store.stamps)
            found["checkpoint"] = self._identities[named]
            found["position"] = [checkpoint.revision, checkpoint.step, checkpoint.tokens]
        return found

    def _shared_inputs(self, stage: Stage, model: Model) -> dict[str, Any]:
        """Inputs that all checkpoints of a model share."""
        found: dict[str, Any] = {"version": stage.version, **fields(self.study, stage.reads)}
        found |= {f"version of {part}": version for part, version in stage.parts().items()}
        if "checkpoint" in stage.data:
            # Which numbers and whose code a checkpoint is loaded with.
            found |= {"dtype": model.dtype, "trust_remote_code": model.trust_remote_code}
        if "task files" in stage.data:
            found |= self._task_digests
        if "text" in stage.data and ("task files" not in stage.data or len(self.task_files) < len(self.study.tasks)):
            from phaselab.texts import key

            found["text"] = key(self.training_of(model), self.data, self.store.stamps)
        for part in ("stimulus", "responses"):
            if part in stage.data:
                found |= self._brain_inputs[part]
        return found

    @cached_property
    def _brain_inputs(self) -> dict[str, dict[str, Any]]:
        """What stimulus and responses depend on: version, fields of the section, and bytes of the data's files."""
        from phaselab.brains import BRAINS

        brain = BRAINS[self.study.brain.name]
        files = brain.files(self.study.brain, self.data)
        stamped = {
            part: {f"data: {p.parent.name}/{p.name}": results.stamped_digest(p, self.store.stamps) for p in paths}
            for part, paths in {"stimulus": (), "responses": (), **files}.items()
        }
        stimulus = fields(self.study, ("brain.name", *(f"brain.{name}" for name in brain.stimulus)))
        about = {"version of the brain": brain.version}
        return {
            "stimulus": about | stimulus | stamped["stimulus"],
            "responses": about | fields(self.study, ("brain",)) | stamped["stimulus"] | stamped["responses"],
        }

    @cached_property
    def _task_digests(self) -> dict[str, str]:
        from phaselab.behaviour.files import digest

        data = {task.name: task.data for task in self.study.tasks}
        return {f"file of task {name}": digest(file, data[name]) for name, file in self.task_files.items()}

    def state(self, stage: Stage, model: Model, checkpoint: Checkpoint | None) -> State:
        """Whether a stage's results are there, current and undamaged; each is looked through once a process."""
        folder = self.place(stage, model, checkpoint)
        if folder in self._current:
            return State("current")
        state = results.check(folder, self.inputs(stage, model, checkpoint))
        if state and stage.name in self.fresh:
            return State("stale", f"{folder}: asked for anew")
        if state:
            self._current.add(folder)
        return state

    def stale(self, model: Model, checkpoint: Checkpoint | None) -> list[Stage]:
        """The stages of a unit whose results are to be made; what is damaged is said."""
        found = []
        for stage in self.asked(model, checkpoint):
            state = self.state(stage, model, checkpoint)
            if state.kind == "damaged":
                self.say(f"{state.why}: made again")
            if not state:
                found.append(stage)
        return found

    def make(self, model: Model, checkpoint: Checkpoint | None, stages: list[Stage] | None = None) -> int:
        """Make what is stale of a unit (or of a model, for None), of `stages` or of all; the number that was made.

        The checkpoint is downloaded and loaded only when a stage asks for it, and once for all of them.
        """
        stale = [stage for stage in self.stale(model, checkpoint) if stages is None or stage in stages]
        if not stale:
            return 0
        with one_thread(self.device), contextlib.ExitStack() as stack:
            unit = Unit(self, model, checkpoint, stack)
            for stage in stale:
                self._run(stage, unit)
        return len(stale)

    def _run(self, stage: Stage, unit: Unit) -> None:
        model, checkpoint = unit.model, unit.checkpoint
        folder, inputs = self.place(stage, model, checkpoint), self.inputs(stage, model, checkpoint)
        made_by = {"phaselab": __version__, "code": self.code(stage), "device": self.device}
        notes: dict[str, Any] = {}
        with results.write_folder(folder, inputs, made_by=made_by, notes=notes) as aside:
            rows = stage.run(unit, aside)
            if rows is not None:
                notes |= rows.attrs.get("notes", {})
                table = results.curve_table(rows.to_dict("records"), **unit.columns(stage, rows))
                results.write_table(table, aside / stage.table)
        self._current.add(folder)

    def code(self, stage: Stage) -> str:
        """Digest of the code that makes the numbers of a stage; recorded with results, never compared."""
        if stage.name not in self._codes:
            package, _, module = stage.run.__module__.partition(".")
            own = [module.replace(".", "/")] if package == "phaselab" else []
            self._codes[stage.name] = results.digest_code(*own, *stage.rooms)
        return self._codes[stage.name]

    def trust(self, model: Model, checkpoint: Checkpoint | None, stages: Iterable[str]) -> None:
        """Take results for current that another process of this run has just made."""
        self._current |= {self.place(STAGES[stage], model, checkpoint) for stage in stages}

    def result(self, name: str, model: Model, checkpoint: Checkpoint | None) -> Path:
        """The folder of a stage's current results, made when they are not there."""
        stage = STAGES[name]
        self.make(model, checkpoint, [stage])
        return self.place(stage, model, checkpoint)

    def tables(self, model: Model) -> list[Path]:
        """The files that hold the curves of `model`, all of them current; what is missing is made."""
        units: list[Checkpoint | None] = [*self.checkpoints(model), None]
        for unit in units:
            self.make(model, unit)
        return [
            self.place(stage, model, unit) / stage.table
            for unit in units
            for stage in self.asked(model, unit)
            if stage.perspective and stage.scope != "last"
        ]


@dataclass
class Unit:
    """One checkpoint of a model while stages run on it: network and features are made once, when asked for.

    For stages of a whole model `checkpoint` is None and there is no network.
    """

    bench: Workbench
    model: Model
    checkpoint: Checkpoint | None
    stack: contextlib.ExitStack

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Network and tokenizer; a checkpoint of a hub is downloaded, and removed after the last stage if asked."""
        from phaselab.checkpoints import load, present

        assert self.checkpoint is not None
        bench, model = self.bench, self.model
        keep = bench.keep_downloads
        here = self.stack.enter_context(present(self.checkpoint, lambda: keep, model.trust_remote_code, bench.say))
        return load(here, bench.device, model.dtype, model.trust_remote_code)

    @cached_property
    def features(self) -> Features:
        """Hidden states of the stimulus."""
        from phaselab.features import extract

        bench = self.bench
        spec, scratch = bench.study.features, bench.store.root
        return extract(*self.loaded, bench.brain.stimulus, spec, scratch=scratch, say=bench.say)

    @cached_property
    def aligned(self) -> Mapping[int, Mapping[str, np.ndarray]]:
        """Layer -> run -> features (n_trs, p) on the TRs of the responses, with haemodynamics."""
        from phaselab.features import to_trs

        return to_trs(self.features, self.bench.brain.stimulus, self.bench.study.features)

    @property
    def same(self) -> dict[str, Any]:
        """What all rows of this checkpoint have in common."""
        assert self.checkpoint is not None
        return {
            "study": self.bench.study.name,
            "model": self.model.name,
            "checkpoint": self.checkpoint.revision,
            "step": self.checkpoint.step,
            "tokens": self.checkpoint.tokens,
        }

    def columns(self, stage: Stage, rows: pd.DataFrame) -> dict[str, Any]:
        """Columns that the rows of a stage do not bring with them."""
        known = {"study": self.bench.study.name, "model": self.model.name, "perspective": stage.perspective}
        if self.checkpoint is not None:
            known |= self.same
        return {name: value for name, value in known.items() if name not in rows}
