"""One unit of work: a checkpoint of a model, loaded once, through all stages, into one folder.

A ``Workbench`` knows a study and where its results lie, and makes what is missing: models, units,
controls. The command line sweeps over it; a notebook uses the same one for what it needs. Whatever
is made first, by whichever of the two, the other finds and reuses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from phaselab import __version__, results
from phaselab.checkpoints import (
    Checkpoint,
    Family,
    choose,
    chosen,
    find,
    load,
    local_checkpoints,
    of_repository,
    present,
)
from phaselab.study import Model, Study, StudyError, Task, digest_of

if TYPE_CHECKING:
    from phaselab.brains import BrainData
    from phaselab.encoding import Scores
    from phaselab.features import Features
    from phaselab.internals.ngrams import Counts
    from phaselab.texts.base import Item, TextSource

#: Code whose change makes a unit's results stale. What a checkpoint is stands in the unit's inputs, so of
#: the checkpoints only how one is loaded counts: a new family makes nothing stale.
STAGES = ("behaviour", "brains", "checkpoints/loading", "encoding", "features", "internals", "stimuli", "sweep/unit")

#: Hidden states of a unit, kept for comparisons: layer -> float32 (n_words, p).
STATES = "states.safetensors"

#: Hidden states of all texts, kept where asked for: Zarr, a chunk a layer (``features.read_features``).
FEATURES = "features.zarr"

#: Names of the control conditions in the column ``model``.
WORD_RATE = "control: word rate"
LATENTS = "control: true latents"
SHUFFLED = "control: shuffled stimulus"

Say = Callable[[str], None]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread.

    Sums are ordered differently on another number of threads, and the last digits then differ:
    with one thread a sweep, a notebook and a machine with more cores agree to the bit.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _silent(message: str) -> None:
    return None


def choose_device(name: str) -> str:
    """The torch device that `name` means; ``auto`` is a CUDA device if there is one, else the CPU.

    Raises
    ------
    StudyError
        When it is no such name, or torch does not see the device.
    """
    if name == "cpu":
        return name  # without a second for torch
    from phaselab.encoding.solver import SolverError, find_device

    try:
        return str(find_device(name))
    except SolverError as error:
        raise StudyError(str(error)) from error


@dataclass
class Workbench:
    """A study, its data and its results; everything is made when first asked for.

    Parameters
    ----------
    study : a validated study.
    store : where results lie.
    data : folder of downloaded data, or None.
    say : receives a line when something unusual happens (a damaged result is made again).
    keep_downloads : whether a checkpoint from a hub stays in the cache after its unit.
    device : where checkpoints are read: ``cpu``, ``cuda`` or ``cuda:N``. Results of another device are
        reused: they differ by rounding alone.
    keep_features : write the hidden states of each unit to its folder; a unit without them is made again.
    """

    study: Study
    store: results.Store
    data: Path | None = None
    say: Say = _silent
    keep_downloads: bool = True
    device: str = "cpu"
    keep_features: bool = False

    @cached_property
    def brain(self) -> BrainData:
        from phaselab.brains import load_brain

        with one_thread():
            return load_brain(self.study.brain, self.data)

    def source(self, model: Model) -> TextSource:
        """The text that `model` was trained on; also the source of its tasks.

        A model that was found and not trained here has no text of its own and takes that of the
        first trained model of the study.
        """
        from phaselab.texts.base import source

        trained = model.train or next((m.train for m in self.study.models if m.train), None)
        if trained is None:
            raise StudyError(f"study {self.study.name}: tasks: expected a model with 'train' to take them from")
        key = digest_of(trained.model_dump(include={"text", "mix", "seed", "vocabulary"}))
        if key not in self._sources:
            self._sources[key] = source(trained, self.data)
        return self._sources[key]

    @cached_property
    def _sources(self) -> dict[str, TextSource]:
        return {}

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
            from phaselab.training.loop import train

            with one_thread():
                self._trained[model.name] = train(model.name, model.train, self.store, self.data, progress)
        return self._trained[model.name]

    @cached_property
    def _trained(self) -> dict[str, Path]:
        return {}

    def checkpoints(self, model: Model, wanted: str | tuple[str, ...] | None = None) -> list[Checkpoint]:
        """The checkpoints of `model` that the study (or `wanted`) asks for, in order of tokens."""
        if (family := hub_family(model)) is not None:
            return chosen(family, wanted or model.checkpoints, self.say)
        return choose(local_checkpoints(self.folder(model)), wanted or model.checkpoints)

    def items(self, model: Model) -> dict[str, list[Item]]:
        """Task name -> items, for the tasks of files and those that the text of `model` has.

        Raises
        ------
        phaselab.behaviour.TaskError
            For a task file that cannot be used.
        StudyError
            For a task that is neither of a file nor of any text of the study, and for options of task
            files that are given to a task of a text.
        """
        found = {}
        for task in self.study.tasks:
            if task.name in self._task_files:
                found[task.name] = self._file_items(task)
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

    @cached_property
    def _task_files(self) -> dict[str, Path]:
        """Task name -> its file, for the tasks of the study that have one."""
        from phaselab.behaviour.files import library

        known = library()
        files = {task.name: task.file or known.get(task.name) for task in self.study.tasks}
        return {name: file for name, file in files.items() if file is not None}

    def _file_items(self, task: Task) -> list[Item]:
        from phaselab.behaviour.files import load_items

        if task.name not in self._read_items:
            self._read_items[task.name] = load_items(
                self._task_files[task.name], task.items, task.seed, task.shots, task.permute, task.data
            )
        return self._read_items[task.name]

    @cached_property
    def _read_items(self) -> dict[str, list[Item]]:
        return {}

    # ------------------------------------------------------------------ units

    @cached_property
    def _code(self) -> str:
        return results.digest_code(*STAGES)

    def inputs(self, model: Model, checkpoint: Checkpoint) -> dict[str, Any]:
        """What the results of a unit depend on: they are up to date when all of it is the same."""
        sections = self.study.model_dump(mode="json", include={"brain", "features", "encoding", "tasks", "internals"})
        asks_text = any(task.name not in self._task_files for task in self.study.tasks)
        text = self.source(model).digest if asks_text else ""
        return {
            "version": __version__,
            "code": self._code,
            "study": digest_of(sections),
            # A commit is a digest of its files, and known without a download.
            "checkpoint": results.digest_file(checkpoint.path)
            if checkpoint.path
            else f"{checkpoint.repository}@{checkpoint.commit}",
            "position": [checkpoint.revision, checkpoint.step, checkpoint.tokens],
            "load": [model.dtype, model.trust_remote_code],
            "stimulus": self.brain.stimulus.digest,
            "brain": self.brain.digest,
            "text": text,
            "tasks": self._task_digest,
        }

    @cached_property
    def _task_digest(self) -> str:
        """Digest of the files of tasks; empty without any."""
        from phaselab.behaviour.files import digest

        files, data = self._task_files, {task.name: task.data for task in self.study.tasks}
        return digest_of({name: digest(file, data[name]) for name, file in files.items()}) if files else ""

    def _current(self, folder: Path, inputs: dict[str, Any]) -> bool:
        """Whether `folder` holds the results of `inputs`; what was damaged is said, for it is made again."""
        state = results.check(folder, inputs)
        if state.kind == "damaged":
            self.say(f"{state.why}: made again")
        return bool(state)

    def unit(self, model: Model, checkpoint: Checkpoint) -> tuple[Path, bool]:
        """The folder of a unit's results, and whether it had to be computed."""
        folder = self.store.unit(self.study.name, model.name, checkpoint.revision)
        inputs = self.inputs(model, checkpoint)
        kept = not self.keep_features or (folder / FEATURES).exists()
        if self._current(folder, inputs) and kept:
            return folder, False
        with one_thread(), self._present(model, checkpoint) as here:
            self._compute(folder, inputs, model, here)
        return folder, True

    def _present(self, model: Model, checkpoint: Checkpoint) -> contextlib.AbstractContextManager[Checkpoint]:
        """The checkpoint with its files, for a block; a download goes when nothing waits for it."""

        def keep() -> bool:
            return self.keep_downloads or self._awaited(model, checkpoint)

        return present(checkpoint, keep, model.trust_remote_code, self.say)

    def _awaited(self, model: Model, checkpoint: Checkpoint) -> bool:
        """Whether the controls of `model` are still to be made from `checkpoint`."""
        last = self.checkpoints(model)[-1]
        folder = self.store.controls(self.study.name, model.name)
        return checkpoint == last and not results.check(folder, self.inputs(model, last))

    def _compute(self, folder: Path, inputs: dict[str, Any], model: Model, checkpoint: Checkpoint) -> None:
        from safetensors.numpy import save_file

        from phaselab import encoding, internals
        from phaselab.behaviour import score_tasks
        from phaselab.encoding import similarity
        from phaselab.features import to_trs, write_features

        study, brain = self.study, self.brain
        same = {
            "study": study.name,
            "model": model.name,
            "checkpoint": checkpoint.revision,
            "step": checkpoint.step,
            "tokens": checkpoint.tokens,
        }
        network, tokenizer = self._load(model, checkpoint)
        features = self._features(network, tokenizer)
        X = to_trs(features, brain.stimulus, study.features)
        scores = encoding.encode(X, self.responses, study.encoding, seed=brain_seed(study), device=self.device)
        brain_rows = encoding.summarise(scores, brain.rois, brain.ceiling)
        if study.encoding.similarity:
            alike = similarity.summarise(X, self.responses, brain.rois, study.encoding.similarity)
            brain_rows = pd.concat([brain_rows, alike], ignore_index=True)
        # What has not been told yet cannot be read from a model; as a class of its own it could be guessed.
        labels = brain.stimulus.labels.replace("unknown", "")
        internal_rows = internals.measure(features.layers, labels, study.internals)
        left_out = internal_rows.attrs["left_out"]
        internal_rows = pd.concat([internal_rows, *self._asked(model, network, tokenizer)], ignore_index=True)
        behaviour, per_item = score_tasks(
            network,
            tokenizer,
            self.items(model),
            generate={task.name: task.generate for task in study.tasks},
        )

        tables = {
            "brain": brain_rows,
            "internal": internal_rows,
            "behaviour": behaviour,
        }
        notes = {"not_probed": left_out, "features": features.notes}
        with results.write_folder(folder, inputs, unit=same, device=self.device, **notes) as aside:
            for perspective, rows in tables.items():
                table = results.curve_table(rows.to_dict("records"), perspective=perspective, **same)
                results.write_table(table, aside / f"{perspective}.parquet")
            results.write_table(per_item, aside / "items.parquet")
            write_voxels(scores, aside / "voxels.zarr")
            if study.internals.compare:
                words = internals.sampled(len(labels), study.internals)
                kept = {str(layer): values[words] for layer, values in features.layers.items()}
                save_file(kept, aside / STATES)
            if self.keep_features:
                origin = {"unit": same, "device": self.device, "inputs": inputs}
                spec = study.features.model_dump(mode="json")
                write_features(features, brain.stimulus, aside / FEATURES, **origin, spec=spec)

    def _load(self, model: Model, checkpoint: Checkpoint) -> tuple[Any, Any]:
        return load(checkpoint, self.device, model.dtype, model.trust_remote_code)

    def _features(self, network: Any, tokenizer: Any) -> Features:
        from phaselab.features import extract

        return extract(
            network,
            tokenizer,
            self.brain.stimulus,
            self.study.features,
            scratch=self.store.root,
            say=self.say,
        )

    def _asked(self, model: Model, network: Any, tokenizer: Any) -> Iterator[pd.DataFrame]:
        """The internal measures that take passes of their own, where the study asks for them."""
        spec = self.study.internals
        if spec.attention:
            from phaselab.internals.attention import head_scores

            yield head_scores(network, tokenizer, spec.attention)
        if spec.ngrams and model.train:
            from phaselab.internals import ngrams

            source = self.source(model)
            if model.name not in self._counts:
                self._counts[model.name] = ngrams.count(source, model.train, spec.ngrams, len(tokenizer))
            yield ngrams.measure(network, source, model.train, self._counts[model.name])

    @cached_property
    def _counts(self) -> dict[str, Counts]:
        return {}

    @cached_property
    def responses(self) -> Mapping[str, Mapping[str, Any]]:
        """Subject -> run -> responses without the first ``trim`` TRs."""
        return self.brain.scored(self.study.features.trim)

    # ------------------------------------------------------------- comparisons

    def compared(self, model: Model) -> tuple[Path, bool]:
        """Each checkpoint of `model` beside the last and the one before; the folder, and whether computed.

        Reads the hidden states that units keep where the study asks for it (``internals.compare``), so a
        unit still depends on nothing but its own checkpoint.

        Raises
        ------
        StudyError
            When the study does not ask for it.
        """
        if not self.study.internals.compare:
            raise StudyError(f"study {self.study.name}: internals.compare: found false, expected true")
        checkpoints = self.checkpoints(model)
        units = [self.unit(model, checkpoint)[0] for checkpoint in checkpoints]
        folder = self.store.compared(self.study.name, model.name)
        states = [results.read_manifest(unit)["outputs"][STATES] for unit in units]
        inputs = {"code": self._code, "states": digest_of(states)}
        if self._current(folder, inputs):
            return folder, False
        with one_thread():
            table = self._compare(model, checkpoints, units)
        with results.write_folder(folder, inputs) as aside:
            results.write_table(table, aside / "internal.parquet")
        return folder, True

    def _compare(self, model: Model, checkpoints: list[Checkpoint], units: list[Path]) -> pd.DataFrame:
        from safetensors.numpy import load_file

        from phaselab.internals import compare

        def states(unit: Path) -> dict[int, np.ndarray]:
            return {int(layer): values for layer, values in load_file(unit / STATES).items()}

        final, before, tables = states(units[-1]), None, []
        for checkpoint, unit in zip(checkpoints, units, strict=True):
            own = states(unit)
            others = {"final": final, **({"previous": before} if before is not None else {})}
            tables += [
                results.curve_table(
                    compare(own, other, to).to_dict("records"),
                    study=self.study.name,
                    model=model.name,
                    checkpoint=checkpoint.revision,
                    step=checkpoint.step,
                    tokens=checkpoint.tokens,
                    perspective="internal",
                )
                for to, other in others.items()
            ]
            before = own
        return pd.concat(tables, ignore_index=True)

    # --------------------------------------------------------------- controls

    def controls(self, model: Model) -> tuple[Path, bool]:
        """What a reviewer asks for beside the scores of `model`; the folder, and whether it was computed.

        Word rate and other nuisance alone; the true latents where the brain is simulated; and the
        features of the last checkpoint against responses that are shifted in time.
        """
        last = self.checkpoints(model)[-1]
        folder = self.store.controls(self.study.name, model.name)
        inputs = self.inputs(model, last)
        if self._current(folder, inputs):
            return folder, False
        with one_thread(), self._present(model, last) as here:
            table = self._control_table(model, here)
            with results.write_folder(folder, inputs) as aside:
                results.write_table(table, aside / "controls.parquet")
        return folder, True

    def _control_table(self, model: Model, last: Checkpoint) -> pd.DataFrame:
        from phaselab import encoding
        from phaselab.features import to_trs

        study, brain = self.study, self.brain
        trim, seed = study.features.trim, brain_seed(study)
        known = {
            WORD_RATE: brain.nuisance,
            LATENTS: brain.latents,
        }
        tables = []
        for name, sources in known.items():
            if sources:
                X = {0: {run: values[trim:] for run, values in sources.items()}}
                scores = encoding.encode(X, self.responses, study.encoding, seed, device=self.device)
                rows = encoding.summarise(scores, brain.rois, brain.ceiling)
                tables.append(self._control_rows(rows, name, model, last))
        features = self._features(*self._load(model, last))
        aligned = to_trs(features, brain.stimulus, study.features)
        shuffles = encoding.shuffled_stimulus(
            aligned, self.responses, study.encoding, study.encoding.shuffles, seed, self.device
        )
        for number, scores in enumerate(shuffles):
            rows = encoding.summarise(scores, brain.rois, brain.ceiling)
            tables.append(self._control_rows(rows, SHUFFLED, model, last).assign(checkpoint=f"shuffle-{number}"))
        return pd.concat(tables, ignore_index=True)

    def _control_rows(self, rows: pd.DataFrame, name: str, model: Model, last: Checkpoint) -> pd.DataFrame:
        return results.curve_table(
            rows.to_dict("records"),
            study=self.study.name,
            model=name,
            task=model.name,
            checkpoint=last.revision,
            step=last.step,
            tokens=last.tokens,
            perspective="brain",
        )


