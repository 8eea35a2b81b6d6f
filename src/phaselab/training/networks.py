"""Language models to train, built from transformers configurations."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from phaselab.study import Training

#: A rotary base for contexts of about a hundred tokens; the usual 10,000 is meant for thousands.
ROTARY = {"rope_type": "default", "rope_theta": 1000.0}


def build(training: Training, vocabulary_size: int, pad: int, bos: int, eos: int) -> Any:
    """An untrained float32 model, its weights drawn from the seed of `training`, for twice the training context."""
    # As in GPT-NeoX itself, only a part of each of its heads is turned.
    partial = {"partial_rotary_factor": 0.5} if training.architecture == "gpt_neox" else {}
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
        rope_parameters=ROTARY | partial,
        tie_word_embeddings=False,
        use_cache=False,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    auto: Any = AutoModelForCausalLM
    # transformers draws weights from the global generator: give it back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        return auto.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
