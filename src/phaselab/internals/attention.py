"""What attention heads look at: induction (Olsson et al. 2022) and previous-token scores on repeated sequences."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from phaselab.errors import expect
from phaselab.features import context_of, opening

LENGTH = 40  #: tokens of a sequence before it is repeated, where the model's context has room for it


@torch.inference_mode()
def head_scores(model: Any, tokenizer: Any, sequences: int) -> pd.DataFrame:
    """Induction and previous-token score of every attention head on random sequences that are shown twice in a row.

    Sequences begin as passes do (``features.opening``); none holds a token twice within a half, if there are
    enough. One row a head (`task`) and measure: `layer` counts from 1; standard errors are over sequences. Measures:

    - ``induction`` (prefix matching): attention from a token of the second half to the one after its like in the first,
      mean over all but the second half's first; ``previous_token``: to the one before it, over all but the first;
    - ``induction_best``, ``previous_token_best`` (`task` empty): those of the layer's best head.
    """
    name, known = type(model).__name__, min(len(tokenizer), len(model.get_input_embeddings().weight))
    plain, rng = np.setdiff1d(np.arange(known), tokenizer.all_special_ids), np.random.default_rng([0, 31])
    context, bos = context_of(model) or 2 * LENGTH + 1, opening(tokenizer, map(tokenizer.decode, plain))
    first, length = len(bos), min(LENGTH, (context - len(bos)) // 2)
    expect(length >= 4, name, f"a context of {context} tokens", "9 or more")
    halves = [rng.choice(plain, length, replace=len(plain) < length) for _ in range(sequences)]
    ids = np.array([[*bos, *half, *half] for half in halves], dtype=np.int64)
    before, weights = model.config._attn_implementation, tuple[torch.Tensor, ...]()
    try:
        # The fused kernels never hold the weights.
        model.set_attn_implementation("eager")
        found = model(input_ids=torch.from_numpy(ids).to(model.device), output_attentions=True)
        weights = found.get("attentions") or ()
    except (AttributeError, TypeError, ValueError):
        pass  # an architecture without attention knows nothing of it
    finally:
        model.set_attn_implementation(before)
    there = weights and all(w is not None and w.ndim == 4 for w in weights)
    expect(there, name, "no attention weights", "those of each layer (else internals.attention: 0)")
    second, later = np.arange(first + length + 1, first + 2 * length), np.arange(1, ids.shape[1])
    rows: list[tuple[int, str, str, float, float]] = []
    for layer, weight in enumerate(weights, 1):
        held = weight.float().cpu().numpy()  # (sequences, heads, to, from)
        for name, at, seen in (("induction", second, second - length + 1), ("previous_token", later, later - 1)):
            scores = held[:, :, at, seen].mean(-1, dtype=np.float64)  # (sequences, heads)
            mean = scores.mean(0)
            spread = scores.std(0, ddof=1) / np.sqrt(sequences) if sequences > 1 else np.full_like(mean, np.nan)
            rows += [(layer, name, f"head {h}", float(mean[h]), float(spread[h])) for h in range(len(mean))]
            best = int(mean.argmax())
            rows.append((layer, f"{name}_best", "", float(mean[best]), float(spread[best])))
    return pd.DataFrame(rows, columns=["layer", "measure", "task", "value", "stderr"])
