"""``begin``, a notebook's first call: it checks the parameters, for plain papermill takes anything."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from phaselab.book.lab import Lab
from phaselab.book.published import PublishedLab
from phaselab.book.runner import check_parameters, inspect
from phaselab.results import Store
from phaselab.stages import choose_device
from phaselab.study import OF_TABLES, load_study

#: Parameters that say what the lab is of; a notebook's others are its own.
COMMON = ("study", "model", "results", "data", "device")


def begin() -> Lab:
    """Check the parameters of the notebook that calls it, and return the ``Lab`` that they describe.

    Annotated names are parameters; any other public name was given by mistake (plain papermill only warns).
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    assert shell is not None, "begin() is for notebooks; in a program use Lab"
    space = shell.user_ns
    own = [name for name in space if not name.startswith("_") and name not in shell.user_ns_hidden]
    given = {name: space[name] for name in own if not callable(space[name]) and not isinstance(space[name], ModuleType)}
    values = check_parameters(inspect("\n".join(space["In"][:-1])), given, "this notebook")
    data = values.get("data") or os.environ.get("PHASELAB_DATA")
    kind = PublishedLab if values["study"].startswith(OF_TABLES) else Lab
    return kind(
        load_study(values["study"]),
        Store(Path(values.get("results", "results"))),
        Path(data) if data else None,
        values.get("model", ""),
        {name: value for name, value in values.items() if name not in COMMON},
        choose_device(values.get("device", "cpu")),
    )
