"""What the commands share: the application, common options, and errors told in a sentence."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from phaselab.errors import PhaselabError
from phaselab.study import embedded

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How language models come to resemble the brain while they train.",
)
# Without emoji, or :a: in what is printed, as in a path, would become one.
console = Console(stderr=True, emoji=False)

StudyArgument = Annotated[str, typer.Argument(help=f"A study file, or one of: {', '.join(embedded())}.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of results.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of downloaded data; by default $PHASELAB_DATA.")
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Workers; by default all cores, or one where a model is on a hub."),
]


def told(command: Callable[..., None]) -> Callable[..., None]:
    """Errors that the user can mend are told in a sentence, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (PhaselabError, FileNotFoundError) as error:
            console.print(f"[red]phaselab:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error
        except ModuleNotFoundError as error:
            console.print(
                f"phaselab: {error}; an extra has it: pip install 'phaselab\\[book,hub,tasks]'", soft_wrap=True
            )
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            console.print("phaselab: interrupted; whole results are kept, run the same command to go on")
            raise typer.Exit(130) from None

    return wrapped
