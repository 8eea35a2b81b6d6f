"""``phaselab data``: whether downloaded data are what they should be."""

import typer

from phaselab.cli.common import DataOption, StudyArgument, app

data_app = typer.Typer(no_args_is_help=True, help="Downloaded data.")
app.add_typer(data_app, name="data")


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
