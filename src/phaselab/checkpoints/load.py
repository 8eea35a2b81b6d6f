"""A checkpoint as a model that is ready to be read."""

import contextlib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaselab.checkpoints import hub
from phaselab.checkpoints.names import Checkpoint, needed
from phaselab.errors import PhaselabError, expect, number_of
from phaselab.files import parse_json, read_text, refuse_crowd, refuse_outside, refuse_pointer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Tokens with which it is found out whether a network is causal, and the share of movement that is more than rounding.
PROBE, FORESIGHT = 8, 1e-4


def load(
    checkpoint: Checkpoint, device: str = "cpu", dtype: str = "float32", trust_remote_code: bool = False
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """The causal language model of a checkpoint, in evaluation mode, and its tokenizer; downloaded first if need be.

    Weights come from safetensors, or where there are none from ``pytorch_model*.bin`` through torch's ``weights_only``
    unpickler, which refuses everything but tensors, or from a GGUF file, which has configuration and tokenizer too and
    whose quantised weights become numbers of `dtype`. A PhaselabError when a file is missing or cannot be read, or
    weights are missing or of another shape than the configuration says (transformers would fill in random numbers), or
    the network is not causal (see `foresight`).
    """
    folder = checkpoint.path or hub.fetch(checkpoint, trust_remote_code)
    names = needed((path.name for path in folder.glob("*")), folder)
    # A cache of the hub keeps files in a folder beside that of their links.
    home = folder.resolve().parents[1] if folder.resolve().parent.name == "snapshots" else folder
    for name in names:
        refuse_pointer(folder / name)
        refuse_outside(folder / name, home)
        if name.endswith((".json", ".txt", ".jinja")):
            refuse_crowd(read_text(folder / name), folder / name)
        index = _said(folder / name) if name.endswith(".index.json") else {}
        parts = index.get("weight_map", {}) if isinstance(index, dict) else index
        elsewhere = {*map(str, parts.values() if isinstance(parts, dict) else [parts])} - {*names}
        expect(not elsewhere, str(folder / name), f"weights in {', '.join(elsewhere)}", "them in parts beside it")

    import torch
    from safetensors import SafetensorError, safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging
    from transformers.utils.import_utils import is_protobuf_available, is_sentencepiece_available

    if "tokenizer.model" in names and "tokenizer.json" not in names:
        # transformers reads such a model with two packages, and without them blames a third one.
        found = "a tokenizer that is a SentencePiece model (tokenizer.model)"
        expected = "the packages that read it: pip install sentencepiece protobuf"
        expect(is_sentencepiece_available() and is_protobuf_available(), str(folder), found, expected)
    for path in (folder / name for name in names if name.endswith(".safetensors")):
        try:
            safe_open(path, "pt")
        except SafetensorError as error:
            raise PhaselabError(f"{path}: found {error}, expected a whole file: download or copy it again") from error
    auto: Any = AutoModelForCausalLM  # which does not declare that it returns a pair here
    logging.disable_progress_bar()  # it would cross the progress of a sweep,
    logging.set_verbosity_error()  # and a table of names of weights, which anybody may give, the sentences below
    if "config.json" in names:
        _refuse_claims(folder, [folder / name for name in names], trust_remote_code)
    with _loading(folder, trust_remote_code, names[-1]) as local:
        safe = {"use_safetensors": names[-1].endswith(".safetensors"), "weights_only": True}
        how = {"dtype": getattr(torch, dtype), "output_loading_info": True}
        model, report = auto.from_pretrained(folder, **local, **safe, **how)
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        sees = foresight(model.to(device).eval())  # torch's evaluation mode, no code that is run
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    found = f"{number_of(len(absent), 'weight')} missing or of another shape, first {next(iter(absent), None)}"
    expect(not absent, str(folder), found, "those that config.json says")
    if checkpoint.repository:
        model.name_or_path = str(checkpoint)  # and not a folder of the cache, in what is said of it later
    moved = f"the states of earlier tokens move by {sees:.2g} of the last one's when that is another"
    right = "a causal language model, which sees nothing of the text to come (BERT and its kind do)"
    rounding = max(FORESIGHT, torch.finfo(model.dtype).eps / 8)
    expect(not sees > rounding, model.name_or_path, f"a network that is not causal: {moved}", right)
    return model, tokenizer


def _refuse_claims(folder: Path, files: list[Path], trust_remote_code: bool) -> None:
    """Refuse what would run code of a hub, and a network or weights far larger than what is on the disk."""
    config, size, where = configuration(folder, trust_remote_code), sum(map(_size, files)), f"{folder}/config.json"
    said = json.dumps(_said(folder / "config.json"))
    kernels = ", ".join(re.findall(r'implementation\w*": (?:\{[^}]*)?"([^"]*/[^"]*)"', said))
    right = "none, or trust_remote_code: true for such a model"
    expect(trust_remote_code or not kernels, where, f"{kernels}, which is code on a hub that would run", right)
    layers, width, words = (getattr(config, of, 0) or 0 for of in ("num_hidden_layers", "hidden_size", "vocab_size"))
    fits = not all(isinstance(of, int) for of in (layers, width, words)) or width * (layers + words) <= size
    expect(fits, where, f"{layers} layers, {width} wide, of {words} words", f"what fits into weights of {size} bytes")
    for path in files:
        refuse_packed(path)


def refuse_packed(path: Path) -> None:
    """Refuse tensors of torch, which it writes unpacked, that would take far more memory than bytes on the disk."""
    if path.suffix in (".bin", ".pt") and zipfile.is_zipfile(path):
        unpacked = sum(part.file_size for part in zipfile.ZipFile(path).infolist())
        expect(unpacked <= 2 * _size(path), str(path), f"{unpacked} bytes when unpacked", "about those on the disk")


def _size(path: Path) -> int:
    return path.stat().st_size


def _said(path: Path) -> Any:
    return parse_json(read_text(path), path)


def configuration(folder: Path, trust_remote_code: bool = False) -> Any:
    """The configuration of the checkpoint in a folder, of its language part alone; errors as of `load`."""
    from transformers import AutoConfig

    if whole := (folder / "config.json").is_file():
        _said(folder / "config.json")  # which memory may not hold
    weights = "" if whole else needed((path.name for path in folder.glob("*")), folder)[-1]
    with _loading(folder, trust_remote_code, weights) as local:
        return AutoConfig.from_pretrained(folder, **local).get_text_config()


@contextlib.contextmanager
def _loading(folder: Path, trust_remote_code: bool, weights: str) -> Iterator[dict[str, Any]]:
    """What transformers' ``from_pretrained`` needs beside the folder of a checkpoint; errors in a sentence."""
    from transformers.utils.import_utils import is_gguf_available

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    more, quiet = "", contextlib.ExitStack()
    if weights.endswith(".gguf"):
        right = 'the package that reads it: pip install "phaselab[anchor]"'
        expect(is_gguf_available(), str(folder / weights), "a GGUF file", right)
        local["gguf_file"] = weights
        more = "; expected a whole file of an architecture that transformers reads from GGUF"
        quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))  # a bar of progress that nothing else turns off
    try:
        with quiet:
            yield local
    except pickle.UnpicklingError as error:
        found = "a .bin file holds more than tensors; torch's weights_only loader refused it and ran nothing of it"
        raise PhaselabError(f"{folder}: {found}; expected tensors alone, or safetensors") from error
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of several libraries; a panic of tokenizers is no Exception
        raise PhaselabError(f"{folder}: cannot be loaded as a causal language model: {error}{more}") from error


def foresight(model: "PreTrainedModel") -> float:
    """How far states of earlier tokens move when the last token is another, as a share of how far its own moves.

    0 for a causal network, or rounding: both sequences go through it together, so that experts have the same tokens.
    """
    import torch

    rows: Any = model.get_input_embeddings()
    ids = (torch.arange(1, PROBE + 1, device=model.device) * len(rows.weight) // (PROBE + 2)).repeat(2, 1)
    ids[1, -1] = ids[0, 0]
    with torch.inference_mode():
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state.float()
    moved = (states[0] - states[1]).norm(dim=1)
    return float(moved[:-1].max() / moved[-1])
