"""Measures of hidden states: functions in the files of ``measures/``, each registered with what figures say of it.

A function takes the states of a layer, float64 (n_words, p), or by their names parts that several measures need, each
computed once a layer (`part`). It gives a value, a value and its standard error, or None where it is not defined; what
takes a part that is None is not defined either. A new file is found by being in the folder.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules
from typing import Any, NamedTuple

import numpy as np

from phaselab.errors import expect

Function = Callable[..., Any]


class Measure(NamedTuple):
    """What figures call a measure, what its axis counts, a number raised when its values change, and its function."""

    label: str
    unit: str
    version: int
    function: Function


MEASURES: dict[str, Measure] = {}
PARTS: dict[str, Function] = {}


def measure(name: str, *, label: str, unit: str, version: int = 1) -> Callable[[Function], Function]:
    """Register a function as the measure `name`; a second of that name from another module is refused."""

    def register(function: Function) -> Function:
        free = name not in MEASURES or MEASURES[name].function.__module__ == function.__module__
        expect(free, f"{function.__module__}: measure", f"a second {name!r}", "distinct names")
        MEASURES[name] = Measure(label, unit, version, function)
        return function

    return register


def part(function: Function) -> Function:
    """Register what several measures share, under the function's own name."""
    PARTS[function.__name__] = function
    return function


def registered() -> dict[str, Measure]:
    """Name -> measure: those of the files of ``measures/``, and what a notebook has registered."""
    folder = import_module("phaselab.internals.measures")
    for file in iter_modules(folder.__path__):
        import_module(f"{folder.__name__}.{file.name}")
    return MEASURES


def labels() -> dict[str, tuple[str, str]]:
    """Name -> (label, unit) of each measure."""
    return {name: (one.label, one.unit) for name, one in registered().items()}


def versions() -> dict[str, int]:
    """Name -> version of each measure."""
    return {name: one.version for name, one in registered().items()}


def geometry(states: np.ndarray) -> dict[str, tuple[float, float]]:
    """Measure -> (value, standard error or NaN) of hidden states (n_words, p), without those that are not defined."""
    known: dict[str, Any] = {"states": states}

    def call(function: Function) -> Any:
        names = list(signature(function).parameters)
        for name in names:
            if name not in known:
                expect(
                    name in PARTS, f"measure {function.__name__}", repr(name), f"states or one of {', '.join(PARTS)}"
                )
                known[name] = call(PARTS[name])
        return None if any(known[name] is None for name in names) else function(*(known[name] for name in names))

    found = {name: call(one.function) for name, one in registered().items()}
    pairs = {name: value if isinstance(value, tuple) else (value, np.nan) for name, value in found.items()}
    return {name: (float(value), float(stderr)) for name, (value, stderr) in pairs.items() if value is not None}
