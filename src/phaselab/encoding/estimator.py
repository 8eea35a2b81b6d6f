"""The solver with scikit-learn's face."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from phaselab.encoding import folds
from phaselab.encoding.ridge import ALPHAS, Plan, Scoring, Splits, Targets, predict, solve
from phaselab.errors import PhaselabError, expect
from phaselab.stats import pearson

#: Folds where neither `cv` nor `runs` is given: the paper's number.
N_FOLDS = 4


class RidgeCV(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression with one alpha per target, chosen by cross-validation over contiguous time.

    Alphas and scores are those of ``himalaya.ridge.RidgeCV`` in float64, up to rounding: for each target the alpha with
    the highest score, averaged over folds; of equally good ones the first.

    Parameters
    ----------
    alphas : (n_alphas,) candidates, above 0; by default the paper's ``numpy.logspace(-12, 12, 25)``.
    cv : None, one fold per run, or 4 contiguous ones when `fit` is given no runs; a number of contiguous folds
        (with runs: of whole runs); a splitter of scikit-learn; or pairs of row numbers, such as
        ``folds.inner_folds`` makes. Shuffled folds are refused unless asked for as ``folds.Shuffled``.
    scoring : ``correlation`` (Pearson) or ``r2``.
    fit_intercept : whether features and responses are centred on the mean of each training set.
    device : ``auto``, ``cpu``, ``cuda`` ...
    dtype : ``float32`` or ``float64``, of products with responses; factorisations are in float64.
    memory : bytes that factorised features and a batch of targets may take together (``ridge.solve``); None:
        batches of 512 targets (CPU).
    return_coef : whether `coef_` and `intercept_` are kept.

    Attributes
    ----------
    best_alphas_, cv_scores_ : (n_targets,) chosen alphas, and mean score over folds with them; NaN where left out.
    left_out_ : target -> why it was not fitted: it is constant, or not finite.
    coef_, intercept_ : (n_features, n_targets) and (n_targets,), with `return_coef`.

    Notes
    -----
    Responses may be a memory map, or a Zarr or HDF5 array larger than memory: they are read in batches.
    Without `return_coef` they are read again by `predict` and must not be changed until then. `score` gives one
    value per target; a search over parameters needs one in all, such as ``GridSearchCV(..., scoring="r2")``.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((80, 5))
    >>> Y = X @ rng.standard_normal((5, 3)) + rng.standard_normal((80, 3))
    >>> model = RidgeCV().fit(X[:60], Y[:60], runs=np.repeat([1, 2, 3], 20))
    >>> model.score(X[60:], Y[60:]).shape
    (3,)
    """

    def __init__(
        self,
        alphas: Any = ALPHAS,
        *,
        cv: Any = None,
        scoring: Scoring = "correlation",
        fit_intercept: bool = True,
        device: str = "auto",
        dtype: str = "float32",
        memory: float | None = None,
        return_coef: bool = False,
    ) -> None:
        self.alphas = alphas
        self.cv = cv
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.device = device
        self.dtype = dtype
        self.memory = memory
        self.return_coef = return_coef

    def fit(self, X: Any, Y: Any, runs: Any = None) -> RidgeCV:
        """Choose alphas and fit, to (n_samples, n_features) and (n_samples, n_targets) or (n_samples,) arrays.

        `runs` (n_samples,) is the run of each sample, which folds then keep whole; or None.
        """
        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        Y = self._responses(Y, len(X))
        splits = Splits(len(X), tuple(self._folds(len(X), runs)))
        targets = Targets.survey(Y, splits, intercept=self.fit_intercept)
        if not len(targets.kept):
            raise PhaselabError(f"Y: found no target that can be fitted ({_why(targets.left_out)})")
        if targets.left_out:
            warnings.warn(
                f"Y: {len(targets.left_out)} of {targets.n_targets} targets left out: {_why(targets.left_out)}",
                stacklevel=2,
            )
        plan = Plan(X, splits, self.alphas, None, self.scoring, self.fit_intercept, self.dtype, self.device)
        fit = solve(plan, targets, self.memory, coef=self.return_coef)
        self.best_alphas_, self.cv_scores_, self.left_out_ = fit.alpha, fit.cv_score, fit.left_out
        # Either coefficients, or what predicts without them: nothing of an earlier fit stays.
        for name in ("coef_", "intercept_", "_basis", "_targets"):
            self.__dict__.pop(name, None)
        if fit.coef is not None and fit.intercept is not None:
            self.coef_ = fit.coef[:, 0] if self._flat else fit.coef
            self.intercept_ = fit.intercept[0] if self._flat else fit.intercept
        else:
            self._basis, self._targets = plan.basis, targets
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predictions (n_samples, n_targets), NaN for targets left out; (n_samples,) after a flat Y."""
        centred, mean = self._predict(X)
        predicted: np.ndarray = centred + mean.astype(centred.dtype)
        return predicted[:, 0] if self._flat else predicted

    def _predict(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Predictions about a mean (n_samples, n_targets), and the mean (n_targets,)."""
        check_is_fitted(self, "best_alphas_")
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        # By what was fitted: parameters may have been set since.
        if hasattr(self, "coef_"):
            coef = self.coef_[:, None] if self._flat else self.coef_
            return X @ coef, np.atleast_1d(self.intercept_)
        mean = self._targets.mean if self._targets.intercept else np.zeros(self._targets.n_targets)
        return predict(self._basis, self._targets, self.best_alphas_, X).astype(X.dtype, copy=False), mean

    def score(self, X: Any, y: Any) -> Any:
        """Score of the predictions with the rule of `scoring`: (n_targets,), a number after a flat Y.

        0 where prediction or response is constant, NaN for targets that were left out.
        """
        # The mean is taken off the responses, not put onto predictions that may hardly vary.
        predicted, mean = self._predict(X)
        predicted = predicted.astype(np.float64)
        Y = np.asarray(y, dtype=np.float64)
        Y = Y[:, None] if Y.ndim == 1 else Y
        expect(Y.shape == predicted.shape, "Y", f"shape {Y.shape}", f"{predicted.shape}")
        if self.scoring == "r2":
            squares = ((Y - Y.mean(0)) ** 2).sum(0)
            explained = squares - ((Y - mean - predicted) ** 2).sum(0)
            scores = np.where(squares > 0, explained / np.where(squares > 0, squares, 1), explained * 0)
        else:
            scores = pearson(predicted, Y)
        return float(scores[0]) if self._flat else scores

    def _responses(self, Y: Any, n: int) -> Any:
        expect(Y is not None, "Y", "None", "responses: RidgeCV requires y to be passed, but the target y is None")
        if not hasattr(Y, "shape") or hasattr(Y, "iloc"):
            Y = np.asarray(Y)
        self._flat = len(Y.shape) == 1
        if self._flat:
            Y = np.asarray(Y)[:, None]
        expect(Y.shape[0] == n, "Y", f"{Y.shape[0]} samples", f"{n} as in X")
        return Y

    def _folds(self, n: int, runs: Any) -> list[folds.Fold]:
        cv = self.cv
        if runs is not None:
            runs = np.asarray(runs)
            expect(runs.shape == (n,), "runs", f"shape {runs.shape}", f"({n},) as in X")
            if cv is None:
                return folds.leave_one_run_out(runs)
            if isinstance(cv, (int, np.integer)):
                return folds.group_folds(runs, int(cv))
        return folds.as_folds(min(N_FOLDS, n) if cv is None else cv, n, runs)


def _why(left_out: dict[int, str], first: int = 5) -> str:
    parts = []
    for reason in sorted({*left_out.values()}):
        mine = [target for target, why in left_out.items() if why == reason]
        more = f" and {len(mine) - first} more" if len(mine) > first else ""
        parts.append(f"{', '.join(map(str, mine[:first]))}{more} ({reason})")
    return "; ".join(parts)
