"""A small study with every measure that has to be asked for; checkpoints compared after their units."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from phaselab.book.lab import Lab
from phaselab.results import Store
from phaselab.study import Study
from phaselab.sweep import pool as sweep
from tiny import PLACES, TRAIN, make

DOCS = [{"question": f"w {i}", "choices": ["farm", "mill", "tower"], "answer": i % 3} for i in range(9)]


def _study(folder: Path, **internals: Any) -> Study:
    (folder / "docs.jsonl").write_text("".join(json.dumps(d) + "\n" for d in DOCS), encoding="utf-8")
    (folder / "places.yaml").write_text(PLACES, encoding="utf-8")
    places = {"name": "places", "file": folder / "places.yaml", "items": 6, "permute": True}
    places["data"] = {"test": folder / "docs.jsonl"}
    return Study.model_validate(
        {
            "name": "tiny",
            "title": "Tiny",
            "brain": {"name": "simulated", "subjects": 1, "runs": 3, "minutes": 6, "vertices": 16},
            "models": [{"name": "one", "train": {**TRAIN, "layers": 2}}],
            "features": {"trim": 2},
            "encoding": {
                "permutations": 5,
                "shuffles": 1,
                "log10_alphas": [0, 4, 5],
                "similarity": ["rsa", "cka"],
            },
            "tasks": [{"name": "facts", "items": 6, "generate": 4}, places],
            "internals": {"probes": ["place"], "samples": 200, **internals},
        }
    )


def test_everything_that_can_be_asked_for_is_measured_and_restarts(tmp_path: Path) -> None:
    study = _study(tmp_path, sparse=[2], attention=2, ngrams=2, compare=True)
    store, quiet = Store(tmp_path / "results"), Console(file=StringIO())
    outcome = sweep.run(study, store, jobs=1, console=quiet)
    assert outcome.failures == {}
    # Of each checkpoint attention, behaviour, brain, internal, ngrams, similarity and states; controls; compare.
    assert outcome.computed == 3 * 7 + 1 + 1
    table = pd.read_parquet(store.curves("tiny"))
    internal = table[table["perspective"] == "internal"]
    layers = internal.groupby("measure")["layer"].unique().map(sorted)
    for measure in ("cka_final", "drift_final", "cka_previous", "drift_previous", "massive_ratio"):
        assert layers[measure] == [0, 1, 2]
    assert layers["induction"] == layers["previous_token_best"] == [1, 2]
    assert layers["loss"] == layers["ngram_3"] == [-1]
    assert "probe_sparse_2" in layers
    last = internal[internal["tokens"] == internal["tokens"].max()].set_index("measure")["value"]
    assert last["cka_final"].to_list() == pytest.approx([1, 1, 1])
    assert last["drift_final"].to_list() == pytest.approx([0, 0, 0], abs=1e-9)
    first = internal[internal["tokens"] == 0]
    assert not first["measure"].str.endswith("_previous").any()
    alike = table[table["measure"].isin(["rsa", "cka"])]
    assert set(alike["perspective"]) == {"brain"}
    assert alike.groupby("measure")["layer"].unique().map(sorted).to_list() == [[0, 1, 2]] * 2
    assert alike["value"].between(-1, 1).all()
    behaviour = table[table["perspective"] == "behaviour"]
    strict = behaviour[behaviour["measure"] == "instruction_following_strict"]
    assert set(strict["task"]) == {"facts"}
    assert set(behaviour["task"]) == {"facts", "places"}
    assert set(behaviour.loc[behaviour["measure"] == "knowing", "task"]) == {"facts", "places"}

    again = sweep.run(study, store, jobs=1, console=quiet)
    assert (again.computed, again.reused) == (0, 23)
    lab = Lab(study, store, None)
    pd.testing.assert_frame_equal(lab.curves("all"), table)
    made = store.study("tiny") / "one/_model/compare/curves.parquet"
    made.write_bytes(b"")
    assert make(study, store, "one") == 1
    assert len(pd.read_parquet(made))
