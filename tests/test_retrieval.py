"""Ranks among a record's views, with ties as a random order would have them."""

import itertools

import numpy as np
import pytest

from contextssl_jax.evaluation.evaluators.retrieval import (
    HITS,
    chance,
    nearest,
    rank_targets,
    score_ranks,
)

RNG = np.random.default_rng(0)


def naive(queries, bank, exclude_source):
    """MRR and H@k as means over every order of the tied candidates, one query at a time."""
    n, v, _ = bank.shape
    allowed = range(int(exclude_source), v)
    rows = {"mrr": [], **{f"hit@{k}": [] for k in HITS}}
    for record, target in itertools.product(range(n), allowed):
        cosine = {i: float(bank[record, i] @ queries[record, target]) for i in allowed}
        ahead = sum(c > cosine[target] for c in cosine.values())
        tied = sum(c == cosine[target] for i, c in cosine.items() if i != target)
        ranks = [ahead + 1 + i for i in range(tied + 1)]
        rows["mrr"].append(np.mean([1 / r for r in ranks]))
        for k in HITS:
            rows[f"hit@{k}"].append(np.mean([r <= k for r in ranks]))
    return {name: np.mean(row) for name, row in rows.items()}


@pytest.mark.parametrize("exclude_source", [False, True])
def test_scores_are_those_of_a_naive_count(exclude_source):
    # Small integers: many exact ties.
    bank, queries = (RNG.integers(-2, 3, (3, 12, 3)).astype(np.float32) for _ in range(2))
    ranks = rank_targets(queries, bank, exclude_source)
    scores = score_ranks(*map(np.asarray, ranks), 12 - int(exclude_source))
    expected = naive(queries, bank, exclude_source)
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], value, rtol=1e-6)


def test_a_perfect_model_is_always_first():
    bank = RNG.normal(size=(4, 20, 8)).astype(np.float32)
    bank /= np.linalg.norm(bank, axis=-1, keepdims=True)
    ranks = rank_targets(bank, bank, False)
    assert set(score_ranks(*map(np.asarray, ranks), 20).values()) == {1.0}


def test_a_model_that_embeds_all_views_alike_scores_at_chance():
    same = np.ones((2, 50, 4), np.float32)
    scores = score_ranks(*map(np.asarray, rank_targets(same, same, False)), 50)
    assert scores == pytest.approx(chance(50))
    assert scores["hit@1"] == pytest.approx(0.02) and scores["hit@5"] == pytest.approx(0.1)
    assert scores["mrr"] == pytest.approx(np.mean(1 / np.arange(1, 51)))


def test_the_nearest_are_among_the_allowed_nearest_first():
    bank = np.eye(5)
    assert nearest(np.array([5.0, 1, 2, 3, 4]), bank, [1, 2, 3, 4], 3) == [4, 3, 2]