def hub_family(model: Model) -> Family | None:
    """The family of a model that is on a hub; None for one that is not."""
    if model.family is not None:
        return find(model.family)
    if model.repository is not None:
        return of_repository(model.repository, model.tokens_per_step)
    return None


def brain_seed(study: Study) -> int:
    """Seed of permutations and shuffles of a study."""
    return study.brain.seed


def write_voxels(scores: dict[str, Scores], path: Path) -> None:
    """Write per-voxel scores as Zarr: subject / {r, p, significant, alpha} of (n_layers, n_voxels)."""
    import zarr

    group = zarr.open_group(path, mode="w")
    for subject, score in scores.items():
        of_subject = group.create_group(subject)
        for name in ("r", "p", "significant", "alpha"):
            of_subject.create_array(name, data=np.ascontiguousarray(getattr(score, name)))
        of_subject.attrs["layers"] = [int(layer) for layer in score.layers]


def read_voxels(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """What ``write_voxels`` wrote: subject -> name -> (n_layers, n_voxels), and ``layers`` (n_layers,)."""
    import zarr

    group = zarr.open_group(path, mode="r")
    return {
        subject: {
            **{name: np.asarray(of_subject[name]) for name in ("r", "p", "significant", "alpha")},
            "layers": np.asarray(of_subject.attrs["layers"]),
        }
        for subject, of_subject in sorted(group.groups())
    }
