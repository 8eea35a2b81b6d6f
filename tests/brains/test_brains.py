"""The simulated brain keeps what it says about itself; the Alice data are what their authors published."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.linear_model import Ridge

from phaselab import stimuli
from phaselab.brains import BrainData, DataMissing, alice, load_brain, simulated
from phaselab.brains.alice import AliceSpec
from phaselab.brains.signal import drift_basis, group_ceiling, regress_out, standardise
from phaselab.brains.simulated import SimulatedSpec
from phaselab.stimuli import convolve_events
from phaselab.study import FeatureSpec
from phaselab.texts import world
from phaselab.texts.base import is_held_out
from phaselab.texts.predictable import predictability

TRIM = 5


# --- Preprocessing ---------------------------------------------------------------------------------


def test_drift_basis_is_orthonormal_and_stops_at_the_cutoff() -> None:
    basis = drift_basis(150, 2.0, 128.0)
    assert basis.shape == (150, 1 + 4)  # 2 * 300 s / 128 s
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-12)
    times = (np.arange(150) + 0.5) * 2.0
    slow, fast = (np.cos(2 * np.pi * times / period)[:, None] for period in (150.0, 100.0))
    assert np.var(regress_out(slow, basis)) < 0.02 * np.var(slow)
    assert np.var(regress_out(fast, basis)) > 0.95 * np.var(fast)


def test_regress_out_leaves_nothing_of_its_regressors() -> None:
    rng = np.random.default_rng(0)
    regressors, series = rng.standard_normal((50, 4)), rng.standard_normal((50, 3))
    np.testing.assert_allclose(regressors.T @ regress_out(series, regressors), 0, atol=1e-10)
    np.testing.assert_allclose(regress_out(regressors @ np.ones((4, 2)), regressors), 0, atol=1e-10)


# --- Simulated -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brain() -> BrainData:
    return simulated.load(SimulatedSpec(seed=0))


def dimensions(latents: simulated.Latents) -> int:
    return sum(latents.categories.values()) + len(latents.values)


def groups_of_latents() -> dict[str, slice]:
    edges = np.cumsum([0, *(map(dimensions, simulated.LATENTS))])
    return {g.name: slice(a, b) for g, a, b in zip(simulated.LATENTS, edges, edges[1:], strict=False)}


def predict(X: dict[str, np.ndarray], brain: BrainData) -> dict[str, np.ndarray]:
    """Correlation by leave-one-run-out ridge, mean over runs; alpha chosen in training."""
    runs = [run.name for run in brain.stimulus.runs]
    x = {run: X[run][TRIM:] for run in runs}
    y = {run: np.hstack([brain.responses(s, run)[TRIM:] for s in brain.subjects]) for run in runs}

    def fit(train: list[str], test: str, alpha: float) -> np.ndarray:
        model = Ridge(alpha).fit(np.concatenate([x[r] for r in train]), np.concatenate([y[r] for r in train]))
        return correlate(model.predict(x[test]), y[test])

    scores = []
    for test in runs:
        train = [run for run in runs if run != test]
        alphas = [1.0, 10.0, 100.0, 1000.0]
        inner = [np.mean([fit([r for r in train if r != t], t, a) for t in train], axis=0) for a in alphas]
        outer = np.array([fit(train, test, a) for a in alphas])
        scores.append(outer[np.argmax(inner, axis=0), np.arange(outer.shape[1])])
    r = np.mean(scores, axis=0)
    edges = np.cumsum([0, *(len(brain.rois[s]) for s in brain.subjects)])
    return {s: r[a:b] for s, a, b in zip(brain.subjects, edges, edges[1:], strict=False)}


def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return (a * b).sum(axis=0) / np.maximum(np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0)), 1e-12)


def by_region(values: dict[str, np.ndarray], brain: BrainData, region: str) -> np.ndarray:
    return np.concatenate([values[s][brain.rois[s] == region] for s in brain.subjects])


def test_shapes_names_and_lengths(brain: BrainData) -> None:
    assert brain.subjects == ("sub-01", "sub-02", "sub-03")
    assert brain.stimulus.n_trs == 600
    assert [run.name for run in brain.stimulus.runs] == ["run-1", "run-2", "run-3", "run-4"]
    for subject in brain.subjects:
        assert set(brain.rois[subject]) == set(simulated.REGIONS)
        assert brain.ceiling is not None
        assert brain.vertices is not None
        assert brain.ceiling[subject].shape == brain.vertices[subject].shape == (160,)
        for run in brain.stimulus.runs:
            values = brain.responses(subject, run.name)
            assert values.shape == (run.n_trs, 160)
            assert values.dtype == np.float32
            np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-5)
            np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-4)
    for run in brain.stimulus.runs:
        assert brain.nuisance[run.name].shape == (run.n_trs, 3)
        assert brain.latents[run.name].shape == (run.n_trs, sum(map(dimensions, simulated.LATENTS)))


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    one, again, other = (simulated.load(SimulatedSpec(seed=seed, minutes=4, runs=2, vertices=24)) for seed in (0, 0, 1))
    assert again.digest == one.digest
    assert again.stimulus.digest == one.stimulus.digest
    assert other.digest != one.digest
    assert other.stimulus.digest != one.stimulus.digest
    fewer = simulated.load(SimulatedSpec(seed=0, minutes=4, runs=2, vertices=24, subjects=1))
    np.testing.assert_array_equal(fewer.responses("sub-01", "run-1"), one.responses("sub-01", "run-1"))


def test_subjects_share_latents_and_differ_in_weights_and_noise(brain: BrainData) -> None:
    one, two = (np.concatenate([*runs.values()]) for runs in [*brain.scored(0).values()][:2])
    assert np.abs(correlate(one, two)).max() < 0.9


def test_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert len(simulated.patches(12)[0]) == 12


@pytest.mark.parametrize("n_vertices", [160, 3000])
def test_regions_are_contiguous_patches_in_both_hemispheres(n_vertices: int) -> None:
    from nilearn.datasets import load_fsaverage

    vertices, rois = simulated.patches(n_vertices)
    assert len(vertices) == len(rois) == len(np.unique(vertices)) == n_vertices
    for side, hemisphere in enumerate(("left", "right")):
        faces = load_fsaverage("fsaverage5")["pial"].parts[hemisphere].faces
        edges = np.ones(faces.size), (faces.ravel(), np.roll(faces, 1, axis=1).ravel())
        graph = coo_matrix(edges, shape=(10242, 10242)).tocsr()
        for region in simulated.REGIONS:
            patch = vertices[(rois == region) & (vertices // 10242 == side)] - 10242 * side
            assert len(patch) > 0
            assert connected_components(graph[patch][:, patch], directed=False)[0] == 1, (region, hemisphere)


def test_a_number_of_vertices_that_cannot_be_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "present", None)  # which may take minutes
    with pytest.raises(ValueError, match=r"brain.vertices: found 8, expected 12 to 20484"):
        simulated.load(SimulatedSpec(vertices=8))


def test_runs_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match=r"brain.minutes: found 2 for 4 runs, expected at least 1 minute a run"):
        simulated.load(SimulatedSpec(minutes=2))


def test_the_narratives_are_held_out_natural_in_pace_and_never_cross_a_run(brain: BrainData) -> None:
    told = list(islice(world.narratives(0), 200))
    number = 0
    for run in brain.stimulus.runs:
        assert run.onsets[0] == 0
        assert run.offsets.max() <= run.n_trs * run.tr
        assert run.n_trs * run.tr - run.offsets[-1] < 3, "no silence of note at the end"
        np.testing.assert_array_equal(run.starts, run.labels["narrative"].diff().fillna(1) != 0)
        for found, rows in run.labels.groupby("narrative"):
            assert found == number
            assert tuple(rows["word"]) == tuple(told[number]["word"])[: len(rows)]
            number += 1
        spoken = (~run.labels["word"].isin(world.PUNCTUATION)).sum()
        assert 2.0 < spoken / (run.n_trs * run.tr) < 3.0


def test_ceilings_spread_and_are_zero_without_signal(brain: BrainData) -> None:
    assert brain.ceiling is not None
    noise = by_region(brain.ceiling, brain, "sim-noise")
    np.testing.assert_array_equal(noise, 0)
    others = np.concatenate([by_region(brain.ceiling, brain, r) for r in simulated.REGIONS if r != "sim-noise"])
    assert others.min() < 0.42
    assert others.max() > 0.75
    assert others.max() < 1


def test_ridge_from_the_true_latents_recovers_the_ceiling_within_a_tenth(brain: BrainData) -> None:
    assert brain.ceiling is not None
    r = predict(brain.latents, brain)
    for region in simulated.REGIONS[:-1]:
        ratio = by_region(r, brain, region).mean() / by_region(brain.ceiling, brain, region).mean()
        assert 0.9 < ratio < 1.02, region
    signal = [r[s][c > 0] / c[c > 0] for s, c in brain.ceiling.items()]
    assert np.concatenate(signal).mean() > 0.9
    assert abs(by_region(r, brain, "sim-noise").mean()) < 0.05


def test_the_ceiling_is_the_root_of_the_explainable_variance(brain: BrainData) -> None:
    assert brain.ceiling is not None
    # Not the code's formula again: one fit of all runs on the true latents, with the variance that its
    # 17 columns take from the noise given back.
    x = np.concatenate([brain.latents[run.name] for run in brain.stimulus.runs])
    for subject in brain.subjects:
        y = np.concatenate([brain.responses(subject, run.name) for run in brain.stimulus.runs])
        unexplained = np.var(regress_out(y, x), axis=0) / (1 - x.shape[1] / len(x))
        explained = 1 - unexplained
        signal = brain.ceiling[subject] > 0
        assert explained[signal].mean() == pytest.approx((brain.ceiling[subject][signal] ** 2).mean(), rel=0.06)


def test_word_level_latents_are_a_minority_and_who_where_and_how_are_not_in_the_words(
    brain: BrainData,
) -> None:
    assert brain.ceiling is not None
    columns = groups_of_latents()
    words = {run: values[:, columns["word"]] for run, values in brain.latents.items()}
    vocabulary = sorted({text for run in brain.stimulus.runs for text in run.texts})
    spec = FeatureSpec(hemodynamics="hrf")
    identity = {
        run.name: 10 * stimuli.align(np.array(run.texts)[:, None] == np.array(vocabulary), run, spec)
        for run in brain.stimulus.runs
    }
    explained = {}
    for name, features in (("latents", words), ("identity", identity)):
        r = predict(features, brain)
        squared = {s: r[s].clip(0) ** 2 for s in r}
        of = {s: brain.ceiling[s] ** 2 for s in r}
        signal = simulated.REGIONS[:-1]
        explained[name] = sum(by_region(squared, brain, g).sum() for g in signal) / sum(
            by_region(of, brain, g).sum() for g in signal
        )
    assert explained["latents"] < 0.2
    assert explained["identity"] < 0.2


def test_each_region_follows_its_own_group_most(brain: BrainData) -> None:
    columns = groups_of_latents()
    regions = simulated.REGIONS[:-1]
    scores = {
        name: predict({run: values[:, at] for run, values in brain.latents.items()}, brain)
        for name, at in columns.items()
    }
    for region in regions:
        means = {name: by_region(r, brain, region).mean() for name, r in scores.items()}
        assert max(means, key=means.__getitem__) == region.removeprefix("sim-")


def test_latents_integrate_over_longer_and_longer_windows(brain: BrainData) -> None:
    run = brain.stimulus.runs[0]
    one = simulated.integrated(brain.stimulus, simulated.LATENTS[1], np.random.default_rng(0))[0]
    start = np.flatnonzero(run.starts)[1]
    # Nothing is carried over from the narrative before: its first word alone decides.
    assert np.abs(one[start]).max() < np.abs(one).max() / 2
    windows = [latents.window for latents in simulated.LATENTS]
    assert windows == sorted(windows)
    rest = simulated.LATENTS[1]._replace(window=0)
    raw = simulated.integrated(brain.stimulus, rest, np.random.default_rng(0))[0]
    keep = np.exp(-np.diff(run.onsets[:start]) / simulated.LATENTS[1].window)[:, None]
    np.testing.assert_allclose(one[1:start], keep * one[: start - 1] + (1 - keep) * raw[1:start], atol=1e-12)


def test_what_narrative_it_is_cannot_be_read_off_the_latents(brain: BrainData) -> None:
    """A value that a single narrative has would be that narrative's own mark, and is no latent."""
    labels = brain.stimulus.labels
    goal = simulated.Latents("goal", 0.0, {"object": 2}, (), 0.1, (0.0, 0.0, 0.0))
    coded = np.concatenate(simulated.integrated(brain.stimulus, goal, np.random.default_rng(0))).any(axis=1)
    heard = labels.groupby("object")["narrative"].nunique()
    assert (heard == 1).any(), "the case that this test is about"
    expected = (labels["object"] != world.UNKNOWN) & (labels["object"].map(heard) >= 2)
    np.testing.assert_array_equal(coded, expected)
    for label in ("who", "holder", "place", "mood", "goal"):
        known = labels[labels[label] != world.UNKNOWN]
        assert (known.groupby(label)["narrative"].nunique() >= 2).mean() > 0.7, label


