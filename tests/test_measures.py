"""Evaluators keep records, views, labels and conditions together."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.evaluators.classification import accuracies_of_views
from contextssl_jax.evaluation.evaluators.retrieval import (
    rank_targets,
    score_conditions,
    score_ranks,
)
from contextssl_jax.evaluation.reader import never_stop

RNG = np.random.default_rng(0)
PROBE = ConfigDict(dict(steps=300, batch=32, learning_rate=1e-2, neighbours=5))
INPUTS = SimpleNamespace(
    key=jax.random.key(0), options=ConfigDict(dict(probe=PROBE)), check_stop=never_stop
)


def views(labels):
    return SimpleNamespace(labels=labels)


def test_every_view_has_its_records_label():
    labels = RNG.integers(0, 4, 90), RNG.integers(0, 4, 50)
    h = [
        np.eye(4)[y][None, :, None] + 0.1 * RNG.normal(size=(2, len(y), 3, 4)).astype(np.float32)
        for y in labels
    ]
    found = accuracies_of_views(INPUTS, *h, *map(views, labels))
    assert (found["linear"]["1.0"] > 0.95).all() and (found["knn"]["1.0"] > 0.95).all()


@pytest.mark.parametrize("labels", [(None, np.zeros(3, int)), (None, None)])
def test_a_data_set_without_labels_has_no_classes(labels):
    h = np.zeros((1, 3, 2, 4), np.float32)
    assert accuracies_of_views(INPUTS, h, h, *map(views, labels)) is None


@pytest.mark.parametrize("exclude_source", [False, True])
def test_each_query_is_compared_with_the_bank_of_its_own_condition(exclude_source):
    environments = {"a": np.array([True]), "none": np.array([False])}
    conditions = Conditions(environments, (0, 2, 4))
    bank = RNG.normal(size=(5, 3, 8, 4)).astype(np.float32)
    queries = RNG.normal(size=(2, 3, 3, 8, 4)).astype(np.float32)
    found = score_conditions(bank, queries, conditions, exclude_source)
    rows = {("a", 0): 0, ("a", 2): 1, ("a", 4): 2, ("none", 0): 0, ("none", 2): 3, ("none", 4): 4}
    for (environment, length), row in rows.items():
        e, c = list(environments).index(environment), conditions.lengths.index(length)
        ranks = rank_targets(queries[e, c], bank[row], exclude_source)
        expected = score_ranks(*map(np.asarray, ranks), 8 - exclude_source)
        for name, value in expected.items():
            assert found[name][e, c] == pytest.approx(value)
