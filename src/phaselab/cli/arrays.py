"""``phaselab extract`` and ``phaselab encode``: words, features and responses of one's own, without a study."""

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer
from pydantic import Field
from rich.progress import MofNCompleteColumn, Progress

from phaselab.checkpoints import Checkpoint, choose, chosen, find, hub, identity, load, local_checkpoints, present
from phaselab.checkpoints.names import is_checkpoint
from phaselab.cli.common import JobArgument, console, options_of, say
from phaselab.cli.models import origin_of
from phaselab.encode_options import Commas, Delays, EncodeJob, Home
from phaselab.errors import PhaselabError, expect
from phaselab.files import home, read_text, refuse_crowd
from phaselab.results import read_json, write_file
from phaselab.study import FeatureSpec, read_section

_WRITTEN = {"delays": "N,N,...", "log10_alphas": "LOW HIGH N"}
_WRITTEN |= dict.fromkeys(("features", "responses", "ceiling"), "[NAME=]PATH[:ARRAY]")
At = Annotated[Path, Home]
_Numbers = Annotated[tuple[int, ...], Field(min_length=1), Commas]


class ExtractJob(FeatureSpec):
    """The options, with their help; paths are relative to the current folder."""

    trim: ClassVar[int] = 0  # type: ignore[misc]  # all TRs are kept: phaselab encode has --trim

    model: str = Field(description="Folder of checkpoints or of one, organisation/name, or a family (models list).")
    words: At = Field(description="Table: word, onset, offset (seconds from the run's first TR), run.")
    runs: At = Field(description="Table: a row per TR (run) or a run (run,n_trs), as for phaselab encode.")
    tr: float = Field(ge=0.05, le=60, description="Seconds a TR.")
    out: At = Field(description="Features, .zarr: an array (layers, TRs, features) for each checkpoint.")
    checkpoints: str = Field("", description="As for phaselab run; by default all of a folder, main of a hub.")
    layers: Literal["all"] | _Numbers = Field("all", description="0 is the embedding, -1 the last: 0,6,-1.")
    hemodynamics: Literal["hrf", "average", "stack", "none"] = Field("hrf", description="Canonical, or over --delays.")
    delays: Delays = Field((1, 2, 3), description="TRs from stimulus to response.")
    device: str = Field("cpu", description="cpu, cuda, cuda:N, or auto.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Of the network.")
    trust_remote_code: bool = Field(False, description="Run the model's own modules.")


@options_of(ExtractJob, dict.fromkeys(("delays", "layers"), "N,N,..."), {"delays": str, "layers": str})
def extract(job: JobArgument = None, **options: Any) -> None:
    """Take features of TRs from checkpoints and timed words of yours, ready for phaselab encode.

    A word is read with those before it in its run, back to where the column start, if there is one, says 1.
    Hidden states are pooled, brought to TRs and convolved, run by run; the TRs are those of --runs. What is
    there already is not made again.

    phaselab extract --model FOLDER --words words.csv --runs runs.csv --tr 2 --out features.zarr
    """
    import zarr

    from phaselab import features
    from phaselab.encoding.job import run_lengths
    from phaselab.stages import choose_device
    from phaselab.stimuli import read_words

    asked = read_section(job, ExtractJob, **{name: value for name, value in options.items() if value is not None})
    stimulus, device = read_words(asked.words, asked.tr, run_lengths(asked.runs)), choose_device(asked.device)
    found = _checkpoints(asked.model, asked.checkpoints)
    plain = asked.model_copy(update={"hemodynamics": "average", "delays": (0,)})  # as a study's none is of items
    expect(asked.out.suffix == ".zarr", "out", asked.out, "a .zarr")
    try:
        for part in ("zarr.json", ".zgroup", ".zattrs"):  # which Zarr reads, whatever they are
            if (own := asked.out / part).exists():
                refuse_crowd(read_text(own), own)
        zarr.open_group(asked.out, mode="a")
    except Exception as error:  # of Zarr, of many kinds
        raise PhaselabError(f"out: {asked.out}: found {error}, expected a .zarr that can be written") from error
    elsewhere = {"model", "checkpoints", "words", "runs", "out", "device"}  # by their content, or of no account
    options = asked.model_dump(mode="json", exclude=elsewhere)
    about = {"options": options, "stimulus": stimulus.digest, "hemodynamics": asked.hemodynamics}
    for number, checkpoint in enumerate(found, 1):
        say(f"{number} of {len(found)}: {checkpoint}")
        place = asked.out / checkpoint.revision.replace("/", "--")
        about |= {"checkpoint": str(checkpoint), "identity": identity(checkpoint, Path(os.devnull))}  # read each time
        if place.exists():
            known: Any = read_json(place / "zarr.json")
            for name in ("attributes", "phaselab"):
                known = known.get(name) if isinstance(known, dict) else None
            what, same = "features of other weights, words or options", isinstance(known, dict)
            expect(same and known | about == known, f"out: {place}", what, "another name for these")
            say(f"{place}: there already")
            continue
        with present(checkpoint, code=asked.trust_remote_code, say=say) as local:
            network, tokenizer = load(local, device, asked.dtype, asked.trust_remote_code)
            states = features.extract(network, tokenizer, stimulus, asked, scratch=asked.out.parent, say=say)
        grid = features.to_trs(states, stimulus, plain if asked.hemodynamics == "none" else asked)
        with write_file(place) as aside:
            features.write_layers(features.joined(grid), aside, model=asked.model, notes=states.notes, **about)
        typer.echo(f"{asked.out}:{place.name}")
    say(f"phaselab encode --features {asked.out}:{place.name} --runs {asked.runs} --responses Y.npy ...")


def _checkpoints(model: str, which: str) -> list[Checkpoint]:
    if place := origin_of(model).get("folder"):
        folder = home(place)
        single = is_checkpoint(folder)
        expect(not (single and which), "checkpoints", repr(which), f"none, for {folder} is a single one")
        one = Checkpoint(folder.resolve().name, 0, 0, folder)
        return [one] if single else choose(local_checkpoints(folder), which or "all")
    family = find(model)
    if which:
        return chosen(family, which, say)
    commits = hub.revisions(family.repository)
    expect("main" in commits, family.repository, "no revision main", f"--checkpoints: {', '.join(commits)[:200]}")
    return [Checkpoint("main", 0, 0, None, family.repository, commits["main"])]


@options_of(EncodeJob, _WRITTEN, {"delays": str, "log10_alphas": tuple[float, float, int]})
def encode(job: JobArgument = None, **options: Any) -> None:
    """Score how well features of yours predict responses of yours, voxel by voxel, in held-out time.

    Ridge regression with one alpha per voxel, chosen inside the training set; Pearson r over the held-out
    TRs, mean over folds weighted by length; block permutation and Benjamini-Hochberg. The table has one row
    per subject, layer and voxel. Arrays are .npy, .npz, .zarr or .h5, tables .csv or .tsv. --independent: rows
    are items without an order in time (sentences); folds are shuffled, or whole groups of items as runs.

    phaselab encode --features X.npy --responses Y.npy --runs runs.csv --out scores.parquet
    """
    from phaselab.encoding.job import run
    from phaselab.stages import choose_device, one_thread

    asked = read_section(job, EncodeJob, **{name: value for name, value in options.items() if value is not None})
    bars = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True)
    with bars, one_thread(choose_device(asked.device), asked.threads):
        bar = bars.add_task("layers", total=None)
        written = run(asked, say, lambda done, of: bars.update(bar, completed=done, total=of))
    for path in written:
        typer.echo(path)