def test_a_very_short_stimulus_still_works() -> None:
    brain = simulated.load(SimulatedSpec(minutes=2, runs=2, vertices=12, subjects=1))
    assert brain.ceiling is not None
    assert np.isfinite(brain.ceiling["sub-01"]).all()
    for run in brain.stimulus.runs:
        assert np.isfinite(brain.responses("sub-01", run.name)).all()
        assert np.isfinite(brain.latents[run.name]).all()


# --- Alice -----------------------------------------------------------------------------------------


def alice_data() -> Path | None:
    named = os.environ.get("PHASELAB_DATA")
    places = [Path(named)] if named else [Path(__file__).parents[2] / "../shared/data"]
    return next((p for p in places if (p / "alice2016").is_dir()), None)


DATA = alice_data()
needs_data = [
    pytest.mark.data,
    pytest.mark.skipif(DATA is None, reason="no alice2016 in PHASELAB_DATA or ../shared/data"),
]


def with_data(function):  # type: ignore[no-untyped-def]
    for mark in needs_data:
        function = mark(function)
    return function


@with_data
def test_alice_has_the_published_shape() -> None:
    brain = load_brain(AliceSpec(), DATA)
    assert len(brain.subjects) == 27
    assert "s33" not in brain.subjects
    assert any("s33" in note and "constant" in note for note in brain.notes)
    (run,) = brain.stimulus.runs
    assert (run.name, run.n_trs, run.tr, len(run.texts)) == ("alice", 362, 2.0, 2127)
    assert run.texts[:3] == ("Alice", "was", "beginning")
    assert run.onsets[0] == pytest.approx(0.0589, abs=1e-3)
    for subject in brain.subjects:
        assert brain.responses(subject, "alice").shape == (362, 6)
        assert np.isfinite(brain.responses(subject, "alice")).all()
        assert tuple(brain.rois[subject]) == ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")


