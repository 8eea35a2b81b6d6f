"""What a change makes stale: the stages that read it, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import phaselab.stages.context as context
from phaselab.results import Store, digest_file
from phaselab.stages import STAGES, Workbench
from phaselab.study import Study
from phaselab.sweep.states import status
from tiny import CHECKPOINT, LAST, PLACES, TINY, make, with_

#: Base of the table: two of three checkpoints, and features that are averaged over delays.
BASE = [("models.0.checkpoints", "every:2"), ("features.hemodynamics", "average")]
FITS = {"brain", "controls"}
THREE = {"name": "three", "train": {**TINY["models"][0]["train"], "seed": 7}}
CHANGES: dict[str, tuple[list[tuple[str, Any]], set[str]]] = {
    "title": ([("title", "Another")], set()),
    "description": ([("description", "Another")], set()),
    "label": ([("models.0.label", "Another")], set()),
    "items of a task": ([("tasks.0.items", 9)], {"behaviour"}),
    "a task more": ([("tasks", [*TINY["tasks"], {"name": "facts-vo", "items": 8}])], {"behaviour"}),
    "a probe more": ([("internals.probes", ["who", "place"])], {"internal"}),
    "samples": ([("internals.samples", 100)], {"internal"}),
    "permutations": ([("encoding.permutations", 30)], FITS),
    "alphas": ([("encoding.log10_alphas", [0, 5, 5])], FITS),
    "folds": ([("encoding.folds", "contiguous")], FITS),
    "false discovery rate": ([("encoding.fdr", 0.1)], FITS),
    "shuffles": ([("encoding.shuffles", 3)], {"controls"}),
    "similarity": ([("encoding.similarity", ["rsa"])], {"similarity"}),
    "solver": ([("encoding.solver", "himalaya")], FITS),
    "unique contributions": ([("encoding.unique", True)], {"unique"}),
    "memory": ([("encoding.memory", 2.0)], set()),
    "rule of the phases": ([("phases.margin", 0.1)], set()),
    "first token": ([("features.first_token", "keep")], {*FITS, "internal"}),
    "comparisons": ([("internals.compare", True)], {"states", "compare"}),
    "attention": ([("internals.attention", 2)], {"attention"}),
    "n-grams": ([("internals.ngrams", 2)], {"ngrams"}),
    "delays": ([("features.delays", [1, 2])], FITS),
    "window": ([("features.window", 64)], {*FITS, "internal"}),
    "trim": ([("features.trim", 3)], FITS),
    "seed of the brain": ([("brain.seed", 1)], {*FITS, "internal"}),
    "vertices of the brain": ([("brain.vertices", 30)], FITS),
    "code of a repository": ([("models.0.trust_remote_code", True)], {*FITS, "internal", "behaviour"}),
    "dtype": ([("models.0.dtype", "bfloat16")], {*FITS, "internal", "behaviour"}),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("results"))
    assert make(Study.model_validate(with_(*BASE)), store, "one") == 2 * len(CHECKPOINT) + len(LAST)
    return store


def stale(bench: Workbench) -> dict[str, set[str]]:
    """Stage -> checkpoints of the first model whose results would be made."""
    found: dict[str, set[str]] = {}
    model = bench.study.models[0]
    for checkpoint in (*bench.checkpoints(model), None):
        for stage in bench.stale(model, checkpoint):
            found.setdefault(stage.name, set()).add(checkpoint.revision if checkpoint else "")
    return found


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_reruns_exactly_what_reads_it(change: str, store: Store) -> None:
    changes, expected = CHANGES[change]
    bench = Workbench(Study.model_validate(with_(*BASE, *changes)), store)
    assert set(stale(bench)) == expected
    assert {s.name for s in STAGES.values()} >= expected


def test_a_checkpoint_more_is_made_alone(store: Store) -> None:
    bench = Workbench(Study.model_validate(with_(*BASE, ("models.0.checkpoints", "all"))), store)
    found = stale(bench)
    assert set(found) == set(CHECKPOINT)
    assert len(set.union(*found.values())) == 1


def test_a_model_more_touches_no_other(store: Store) -> None:
    bench = Workbench(Study.model_validate(with_(*BASE, ("models", [*with_(*BASE)["models"], THREE]))), store)
    assert not stale(bench)
    assert not bench.there(bench.study.model("three"))


def test_version_and_code_are_recorded_not_compared(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.model_validate(with_(*BASE))
    monkeypatch.setattr(context, "__version__", "99")
    monkeypatch.setattr(context.results, "digest_code", lambda *names: "another")
    bench = Workbench(study, store)
    assert not stale(bench)
    table = status(bench).set_index(["model", "stage"])
    assert table.loc[("one", "brain"), ["current", "stale", "other code"]].to_list() == [2, 0, 2]


def test_a_raised_version_makes_that_stage_stale(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setitem(STAGES, "internal", replace(STAGES["internal"], version=99))
    bench = Workbench(Study.model_validate(with_(*BASE)), store)
    assert set(stale(bench)) == {"internal"}
    why = status(bench).set_index(["model", "stage"]).loc[("one", "internal"), "why"]
    assert why.startswith("version (")
    assert "-> 99)" in why


def test_changed_weights_make_everything_stale_and_a_task_file_only_behaviour(store: Store, tmp_path: Path) -> None:
    docs = tmp_path / "docs.jsonl"
    docs.write_text(
        "".join(json.dumps({"question": f"w {i}", "choices": ["farm", "mill"], "answer": 0}) + "\n" for i in range(9))
    )
    (tmp_path / "places.yaml").write_text(PLACES)
    places = {"name": "places", "file": str(tmp_path / "places.yaml"), "items": 4, "data": {"test": str(docs)}}
    tasks = [*TINY["tasks"], places]
    source = Workbench(Study.model_validate(with_(*BASE)), store)
    found = {"name": "one", "folder": str(source.folder(source.study.models[0]))}
    study = Study.model_validate(with_(("models", [found, TINY["models"][0] | {"name": "text"}]), ("tasks", tasks)))
    make(study, Store(tmp_path / "r"), "one")
    assert not stale(Workbench(study, Store(tmp_path / "r")))
    docs.write_text(docs.read_text().replace("w 1", "w one"))
    assert set(stale(Workbench(study, Store(tmp_path / "r")))) == {"behaviour"}


def test_only_what_was_stale_is_written_again(store: Store) -> None:
    def digests() -> dict[str, str]:
        root = store.study("tiny")
        return {str(path.relative_to(root)): digest_file(path) for path in root.rglob("*.parquet")}

    before = digests()
    study = Study.model_validate(with_(*BASE, ("tasks.0.items", 9)))
    assert make(study, store, "one") == 2
    changed = {name for name, digest in digests().items() if before[name] != digest}
    assert changed
    assert all(name.startswith("one/") and "/behaviour/" in name for name in changed)
