"""A study that is made in seconds: two models of three checkpoints, and a simulated brain of two subjects."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from phaselab.results import Store
from phaselab.stages import Workbench
from phaselab.study import Study
from phaselab.sweep import pool

TRAIN = {
    "text": "world",
    "architecture": "gpt_neox",
    "hidden_size": 16,
    "layers": 1,
    "heads": 2,
    "intermediate_size": 32,
    "steps": 6,
    "batch": 2,
    "warmup": 2,
    "checkpoints": 3,
}
#: A label of what means something to matplotlib, Markdown, HTML, LaTeX, rich or plotly; figures shorten longer ones.
LABEL = r"""_$\a$ *b*|[c](d)[red]`e`<script>alert(1)</script>&"'🙂"""
TINY: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "brain": {"name": "simulated", "subjects": 2, "runs": 3, "minutes": 6, "vertices": 24},
    "models": [
        {"name": "one", "train": TRAIN},
        {"name": "two", "train": {**TRAIN, "architecture": "olmo2", "seed": 1}},
    ],
    "features": {"trim": 2},
    "encoding": {"permutations": 20, "shuffles": 2, "log10_alphas": [0, 4, 5]},
    "tasks": [{"name": "reading", "items": 8}, {"name": "facts", "items": 8}],
    "internals": {"probes": ["who"], "samples": 200},
}
#: A task file whose options are words of the world, which has no letters.
PLACES = """task: places
dataset_path: json
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}} options : {{choices | join(' , ')}} answer :"
doc_to_choice: choices
doc_to_target: answer
"""
#: Stages that TINY asks for, of each checkpoint, and of the last of each model.
CHECKPOINT, LAST = ("behaviour", "brain", "internal"), ("controls",)


def with_(*changes: tuple[str, Any]) -> dict[str, Any]:
    """TINY with some fields (dotted) changed."""
    import copy

    content = copy.deepcopy(TINY)
    for name, value in changes:
        *path, last = name.split(".")
        inside: Any = content
        for part in path:
            inside = inside[int(part)] if part.isdecimal() else inside.setdefault(part, {})
        inside[int(last) if last.isdecimal() else last] = value
    return content


def make(study: Study, store: Store, name: str, **options: Any) -> int:
    """Make what is stale of a model in this process, which spares the start of a worker; the number of stages."""
    bench, model = Workbench(study, store, **options), study.model(name)
    return sum(bench.make(model, at) for at in (*bench.checkpoints(model), None))


def sweep(study: Study, store: Store, *arguments: Any, jobs: int = 1, **options: Any) -> pool.Outcome:
    """``pool.run``, silent."""
    return pool.run(study, store, *arguments, jobs=jobs, console=Console(file=StringIO()), **options)