@with_data
def test_alice_inter_subject_correlation_is_the_known_one() -> None:
    responses, _ = alice.read_responses(alice.files(AliceSpec(), DATA)["responses"])
    isc, ceiling = group_ceiling(responses)
    assert len(responses) == 27
    np.testing.assert_allclose(isc, [0.27, 0.22, 0.39, 0.24, 0.21, 0.18], atol=0.006)
    assert np.all(ceiling > isc)
    assert np.all(ceiling < 1.4 * isc)


@with_data
def test_alice_word_times_reproduce_the_published_word_rate() -> None:
    brain = load_brain(AliceSpec(subjects=3), DATA)
    assert len(brain.subjects) == 3
    for subject in brain.subjects:
        published = np.loadtxt(DATA / f"alice2016/alice_data_shared/{subject}-rate.txt")
        assert np.corrcoef(brain.nuisance["alice"][:, 0], published)[0, 1] > 0.985
        # The grid of the features themselves is coarser, but in time.
        (run,) = brain.stimulus.runs
        coarse = stimuli.convolve(stimuli.word_rate(run), run.tr)[:, 0]
        assert np.corrcoef(coarse, published)[0, 1] > 0.965


@with_data
def test_alice_responses_are_clean_of_drift_and_motion() -> None:
    responses, _ = alice.read_responses(alice.files(AliceSpec(radius="10mm"), DATA)["responses"])
    motion = np.loadtxt(DATA / "alice2016/alice_data_shared/s18-rp_epiRTwm2_scan_0004__003.txt")[10:]
    regressors = np.hstack([drift_basis(362, 2.0, 128.0)[:, 1:], motion])
    assert np.abs(correlate(regressors[:, :, None], responses["s18"][:, None, :])).max() < 1e-4


