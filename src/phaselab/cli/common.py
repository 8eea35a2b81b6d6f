"""What the commands share: the application, common options, and errors told in a sentence."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from phaselab.errors import PhaselabError, expect
from phaselab.study import Strict, embedded

# Without emoji, or :a: in what is printed, as in a path, would become one.
console = Console(stderr=True, emoji=False)


def say(line: str) -> None:
    """Tell the user what is neither a result nor an error."""
    console.print(escape(line), highlight=False, soft_wrap=True)


class Told(TyperGroup):
    """Errors that the user can mend are told in a sentence, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (PhaselabError, FileNotFoundError) as error:
            console.print(f"[red]phaselab:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error
        except ModuleNotFoundError as error:
            extra = "an extra has it: pip install 'phaselab[book,hub,tasks]'"
            console.print(f"phaselab: {error}; {extra}", markup=False, soft_wrap=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            console.print("phaselab: interrupted; whole results are kept, the same command makes the others")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Told,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How language models come to resemble the brain while they train.",
)

JobArgument = Annotated[
    Path | None,
    typer.Argument(metavar="JOB.yaml", help="YAML file of these options; what is given here counts before it."),
]
StudyArgument = Annotated[str, typer.Argument(help=f"A study file, or one of: {', '.join(embedded())}.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of results.")]
DataOption = Annotated[Path | None, typer.Option("--data", envvar="PHASELAB_DATA", help="Folder of downloaded data.")]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Workers; by default all cores, or one where a model is on a hub."),
]


def facts(title: str, rows: Mapping[str, object]) -> Table:
    """A table of names and facts; of several the list."""
    table = Table(title=title, show_header=False)
    for name, fact in rows.items():
        table.add_row(name, escape(", ".join(fact) if isinstance(fact, (list, tuple)) else str(fact)))
    return table


def pairs(option: str, texts: Iterable[str] | None, form: str) -> dict[str, str]:
    """The values of an option that is repeated, each of the form ``name=value``."""
    for text in texts or ():
        expect("=" in text, option, repr(text), form)
    return {name: value for name, _, value in (text.partition("=") for text in texts or ())}


def options_of(section: type[Strict], written: Mapping[str, str], kinds: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Add a command whose options are the fields of `section`; defaults are told but not given: a job file may say it.

    `written`: how a value is written where its type does not say it; `kinds`: the type of what typer does not know.
    """

    def option(name: str) -> inspect.Parameter:
        field = section.model_fields[name]
        kind: Any = kinds.get(name, field.annotation)
        default = "" if field.is_required() or field.default in ((), None) else str(field.default).strip("()")
        names = ["--" + name.removeprefix("log10_").replace("_", "-"), *["-o"] * (name == "out")]
        told = typer.Option(*names, metavar=written.get(name), help=field.description, show_default=default or False)
        annotation: Any = Annotated[list[str] if kind == tuple[str, ...] else kind, told]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)

    def add(command: Any) -> Any:
        first = inspect.signature(command, eval_str=True).parameters["job"]
        # What must be given comes first.
        names = sorted(section.model_fields, key=lambda name: not section.model_fields[name].is_required())
        command.__signature__ = inspect.Signature([first, *map(option, names)])
        return app.command()(command)

    return add
