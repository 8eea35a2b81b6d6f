"""Timed text on the TR grid: what goes where, in which units, and what never crosses a run's boundary."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from phaselab import stimuli
from phaselab.errors import PhaselabError
from phaselab.stimuli import Run, Stimulus, items, read_textgrid
from phaselab.study import FeatureSpec


def make_run(onsets: list[float], n_trs: int = 40, tr: float = 2.0, name: str = "one") -> Run:
    n = len(onsets)
    return Run(
        name=name,
        texts=tuple(f"w{i}" for i in range(n)),
        onsets=np.array(onsets, dtype=float),
        offsets=np.array(onsets, dtype=float) + 0.2,
        tr=tr,
        n_trs=n_trs,
        labels=pd.DataFrame({"word": [f"w{i}" for i in range(n)]}),
        starts=np.arange(n) == 0,
    )


HRF = FeatureSpec(hemodynamics="hrf")


def test_a_tr_takes_the_mean_of_its_texts_and_zeros_without_any() -> None:
    run = make_run([0.0, 1.9, 2.0, 7.5], n_trs=5)
    values = np.array([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0], [7.0, 70.0]])
    expected = [[2, 20], [5, 50], [0, 0], [7, 70], [0, 0]]
    found = stimuli.resample(values, run)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32


def test_a_sum_grows_with_the_texts_and_is_zero_without_any() -> None:
    run = make_run([0.0, 1.9, 2.0, 7.5], n_trs=5)
    values = np.array([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0], [7.0, 70.0]])
    found = stimuli.resample(values, run, "sum")
    np.testing.assert_array_equal(found, [[4, 40], [5, 50], [0, 0], [7, 70], [0, 0]])
    assert found.dtype == np.float32


def test_texts_of_one_moment_are_averaged_before_moments_are() -> None:
    # Three annotators at second 0, one at second 1, and a TR of 2 s: mean over annotators, then seconds.
    run = make_run([0.0, 0.0, 0.0, 1.0, 2.0, 2.0], n_trs=2)
    values = np.array([[3.0], [6.0], [9.0], [2.0], [1.0], [5.0]])
    np.testing.assert_array_equal(stimuli.resample(values, run), [[4], [3]])
    np.testing.assert_array_equal(stimuli.resample(values, run, "sum"), [[8], [3]])
    one = make_run([0.0, 1.0, 2.0], n_trs=2)
    means = np.array([[6.0], [2.0], [3.0]])
    np.testing.assert_allclose(
        stimuli.resample(values, run, "lanczos"), stimuli.resample(means, one, "lanczos"), rtol=1e-6
    )


def test_lanczos_is_the_written_formula() -> None:
    rng = np.random.default_rng(0)
    run = make_run(sorted(rng.uniform(0, 40, 25)), n_trs=20)
    values = rng.standard_normal((25, 3))
    expected = np.zeros((20, 3))
    for k in range(20):
        for i in range(25):
            x = (2.0 * (k + 0.5) - (run.onsets[i] + run.offsets[i]) / 2) / 2.0
            if abs(x) < 3:
                lobes = 3 * np.sin(np.pi * x) * np.sin(np.pi * x / 3) / (np.pi * x) ** 2 if x else 1.0
                expected[k] += lobes * values[i]
    np.testing.assert_allclose(stimuli.resample(values, run, "lanczos"), expected, atol=1e-5)


def test_lanczos_keeps_what_is_on_the_grid_and_drops_what_is_too_fast_for_it() -> None:
    # One text a TR that lasts through it: nothing to be filtered.
    values = np.random.default_rng(0).standard_normal((40, 2))
    onsets = np.arange(40) * 2.0
    run = Run("r", ("w",) * 40, onsets, onsets + 2, 2.0, 40, pd.DataFrame({"word": ["w"] * 40}), onsets == 0)
    np.testing.assert_allclose(stimuli.resample(values, run, "lanczos"), values, atol=1e-6)
    # Eight texts a TR: a slow wave passes, at the rate of texts; one of four times Nyquist does not.
    fine = np.arange(320) / 4
    run = Run("r", ("w",) * 320, fine, fine + 0.25, 2.0, 40, pd.DataFrame({"word": ["w"] * 320}), fine == 0)
    middles, trs = fine + 0.125, np.arange(40) * 2.0 + 1
    for frequency, gain in ((1 / 40, 8.0), (1.0, 0.0)):
        wave = np.sin(2 * np.pi * frequency * middles)[:, None]
        found = stimuli.resample(wave, run, "lanczos")[4:-4, 0]
        np.testing.assert_allclose(found, gain * np.sin(2 * np.pi * frequency * trs)[4:-4], atol=0.25)


def test_an_onset_on_the_edge_of_a_tr_belongs_to_the_tr_that_begins() -> None:
    # 3 * 0.7 and 6 * 0.7 are a hair below 2.1 and 4.2 in binary: they must not fall into the TR before.
    run = make_run([i * 0.7 for i in range(10)], n_trs=10, tr=0.7)
    np.testing.assert_array_equal(stimuli.tr_of_texts(run), np.arange(10))


def test_word_rate_counts() -> None:
    run = make_run([0.1, 0.2, 0.3, 5.0], n_trs=4)
    np.testing.assert_array_equal(stimuli.word_rate(run), [[3], [0], [1], [0]])


def test_impulse_response_is_causal_peaks_at_five_seconds_and_sums_to_one() -> None:
    run = make_run([20.0])
    found = stimuli.align(np.ones((1, 1)), run, HRF)[:, 0]
    # The text is in TR 10. A boxcar of 2 s shifts the response's peak at 5 s to 6 s after its onset.
    assert np.all(found[:11] == 0)
    assert int(np.argmax(found)) == 13
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert found.min() < -0.02, "the undershoot"


@pytest.mark.parametrize("tr", [0.5, 1.0, 2.0, 3.0])
def test_the_response_is_in_seconds_whatever_the_tr(tr: float) -> None:
    weights = stimuli.hrf(tr)
    times = np.arange(len(weights)) * tr
    centre = (weights.clip(0) * times).sum() / weights.clip(0).sum()
    # The stimulus lasts for a TR, so the centre comes half a TR later than that of the response.
    assert centre - tr / 2 == pytest.approx(5.9, abs=0.25)


def test_delay_is_in_seconds() -> None:
    times = np.arange(len(stimuli.hrf(1.0)))

    def centre(delay: float) -> float:
        weights = stimuli.hrf(1.0, delay).clip(0)
        return float((weights * times).sum() / weights.sum())

    assert centre(1.0) - centre(0.0) == pytest.approx(1.0, abs=0.05)
    assert centre(-0.5) - centre(0.0) == pytest.approx(-0.5, abs=0.05)


def test_convolution_agrees_with_numpys() -> None:
    rng = np.random.default_rng(0)
    series = rng.standard_normal((30, 3))
    weights = stimuli.hrf(2.0)
    expected = np.column_stack([np.convolve(column, weights)[:30] for column in series.T])
    np.testing.assert_allclose(stimuli.convolve(series, 2.0), expected, atol=1e-6)


def test_convolution_of_a_run_shorter_than_the_response() -> None:
    assert stimuli.convolve(np.ones((3, 1)), 2.0).shape == (3, 1)


def test_average_and_stack_shift_by_whole_trs() -> None:
    run = make_run([4.0], n_trs=8)
    stack = stimuli.align(np.array([[1.0, 2.0]]), run, FeatureSpec(hemodynamics="stack", delays=(1, 3)))
    assert stack.shape == (8, 4)
    expected = np.zeros((8, 4))
    expected[3, :2] = expected[5, 2:] = [1, 2]
    np.testing.assert_array_equal(stack, expected)
    average = stimuli.align(np.array([[1.0, 2.0]]), run, FeatureSpec(hemodynamics="average", delays=(1, 3)))
    np.testing.assert_array_equal(average, (expected[:, :2] + expected[:, 2:]) / 2)
    assert stack.dtype == average.dtype == np.float32


def test_a_delay_longer_than_the_run_leaves_zeros() -> None:
    spec = FeatureSpec(hemodynamics="stack", delays=(0, 9))
    found = stimuli.align(np.ones((1, 1)), make_run([0.0], n_trs=4), spec)
    np.testing.assert_array_equal(found, [[1, 0], [0, 0], [0, 0], [0, 0]])


@pytest.mark.parametrize("resample", ["mean", "sum", "lanczos"])
@pytest.mark.parametrize("kind", ["hrf", "average", "stack"])
def test_what_ends_one_run_leaves_no_trace_in_the_next(kind: str, resample: str) -> None:
    spec = FeatureSpec(hemodynamics=kind, delays=(1, 2, 3), resample=resample)
    first, second = make_run([70.0, 79.0]), make_run([10.0], name="two")
    quiet = stimuli.align(np.ones((1, 2)), second, spec)
    loud = [stimuli.align(1e6 * np.ones((2, 2)), first, spec), stimuli.align(np.ones((1, 2)), second, spec)]
    np.testing.assert_array_equal(loud[1], quiet)
    # Lanczos reaches three TRs into the past of the text in TR 5, and delays begin at one.
    assert np.all(quiet[: 3 if resample == "lanczos" else 5] == 0)
    assert quiet.any()


def test_events_at_one_a_tr_give_a_rate_of_one_and_keep_time_within_a_tr() -> None:
    steady = make_run([2.0 * i for i in range(40)])
    found = stimuli.convolve_events(steady, np.ones((40, 1)))[:, 0]
    np.testing.assert_allclose(found[20:], 1, atol=1e-3)
    early, late = (stimuli.convolve_events(make_run([t]), np.ones((1, 1)))[:, 0] for t in (20.0, 21.9))
    assert early[12] > 1.5 * late[12], "an early onset rises first"


@pytest.mark.parametrize("resample", ["sum", "mean", "lanczos"])
@pytest.mark.parametrize("hemodynamics", ["average", "stack", "hrf"])
def test_a_margin_counts_though_it_has_no_rows(resample: Any, hemodynamics: Any) -> None:
    # A run that lacks its first and last five TRs is one that has them, cut.
    rng = np.random.default_rng(0)
    onsets, values = np.sort(rng.uniform(0, 100, 60)), rng.standard_normal((60, 3))
    whole = make_run([*onsets], n_trs=50)
    cut = replace(whole, onsets=whole.onsets - 10, offsets=whole.offsets - 10, n_trs=40, margin=5)
    spec = FeatureSpec(resample=resample, hemodynamics=hemodynamics, delays=(1, 3))
    np.testing.assert_allclose(stimuli.align(values, cut, spec), stimuli.align(values, whole, spec)[5:45], atol=1e-6)
    np.testing.assert_array_equal(stimuli.word_rate(cut), stimuli.word_rate(whole)[5:45])
    events = stimuli.convolve_events(cut, values)
    np.testing.assert_allclose(events, stimuli.convolve_events(whole, values)[5:45], atol=1e-5)
    with pytest.raises(ValueError, match=r"found onset -10.5\d* s, expected one from -10 to 90 s"):
        stimuli.word_rate(replace(cut, onsets=cut.onsets - 10.5 - cut.onsets[0]))


@pytest.mark.parametrize("onset", [-0.5, 80.0])
def test_an_onset_outside_the_run_is_refused(onset: float) -> None:
    run = make_run(sorted([1.0, onset]))
    with pytest.raises(ValueError, match=rf"run one: text \d \('w\d'\): found onset {onset:.3f} s, expected .* 80 s"):
        stimuli.align(np.ones((2, 1)), run, HRF)


@pytest.mark.parametrize("delays", [(), (-1, 2)])
def test_delays_into_the_past_are_refused(delays: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="features.delays: found .* expected at least one number of TRs >= 0"):
        stimuli.align(np.ones((1, 1)), make_run([0.0]), FeatureSpec(hemodynamics="average", delays=delays))


def test_onsets_in_disorder_are_refused() -> None:
    with pytest.raises(ValueError, match="run one: onsets: found some in disorder, expected ascending"):
        make_run([3.0, 1.0])


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ({"offsets": [0.5, 1.9, np.nan]}, "text 2 ('w2'): found onset 2 s, offset nan s"),
        ({"offsets": [0.5, np.inf, 3]}, "text 1 ('w1'): found onset 1 s, offset inf s"),
        ({"offsets": [0.5, 0.9, 3]}, "text 1 ('w1'): found onset 1 s, offset 0.9 s"),
        ({"onsets": [np.nan, 1, 2]}, "text 0 ('w0'): found onset nan s, offset 0.2 s"),
    ],
)
def test_times_are_known_and_an_offset_is_not_before_its_onset(times: dict[str, list[float]], found: str) -> None:
    run = make_run([0, 1, 2])
    with pytest.raises(PhaselabError, match=f"run one: {re.escape(found)}, expected times that are known"):
        Run(**{**run.__dict__, **{name: np.array(values) for name, values in times.items()}})
    assert len(Run(**{**run.__dict__, "offsets": run.onsets}).texts) == 3  # as a moment has none, or rounding leaves


def test_the_digest_of_a_stimulus_follows_texts_times_and_labels() -> None:
    def digest(**changes: object) -> str:
        run = make_run([0.0, 1.0])
        return Stimulus("s", (Run(**{**run.__dict__, **changes}),)).digest

    one = digest()
    assert one == digest()
    others = {
        digest(texts=("w0", "x")),
        digest(onsets=np.array([0.0, 1.1])),
        digest(labels=pd.DataFrame({"word": ["a", "b"]})),
        digest(starts=np.array([True, True])),
        digest(n_trs=41),
    }
    assert len(others) == 5
    assert one not in others


# --- TextGrid --------------------------------------------------------------------------------------

GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 3
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "word"
        xmin = 0
        xmax = 3
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 1.25
            text = "sp"
        intervals [2]:
            xmin = 1.25
            xmax = 2
            text = "say ""oh"" "
        intervals [3]:
            xmin = 2
            xmax = 3e0
            text = ""
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 3
        points: size = 1
        points [1]:
            number = 1
            mark = "x"
"""


