"""The experiments with sliders: the numbers of the browser are those of Python, and a slider moves them.

They need no book: a page of their own loads them from ``book/assets/widgets``, as a reader's browser does from a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phaselab.encoding.folds import autocorrelation_only, contiguous
from phaselab.phases import fit
from phaselab.stats import pearson
from phaselab.stimuli import hrf

pytestmark = pytest.mark.browser

FOLDER = Path(__file__).parents[2] / "book" / "assets" / "widgets"
NAMES = ("folds", "alpha", "emergence", "changes", "delays")


@pytest.fixture(scope="module")
def page(launched: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    scripts = "".join(f'<script defer src="{(FOLDER / name).as_uri()}.js"></script>' for name in ("widgets", *NAMES))
    places = "".join(f'<div class="phaselab-widget" data-widget="{name}"></div>' for name in NAMES)
    file = tmp_path_factory.mktemp("widgets") / "page.html"
    file.write_text(
        f'<!doctype html><html lang="en"><head><title>x</title>{scripts}</head><body>{places}</body></html>'
    )
    opened, faults = launched.new_page(viewport={"width": 390, "height": 844}), []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda request: faults.append(request.url) if request.url[:5] != "file:" else None)
    opened.goto(file.as_uri())
    yield opened
    opened.close()
    assert faults == []


def computed(page: Any, name: str, **settings: Any) -> dict[str, Any]:
    """What a widget computes of its first settings, changed by `settings`."""
    found: dict[str, Any] = page.evaluate(
        "([name, given]) => { const of = Widgets.known[name];"
        "const first = Object.fromEntries(of.controls.map(c => [c.name, c.value]));"
        "return of.compute({...first, ...given}) }",
        [name, settings],
    )
    return found


@pytest.mark.parametrize(("rho", "gap"), [(0.8, 6), (0.0, 0), (0.95, 3)])
def test_folds_are_those_of_the_package(page: Any, rho: float, gap: int) -> None:
    found = computed(page, "folds", rho=rho, gap=gap)
    Y = np.array(found["voxels"]).T
    for kind, folds in found["folds"].items():
        pairs = [(np.array(fold["train"]), np.array(fold["test"])) for fold in folds]
        assert found["scores"][kind] == pytest.approx(autocorrelation_only(Y, pairs).mean(), abs=1e-9)
    for fold, (train, test) in zip(found["folds"]["contiguous"], contiguous(len(Y), 5, gap), strict=True):
        assert fold["train"] == train.tolist()
        assert fold["test"] == test.tolist()
    assert sorted(t for fold in found["folds"]["shuffled"] for t in fold["test"]) == list(range(len(Y)))
    assert np.mean([pearson(y[1:, None], y[:-1, None])[0] for y in Y.T]) == pytest.approx(rho, abs=0.06)


def test_shuffled_folds_leak_and_contiguous_ones_do_not(page: Any) -> None:
    scores = computed(page, "folds", rho=0.9, gap=6)["scores"]
    assert scores["shuffled"] > 0.7
    assert abs(scores["contiguous"]) < 0.05


@pytest.mark.parametrize(("alpha", "n"), [(-2, 40), (1.5, 120), (4, 240)])
def test_ridge_is_the_closed_form(page: Any, alpha: float, n: int) -> None:
    found = computed(page, "alpha", alpha=alpha, n=n)
    X, y, held = np.array(found["X"]), np.array(found["y"]), np.array(found["held"])
    assert X.shape == (n, 30)
    weights = np.linalg.solve(X.T @ X + 10**alpha * np.eye(30), X.T @ y)
    np.testing.assert_allclose(found["own"]["weights"], weights, atol=1e-9)
    assert found["own"]["norm"] == pytest.approx(np.linalg.norm(weights))
    assert found["own"]["test"] == pytest.approx(np.corrcoef(held @ weights, found["other"])[0, 1])
    scores = [one["test"] for one in found["path"]]
    assert found["best"] == found["grid"][int(np.argmax(scores))]
    assert np.all(np.diff([one["norm"] for one in found["path"]]) < 0)  # what the page says
    assert np.all(np.diff([one["train"] for one in found["path"]]) < 1e-3)


def test_accuracy_and_log_probability_are_of_the_same_answers(page: Any) -> None:
    found = computed(page, "emergence", length=8, slope=2, items=300)
    easy, luck, grid = (np.array(found[name]) for name in ("easy", "luck", "grid"))
    right = 1 / (1 + np.exp(-(2 * (grid[:, None] - 8) + 0.5 * easy)))
    np.testing.assert_allclose(found["logp"], (8 * np.log(right)).mean(1))
    np.testing.assert_allclose(found["accuracy"], (luck < right**8).mean(1))
    assert found["accuracyTenth"] > found["logpTenth"] + 1


@pytest.mark.parametrize(("n", "penalty", "rho"), [(20, 1, 0), (10, 3, 0), (28, 0, 0.6)])
def test_change_points_are_searched_as_in_the_package(page: Any, n: int, penalty: float, rho: float) -> None:
    found = computed(page, "changes", n=n, penalty=penalty, rho=rho)
    curves = np.array(found["curves"])
    grid = fit.grid_of(tuple(np.arange(float(n))), 2)
    rss = np.array([one[0] for one in fit.search(grid, curves)]).T
    np.testing.assert_allclose([one["rss"] for one in found["found"]], rss, atol=1e-9)
    cost = np.array([fit.bic(rss[:, k], n, k, 0.0, penalty) for k in range(3)])
    assert [len(one["knots"]) for one in found["found"]] == cost.argmin(axis=0).tolist()
    assert found["share"] == np.mean(cost.argmin(axis=0) > 0)


def test_a_change_point_that_costs_little_is_found_in_noise(page: Any) -> None:
    shares = [computed(page, "changes", penalty=penalty)["share"] for penalty in (0, 1, 3)]
    assert shares[0] == 1
    assert shares[1] > 0.3
    assert shares[2] < 0.1


@pytest.mark.parametrize(("tr", "later"), [(2, 0), (1.5, 1), (1, -2)])
def test_the_response_is_that_of_the_package(page: Any, tr: float, later: float) -> None:
    found = computed(page, "delays", tr=tr, later=later, first=1, count=3)
    np.testing.assert_allclose(found["canonical"], hrf(tr), atol=1e-12)
    np.testing.assert_allclose(found["own"], hrf(tr, later), atol=1e-12)
    words, y, half = np.array(found["words"]), np.array(found["y"]), found["half"]
    copies = np.stack([np.pad(words, (d, 0))[: len(words)] for d in (1, 2, 3)], axis=1)
    A, b = copies[:half], y[:half]
    weights = np.linalg.solve(A.T @ A + np.eye(3), A.T @ b)
    np.testing.assert_allclose(found["weights"], weights, atol=1e-9)
    assert found["stacked"] == pytest.approx(np.corrcoef(copies[half:] @ weights, y[half:])[0, 1])
    fixed = np.convolve(words, hrf(tr))[: len(words)]
    assert found["one"] == pytest.approx(np.corrcoef(fixed[half:], y[half:])[0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_a_slider_moves_with_the_keyboard_and_the_text_follows(page: Any, name: str) -> None:
    widget = page.locator(f"[data-widget={name}]")
    before = widget.locator(".told").inner_text(), widget.locator("td").all_inner_texts()
    slider = widget.locator("input").first
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight" if name != "delays" else "ArrowLeft")
    after = widget.locator(".told").inner_text(), widget.locator("td").all_inner_texts()
    assert before != after
    assert widget.locator("svg[aria-label]").count() == widget.locator("svg").count() > 0
    widget.get_by_role("button", name="Back to the start").click()
    assert (widget.locator(".told").inner_text(), widget.locator("td").all_inner_texts()) == before
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", NAMES)
def test_every_end_of_every_slider_gives_numbers(page: Any, name: str) -> None:
    controls = page.evaluate("name => Widgets.known[name].controls", name)
    for control in controls:
        for value in control.get("options") or (control["min"], control["max"]):
            told = page.evaluate(
                "([name, given]) => { const of = Widgets.known[name];"
                "const all = {...Object.fromEntries(of.controls.map(c => [c.name, c.value])), ...given};"
                "const found = of.compute(all);"
                "return [of.tell(found, all), ...Object.values(of.numbers(found, all)),"
                "JSON.stringify(of.panels(found, all))].join(' ') }",
                [name, {control["name"]: value}],
            )
            assert "NaN" not in told
            assert "undefined" not in told
            assert "null" not in told
