"""What every benchmark does: rows with a goal, a table on the screen, a file with machine and commit."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Row:
    """One measured number; `goal` in words, `met` None where there is none."""

    name: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None


def arguments(text: str, **more: dict[str, Any]) -> argparse.Namespace:
    """The options of a benchmark: quick, json, check; and `more`, name to argparse's own arguments."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    for name, settings in more.items():
        parser.add_argument(f"--{name}", **settings)
    parser.add_argument("--quick", action="store_true", help="less of everything, within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table with machine and commit")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is not met")
    return parser.parse_args()


def commit() -> str:
    """The commit of this checkout, ``+`` where tracked files of the package or benchmarks differ."""
    own = ["--", "src", "benchmarks/*.py"]
    git = ["git", "-C", str(ROOT)]
    try:
        sha = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, check=True)
        changed = subprocess.run([*git, "diff", "--name-only", "HEAD", *own], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return sha.stdout.decode().strip() + ("+" if changed.stdout.strip() else "")


#: Of the code that runs: taken before the first measurement, since a checkout may move on meanwhile.
COMMIT = commit()


def machine() -> dict[str, str]:
    """Processor, system and Python."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = f"{names[0]}, {len(names)} threads" if names else model
    return {
        "processor": model,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def finish(name: str, rows: Sequence[Row], options: argparse.Namespace, **more: Any) -> None:
    """Print the table, write it where asked (with `more`); exit with 1 where asked and a goal is missed."""
    width = max(len(row.name) for row in rows)
    goals = max(len(row.goal) for row in rows)
    for row in rows:
        met = {True: "met", False: "NOT MET", None: ""}[row.met]
        print(f"{row.name:<{width}}  {row.value:>9.4g} {row.unit:<12} {row.goal:<{goals}}  {met}")
    if options.json:
        content = {"benchmark": name, "quick": options.quick, "commit": COMMIT, "machine": machine()}
        content |= {"rows": [asdict(row) for row in rows]} | more
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.check and any(row.met is False for row in rows):
        sys.exit(1)
