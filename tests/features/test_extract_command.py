"""phaselab extract: from checkpoints and timed words of one's own to features that phaselab encode scores."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner, Result

from phaselab.checkpoints import load as load_checkpoint
from phaselab.checkpoints import local_checkpoints
from phaselab.cli import app
from phaselab.features import extract, to_trs
from phaselab.stimuli import read_words
from phaselab.study import FeatureSpec

WORDS = [f"w{i}" for i in range(30)]
LENGTHS = {"001": 60, "1": 50, "None": 55}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "500"})


def save(folder: Path, seed: int) -> None:
    config = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(seed)
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=40, initializer_range=0.3, **config)).save_pretrained(folder)
    ids = {word: i for i, word in enumerate(["<unk>", "<s>", *WORDS])}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two checkpoints, words.csv and runs.csv, which is the current one."""
    monkeypatch.chdir(tmp_path)
    for step in (1, 2):
        save(tmp_path / f"models/step{step}-tokens{step}K", step)
    rng, rows = np.random.default_rng(0), []
    for run, n_trs in LENGTHS.items():
        onsets = np.arange(0, 2 * n_trs - 1, 0.7)
        rows += [(run, rng.choice(WORDS), round(at, 2), round(at + 0.5, 2)) for at in onsets]
    rows[3] = (rows[3][0], "NA", *rows[3][2:])
    pd.DataFrame(rows, columns=["run", "word", "onset", "offset"]).to_csv("words.csv", index=False)
    pd.DataFrame(LENGTHS.items(), columns=["run", "n_trs"]).to_csv("runs.csv", index=False)
    return tmp_path


ASKED = ("--model", "models", "--words", "words.csv", "--runs", "runs.csv", "--tr", 2)


def test_extract_then_encode_finds_the_voxels_that_follow_a_checkpoint(here: Path) -> None:
    result = call("extract", *ASKED, "--out", "features.zarr", "--layers", "0,-1", "--window", 8, "--stride", 4)
    assert result.exit_code == 0, result.output
    names = ["step1-tokens1K", "step2-tokens2K"]
    assert [line for line in result.stdout.splitlines() if line[:8] == "features"] == [
        f"features.zarr:{n}" for n in names
    ]
    spec = FeatureSpec(layers=(0, -1), window=8, stride=4, trim=0)
    stimulus = read_words(Path("words.csv"), 2.0, LENGTHS)
    assert [run.name for run in stimulus.runs] == [*LENGTHS]
    assert stimulus.runs[0].texts[3] == "NA"
    for checkpoint in local_checkpoints("models"):
        grid = to_trs(extract(*load_checkpoint(checkpoint), stimulus, spec), stimulus, spec)
        found = zarr.open_array(here / "features.zarr" / checkpoint.revision, mode="r")
        expected = np.stack([np.concatenate([*grid[layer].values()]) for layer in (0, 2)])
        np.testing.assert_allclose(found[:], expected, atol=1e-5)
        about = found.attrs["phaselab"]
        assert (about["layers"], about["hemodynamics"]) == ([0, 2], "hrf")
        assert about["notes"]["opening"] == ["<s>"]
        assert about["options"]["window"] == 8
    rng = np.random.default_rng(1)
    X = expected[1] / expected[1].std(0)
    Y = rng.standard_normal((len(X), 6))
    Y[:, :3] += X @ rng.standard_normal((X.shape[1], 3))
    np.save("Y.npy", Y)
    score = ("encode", "--features", f"features.zarr:{names[1]}", "--responses", "Y.npy", "--runs", "runs.csv")
    result = call(*score, "--out", "scores.csv", "--permutations", 99, "--trim", 3)
    assert result.exit_code == 0, result.output
    table = pd.read_csv("scores.csv")
    assert sorted(set(table["layer"])) == [0, 2]  # as the network counts them
    last = table[table["layer"] == 2]
    assert (last["r"][:3] > 0.5).all()
    assert (last["r"][3:] < 0.3).all()
    # Once is enough.
    result = call(*score, "--out", "twice.csv", "--hemodynamics", "hrf", "--tr", 2)
    assert "found features with hrf, and hemodynamics: hrf once more, expected none" in result.output
    assert result.exit_code == 2


