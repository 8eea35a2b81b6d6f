"""The paper's study from end to end, without its weights and its brains: what .ci/run builds strictly.

    python tests/films_book.py FOLDER [RESULTS]

Into FOLDER go files in the layout of OpenNeuro ds005531 (two people, made by a generator), a copy of the book's sources
and the results, unless they are to go to RESULTS, where another book has made the pages that do not depend on a study.
A hub on this machine serves toy models of the four architectures under the names of the real families,
with the real names of their checkpoints; questions are in the columns in which tasks are published. Everything between
is what a user of `films` runs: the study file (with fewer people, titles and items), `phaselab run`, `phaselab book`.
Exits with 1 when the planted signal, or what pages have to say about such data, is not found.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from brains import films_files
from checkpoints.hub_server import Hub, serving
from phaselab.encoding.encode import read_voxels

ROOT = Path(__file__).parents[1]
SIZE = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
SHAPE = {"vocab_size": 257, "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": 256} | SIZE
#: Family -> its architecture, and names of its checkpoints as its own repository spells them.
RUNS: dict[str, tuple[type[transformers.PretrainedConfig], tuple[str, ...]]] = {
    "olmo2-7b": (transformers.Olmo2Config, tuple(f"stage1-step{s}-tokens{t}B" for s, t in ((150, 1), (7000, 30)))),
    "olmo-0724-7b": (transformers.OlmoConfig, ("step0-tokens0B", "step1000-tokens4B", "step10000-tokens41B")),
    "amber-7b": (transformers.LlamaConfig, tuple(f"ckpt_{k:03d}" for k in range(360))),
    "pythia-160m": (
        transformers.GPTNeoXConfig,
        tuple(f"step{s}" for s in (0, *(2**k for k in range(10)), *range(1000, 144000, 1000))),
    ),
}
REPOSITORIES = {
    "olmo2-7b": "allenai/OLMo-2-1124-7B",
    "olmo-0724-7b": "allenai/OLMo-7B-0724-hf",
    "amber-7b": "LLM360/Amber",
    "pythia-160m": "EleutherAI/pythia-160m",
}
QUESTIONS = {
    "mmlu": ("test", {"question": "Which is {}?", "subject": "numbers", "choices": ["4", "6", "7", "9"], "answer": 2}),
    "arc_easy": (
        "test",
        {"question": "Which is {}?", "choices": {"text": ["ore", "ice"], "label": ["A", "B"]}, "answerKey": "B"},
    ),
}


def save(folder: Path, config: type[transformers.PretrainedConfig], seed: int) -> Path:
    """A small random network that reads bytes."""
    torch.manual_seed(seed)
    transformers.AutoModelForCausalLM.from_config(config(**SHAPE)).save_pretrained(folder)
    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({**{letter: i for i, letter in enumerate(sorted(letters))}, "<end>": 256}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    return folder


def serve(hub: Hub, folder: Path) -> None:
    """All checkpoints of all families; they share three networks each, as there are hundreds of names."""
    for family, (config, revisions) in RUNS.items():
        kept = [save(folder / family / str(seed), config, seed) for seed in range(3)]
        for number, revision in enumerate(revisions):
            hub.add(REPOSITORIES[family], revision, kept[number * 3 // len(revisions)])


def study_file(folder: Path) -> Path:
    """`films` of the package with fewer people, titles, items, permutations, and a model for each architecture."""
    content = yaml.safe_load((ROOT / "src/phaselab/studies/films.yaml").read_text(encoding="utf-8"))
    content["name"] = "films-toys"
    content["description"] = (
        "Toy models and responses made by a generator, in the published layouts: a test of the path from files to "
        "pages. It says nothing about people or language models."
    )
    content["brain"] |= {"subjects": ["S01", "S02"], "titles": ["suits", "bigbangtheory"]}
    content["models"] = [{"name": name, "label": name, "family": name, "checkpoints": "log:3"} for name in RUNS]
    content["encoding"] |= {"permutations": 20}
    content["tasks"] = []
    for name, (split, question) in QUESTIONS.items():
        lines = [json.dumps(question | {"question": question["question"].format(k)}) for k in range(30)]
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        content["tasks"].append({"name": name, "items": 30, "data": {split: path.name}})
    path = folder / "films-toys.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def copy_book(root: Path) -> Path:
    """The sources of the book, without what was made of them."""
    for name in ("book", "notebooks", "published", "benchmarks/results", "_config.yml", "_toc.yml"):
        source, to = ROOT / name, root / name
        to.parent.mkdir(parents=True, exist_ok=True)
        ignore = shutil.ignore_patterns("executed")
        shutil.copytree(source, to, ignore=ignore) if source.is_dir() else shutil.copy(source, to)
    return root


def phaselab(*arguments: object, **environment: str) -> str:
    command = [str(Path(sys.executable).with_name("phaselab")), *map(str, arguments)]
    print("$", *command[1:], flush=True)
    done = subprocess.run(command, check=True, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    return done.stdout


def expect(right: bool, what: str) -> None:
    if not right:
        raise SystemExit(f"films_book: {what}")


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)  # a new one
    truth = films_files.make(folder / "data", ("S01", "S02"), ("suits", "bigbangtheory"))
    if sys.argv[2:]:
        (folder / "results").symlink_to(Path(sys.argv[2]).resolve())
    where: dict[str, Any] = {"--results": folder / "results", "--data": folder / "data"}
    options = [part for pair in where.items() for part in pair]
    root = copy_book(folder / "book")
    study = study_file(folder)
    with serving() as hub:
        serve(hub, folder / "hub")
        online = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        lags = phaselab("data", "check", study, "--data", folder / "data", **online)
        expect(lags.count(f"is followed after {films_files.LAG} s") == 2, f"the planted lag was not found: {lags}")
        phaselab("run", study, *options, "-j", "2", **online)
        phaselab("book", study, *options, "--root", root, "-j", "2", **online)

    # The signal that was planted: half of the voxels follow speech, four seconds late.
    curves = pd.read_parquet(folder / "results/films-toys/curves.parquet")
    brain = curves[(curves["perspective"] == "brain") & (curves["measure"] == "r")]
    print(brain.groupby(["model", "layer"])["value"].mean().unstack().round(3).to_string())
    expect({*brain["model"]} == {*RUNS}, f"brain scores of {sorted({*brain['model']})}, expected {sorted(RUNS)}")
    expect(brain["value"].notna().all(), "a brain score is not known")
    for found in (folder / "results/films-toys").glob("*/*/brain/voxels.zarr"):
        for subject, own in read_voxels(found).items():
            weakest, noise = own["r"].max(axis=0)[truth.signal].min(), own["r"].max(axis=0)[~truth.signal].max()
            said = f"{found}: {subject}: r of voxels with the signal from {weakest:.2f}, of the others to {noise:.2f}"
            expect(weakest > 0.5 > 0.2 > noise, said)

    html = {path.stem: path.read_text(encoding="utf-8") for path in (root / "_build/html").rglob("*.html")}
    text = {name: re.sub(r"<[^>]+>", "", page) for name, page in html.items()}
    for page, said in {
        "01_stimuli_and_brains": ("ds005531", "No noise ceiling is known"),
        "00_five_minutes": ("Toy models and responses made by a generator",),
        "12_record": ("films-toys",),
    }.items():
        for words in said:
            expect(words in text[page], f"page {page} does not say {words!r}")
    broken = [name for name, page in text.items() if "This page could not be made" in page]
    expect(not broken, f"pages that could not be made: {broken}")
    print(f"films: {len(brain['checkpoint'].unique())} checkpoints, {len(html)} pages, all as they should be")


if __name__ == "__main__":
    main()
