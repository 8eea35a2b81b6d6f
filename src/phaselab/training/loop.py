"""The training loop: checkpoints at log-spaced steps, in a folder laid out like a model hub (see `folder`).

A run that was killed goes on from the last checkpoint and ends with the same bytes as one that was
not: a batch depends on its step alone, and weights and the optimiser's moments are kept exactly.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers.utils import logging as transformers_logging

from phaselab import __version__
from phaselab.results import Store, check, digest_code, read_manifest, write_folder
from phaselab.study import Training, digest_of
from phaselab.texts import TextSource, source
from phaselab.training.folder import LOG, TRAINER, inputs_of, missing, revisions
from phaselab.training.networks import build

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.95), 0.1, 1.0
#: What is left of the greatest learning rate at the last step.
FINAL_RATE = 0.1
#: Rows of held-out text on which the loss of each checkpoint is measured.
HELD_OUT_ROWS = 32

Parameters = dict[str, torch.nn.Parameter]


def learning_rate(step: int, training: Training) -> float:
    """The rate of one step: linear warm-up, then a cosine down to a tenth at the last step."""
    if step < training.warmup:
        return training.learning_rate * (step + 1) / training.warmup
    done = (step - training.warmup) / max(1, training.steps - training.warmup)
    return training.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * done)) / 2)


def train(
    name: str,
    training: Training,
    store: Store,
    data: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Train a model, go on with one that was interrupted, or find the one that is there.

    Parameters
    ----------
    name : name of the model, the first part of its folder's name.
    training : the study's section ``train``.
    store : where results lie.
    data : folder of downloaded data, for texts that need it.
    progress : called with (step, steps) after each step.

    Returns
    -------
    Path
        The folder of the model, with one sub-folder per revision (``step{N}-tokens{T}``).

    Raises
    ------
    phaselab.results.DataMissing
        When the text needs data that are not there.
    """
    text = source(training, data)
    inputs = inputs_of(training, text)
    folder = store.trained(name, digest_of(inputs))
    absent = missing(folder, training, inputs, store)
    if absent:
        _run(folder, absent, training, text, inputs, progress)
    if absent or not (folder / LOG).is_file():
        rows = [read_manifest(folder / revision)["checkpoint"] for revision in revisions(training).values()]
        aside = folder / f".{LOG}.partial"
        aside.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        os.replace(aside, folder / LOG)
    shutil.rmtree(folder / TRAINER, ignore_errors=True)
    return folder


def _run(
    folder: Path,
    absent: dict[int, str],
    training: Training,
    text: TextSource,
    inputs: dict[str, Any],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Train up to the last of the `absent` revisions (step -> name) and write each of them."""
    # One bar for every checkpoint written would drown the progress of training.
    bars: Any = transformers_logging
    bars.disable_progress_bar()
    tokenizer = text.tokenizer
    model: Any = build(training, len(tokenizer), tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    parameters = dict(model.named_parameters())
    # Biases and the scales of norms are not drawn towards zero.
    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, betas=BETAS, fused=True)
    held_out = torch.from_numpy(text.held_out(HELD_OUT_ROWS, training.context))
    first = _resume(folder / TRAINER, inputs, min(absent), parameters, optimizer)
    last = max(absent)
    # Recorded with each checkpoint, and not compared: other code of the same versions gives the same weights.
    made_by = {"phaselab": __version__, "code": digest_code("texts", "training")}
    for step in range(first, last + 1):
        if step in absent:
            model.eval()
            with torch.no_grad():
                loss = float(_loss(model, held_out))
            model.train()
            tokens = step * training.batch * training.context
            row = {"revision": absent[step], "step": step, "tokens": tokens, "loss": loss}
            with write_folder(folder / absent[step], inputs, checkpoint=row, made_by=made_by) as aside:
                model.save_pretrained(aside)
                tokenizer.save_pretrained(aside)
            _keep(folder / TRAINER, inputs, step, parameters, optimizer)
        if step == last:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        batch = torch.from_numpy(text.batch(step, training.batch, training.context))
        torch.autograd.backward(_loss(model, batch))
        torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        if progress is not None:
            progress(step + 1, training.steps)


def _loss(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the next token, nats; ids (batch, context)."""
    logits = model(input_ids=ids).logits  # (batch, context, vocabulary)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def _keep(
    folder: Path, inputs: dict[str, Any], step: int, parameters: Parameters, optimizer: torch.optim.Optimizer
) -> None:
    """Keep weights and moments before the update of `step`."""
    state = {f"weight/{name}": p.detach() for name, p in parameters.items()}
    for name, p in parameters.items():
        state |= {f"{key}/{name}": value for key, value in optimizer.state.get(p, {}).items()}
    with write_folder(folder, inputs, step=step) as aside:
        save_file({key: value.contiguous() for key, value in state.items()}, aside / "state.safetensors")


def _resume(
    folder: Path, inputs: dict[str, Any], before: int, parameters: Parameters, optimizer: torch.optim.Optimizer
) -> int:
    """Take up the kept state if it is whole and not later than step `before`; the step to go on with."""
    step = read_manifest(folder).get("step", 0) if check(folder, inputs) else 0
    if not 0 < step <= before:
        return 0
    state = load_file(folder / "state.safetensors")
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(state[f"weight/{name}"])
            optimizer.state[p] = {key: state[f"{key}/{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")}
    return step
