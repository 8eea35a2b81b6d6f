"""What the commands share: the application, common options, and errors told in a sentence."""

import errno
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from phaselab.errors import LOOP, PhaselabError, escape, expect, told
from phaselab.study import Strict, embedded

# Without emoji, or :a: in what is printed, as in a path, would become one. What is asked for goes to `out`.
console, out = Console(stderr=True, emoji=False), Console(emoji=False)
#: Variable of the environment with which errors keep their traceback.
TRACEBACK = "PHASELAB_TRACEBACK"


def say(line: str) -> None:
    """Tell the user what is neither a result nor an error."""
    console.print(escape(line), highlight=False, soft_wrap=True)


class Told(TyperGroup):
    """Errors are told in a sentence; with `TRACEBACK` set in the environment also where they came from."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        warnings.showwarning = lambda message, *_, **__: say(f"note: {message}")  # Python's own way prints it as it is
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.print("phaselab: interrupted; whole results are kept, the same command makes the others")
            raise typer.Exit(130) from None
        except (typer.TyperException, typer.Abort, typer.Exit, SystemExit):
            raise
        except BaseException as error:  # a panic of a library in Rust is no Exception
            # A pipe that is closed ends the program without a word, as for others.
            if os.environ.get(TRACEBACK) or getattr(error, "errno", None) == errno.EPIPE:
                raise
            known = isinstance(error, (PhaselabError, OSError, MemoryError, ModuleNotFoundError)) or LOOP in told(error)
            more = "" if known else f"; not foreseen: set {TRACEBACK}=1 to see where, and please report it"
            console.print(f"[red]phaselab:[/] {escape(told(error) + more)}", highlight=False, soft_wrap=True)
            raise typer.Exit(2 if known else 1) from error


_ABOUT = "How language models come to resemble the brain while they train."
app = typer.Typer(cls=Told, no_args_is_help=True, pretty_exceptions_enable=False, help=_ABOUT)

_JOB = typer.Argument(metavar="JOB.yaml", help="YAML file of these options; what is given here counts before it.")
JobArgument = Annotated[Path | None, _JOB]
StudyArgument = Annotated[str, typer.Argument(help=f"A study file, or one of: {', '.join(embedded())}.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of results.")]
DataOption = Annotated[Path | None, typer.Option("--data", envvar="PHASELAB_DATA", help="Folder of downloaded data.")]
_JOBS = "Workers; by default all cores, or one where a model is on a hub."
JobsOption = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help=_JOBS)]


def facts(title: str, rows: Mapping[str, object]) -> Table:
    """A table of names and facts; of several the list."""
    table = Table(title=escape(title), show_header=False)
    for name, fact in rows.items():
        table.add_row(escape(name), escape(", ".join(fact) if isinstance(fact, (list, tuple)) else str(fact)))
    return table


def pairs(option: str, texts: Iterable[str] | None, form: str) -> dict[str, str]:
    """The values of an option that is repeated, each of the form ``name=value``."""
    for text in texts or ():
        expect("=" in text, option, repr(text), form)
    return {name: value for name, _, value in (text.partition("=") for text in texts or ())}


def options_of(section: type[Strict], written: Mapping[str, str], kinds: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Add a command whose options are the fields of `section`, as `written`, of `kinds` that typer does not know."""

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
