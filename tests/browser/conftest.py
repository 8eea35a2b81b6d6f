"""The browser that all of these tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def absent() -> Callable[[str], None]:
    """Skip, or fail where the browser tests are required."""

    def told(why: str) -> None:
        if os.environ.get("PHASELAB_REQUIRE_BROWSER") == "1":
            pytest.fail(why)
        pytest.skip(why)

    return told


@pytest.fixture(scope="session")
def launched(absent: Callable[[str], None]) -> Iterator[Any]:
    """A running Chromium; ``PHASELAB_CHROMIUM`` names another than the one that is found."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("PHASELAB_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not path:
        absent(f"no browser: found none of {', '.join(names)}; name one with PHASELAB_CHROMIUM")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
