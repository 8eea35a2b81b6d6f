"""How far a model's log-probabilities follow the 1-, 2- and 3-gram statistics of its text (Michaelov et al. 2025)."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from phaselab.stats import pearson
from phaselab.study import Training
from phaselab.texts.base import TextSource
from phaselab.texts.predictable import n_grams

ORDER = 3  #: longest n-gram
PRIOR = 4.0  #: occurrences that the shorter n-gram's probability is worth in the longer one's
ROWS = 32  #: of held-out text


class Counts(NamedTuple):
    """How often each n-gram of a text occurs, by its number (`n_grams`), n = 0 (the text's length) to 3."""

    vocabulary: int
    tables: tuple[pd.Series, ...]

    def of(self, ids: np.ndarray, n: int) -> np.ndarray:
        """How often the `n`-gram that ends at each token occurs; int64 (rows, columns - n + 1)."""
        keys = n_grams(ids, n, self.vocabulary)
        return self.tables[n].reindex(keys.ravel(), fill_value=0).to_numpy().reshape(keys.shape)


def count(source: TextSource, training: Training, batches: int, vocabulary: int) -> Counts:
    """Count the n-grams of the first `batches` steps of training; none reaches over a row's end."""
    text = np.concatenate([source.batch(step, training.batch, training.context) for step in range(batches)])
    keys = [n_grams(text, n, vocabulary).ravel() for n in range(1, ORDER + 1)]
    return Counts(vocabulary, (pd.Series([text.size]), *(pd.Series(of).value_counts() for of in keys)))


def log_probabilities(counts: Counts, ids: np.ndarray) -> np.ndarray:
    """n-gram log-probabilities (ORDER, rows, columns - ORDER + 1) of the tokens from the third on, nats."""
    # Each order has the one below it as a Dirichlet prior (MacKay & Peto 1995), the first a uniform one.
    p = np.full((len(ids), ids.shape[1] - ORDER + 1), 1 / counts.vocabulary)
    found = []
    for n in range(1, ORDER + 1):
        whole = counts.of(ids, n)[:, ORDER - n :]
        # The context is the n-gram without its last token: it ends one token earlier.
        context = counts.of(ids[:, :-1], n - 1)[:, -whole.shape[1] :]
        p = (whole + PRIOR * p) / (context + PRIOR)
        found.append(np.log(p))
    return np.stack(found)


@torch.inference_mode()
def measure(model: Any, source: TextSource, training: Training, counts: Counts) -> pd.DataFrame:
    """Held-out loss (nats), and the correlation of log-probabilities with n-grams; standard errors over rows."""
    ids = source.held_out(ROWS, training.context)
    tokens = torch.from_numpy(ids).to(model.device)
    logp = model(input_ids=tokens).logits[:, :-1].float().log_softmax(-1)
    of_token = logp.gather(2, tokens[:, 1:, None])[:, :, 0].double().cpu().numpy()  # (rows, context - 1)
    loss = -of_token.mean(1)
    rows = [(-1, "loss", "", float(loss.mean()), float(loss.std(ddof=1) / np.sqrt(len(loss))))]
    own = of_token[:, ORDER - 2 :]
    for n, theirs in enumerate(log_probabilities(counts, ids), 1):
        # The jackknife over rows, since tokens of a row are not independent.
        rest = ~np.eye(len(own), dtype=bool)
        whole, *left = (float(pearson(own[kept].ravel(), theirs[kept].ravel())) for kept in (slice(None), *rest))
        rows.append((-1, f"ngram_{n}", "", whole, float(np.sqrt((len(left) - 1) * np.var(left)))))
    return pd.DataFrame(rows, columns=["layer", "measure", "task", "value", "stderr"])
