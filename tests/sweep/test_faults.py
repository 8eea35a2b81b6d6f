"""Some of what ``make faults`` does at length."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from faults import Faults


@pytest.mark.skipif(sys.platform != "linux", reason="children are forked")
def test_runs_that_share_a_folder_do_nothing_twice_and_what_befalls_one_is_mended() -> None:
    with tempfile.TemporaryDirectory() as folder:  # not one of pytest's, which only their owner can enter
        found = Faults(Path(folder), seed=0)
        found.several(2)
        found.kill_at_events(1)
        found.kill_in_claims(20)
        found.damage(2)
        found.read_only()
