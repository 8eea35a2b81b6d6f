"""The one correlation and the one kernel alignment; on numpy arrays and on tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phaselab.stats import cka, pearson, unit


def test_pearson_of_columns_is_numpys_and_0_where_one_is_constant() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 50, 6))
    a[:, 2], b[:, 4], b[7, 5] = 0.1, 3, np.nan
    for r in (pearson(a, b), pearson(torch.from_numpy(a), torch.from_numpy(b)).numpy()):
        assert r.dtype == np.float64
        np.testing.assert_allclose(r[[0, 1, 3]], [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in (0, 1, 3)], atol=1e-12)
        assert r[2] == r[4] == 0
        assert np.isnan(r[5])
    np.testing.assert_allclose(unit(torch.from_numpy(a).float()).numpy(), unit(a), atol=1e-6)


def test_cka_is_the_same_by_features_and_by_samples() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((40, 5)), rng.standard_normal((40, 60))
    centred = [v - v.mean(0) for v in (a, b)]
    K, L = (v @ v.T for v in centred)
    expected = (K * L).sum() / np.linalg.norm(K) / np.linalg.norm(L)
    assert cka(a, b) == pytest.approx(expected)
    assert cka(a, a @ np.linalg.qr(rng.standard_normal((5, 5)))[0]) == pytest.approx(1)
    assert cka(np.ones((40, 2)), b) == 0