@with_data
def test_alice_labels_cover_every_word() -> None:
    (run,) = load_brain(AliceSpec(), DATA).stimulus.runs
    labels = run.labels
    assert not labels.isna().any().any()
    assert tuple(labels["word"]) == run.texts
    assert set(labels["pos_class"]) == {"function", "content"}
    assert set(labels["sentence_position"]) == {"early", "mid", "late"}
    row = labels[labels["word"] == "conversations"].iloc[0]
    assert (row["pos_class"], row["word_length"], row["frequency"]) == ("content", "long", "rare")
    for column in ("pos_class", "word_length", "frequency", "sentence_position"):
        assert labels[column].value_counts(normalize=True).min() > 0.1
    assert tuple(labels["previous_pos_class"][1:]) == tuple(labels["pos_class"][:-1])


def small_copy(tmp_path: Path) -> Path:
    """Four subjects, one of them constant, in the layout as published; made up, so that it needs no data."""
    rng = np.random.default_rng(0)
    shared = tmp_path / "alice2016/alice_data_shared"
    (shared / "6mm").mkdir(parents=True)
    common = rng.standard_normal((362, 6))
    for subject in ("s01", "s02", "s03", "s04"):
        own = common + rng.standard_normal((362, 6)) if subject != "s03" else np.ones((362, 6))
        np.savetxt(shared / f"6mm/{subject}-timecourses.txt", 100 + own)
        np.savetxt(shared / f"{subject}-rp_x.txt", rng.standard_normal((372, 6)))
        # That of a subject who is left out may be damaged, as one of the published ones is.
        np.savetxt(shared / f"{subject}-sndpwr.txt", np.sin(np.arange(362)) if subject != "s03" else np.arange(362))
    grid = tmp_path / "alice2016/alice_stim_shared"
    grid.mkdir()
    times = [(0, 20, "sp"), (20.5, 21, "Down"), (21, 21.5, "the"), (22, 22.5, "rabbit"), (22.5, 23, "")]
    body = "".join(f'intervals [{i}]:\nxmin = {a}\nxmax = {b}\ntext = "{w}"\n' for i, (a, b, w) in enumerate(times, 1))
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n0 23 <exists> 1\n"IntervalTier" "word" 0 23\n'
    (grid / "a.TextGrid").write_text(f"{head}intervals: size = {len(times)}\n{body}", encoding="utf-8")
    return tmp_path


