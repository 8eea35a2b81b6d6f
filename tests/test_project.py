"""The project's own files agree with each other."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: From the top of the house to the ground: a module imports only from those after it.
ROOMS = (
    "__main__",
    "cli",
    "book",
    "sweep",
    "figures",
    "phases",
    "curves",
    "encoding",
    "internals",
    "behaviour",
    "features",
    "brains",
    "stimuli",
    "checkpoints",
    "training",
    "texts",
    "results",
    "study",
    "stats",
    "errors",
)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    found = [line.split("==") for line in lines if "==" in line]
    return {canonical(name): version.strip() for name, version in found}


CONSTRAINTS = pins((ROOT / "constraints.txt").read_text().splitlines())


def requirements() -> dict[str, str]:
    listed = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    return {canonical(re.split(r"[<>=!]", line)[0]): line for line in listed}


def test_environment_has_the_names_of_the_project_and_the_pins_of_the_constraints() -> None:
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(part["pip"] for part in content["dependencies"] if isinstance(part, dict))
    listed = pins(pip)
    assert set(listed) == set(requirements())
    assert listed == {name: CONSTRAINTS[name] for name in listed}


def test_pins_lie_in_the_ranges() -> None:
    from packaging.requirements import Requirement

    for name, line in requirements().items():
        assert Requirement(line).specifier.contains(CONSTRAINTS[name]), f"{line}: {CONSTRAINTS[name]}"


def modules() -> list[Path]:
    return sorted((ROOT / "src" / "phaselab").rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT / "src" / "phaselab")))
def test_imports_run_one_way(path: Path) -> None:
    parts = path.relative_to(ROOT / "src" / "phaselab").with_suffix("").parts
    if parts == ("__init__",):
        return
    at = ROOMS.index(parts[0])
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "phaselab":
            inner = node.module.split(".")[1:]
            names = [inner[0]] if inner else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name.split(".")[1] for a in node.names if a.name.startswith("phaselab.")]
        for name in names:
            if name in ROOMS:
                assert ROOMS.index(name) >= at, f"{path}: imports {name}, which stands above it"


def test_nothing_unsafe_is_called() -> None:
    unsafe = re.compile(r"pickle\.load|joblib\.load|trust_remote_code\s*=\s*True|weights_only\s*=\s*False|yaml\.load\(")
    for path in modules():
        assert not unsafe.search(path.read_text()), path
