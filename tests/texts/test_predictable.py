"""Frequency and surprisal of words, against values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from phaselab.texts.predictable import parts_of, predictability

CORPUS = ["A, b a b -- a. C"]


def test_interpolated_trigrams_by_hand() -> None:
    # Counts 3, 2, 1 of 6; after a: b twice and c once; after b: a twice; after a b: a twice; after b a: b and c.
    frequency = {"a": 4 / 9, "b": 3 / 9, "c": 2 / 9}
    bigram = {"ab": (2 + 2 * frequency["b"]) / 5, "ba": (2 + frequency["a"]) / 3, "ac": (1 + 2 * frequency["c"]) / 5}
    surprisal = [frequency["a"], bigram["ab"], (2 + bigram["ba"]) / 3, (1 + 2 * bigram["ac"]) / 4]
    found = predictability(["a", "B", "a", "c"], CORPUS)
    np.testing.assert_allclose(found[:, 0], np.log2([frequency[word] for word in "abac"]))
    np.testing.assert_allclose(found[:, 1], -np.log2(surprisal))
    # A context that the corpus lacks: what is left of it decides.
    assert predictability(["c", "a", "b"], CORPUS)[2, 1] == pytest.approx(-np.log2(bigram["ab"]))


def test_probabilities_sum_to_one_over_all_words_and_those_not_in_the_corpus() -> None:
    words = ["a", "b", "c", "zebra"]
    for before in (["a", "b"], ["b", "a"], ["c", "c"]):
        # The words of the stimulus are known to be words, so all are there each time.
        each = [predictability([*before, word, *words], CORPUS)[2, 1] for word in words]
        assert np.exp2(-np.array(each)).sum() == pytest.approx(1)


def test_no_n_gram_reaches_over_the_end_of_a_text_and_order_of_texts_does_not_matter() -> None:
    texts = ["a b", "c", "b a a", ""]
    words = ["b", "c", "b", "a", "a"]
    np.testing.assert_allclose(predictability(words, texts), predictability(words, texts[::-1]))
    alone = predictability(words, texts)
    # Of what is after b, once and of one kind, c is nothing: half of its frequency is left.
    assert alone[1, 1] == pytest.approx(1 - alone[1, 0])


def test_contractions_are_two_parts_whose_values_are_summed() -> None:
    assert parts_of("Couldn’t she'd ’ll 'tis n't o'clock (1865) Mary Ann's") == [
        "could", "n't", "she", "'d", "'ll", "tis", "n't", "o", "clock", "mary", "ann", "'s",
    ]  # fmt: skip
    corpus = ["I could n't and couldn't"]
    apart, joined = predictability(["could", "n't"], corpus), predictability(["couldn't"], corpus)
    np.testing.assert_allclose(joined[0], apart.sum(axis=0))
    assert predictability(["--"], corpus).tolist() == [[0, 0]]
    assert predictability([], corpus).shape == (0, 2)