def test_the_layout_is_read_without_the_real_data(tmp_path: Path) -> None:
    brain = load_brain(AliceSpec(), small_copy(tmp_path))
    assert brain.subjects == ("s01", "s02", "s04")
    assert "s03 left out" in brain.notes[0]
    (run,) = brain.stimulus.runs
    assert run.texts == ("Down", "the", "rabbit")
    np.testing.assert_allclose(run.onsets, [0.5, 1.0, 2.0])
    assert brain.ceiling is not None
    # Equal variance of what is shared and what is not: the best correlation is sqrt(1/2).
    np.testing.assert_allclose(brain.ceiling["s01"], np.sqrt(0.5), atol=0.06)


def test_nuisance_regressors_are_those_that_are_named(tmp_path: Path) -> None:
    brain = load_brain(AliceSpec(), small_copy(tmp_path))
    assert [*brain.nuisance] == ["alice"]
    found, (run,) = brain.nuisance["alice"], brain.stimulus.runs
    assert found.shape == (362, len(alice.NUISANCE))
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=1e-5)
    # Down, the, rabbit: one each, 4, 3 and 6 letters, the beginning, middle and end of the passage.
    said = np.array([[1, 4 - 13 / 3, -0.5], [1, 3 - 13 / 3, 0], [1, 6 - 13 / 3, 0.5]])
    heard = [*convolve_events(run, said).T, np.sin(np.arange(362))]
    for name, column, expected in zip(alice.NUISANCE, found.T, heard, strict=True):
        assert np.corrcoef(column, expected)[0, 1] == pytest.approx(1, abs=1e-5), name
    without = "log frequency in the training books and surprisal of a trigram model of them"
    assert brain.notes[-1].endswith(f"sound power; without {without}, which brain.corpus: books adds.")


def test_frequency_and_surprisal_come_from_the_books_of_training_where_they_are_asked_for(tmp_path: Path) -> None:
    folder, corpus = small_copy(tmp_path), AliceSpec(corpus="books")
    with pytest.raises(DataMissing, match=r"books/MANIFEST.csv: not there; "):
        load_brain(corpus, folder)
    (folder / "books").mkdir()
    rows = "slug,sha256\n"
    for number in range(16):
        # "rabbit" is in all; what is held out has another word before it.
        before = "a" if is_held_out(f"book-{number}") else "the"
        text = f"Down the lane. {before} rabbit ran down {before} rabbit hole"
        (folder / f"books/book-{number}.txt").write_text(text)
        rows += f"book-{number},{hashlib.sha256(text.encode()).hexdigest()}\n"
    (folder / "books/MANIFEST.csv").write_text(rows)
    without, with_books = (load_brain(spec, folder) for spec in (AliceSpec(), corpus))
    few, found = without.nuisance["alice"], with_books.nuisance["alice"]
    np.testing.assert_array_equal(found[:, : few.shape[1]], few)
    (run,) = without.stimulus.runs
    values = predictability(run.texts, ["Down the lane. the rabbit ran down the rabbit hole"] * 14)
    expected = convolve_events(run, values - values.mean(axis=0))
    for column, own in zip(found.T[few.shape[1] :], expected.T, strict=True):
        assert np.corrcoef(column, own)[0, 1] == pytest.approx(1, abs=1e-3)
    assert with_books.nuisance["alice"] is found, "the corpus is counted once"
    assert with_books.notes[-1].endswith("model of them.")
    for part in ("stimulus", "responses"):
        assert alice.files(corpus, folder)[part] == alice.files(AliceSpec(), folder)[part]
    assert "MANIFEST.csv" in [path.name for path in alice.files(corpus, folder)["nuisance"]]


