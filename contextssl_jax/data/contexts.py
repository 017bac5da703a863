"""Batches of contexts: records, views and environments, all determined by (seed, index).

A context is K pairs of views. Each epoch is a new random permutation of the split, divided into
contexts, so no record occurs twice in an epoch; the remainder that does not fill a context is
dropped from that epoch. The global order of contexts does not depend on the number of processes.
"""

import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from contextssl_jax.data.dataset import Split
from contextssl_jax.errors import UserError

# Streams of randomness, so that no two draws share random numbers.
_ORDER, _VIEWS, _ENVIRONMENT = range(3)

Array = Any  # a NumPy array on the host, a JAX array on the device


class ContextBatch(NamedTuple):
    """B contexts of K pairs, each encoded in E environments over G groups."""

    record: Any  # leaves [B, K, 1 or 2, ...], see Split.draw; or indices, see device_images.py
    transform_params: Array  # of the two views, in the groups' own units, float32 [B, K, 2, D]
    environments: Array  # groups whose actions are observed, bool [B, E, G]
    position: Array  # index in the global batch, int32 [B]; key of per-context randomness
    labels: Array  # classes of the records, int32 [B, K]; -1 if the split has none


def parse_environments(
    environments: Sequence[str], groups: Sequence[str], option: str = "--config.environments"
) -> np.ndarray:
    """Parse environments such as "crop", "crop+blur" or "none" to observed groups, bool [n, G].

    Args:
      environments: at least one.
      groups: names of the conditioned groups.
      option: the option that sets the environments, for error messages.

    Raises:
      UserError: an environment names an unknown group, or two are the same.
    """
    table = np.zeros((len(environments), len(groups)), bool)
    for row, environment in zip(table, environments, strict=True):
        for name in [] if environment == "none" else environment.split("+"):
            if name not in groups:
                raise UserError(
                    f"{option}: {environment!r} names {name!r}, which is none of the groups"
                    f" {tuple(groups)}. Write 'none' or group names joined by '+'."
                )
            row[list(groups).index(name)] = True
    for i, row in enumerate(table):
        for j in np.flatnonzero((table[:i] == row).all(axis=1)).tolist():
            raise UserError(
                f"{option}: {environments[j]!r} and {environments[i]!r} are the same environment."
                " Remove one."
            )
    return table


def context_batches(
    split: Split,
    environments: np.ndarray,
    *,
    seed: int,
    contexts: int,
    pairs: int,
    environment_per: str,
    process: int = 0,
    processes: int = 1,
) -> grain.MapDataset:
    """Return the endless, random-access sequence of this process's share of each global batch.

    Args:
      split: source of the records.
      environments: observed groups of each environment, bool [n, G].
      seed: together with the index, determines everything.
      contexts: number of contexts in a global batch.
      pairs: K.
      environment_per: "context" or "batch": one environment is sampled for each (E = 1); "all":
        every context is encoded in every environment (E = n).
      process: index of this process, which receives the contexts [process, process + 1) * B.
      processes: number of processes, a divisor of `contexts`.

    Raises:
      UserError: the split is smaller than a context, or `processes` does not divide `contexts`.
    """
    if split.size < pairs:
        raise UserError(
            f"--config.data.pairs: {pairs} pairs per context, but the split has {split.size}"
            " records."
            " Lower it."
        )
    if contexts % processes:
        raise UserError(
            f"--config.data.contexts: {contexts} contexts cannot be split evenly over"
            f" {processes} processes."
            " Use a multiple."
        )
    local = contexts // processes

    def contexts_of(batch: int) -> Iterator[ContextBatch]:
        for position in range(process * local, (process + 1) * local):
            index = batch * contexts + position
            yield make_context(split, environments, seed, index, position, pairs, environment_per)

    # Half of the largest index of a context, since Grain adds to lengths.
    endless = sys.maxsize // 2 // contexts
    return grain.MapDataset.range(endless).map(lambda batch: _stack(contexts_of(batch), local))


def read_batches(
    batches: grain.MapDataset, start: int, threads: int, prefetch: int
) -> Iterator[ContextBatch]:
    """Iterate over the batches from index `start`, prefetching `prefetch` of them in threads."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(batches[start:].to_iter_dataset(options))


def make_context(
    split: Split,
    environments: np.ndarray,
    seed: int,
    index: int,
    position: int,
    pairs: int,
    environment_per: str,
) -> ContextBatch:
    """Make the context of a global index, without the leading B; see context_batches."""
    per_epoch = split.size // pairs
    epoch, offset = divmod(index, per_epoch)
    order = _epoch_order(seed, epoch, split.size)
    rng = np.random.default_rng((seed, _VIEWS, index))
    indices = order[offset * pairs : (offset + 1) * pairs]
    record, transform_params = split.draw(rng, indices, 2)
    labels = np.full(pairs, -1, np.int32) if split.labels is None else split.labels[indices]
    observed = environments
    if environment_per != "all":
        key = index if environment_per == "context" else index - position
        rng = np.random.default_rng((seed, _ENVIRONMENT, key))
        observed = environments[rng.integers(len(environments))][None]
    return ContextBatch(record, transform_params, observed, np.int32(position), labels)


def _stack(trees: Iterator[ContextBatch], count: int) -> ContextBatch:
    """Stack that many trees of arrays; each is copied before the next is made.

    Their memory is thus used again, and only the stack's is new, which costs more than the copy.
    """
    first = next(trees)
    stacked = jax.tree.map(lambda leaf: np.empty((count, *np.shape(leaf)), leaf.dtype), first)
    for i, tree in enumerate(itertools.chain([first], trees)):
        jax.tree.map(lambda rows, leaf, i=i: rows.__setitem__(i, leaf), stacked, tree)
    return stacked


@functools.lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(size)
