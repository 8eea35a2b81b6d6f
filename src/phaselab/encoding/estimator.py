"""The solver with scikit-learn's face."""

import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.model_selection import check_cv
from sklearn.utils.validation import check_is_fitted, validate_data

from phaselab.encoding import folds
from phaselab.encoding.arrays import check_real
from phaselab.encoding.ridge import ALPHAS, Plan, Splits, Targets, solve
from phaselab.errors import expect, number_of
from phaselab.stats import pearson


class RidgeCV(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression with one alpha per target, chosen by cross-validation over contiguous time.

    As himalaya's ``RidgeCV``: the alpha with the highest correlation, averaged over folds; of equal ones the first.

    alphas : (n_alphas,) candidates, above 0; by default the paper's. device, dtype : as of ``Plan``.
    cv : None, one fold per run, or 4 contiguous ones when `fit` is given no runs; a number of contiguous folds
        (with runs: of whole runs); a splitter of scikit-learn; or pairs of row numbers. What a fold validates must be
        one stretch of rows (with runs: one in each), or nothing is held out in time.
    independent : the rows have no order in time, such as sentences: folds may be shuffled, runs are groups of rows.
    best_alphas_, cv_scores_ : (n_targets,) chosen alphas, and mean score over folds with them; NaN where left out.
    left_out_ : target -> why. coef_, intercept_ : float64 (n_features, n_targets) and (n_targets,).

    `score` gives one value per target; a search over parameters needs one in all: ``GridSearchCV(..., scoring="r2")``.
    """

    def __init__(
        self,
        alphas: Any = ALPHAS,
        *,
        cv: Any = None,
        device: str = "auto",
        dtype: str = "float32",
        independent: bool = False,
    ) -> None:
        self.alphas, self.cv, self.independent = alphas, cv, independent
        self.device, self.dtype = device, dtype

    def fit(self, X: Any, Y: Any, runs: Any = None) -> Self:
        """Fit to (n, n_features) and (n, n_targets) or (n,) arrays, also of Zarr or HDF5; `runs` (n,) stay whole."""
        X = self._features(X, ensure_min_samples=4)
        expect(Y is not None, "Y", "None", "responses: RidgeCV requires y to be passed, but the target y is None")
        if not hasattr(getattr(Y, "dtype", None), "kind"):
            Y = np.asarray(Y)  # a list, a frame or a tensor
        expect(Y.dtype != object, "Y", "objects (Unknown label type)", "real numbers, as of Y.astype(float)")
        self._flat = len(Y.shape) == 1
        n, number = len(X), np.zeros(len(X), int)
        if runs is not None:
            expect(np.shape(runs) == (n,), "runs", f"shape {np.shape(runs)}", f"({n},) as in X")
            number = folds.numbered(runs, "runs")
        if runs is not None and (self.cv is None or isinstance(self.cv, int | np.integer)):
            made = folds.leave_one_run_out(number) if self.cv is None else folds.group_folds(number, int(self.cv))
        else:
            cv = check_cv(min(4, n // 2) if self.cv is None else self.cv)
            made = cv.split(np.empty((n, 1)), None, None if runs is None else number)
        splits = Splits(n, tuple((np.asarray(train), np.asarray(validation)) for train, validation in made))
        least = min(len(validation) for _, validation in splits.folds)
        expect(least > 1, "cv", "a fold that validates 1 row", "2 at least: over one there is no correlation")
        for k, (_, test) in enumerate(() if self.independent else splits.folds):
            rows = np.sort(test).tolist()
            holes = (np.diff(rows) > 1) & (np.diff(number[rows]) == 0)
            found = f"rows {rows[:5]} ... of one run tested with others between them: nothing is held out in time"
            ways = "stretches of rows, or independent=True for rows without order"
            expect(not holes.any(), f"cv: fold {k}", found, f"whole runs (given, and each in one place), {ways}")
        targets = Targets.survey(np.asanyarray(Y)[:, None] if self._flat else Y, splits)
        some = dict(list(targets.left_out.items())[:5])
        left_out = f"{len(targets.left_out):,} of {number_of(len(targets.mean), 'target')} left out, such as {some}"
        expect(len(targets.kept), "Y", left_out, "one target at least that can be fitted")
        if targets.left_out:
            warnings.warn(f"Y: {left_out}", stacklevel=2)
        expect(self.dtype in ("float32", "float64"), "dtype", repr(self.dtype), "'float32' or 'float64'")
        plan = Plan(X, splits, self.alphas, None, self.dtype, self.device)
        fit = solve(plan, targets, weights=True)
        self.best_alphas_, self.cv_scores_, self.left_out_ = fit.alpha, fit.cv_score, targets.left_out
        self.coef_ = (plan.V / plan.s).cpu().numpy() @ fit.weights
        self.intercept_ = targets.mean - plan.mean.cpu().numpy() @ self.coef_
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predictions (n_samples, n_targets), NaN for targets left out; (n_samples,) after a flat Y."""
        check_is_fitted(self, "coef_")
        X = self._features(X, reset=False)
        predicted = X @ self.coef_ + self.intercept_
        return np.asarray(predicted[:, 0] if self._flat else predicted)

    def score(self, X: Any, y: Any) -> Any:
        """Pearson r of the predictions with `y`: (n_targets,) or a number; 0 where one is constant, NaN if left out."""
        predicted, Y = self.predict(X), np.asanyarray(y)
        check_real(Y, "Y")
        expect(Y.shape == predicted.shape and len(Y) > 1, "Y", f"shape {Y.shape}", f"{predicted.shape}, 2 rows or more")
        return float(pearson(predicted[:, None], Y[:, None])[0]) if self._flat else pearson(predicted, Y)

    def _features(self, X: Any, **how: Any) -> np.ndarray:
        if isinstance(X, np.ndarray) and (X.dtype.kind not in "biufcO" or np.ma.is_masked(X)):
            check_real(X, "X")  # scikit-learn would make numbers of it
        return np.asarray(validate_data(self, X, dtype=(np.float64, np.float32), **how))