def test_the_group_ceiling_is_corrected_for_the_noise_of_the_others() -> None:
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((20_000, 2))
    responses = {f"s{i}": standardise(0.5 * shared + rng.standard_normal((20_000, 2))) for i in range(5)}
    true = 0.5 / np.sqrt(1.25)
    isc, ceiling = group_ceiling(responses)
    np.testing.assert_allclose(ceiling, true, atol=0.02)
    assert isc.mean() < 0.75 * true


def test_subjects_without_a_shared_response_have_no_ceiling() -> None:
    noise = np.random.default_rng(0).standard_normal((3, 100, 1))
    noise -= noise.mean(axis=0) * 1.1
    responses = {f"s{i}": standardise(series) for i, series in enumerate(noise)}
    assert group_ceiling(responses)[1].tolist() == [0]


def test_a_region_without_a_shared_response_is_named(tmp_path: Path) -> None:
    folder = small_copy(tmp_path)
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((3, 362))
    noise -= noise.mean(axis=0)
    for subject, series in zip(("s01", "s02", "s04"), noise, strict=True):
        file = folder / f"alice2016/alice_data_shared/6mm/{subject}-timecourses.txt"
        table = np.loadtxt(file)
        table[:, 4] = series
        np.savetxt(file, table)
    with pytest.raises(ValueError, match="do not correlate between subjects in LPreM, expected"):
        load_brain(AliceSpec(), folder)


def test_missing_data_say_what_to_fetch_and_where_to_put_it(tmp_path: Path) -> None:
    for data in (None, tmp_path):
        with pytest.raises(DataMissing, match="type: phaselab data get alice2016 --data"):
            load_brain(AliceSpec(), data)
    copy = small_copy(tmp_path)
    shutil.rmtree(copy / "alice2016/alice_stim_shared")
    with pytest.raises(DataMissing, match=r"no \*\.TextGrid"):
        load_brain(AliceSpec(), copy)


def test_a_missing_motion_file_is_named(tmp_path: Path) -> None:
    copy = small_copy(tmp_path)
    (copy / "alice2016/alice_data_shared/s02-rp_x.txt").unlink()
    with pytest.raises(DataMissing, match=r"alice_data_shared: no s02-rp_\*\.txt; type: phaselab data get alice2016"):
        load_brain(AliceSpec(), copy)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t[:-1], r"found 361 rows of 6, expected 362 rows of 6"),
        (lambda t: t.assign(**{"0": np.nan}), r"row 1, column 1: found nan, expected a number"),
        (lambda t: t.assign(**{"0": "x"}), r"expected 362 rows of 6 numbers: could not convert"),
    ],
)
def test_a_malformed_table_is_named(tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    copy = small_copy(tmp_path)
    file = copy / "alice2016/alice_data_shared/6mm/s02-timecourses.txt"
    table = pd.DataFrame(np.loadtxt(file), columns=list("012345"))
    damage(table).to_csv(file, sep=" ", header=False, index=False, na_rep="nan")
    with pytest.raises(ValueError, match=message) as caught:
        load_brain(AliceSpec(), copy)
    assert str(file) in str(caught.value)


def test_words_outside_the_recording_are_refused_by_line(tmp_path: Path) -> None:
    copy = small_copy(tmp_path)
    file = copy / "alice2016/alice_stim_shared/a.TextGrid"
    file.write_text(file.read_text().replace("xmin = 20.5", "xmin = 20").replace('"sp"', '"Oh"'))
    with pytest.raises(ValueError, match=r"line 9: found 'Oh' at 0 s, expected words from 20 to 744 s"):
        load_brain(AliceSpec(), copy)


def test_more_subjects_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"brain.subjects: found 9, expected at most 3"):
        load_brain(AliceSpec(subjects=9), small_copy(tmp_path))
