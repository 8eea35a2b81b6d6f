"""Size and shape of hidden states: norm, anisotropy, dimensions by spectrum and by neighbours, massive features."""

import numpy as np

from phaselab.internals.registry import measure

NEIGHBOURS = 10  #: of the second estimate of the intrinsic dimension
SAME = 1e-5  #: vectors nearer to each other than this share of the typical distance from the mean count as one
CENSORED = 0.1  #: share of the distance ratios, the largest, of which TwoNN knows only that they are larger


@measure(version=0)
def centred(states: np.ndarray) -> np.ndarray:
    """States (n, p) without their mean."""
    return np.asarray(states - states.mean(0))


@measure(version=0)
def eigenvalues(centred: np.ndarray) -> np.ndarray | None:
    """Eigenvalues of the covariance, times n; None where nothing varies."""
    wide = centred.shape[1] > centred.shape[0]
    values = np.linalg.eigvalsh(centred @ centred.T if wide else centred.T @ centred).clip(0)
    return values if values.any() else None


@measure(version=0)
def nearest(centred: np.ndarray) -> np.ndarray | None:
    """Distances (n, NEIGHBOURS) to the nearest of the distinct vectors, nearest first; None for fewer than 20."""
    import torch  # here: versions of measures are asked for without it

    centred = centred - centred.mean(0)
    squares = np.square(centred).sum(1)
    distances = centred @ centred.T  # (n, n); in place, since making room costs more than the sums
    distances *= -2
    distances += squares
    distances += squares[:, None]  # squared
    np.fill_diagonal(distances, np.inf)
    same = distances.min(1) <= SAME**2 * squares.mean()
    if same.any():
        near = distances[np.ix_(same, same)] <= SAME**2 * squares.mean()
        repeats = np.flatnonzero(same)[np.tril(near, -1).any(1)]
        distances = np.delete(np.delete(distances, repeats, axis=0), repeats, axis=1)
    if len(distances) < 20:
        return None
    squared = torch.from_numpy(distances).topk(NEIGHBOURS, largest=False).values.numpy()
    return np.asarray(np.sqrt(squared))


@measure(version=1)
def norm(states: np.ndarray) -> tuple[float, float]:
    """Mean Euclidean norm; standard error over words."""
    norms = np.linalg.norm(states, axis=1)
    return norms.mean(), norms.std(ddof=1) / np.sqrt(len(norms))


@measure(version=1)
def anisotropy(states: np.ndarray) -> float | None:
    """Mean cosine between two different words (Ethayarajh 2019)."""
    norms = np.linalg.norm(states, axis=1)
    units = states[norms > 0] / norms[norms > 0, None]
    n = len(units)
    # The sum of all cosines is the squared norm of the sum of unit vectors; n of them are 1.
    return (np.square(units.sum(0)).sum() - n) / (n * (n - 1)) if n > 1 else None


@measure(version=1)
def participation_ratio(eigenvalues: np.ndarray) -> float:
    """(sum of l)^2 / sum of l^2, l the eigenvalues of the covariance."""
    return float(eigenvalues.sum() ** 2 / np.square(eigenvalues).sum())


@measure(version=1)
def effective_rank(eigenvalues: np.ndarray) -> float:
    """Exponential of the entropy of the centred matrix' normalised singular values (Roy & Vetterli 2007)."""
    singular = np.sqrt(eigenvalues)
    share = singular[singular > 0] / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


@measure(version=1)
def intrinsic_dimension(nearest: np.ndarray) -> tuple[float, float]:
    """TwoNN (Facco et al. 2017, Scientific Reports 7:12140) by maximum likelihood, the largest tenth censored.

    Log ratios of the distances to the second and to the first neighbour are exponential with the dimension as rate.
    """
    n, kept = len(nearest), int(len(nearest) * (1 - CENSORED))
    logs = np.log(np.sort(nearest[:, 1] / nearest[:, 0])[:kept])
    value = (kept - 1) / (logs.sum() + (n - kept) * logs[-1])
    return value, value / np.sqrt(n * (1 - CENSORED))


@measure(version=1)
def intrinsic_dimension_mle(nearest: np.ndarray) -> tuple[float, float]:
    """Inverse mean log distance ratio of tenth neighbour and others (Levina, Bickel 2004; MacKay, Ghahramani 2005)."""
    n, k = nearest.shape
    value = n * (k - 1) / np.log(nearest[:, -1:] / nearest[:, :-1]).sum()
    return value, value / np.sqrt(n * (k - 1))


@measure(version=1)
def massive_ratio(states: np.ndarray) -> float | None:
    """Largest absolute value over the median one (massive activations, Sun et al. 2024)."""
    size = np.abs(states)
    middle = np.median(size)
    return size.max() / middle if middle > 0 else None


@measure(version=1)
def massive_share(states: np.ndarray) -> float | None:
    """Share of all squared values in the one feature that has most of them."""
    squares = np.square(states)
    return squares.sum(0).max() / squares.sum() if squares.any() else None