def test_one_checkpoint_a_choice_of_them_and_a_job_file(here: Path) -> None:
    Path("job.yaml").write_text(
        "{words: words.csv, runs: runs.csv, tr: 2, layers: [1], hemodynamics: stack, delays: [2, 3]}"
    )
    assert call("extract", "job.yaml", "--model", "models/step1-tokens1K", "--out", "one.zarr").exit_code == 0
    assert (
        call("extract", "job.yaml", "--model", "models", "--checkpoints", "every:2", "--out", "two.zarr").exit_code == 0
    )
    one, two = (zarr.open_array(here / f"{name}.zarr/step1-tokens1K", mode="r") for name in ("one", "two"))
    assert one.shape == (1, sum(LENGTHS.values()), 32)
    np.testing.assert_array_equal(one[:], two[:])
    result = call("extract", "job.yaml", "--model", "models", "--out", "two.zarr")
    assert result.exit_code == 0
    assert result.output.count("there already") == 2
    result = call("extract", "job.yaml", "--model", "models", "--out", "two.zarr", "--empty", "carry")
    assert "found features of other weights, words or options, expected another name" in result.output
    save(here / "models/step2-tokens2K", 9)
    assert (
        "found features of other weights"
        in call("extract", "job.yaml", "--model", "models", "--out", "two.zarr").output
    )
    for odd in ({"attributes": [1]}, {"attributes": {"phaselab": "x"}}):
        Path("two.zarr/step1-tokens1K/zarr.json").write_text(json.dumps(odd))
        result = call("extract", "job.yaml", "--model", "models", "--out", "two.zarr")
        assert (result.exit_code, "found features of other weights" in result.output) == (2, True)
    Path("odd.zarr").mkdir()
    Path("odd.zarr/zarr.json").write_text("[" * 10**5)
    os.mkfifo("two.zarr/.zgroup")
    for name in ("odd", "two"):
        result = call("extract", "job.yaml", "--model", "models", "--out", f"{name}.zarr")
        assert (result.exit_code, "expected a .zarr that can be written" in result.output) == (2, True)
    # A file of one array needs no name.
    np.save("Y.npy", np.random.default_rng(0).standard_normal((sum(LENGTHS.values()), 3)))
    files = ("--features", "one.zarr", "--responses", "Y.npy", "--runs", "runs.csv", "--out", "s.csv")
    assert call("encode", *files, "--permutations", 0).exit_code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--out", "features.npy"), "out: found features.npy, expected a .zarr"),
        (("--out", "words.csv/f.zarr"), "expected a .zarr that can be written"),
        (("--model", "nowhere"), "--model: found 'nowhere', which is no folder here, expected a folder of checkpoints"),
        (("--model", "models/step1-tokens1K", "--checkpoints", "all"), "checkpoints: found 'all', expected none, for"),
        (("--checkpoints", "log:x"), "checkpoints: found 'log:x', expected 'all'"),
        (("--layers", "9"), "features.layers: found 9, expected 0 to 2"),
        (("--layers", "last"), "layers"),
        (("--tr", "0"), "tr: found 0"),
        (("--tr", "1e-9"), "tr: found 1e-09"),
        (("--delays", "2,3"), "delays: found (2, 3) with hemodynamics: hrf, expected no such field"),
        (("--seconds", "5"), "seconds: found 5.0 with context: words, expected no such field"),
        (("--words", "no.csv"), "no.csv"),
        (("--pooling", "sum"), "'sum' is not one of 'mean', 'last', 'max'"),
    ],
)
def test_what_cannot_be_is_a_sentence(here: Path, change: tuple[str, ...], said: str) -> None:
    given = (
        dict(zip(ASKED[::2], ASKED[1::2], strict=True))
        | {"--out": "f.zarr"}
        | dict(zip(change[::2], change[1::2], strict=True))
    )
    result = call("extract", *(part for pair in given.items() for part in pair))
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "word,onset,offset\na,0,1\n",
            "words.csv: found columns word, onset, offset, expected word, onset, offset, run",
        ),
        ("run,word,onset,offset\na,w,0,1\nc,w,1,2\n", "line 3: found .*run 'c'.*expected run as one of a, b"),
        ("run,word,onset,offset\na,w,0,1\na,w,2,2\n", "line 3: .*expected seconds, the offset after the onset"),
        ("run,word,onset,offset\na,w,0,inf\n", "line 2: .*expected seconds"),
        ("run,word,onset,offset\na,w,,1\n", "line 2: .*expected seconds"),
        ("run,word,onset,offset\na,,0,1\n", "line 2: .*expected a word"),
        ("run,word,onset,offset\na,w,3,4\nb,w,1,2\na,w,2,4\n", "line 4: .*ascending order"),
        ("run,word,onset,offset\na,w,3,4\nb,w,20,22\n", "words.csv: line 3: .*an onset in its run"),
        ("run,word,onset,offset\na,w,-1,4\n", "words.csv: line 2: .*expected an onset in its run"),
        ("run,word,onset,offset,start\na,w,1,4,yes\n", "line 2: .*expected start as 0 or 1"),
        ("run,word,onset,offset\n", "words.csv: found no word"),
    ],
)
def test_words_that_cannot_be_are_named_by_their_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "words.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_words(tmp_path / "words.csv", 2.0, {"a": 10, "b": 10})
    with pytest.raises(ValueError, match="^runs: found 1,000,010 TRs, expected at most 1,000,000$"):
        read_words(tmp_path / "words.csv", 2.0, {"a": 10, "b": 10**6})


def test_words_of_one_run_need_no_run_and_texts_begin_where_start_says(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("word,onset,offset,start\nnull,0,1,0\nw,1,2,0\nw,2,3,1\n")
    (run,) = read_words(tmp_path / "words.csv", 2.0, {"all": 10}).runs
    assert run.texts == ("null", "w", "w")
    assert run.starts.tolist() == [True, False, True]
    (tmp_path / "words.csv").write_text("word,onset,offset,run\nw,1,2,b\n")
    silent, spoken = read_words(tmp_path / "words.csv", 2.0, {"a": 3, "b": 4}).runs
    assert (silent.texts, silent.n_trs, spoken.texts) == ((), 3, ("w",))