def test_textgrid_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(GRID, encoding="utf-8")
    tiers = read_textgrid(path)
    assert list(tiers) == ["word"]
    assert [(i.start, i.end, i.text) for i in tiers["word"]] == [
        (0, 1.25, "sp"),
        (1.25, 2, 'say "oh"'),
        (2, 3, ""),
    ]
    assert GRID.splitlines()[tiers["word"][1].line - 1].strip().startswith("text")


def test_the_short_format_and_utf_16_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(GRID)
    expected = [(i.start, i.end, i.text) for i in read_textgrid(path)["word"]]
    short = '"ooTextFile"\n"TextGrid"\n0\n3\n<exists>\n2\n"IntervalTier"\n"word"\n0\n3\n3\n0\n1.25\n"sp"\n1.25\n2\n'
    short += '"say ""oh"" "\n2\n3\n""\n"TextTier"\n"clicks"\n0\n3\n1\n1\n"x"\n'
    for content in (
        GRID.encode("utf-16"),
        GRID.replace("\n", "\r\n").encode("utf-8-sig"),
        f"File type = {short}".encode(),
    ):
        path.write_bytes(content)
        tiers = read_textgrid(path)
        assert list(tiers) == ["word"]
        assert [(i.start, i.end, i.text) for i in tiers["word"]] == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"ooTextFile"', '"other"', "line 1: found 'other', expected 'ooTextFile'"),
        ("xmax = 1.25", "xmax = 1,25", r"line 18: found 'sp', expected a number"),
        ("xmin = 1.25", "xmin = 0.5", r"line 22: found an interval from 0.5 to 2.0 s after one that ends at 1.25"),
        ("xmin = 2\n            xmax = 3e0", "xmin = 2\n            xmax = 1", r"line 26: .*ascending times"),
        (
            "intervals: size = 3",
            "intervals: size = 4",
            r"line 28: found 'TextTier', expected a number",
        ),
        ("intervals: size = 3", "intervals: size = 2", r"line 24: found 2.0, expected a text"),
        ('            text = ""', "", r"line 30: found 0\.0, expected a text"),
        ('name = "clicks"', 'name = "word"', r"line 29: found a second tier 'word', expected distinct names"),
        ("size = 2\nitem", "size = 3\nitem", r"line 35: found the end, expected a text"),
        ('class = "IntervalTier"', 'class = "TextTier"', "found 1.25, expected a text"),
        ("say", "naïve \udcff", "utf-8.* expected UTF-8 or UTF-16"),
    ],
)
def test_a_damaged_textgrid_is_refused_by_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "a.TextGrid"
    assert GRID.count(old) == 1
    path.write_bytes(GRID.replace(old, new).encode(errors="surrogateescape"))
    with pytest.raises(PhaselabError, match=message) as caught:
        read_textgrid(path)
    assert str(path) in str(caught.value)


