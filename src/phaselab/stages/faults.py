"""What can be known of a study before a model is trained or loaded: all of it is checked before the first unit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from phaselab.behaviour.files import read
from phaselab.checkpoints import Checkpoint, choose, local_checkpoints
from phaselab.errors import PhaselabError, expect, told
from phaselab.stages.context import Workbench, hub_family
from phaselab.study import Model, StudyError
from phaselab.training.folder import place

Choice = str | tuple[str, ...] | None
#: Takes what its block finds wrong; the argument is what the sentence then begins with.
Noting = Callable[[str], AbstractContextManager[None]]


def check(bench: Workbench, models: Sequence[Model], wanted: Choice = None) -> dict[str, str]:
    """Refuse a study that cannot be made: a StudyError tells every fault, with file and field.

    `wanted`: other checkpoints than the study's. Returns model -> what is wrong with that one alone.
    """
    faults, failed, own = dict[str, None](), dict[str, str](), f"{bench.study.where}: "

    @contextmanager
    def noting(where: str) -> Iterator[None]:
        try:
            yield
        except (PhaselabError, OSError) as error:
            faults[said.removeprefix(own) if (said := told(error)).startswith(own) else where + said] = None

    if any(_pending(bench, model, wanted) for model in models):
        for model in models:
            at = f"models.{bench.study.models.index(model)}"
            try:
                _check_model(bench, model, at, wanted, noting)
            except (PhaselabError, OSError) as error:
                failed[model.name] = f"{bench.study.where}: {at}: {told(error)}"
        for task in bench.study.tasks:  # names and options of all; the items of those whose data need no hub
            with noting(f"tasks: {task.name}: "):
                file = read(path) if (path := bench.task_files.get(task.name)) else None
                if not file or task.data or file.data_files or file.fields.get("dataset_path") == "json":
                    for model in models:
                        bench.items_of(task, model)
        with noting(""):
            _check_stimulus(bench, noting)
    if faults:
        raise StudyError(f"{bench.study.where}: " + "\n  ".join(faults))
    return failed


def _pending(bench: Workbench, model: Model, wanted: Choice) -> bool:
    """Whether something of a model is to be made, or fails already when it is looked for."""
    try:
        units = [*bench.checkpoints(model, wanted), *[None] * (wanted is None)] if bench.there(model) else []
        return not units or any(bench.stale(model, at) for at in units)
    except (PhaselabError, OSError):
        return True


def _check_model(bench: Workbench, model: Model, at: str, wanted: Choice, noting: Noting) -> None:
    """Text, choice of checkpoints, layers and widths of a model; raises what is wrong with its network or folder."""
    features, sparse, train = bench.study.features, bench.study.internals.sparse, model.train
    sizes, revisions = dict[str, int](), list[Checkpoint]()
    hub_family(model)  # one that is known
    if train is not None:
        with noting(f"{at}.train: "):
            names = place(model.name, train, bench.store, bench.source(model)).revisions
            revisions = [Checkpoint(name, step, step, None) for step, name in names.items()]
        sizes = {"layers": train.layers, "width": train.hidden_size}
    elif model.folder is not None:
        revisions = local_checkpoints(bench.folder(model))
        if features.layers != "all" or sparse:
            from phaselab.checkpoints.load import configuration

            config = configuration(revisions[-1].path or Path(), model.trust_remote_code)
            sizes = {"layers": config.num_hidden_layers, "width": config.hidden_size}
    if revisions:
        with noting("--" if wanted else f"{at}."):
            choose(revisions, wanted or model.checkpoints)
    if sizes:
        from phaselab.features import chosen_layers

        with noting(f"{at}: "):
            layers, of_rule = chosen_layers(features.layers, sizes["layers"], model.name), bench.study.phases.layer
            right = f"a depth as 0.67, mean, best or one of {layers}"
            expect(type(of_rule) is not int or of_rule in layers, f"{model.name}: phases.layer", of_rule, right)
            most, right = max(sparse, default=0), f"at most its {sizes['width']} neurons"
            expect(most <= sizes["width"], f"{model.name}: internals.sparse", most, right)
    if train is not None and revisions and not bench.there(model):
        from phaselab.training.loop import check_sizes

        check_sizes(train)


def _check_stimulus(bench: Workbench, noting: Noting) -> None:
    """The brain data, and whether rule, probes, haemodynamics, folds and permutations suit them."""
    from phaselab.behaviour.score import GENERATED, KNOWING, MEASURES
    from phaselab.encoding import arrays, shuffled_stimulus, significance, similarity
    from phaselab.encoding.folds import inner_folds, outer_folds, parts_of
    from phaselab.features import Features, to_trs

    brain, spec, labels = bench.brain, bench.study.encoding, bench.brain.stimulus.labels
    sided = bench.study.phases.measure == "left_minus_right"  # of a region, and not of one of its sides
    regions = sorted({"all"}.union(*(arrays.mirrored(of) if sided else {*of} for of in brain.rois.values())))
    scores: list[str] = ["r", "r_normalised", "significant", *spec.similarity, *["r2_unique", "r2_joint"] * spec.unique]
    scores += ["left_minus_right"] * any(map(arrays.mirrored, brain.rois.values()))
    for field, right in ("roi", regions), ("measure", scores), ("accuracy", [*MEASURES, *KNOWING, *GENERATED]):
        with noting(""):
            given = getattr(bench.study.phases, field)
            expect(given in right or given == "", f"phases.{field}", repr(given), f"one of {', '.join(right)}")
    known = f"labels of the stimulus: {', '.join(map(str, labels))}"
    for probe in bench.study.internals.probes:
        with noting(""):
            expect(probe in labels, "internals.probes", repr(probe), known)
    with noting("encoding.unique: "):
        expect(not spec.unique or brain.nuisance, brain.name, "no nuisance regressors", "some to compare with")
    # As the stages do it, with one feature that says nothing.
    zeros = np.zeros((len(labels), 1), np.float32)
    nothing = Features({0: zeros}, labels["run"].to_numpy(), np.ones(len(labels), bool), {})
    with noting("features: "):
        aligned = to_trs(nothing, brain.stimulus, bench.study.features)[0]
        for _, names in brain.groups:
            runs = np.repeat(np.arange(len(names)), [len(aligned[name]) for name in names])
            with noting("encoding: "):
                parts = parts_of({name: len(aligned[name]) for name in names}, spec, brain.folds)
                folds = outer_folds(parts, spec)
                for train, _ in folds:
                    inner_folds(train, parts, spec)
                unused = spec.gap and spec.folds in ("runs", "given") and len({*parts}) > 2
                expect(not unused, "gap", f"{spec.gap} with folds: {spec.folds}", "none: it would be ignored")
                tested = [runs[test] for _, test in folds]
                significance.Permutations(tested, spec.block, min(1, spec.permutations), 0, spec.null)
            if spec.similarity and len(runs) < 1000:  # of more some are far from each other
                with noting("encoding.similarity: "):
                    similarity.far_pairs(runs)
        with noting("encoding.shuffles: "):
            if spec.shuffles:
                shuffled_stimulus({0: aligned}, bench.responses, spec, 0)
