"""What several tests need: the real data, when they are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from phaselab.book.kernel import NEEDED, SLOW
from phaselab.sweep import pool
from phaselab.sweep.workers import THREADS, import_first

# Whichever test begins the first worker or kernel: all of this process are forked from the same one.
import_first(*NEEDED, *SLOW, *pool.SLOW)

# Before numpy and torch are imported: there are as many test workers as cores.
for name, value in THREADS.items():
    os.environ.setdefault(name, value)

# The same examples every time: a test that fails on some days alone helps nobody. Others are drawn
# with --hypothesis-profile=default.
settings.register_profile("fixed", derandomize=True, database=None)
settings.load_profile("fixed")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real data: PHASELAB_DATA, else ../shared/data; skips the test without it."""
    folder = Path(os.environ.get("PHASELAB_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "alice2016").is_dir():
        pytest.skip(f"no real data in {folder}: set PHASELAB_DATA")
    return folder
