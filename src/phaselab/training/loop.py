"""The training loop; a run that was killed goes on from its last checkpoint and ends with the same bytes."""

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from phaselab import __version__
from phaselab.checkpoints.load import refuse_packed
from phaselab.errors import PhaselabError, expect, told
from phaselab.results import Store, amount, check, digest_code, read_manifest, write_file, write_folder
from phaselab.study import Training
from phaselab.texts import TextSource, source
from phaselab.training.folder import Place, place

#: What is left of the greatest learning rate at the last step; rows of held-out text of which the loss is measured.
BETAS, WEIGHT_DECAY, CLIP, FINAL_RATE, HELD_OUT_ROWS = (0.9, 0.95), 0.1, 1.0, 0.1, 32
#: State of a run while it is under way: its folder, and its format, so that none of another one is taken up.
TRAINER, FORMAT = ".trainer", {"format": 2}
#: Called with (step, steps) after each step.
Progress = Callable[[int, int], None] | None


def learning_rate(step: int, training: Training) -> float:
    """The rate of one step: linear warm-up, then a cosine down to a tenth at the last step."""
    if step < training.warmup:
        return training.learning_rate * (step + 1) / training.warmup
    done = (step - training.warmup) / max(1, training.steps - training.warmup)
    return training.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * done)) / 2)


def train(
    name: str, training: Training, store: Store, data: Path | None, progress: Progress = None, until: int | None = None
) -> Path:
    """Train a model, go on with one that was interrupted (as by `until`, a step), or find the one that is there."""
    text = source(training, data)
    at = place(name, training, store, text)
    wanted = {step: revision for step, revision in at.missing.items() if until is None or step <= until}
    if wanted:
        check_sizes(training)
        _run(at._replace(missing=wanted), training, text, progress)
    if wanted == at.missing:
        if wanted or at.damaged or not at.log.is_file():
            with write_file(at.log) as aside:
                aside.write_bytes(at.record)
        shutil.rmtree(at.folder / TRAINER, ignore_errors=True)
    return at.folder


def _run(at: Place, training: Training, text: TextSource, progress: Progress) -> None:
    """Train up to the last of the missing revisions and write each of them."""
    # One bar for every checkpoint written would drown the progress of training.
    transformers_logging.disable_progress_bar()
    tokenizer = text.tokenizer
    model = build(training, len(tokenizer), tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    parameters = list(model.parameters())
    # Biases and the scales of norms are not drawn towards zero.
    decayed, free = ([p for p in parameters if (p.ndim > 1) == matrix] for matrix in (True, False))
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": free, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, betas=BETAS, fused=True)
    held_out = torch.from_numpy(text.held_out(HELD_OUT_ROWS, training.context))
    # Recorded with each checkpoint, and not compared: other code of the same versions gives the same weights.
    made_by = {"phaselab": __version__, "code": digest_code("texts", "training")}
    kept, start = at.folder / TRAINER, 0
    if check(kept, at.inputs | FORMAT) and 0 < read_manifest(kept)["step"] <= min(at.missing):
        try:
            refuse_packed(kept / "state.pt")
            weights, moments = torch.load(kept / "state.pt", weights_only=True)
            model.load_state_dict(weights)
            optimizer.load_state_dict(moments)
        except Exception as error:  # of several libraries
            raise PhaselabError(f"{kept}: {told(error)}; expected the state of this training: remove it") from error
        start = read_manifest(kept)["step"]
    for step in range(start, max(at.missing) + 1):
        if step in at.missing:
            model.eval()  # torch's evaluation mode
            with torch.no_grad():
                loss = float(_loss(model, held_out))
            model.train()
            tokens = step * training.batch * training.context
            row = {"revision": at.missing[step], "step": step, "tokens": tokens, "loss": loss}
            with write_folder(at.folder / at.missing[step], at.inputs, checkpoint=row, made_by=made_by) as aside:
                model.save_pretrained(aside)
                tokenizer.save_pretrained(aside)
            with write_folder(kept, at.inputs | FORMAT, step=step) as aside:
                torch.save([model.state_dict(), optimizer.state_dict()], aside / "state.pt")
        if step == max(at.missing):
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        batch = torch.from_numpy(text.batch(step, training.batch, training.context))
        torch.autograd.backward(_loss(model, batch))
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        if progress:
            progress(step + 1, training.steps)


def _loss(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the next token, nats; ids (batch, context)."""
    logits = model(input_ids=ids).logits  # (batch, context, vocabulary)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def check_sizes(training: Training) -> None:
    """PhaselabError for more than this machine can hold, and, with the library's own reason, for what is no network."""
    wide, inner, tokens = training.hidden_size, training.intermediate_size, training.batch * training.context
    # At least: matrices, gradients and two moments of each, and what a layer keeps of a token; four bytes a number.
    least = 16 * training.layers * (wide * (4 * wide + 2 * inner) + tokens * wide)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    asked = f"{training.layers} layers, {wide} wide, {inner} inside, batches of {tokens:,} tokens"
    found = f"{asked}, which take {amount(least, 'kMGT')}B at least"
    expect(least <= there, "train", found, f"what the memory of this machine holds ({amount(there, 'kMGT')}B)")
    try:
        with torch.device("meta"):
            mask = torch.zeros((1, 1, 16, 16))  # whole, for to make one values are looked at, and there are none
            build(training, 64, 0, 1, 2)(input_ids=torch.zeros((1, 16), dtype=torch.int64), attention_mask=mask)
    except Exception as error:
        sizes = training.model_dump(include={"hidden_size", "layers", "heads", "intermediate_size"})
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        right = f"sizes that {training.architecture} takes ({' '.join(str(error).split())})"
        raise PhaselabError(f"train: found {found}, expected {right}") from error


def build(training: Training, vocabulary_size: int, pad: int, bos: int, eos: int) -> Any:
    """An untrained float32 model, its weights drawn from the seed of `training`, for twice the training context."""
    # A base for contexts of about a hundred tokens, not thousands; of GPT-NeoX's heads only a part is turned.
    rotary = {"rope_type": "default", "rope_theta": 1000.0}
    rotary |= {"partial_rotary_factor": 0.5} if training.architecture == "gpt_neox" else {}
    config = AutoConfig.for_model(
        training.architecture,
        vocab_size=vocabulary_size,
        hidden_size=training.hidden_size,
        num_hidden_layers=training.layers,
        num_attention_heads=training.heads,
        intermediate_size=training.intermediate_size,
        max_position_embeddings=2 * training.context,
        # The usual 0.02 suits a hidden size of about 1,250; small models learn much later from it.
        initializer_range=(2 * training.hidden_size) ** -0.5,
        rope_parameters=rotary,
        tie_word_embeddings=False,
        use_cache=False,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    # transformers draws weights from the global generator: give it back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
