"""What the responses of several people to one stimulus have in common, and how well it can be predicted."""

from __future__ import annotations

import numpy as np

from phaselab.brains import standardise


def inter_subject_correlation(responses: dict[str, np.ndarray]) -> np.ndarray:
    """Leave-one-out correlation of each subject with the mean of the others; (n_subjects, n_voxels).

    Parameters
    ----------
    responses : subject -> z-scored (n_trs, n_voxels), at least two subjects.
    """
    stack = _stack(responses)
    n_subjects, n_trs, _ = stack.shape
    others = (stack.sum(axis=0) - stack) / (n_subjects - 1)
    others = others - others.mean(axis=1, keepdims=True)
    return (stack * others).sum(axis=1) / (n_trs * others.std(axis=1))


def group_ceiling(responses: dict[str, np.ndarray]) -> np.ndarray:
    """Correlation that the response shared by all subjects would have with one subject's; (n_voxels,).

    The leave-one-out correlation falls short of it, because the mean of n - 1 others still has noise
    in it. Its reliability is k r / (1 + (k - 1) r) for k = n - 1 others and r the mean correlation of
    two subjects (Spearman 1910, Brown 1910), and a correlation is attenuated by the square root of
    that. One value for all subjects, the mean: that of a single subject has a standard error that makes
    scores divided by it worthless where it is small by chance.

    Parameters
    ----------
    responses : subject -> (n_trs, n_voxels), at least two subjects.

    Returns
    -------
    float32; 0 where responses do not correlate between subjects: there is no shared response.
    """
    stack = _stack(responses)
    n_subjects = len(stack)
    # The variance of the sum of z-scored series is n + n (n - 1) r.
    between = (stack.sum(axis=0).var(axis=0) - n_subjects) / (n_subjects * (n_subjects - 1))
    leave_one_out = inter_subject_correlation(responses).mean(axis=0)
    shared = (between > 0) & (leave_one_out > 0)
    others = n_subjects - 1
    reliability = others * between / (1 + (others - 1) * between)
    return np.where(shared, leave_one_out / np.sqrt(np.where(shared, reliability, 1)), 0).astype(np.float32)


def _stack(responses: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([standardise(values.astype(float)) for values in responses.values()]).astype(float)
