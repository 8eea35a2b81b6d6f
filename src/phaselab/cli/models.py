"""``phaselab models``: families on the hub and their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from phaselab.cli.common import app, console, told

if TYPE_CHECKING:
    from phaselab.checkpoints import Family

models_app = typer.Typer(no_args_is_help=True, help="Model families on the hub and their checkpoints.")
app.add_typer(models_app, name="models")


def _tokens(count: int) -> str:
    """Tokens in words: 0, 2.1 M, 4 B, 3.9 T."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


@models_app.command("list")
@told
def list_models() -> None:
    """Name the families whose training runs are public, and which of their checkpoints are known here."""
    from rich import box
    from rich.table import Column, Table

    from phaselab.checkpoints import FAMILIES, manifest

    # Two lines a family: a repository's name is what is copied from here, and 80 columns must do.
    table = Table(
        Column("family\n  repository", no_wrap=True),
        Column("checkpoints: tokens\nlicence; languages"),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="?: 'phaselab models refresh FAMILY' lists the checkpoints.",
    )
    for family in FAMILIES.values():
        path = manifest.path_of(family)
        line = manifest.listing(family).checkpoints if path else ()
        seen = f"{len(line)}: {_tokens(line[0].tokens)} to {_tokens(line[-1].tokens)}" if line else ""
        name = f"[bold]{family.name}[/]\n  {family.repository}"
        table.add_row(name, f"{seen or '?'}\n{family.licence}; {' '.join(family.languages)}")
    Console().print(table)


@models_app.command("show")
@told
def show_model(
    family: Annotated[str, typer.Argument(help="A family of 'phaselab models list', or organisation/name.")],
    checkpoints: Annotated[str, typer.Option(help="A choice to be shown, as for 'phaselab run'.")] = "log:20",
) -> None:
    """Facts of a family, what its manifest holds, and what a choice of checkpoints would take."""
    from rich.table import Table

    from phaselab.checkpoints import manifest

    row = _family(family)
    table = Table(title=row.name, show_header=False)
    facts = {
        "repository": ", ".join(row.repositories),
        "architecture": row.architecture,
        "licence": row.licence,
        "languages": " ".join(row.languages),
        "tokens from": row.tokens_from,
        "source": row.source,
        "public": "" if row.public else "not known: 'phaselab models refresh' says",
    }
    path = manifest.path_of(row)
    if path is None:
        facts["manifest"] = f"none yet: 'phaselab models refresh {family}' asks the hub"
    else:
        known = manifest.listing(row)
        pinned = sum(bool(c.commit) for c in known.checkpoints)
        facts |= {
            "manifest": str(path),
            "checkpoints": f"{len(known.checkpoints)}, {pinned} of them with their commit",
            "branches, by name alone": ", ".join(c.revision for c in known.branches),
            "second names": ", ".join(r.revision for r in known.doubles),
            "tokens not known": ", ".join(r.revision for r in known.uncounted),
            "other names": ", ".join(r.revision for r in known.strange),
        }
        if known.checkpoints:
            taken = known.choose(checkpoints)
            facts[f"--checkpoints {checkpoints}"] = ", ".join(f"{c.revision} ({_tokens(c.tokens)})" for c in taken)
    for name, fact in facts.items():
        if fact:
            table.add_row(name, escape(fact))
    Console().print(table)


@models_app.command("refresh")
@told
def refresh_model(
    family: Annotated[str, typer.Argument(help="A family of 'phaselab models list', or organisation/name.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File; by default in $PHASELAB_MANIFESTS, else in phaselab/manifests of $HF_HOME.",
        ),
    ] = None,
) -> None:
    """Ask the hub for the checkpoints of a family and write its manifest, which is used from then on."""
    from phaselab.checkpoints import manifest

    typer.echo(
        manifest.refresh(_family(family), out, lambda line: console.print(line, highlight=False, soft_wrap=True))
    )


@models_app.command("fetch")
@told
def fetch_model(
    family: Annotated[str, typer.Argument(help="A family of 'phaselab models list', or organisation/name.")],
    checkpoints: Annotated[str, typer.Option(help="Which, as for 'phaselab run'.")],
) -> None:
    """Download checkpoints beforehand, for a machine without a network, and print their folders.

    There, HF_HUB_OFFLINE=1 says that what is in the cache is all there is.
    """
    from phaselab.checkpoints import chosen, hub

    for checkpoint in chosen(_family(family), checkpoints):
        typer.echo(hub.fetch(checkpoint, say=lambda line: console.print(line, highlight=False, soft_wrap=True)))


def _family(name: str) -> Family:
    from phaselab.checkpoints import find, of_repository

    return of_repository(name) if "/" in name else find(name)
