"""``phaselab data``: public data sets, which of their files are here, and getting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from phaselab.cli.common import DataOption, StudyArgument, app, console, facts, out, say
from phaselab.data import SETS, counted
from phaselab.errors import expect
from phaselab.files import home

data_app = typer.Typer(no_args_is_help=True, help="Public data sets: list them, get files of them, verify these.")
app.add_typer(data_app, name="data")

_SOME = "Which of the set's, with commas between, or all; "


def _folder(data: Path | None) -> Path:
    expect(data is not None, "--data", "neither it nor PHASELAB_DATA", "the folder in which the sets lie, or will")
    return home(data or "")


@data_app.command("list")
def list_data(data: DataOption = None) -> None:
    """Name the data sets: what each is, its licence, what to cite, how large it is, and what of it is here."""
    from phaselab.data.download import Place

    for of in SETS.values():
        files, part, place = of.files(), of.select(of.smallest), Place(home(data or ""), of)
        rows = {"what": of.about, "licence": of.licence, "cite": of.citation, "whole": counted(files)}
        rows |= {"smallest part": counted(part), "get it": of.command(data), "how": of.how, "not in it": of.left_out}
        here = counted([file for file in files if place.fits(file)])
        rows["here"] = f"{here} (by their sizes)" if data else "not known: no --data and no PHASELAB_DATA"
        out.print(facts(of.name, {name: fact for name, fact in rows.items() if fact}))


@data_app.command("get")
def get_data(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", help="A set of 'phaselab data list'.")],
    subjects: Annotated[str, typer.Option(help=f"{_SOME}S01 (ds005531), UTS03, average (little-prince).")] = "",
    titles: Annotated[str, typer.Option(help=f"{_SOME}suits (ds005531).")] = "",
    annotation: Annotated[str, typer.Option(help=f"{_SOME}speech_en (ds005531).")] = "",
    stories: Annotated[str, typer.Option(help=f"{_SOME}sweetaspie (ds003020).")] = "",
    languages: Annotated[str, typer.Option(help=f"{_SOME}en (little-prince).")] = "",
    source: Annotated[Path | None, typer.Option("--from", help="Copy from this folder, not from the network.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be brought.")] = False,
    data: DataOption = None,
) -> None:
    """Bring files of a data set and check their digests; what was cut goes on where it was."""
    from phaselab.data.download import Place, fetch

    choices = ("subjects", "titles", "annotation", "stories", "languages")
    expect(name in SETS, "data set", repr(name), f"one of {', '.join(SETS)}")
    files = SETS[name].select({choice: context.params[choice] for choice in choices if context.params[choice]})
    place = Place(_folder(data), SETS[name])
    states = {file: place.state(file) for file in files}
    needed = [file for file, state in states.items() if state != "here"]
    for file in files if dry_run else []:
        typer.echo(f"{states[file]}: {place.path(file)}, {counted([file])}")
    say(f"{name}: {counted(files)}, of these to bring {counted(needed)}; {place.room(needed)}")
    if needed and not dry_run:
        total = None if any(file.bytes is None for file in needed) else sum(file.bytes or 0 for file in needed)
        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=total)
            fetch(needed, place, home(source) if source else None, lambda n: bar.advance(task, n), say)
        say(f"{name}: {len(files)} files are in {place.data / name}; please cite {place.of.citation}")


@data_app.command("verify")
def verify_data(
    again: Annotated[bool, typer.Option("--again", help="Read also what was read and has not changed.")] = False,
    data: DataOption = None,
) -> None:
    """Compare the files that are here with their published digests; exit code 2 where one differs."""
    from phaselab.data.download import Place

    wrong = []
    for of in SETS.values():
        place = Place(_folder(data), of)
        states = {file: state for file in of.files() if (state := place.state(file, again)) != "missing"}
        wrong += [str(place.path(file)) for file, state in states.items() if state == "wrong"]
        say(f"{of.name}: here {counted(list(states))}")
    expect(not wrong, f"{', '.join(wrong)}", "other bytes", "the published ones; 'phaselab data get' replaces them")
    say("all are as published")


@data_app.command()
def check(study: StudyArgument, data: DataOption = None) -> None:
    """Say by how many seconds the responses of each subject follow what is said, and whether that can be."""
    from phaselab.brains import load_brain
    from phaselab.brains.signal import speech_lag
    from phaselab.study import load_study

    brain = load_brain(load_study(study).brain, data)
    for subject in brain.subjects:
        lag, r = speech_lag(brain, subject)
        doubt = "" if 3 <= lag <= 8 else "; expected 3 to 8 s: are texts and responses of the same moments?"
        typer.echo(f"{subject}: what is said is followed after {lag:g} s (r = {r:.2f}){doubt}")
