"""The examples of CONTRIBUTING.md, so that tests run what stands there."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(path: str) -> str:
    """The block that stands for a file of ``src/phaselab``."""
    found = re.search(rf"```\w+\n# src/phaselab/{re.escape(path)}\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None, path
    return found[1]
