"""What must come out of the demo study before anything in it is believed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from phaselab import encoding, internals
from phaselab.behaviour import score_tasks
from phaselab.brains import BrainData, load_brain
from phaselab.features import Features, extract, to_trs
from phaselab.stages import one_thread
from phaselab.study import Study, load_study
from phaselab.texts import source
from phaselab.training.loop import build


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study("demo")


@pytest.fixture(scope="module")
def brain(study: Study) -> BrainData:
    return load_brain(study.brain, None)


@pytest.fixture(scope="module")
def untrained(study: Study) -> tuple[Any, Any]:
    """The first model of the demo before its first step, and its tokenizer."""
    training = study.models[0].train
    assert training is not None
    tokenizer = source(training, None).tokenizer
    special = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    return build(training, len(tokenizer), *special).eval(), tokenizer


@pytest.fixture(scope="module")
def features(study: Study, brain: BrainData, untrained: tuple[Any, Any]) -> Features:
    with one_thread():
        return extract(*untrained, brain.stimulus, study.features)


def trimmed(values: dict[str, np.ndarray], study: Study) -> dict[str, np.ndarray]:
    return {run: v[study.features.trim :] for run, v in values.items()}


@pytest.fixture(scope="module")
def responses(study: Study, brain: BrainData) -> dict[str, Any]:
    return brain.scored(study.features.trim)


def test_the_true_latents_reach_the_ceiling_within_a_tenth(
    study: Study, brain: BrainData, responses: dict[str, Any]
) -> None:
    assert brain.ceiling is not None
    with one_thread():
        scores = encoding.encode({0: trimmed(brain.latents, study)}, responses, study.encoding)
    rows = encoding.summarise(scores, brain.rois, brain.ceiling)
    whole = rows[(rows["measure"] == "r_normalised") & (rows["roi"] == "all")]["value"]
    assert len(whole) == len(brain.subjects)
    assert whole.mean() == pytest.approx(1.0, abs=0.1)


def test_the_scores_of_shuffled_stimuli_are_zero_within_their_interval(
    study: Study, brain: BrainData, features: Features, responses: dict[str, Any]
) -> None:
    X = to_trs(features, brain.stimulus, study.features)
    last = max(X)
    spec = study.encoding.model_copy(update={"permutations": 0})
    with one_thread():
        shuffles = encoding.shuffled_stimulus({last: X[last]}, responses, spec, 12, seed=1)
        real = encoding.encode({last: X[last]}, responses, spec)
    means = np.array([np.mean([score.r.mean() for score in scores.values()]) for scores in shuffles])
    half = 2.2 * means.std(ddof=1) / np.sqrt(len(means))  # t of 11 degrees of freedom
    assert abs(means.mean()) <= half
    # And the same features at the right moments are far outside it.
    assert np.mean([score.r.mean() for score in real.values()]) > means.mean() + 3 * half


def test_probes_of_shuffled_labels_are_at_chance(study: Study, brain: BrainData, features: Features) -> None:
    labels = brain.stimulus.labels.replace("unknown", "")
    with one_thread():
        rows = internals.measure(features.layers, labels, study.internals)
    wide = rows.pivot_table(index=["layer", "task"], columns="measure", values="value")
    # A classifier of meaningless labels does no better than naming the commonest one.
    assert (wide["probe_shuffled"] - wide["probe_chance"]).max() < 0.05
    assert (wide["probe_accuracy"] - wide["probe_shuffled"]).max() > 0.1


def test_an_untrained_model_follows_no_instruction_and_guesses(study: Study, untrained: tuple[Any, Any]) -> None:
    training = study.models[0].train
    assert training is not None
    items = {task.name: source(training, None).items(task.name, 400, 5) for task in study.tasks[:2]}
    with one_thread():
        rows, _ = score_tasks(*untrained, items)
    table: pd.DataFrame = rows.pivot_table(index="task", columns="measure", values="value")
    n_options = 3
    error = np.sqrt(1 / n_options * (1 - 1 / n_options) / 400)
    assert (table["instruction_following"] < 0.02).all()
    assert ((table["accuracy"] - 1 / n_options).abs() < 3.5 * error).all()
    assert ((table["log_probability_normalised"] + np.log(n_options)).abs() < 0.35).all()