# --- Items -----------------------------------------------------------------------------------------

SENTENCES = pd.DataFrame(
    {
        "item": ["i1", "i2", "i3", "i4"],
        "text": ["a b", "c", "d e f", "g"],
        "group": ["x", "y", "x", "y"],
        "cond": [*"BDSB"],
    }
)
ITEMS = FeatureSpec(hemodynamics="none", trim=0)


def test_items_are_runs_of_groups_with_one_row_each() -> None:
    stimulus = items("sentences", SENTENCES)
    assert [run.name for run in stimulus.runs] == ["x", "y"]
    assert [run.texts for run in stimulus.runs] == [("a b", "d e f"), ("c", "g")]
    assert stimulus.labels["item"].tolist() == ["i1", "i3", "i2", "i4"]
    assert stimulus.labels["cond"].tolist() == ["B", "S", "D", "B"]
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = stimuli.align(values, stimulus.runs[0], ITEMS)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.float32


def test_items_and_time_do_not_mix() -> None:
    run, timed = items("sentences", SENTENCES).runs[0], make_run([0.0, 1.0])
    with pytest.raises(PhaselabError, match=r"run x: features\.hemodynamics: found hrf, expected none, for its items"):
        stimuli.align(np.ones((2, 1)), run, HRF)
    with pytest.raises(PhaselabError, match=r"run one: features\.hemodynamics: found none, expected hrf, average or"):
        stimuli.align(np.ones((2, 1)), timed, ITEMS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="group"), "columns: found item, text, cond, expected also item, text, group"),
        (lambda t: t.assign(item="i1"), r"rows \[1, 2, 3\]: found nothing, or an item again"),
        (lambda t: t.assign(text=["a", None, "c", None]), r"rows \[1, 3\]: found nothing, or"),
        (lambda t: t.assign(text=["a", "", "c", "d"]), r"rows \[1\]: found nothing, or"),
    ],
)
def test_a_table_of_items_that_cannot_be_used_is_refused(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PhaselabError, match=message):
        items("sentences", change(SENTENCES))
