"""Batches follow from (seed, index) alone, whoever reads them and from wherever."""

import dataclasses

import jax
import numpy as np
import pytest

from contextssl_jax.data import DATASETS
from contextssl_jax.data.contexts import (
    ContextBatch,
    context_batches,
    parse_environments,
    read_batches,
)
from contextssl_jax.errors import UserError

ENVIRONMENTS = np.array([[True, False], [False, True]])


@pytest.fixture
def split(config):
    return DATASETS["synthetic"].build(config).splits["train"]  # 256 records


def batches(split, **options):
    defaults = dict(seed=0, contexts=4, pairs=8, environment_per="context")
    return context_batches(split, ENVIRONMENTS, **{**defaults, **options})


def same(a: ContextBatch, b: ContextBatch) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)


def test_shapes_and_types(split):
    batch = batches(split)[0]
    assert batch.record.shape == (4, 8, 1, 16, 16, 3) and batch.record.dtype == np.uint8
    assert (
        batch.transform_params.shape == (4, 8, 2, 5) and batch.transform_params.dtype == np.float32
    )
    assert batch.environments.shape == (4, 1, 2) and batch.environments.dtype == bool
    np.testing.assert_array_equal(batch.position, [0, 1, 2, 3])


def test_everything_follows_from_seed_and_index(split):
    first, second, other = batches(split), batches(split), batches(split, seed=1)
    assert all(same(first[i], second[i]) for i in (0, 7, 100))
    assert not same(first[0], first[1]) and not same(first[0], other[0])
    # The two views of a pair, and the pairs of a context, are drawn apart.
    transform_params = first[0].transform_params.reshape(-1, 5)
    assert len(np.unique(transform_params, axis=0)) == len(transform_params)


def test_an_epoch_has_every_record_once_in_its_own_order(split):
    stream = batches(split)  # 256 / (4 * 8) = 8 batches an epoch
    epochs = [
        np.concatenate([stream[e * 8 + i].record.reshape(-1, 16 * 16 * 3) for i in range(8)])
        for e in range(2)
    ]
    stored = np.unique(split.images.reshape(256, -1), axis=0)
    for epoch in epochs:
        np.testing.assert_array_equal(np.unique(epoch, axis=0), stored)
    assert (epochs[0] != epochs[1]).any()


def test_a_remainder_waits_for_a_later_epoch(split):
    stream = batches(split, contexts=1, pairs=100)  # 2 contexts an epoch, 56 records dropped
    seen = [stream[i].record.reshape(100, -1) for i in range(40)]
    for a, b in zip(seen[0::2], seen[1::2], strict=True):
        assert len(np.unique(np.concatenate([a, b]), axis=0)) == 200
    assert len(np.unique(np.concatenate(seen), axis=0)) == 256


def test_labels_are_the_records(split):
    known = {x.tobytes(): y for x, y in zip(split.images, split.labels, strict=True)}
    for index in (0, 9):
        batch = batches(split)[index]
        assert batch.labels.shape == (4, 8) and batch.labels.dtype == np.int32
        for b, k in np.ndindex(4, 8):
            assert batch.labels[b, k] == known[batch.record[b, k, 0].tobytes()]
    assert len(np.unique(batch.labels)) == 4
    unknown = batches(dataclasses.replace(split, labels=None))[0].labels
    assert unknown.shape == (4, 8) and unknown.dtype == np.int32 and (unknown == -1).all()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_split_the_global_batch_without_overlap_or_gap(split, processes):
    whole = batches(split)[5]
    parts = [batches(split, process=p, processes=processes)[5] for p in range(processes)]
    assert same(whole, jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts))


def test_batches_from_a_position_with_threads_equal_those_of_one_pass(split):
    stream = batches(split)
    reader = read_batches(stream, 5, threads=3, prefetch=3)
    assert all(same(next(reader), stream[i]) for i in range(5, 12))


def test_one_context_a_batch_can_be_read_too(split):
    stream = batches(split, contexts=1)
    assert same(next(read_batches(stream, 3, threads=1, prefetch=1)), stream[3])


def test_environments_are_drawn_per_context_per_batch_or_all_read(split):
    per_context = np.stack([batches(split)[i].environments for i in range(50)])
    assert (per_context.sum(axis=-1) == 1).all()
    assert abs(per_context[..., 0].mean() - 0.5) < 0.1
    assert (per_context[:, :1] != per_context).any()
    stream = batches(split, environment_per="batch")
    per_batch = np.stack([stream[i].environments for i in range(50)])
    assert (per_batch[:, :1] == per_batch).all()
    assert abs(per_batch[..., 0].mean() - 0.5) < 0.2
    every = batches(split, environment_per="all")[3].environments
    np.testing.assert_array_equal(every, np.tile(ENVIRONMENTS, (4, 1, 1)))


def test_a_batchs_environment_is_the_same_in_all_processes(split):
    options = dict(environment_per="batch", processes=4)
    for i in range(10):
        drawn = [batches(split, process=p, **options)[i].environments for p in range(4)]
        assert all((d == drawn[0]).all() for d in drawn)


def test_environments_are_written_by_their_groups():
    table = parse_environments(("crop", "crop+blur", "none"), ("crop", "blur"))
    np.testing.assert_array_equal(table, [[True, False], [True, True], [False, False]])
    with pytest.raises(UserError, match="'colour', which is none of the groups"):
        parse_environments(("crop+colour",), ("crop", "blur"))
    with pytest.raises(UserError, match="'crop\\+blur' and 'blur\\+crop' are the same"):
        parse_environments(("crop+blur", "none", "blur+crop"), ("crop", "blur"))


def test_impossible_sizes_are_refused(split):
    with pytest.raises(UserError, match="data.pairs: 300"):
        batches(split, pairs=300)
    with pytest.raises(UserError, match="data.contexts: 4"):
        batches(split, processes=3)
