"""Batches of contexts: which records, which views, which environment, all from (seed, index).

A context is K pairs of views. The train split is read in a new random order each epoch, a context
at a time, so no record comes twice in an epoch; what does not fill a whole context is left out of
that epoch. Contexts have one global order, whatever the number of processes that read it.
"""

import functools
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from contextssl_jax.data.dataset import Split
from contextssl_jax.errors import UserError

# Streams of randomness, so that no two draws share their numbers.
_ORDER, _VIEWS, _ENVIRONMENT = range(3)


Array = Any  # NumPy on the host, JAX on the device


class ContextBatch(NamedTuple):
    """B contexts of K pairs, each to be read in E environments over G groups."""

    record: Any  # leaves [B, K, 1 or 2, ...], see Split.draw
    transform_params: (
        Array  # the two views' latents in their own units, float32 [B, K, 2, T + nuis.]
    )
    environments: Array  # groups whose actions are shown, bool [B, E, G]
    position: Array  # place in the global batch, int32 [B]; keys what is random per context
    labels: Array  # classes of the records, int32 [B, K]; -1 where the split has none


def parse_environments(environments: Sequence[str], groups: Sequence[str]) -> np.ndarray:
    """Returns environments such as "crop", "crop+blur" or "none" as shown groups, bool [n, G].

    Raises:
      UserError: an environment names an unknown group, or there is none.
    """
    if not environments:
        raise UserError("environments: name at least one, such as ('crop', 'blur')")
    table = np.zeros((len(environments), len(groups)), bool)
    for row, environment in zip(table, environments, strict=True):
        for name in [] if environment == "none" else environment.split("+"):
            if name not in groups:
                raise UserError(
                    f"environments: {environment!r} names {name!r}, which is none of the groups"
                    f" {tuple(groups)}; write 'none' or group names joined by '+'"
                )
            row[list(groups).index(name)] = True
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
    """Returns the endless, random-access sequence of this process's share of each global batch.

    Args:
      split: where records come from.
      environments: shown groups of each environment, bool [n, G].
      seed: decides everything together with the index.
      contexts: contexts of a global batch.
      pairs: K.
      environment_per: "context" or "batch", one environment drawn for each (E = 1); or "all",
        every context is to be read in every environment (E = n).
      process: index of this process; it gets the contexts [process, process + 1) * B of a batch.
      processes: number of processes, a divisor of `contexts`.

    Raises:
      UserError: the split is smaller than a context, or processes do not divide the contexts.
    """
    if split.size < pairs:
        raise UserError(f"data.pairs: {pairs} pairs a context, but the split has {split.size}")
    if contexts % processes:
        raise UserError(
            f"data.contexts: {contexts} contexts do not split over {processes} processes"
        )
    local = contexts // processes

    def make(index: int) -> ContextBatch:
        batch, position = index // local, process * local + index % local
        return make_context(
            split, environments, seed, batch * contexts + position, position, pairs, environment_per
        )

    # Half of what an index can be, as Grain adds to lengths.
    endless = sys.maxsize // 2 // local * local
    return grain.MapDataset.range(endless).map(make).batch(local)


def read_batches(
    batches: grain.MapDataset, start: int, threads: int, prefetch: int
) -> Iterator[ContextBatch]:
    """Yields the batches from position `start` on, `prefetch` of them made ahead by threads."""
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
    """Makes the context of a global index, without the leading B; see context_batches."""
    per_epoch = split.size // pairs
    epoch, place = divmod(index, per_epoch)
    order = _epoch_order(seed, epoch, split.size)
    rng = np.random.default_rng((seed, _VIEWS, index))
    indices = order[place * pairs : (place + 1) * pairs]
    record, transform_params = split.draw(rng, indices, 2)
    labels = np.full(pairs, -1, np.int32) if split.labels is None else split.labels[indices]
    shown = environments
    if environment_per != "all":
        drawn_by = index if environment_per == "context" else index - position
        rng = np.random.default_rng((seed, _ENVIRONMENT, drawn_by))
        shown = environments[rng.integers(len(environments))][None]
    return ContextBatch(record, transform_params, shown, np.int32(position), labels)


@functools.lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(size)
