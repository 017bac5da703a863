"""Linear and MLP probes trained with Adam, all together in one compiled loop.

The probes of all conditions have the same initial weights and see the same views in the same order:
conditions differ in nothing but the embeddings. Losses are summed and Adam is elementwise, so that
probes do not affect each other.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from contextssl_jax.unoptimized import jit_unoptimized

Array = Any  # a NumPy array on the host, a JAX array on the device
Layers = list[dict[str, jax.Array]]  # of U probes: w [U, in, out], b [U, 1, out]


class Training(NamedTuple):
    """How probes are trained."""

    steps: int
    batch: int  # records per step
    learning_rate: float

    @classmethod
    def of(cls, options: ConfigDict) -> "Training":
        """Return the settings of the section `eval.probe`."""
        return cls(options.steps, options.batch, options.learning_rate)


def init_layers(key: jax.Array, probes: int, widths: Sequence[int]) -> Layers:
    """Draw the layers of a linear probe (two widths) or an MLP, the same for all U probes."""
    layers = []
    for i, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        w = jax.nn.initializers.lecun_normal()(jax.random.fold_in(key, i), (before, after))
        layers.append(
            {"w": jnp.tile(w, (probes, 1, 1)), "b": jnp.zeros((probes, 1, after), jnp.float32)}
        )
    return layers


def apply_layers(layers: Layers, x: jax.Array) -> jax.Array:
    """Apply U probes to their inputs, [U, n, in] -> [U, n, out]."""
    for i, layer in enumerate(layers):
        x = (jax.nn.relu(x) if i else x) @ layer["w"] + layer["b"]
    return x


def inputs_of(h: Array) -> dict[str, Array]:
    """Return the inputs of probes by target, from two views' embeddings [U, n, 2, P].

    Returns:
      single: every view by itself, [U, 2n, P].
      pair: both side by side, [U, n, 2P].
    """
    u, n, _, p = h.shape
    return {"single": h.reshape(u, 2 * n, p), "pair": h.reshape(u, n, 2 * p)}


def fit_parameter_probes(
    key: jax.Array,
    h: Array,
    targets: Mapping[str, Array],
    hidden: tuple[int, ...],
    training: Training,
) -> dict[str, dict[str, Layers]]:
    """Train linear and MLP probes by mean squared error, as the official code does.

    Args:
      key: draws initial weights and the order of records.
      h: embeddings of two views of n records under U conditions, [U, n, 2, P].
      targets: standardized parameters `single` [2n, T] and actions `pair` [n, A].
      hidden: widths of the MLP's hidden layers.
      training: steps of Adam.

    Returns:
      Layers by probe ("linear", "mlp") and target.
    """
    u, n, _, p = h.shape
    inputs = {"single": p, "pair": 2 * p}
    sizes = tuple((target, inputs[target], t.shape[1]) for target, t in targets.items())
    params = _init_parameter_probes(key, u, sizes, hidden)
    order = epochs(jax.random.fold_in(key, 4), n, training)
    return _fit_parameters(params, order, h, targets, training.learning_rate)


@functools.partial(jit_unoptimized, static_argnums=(1, 2, 3))
def _init_parameter_probes(
    key: jax.Array, probes: int, sizes: tuple[tuple[str, int, int], ...], hidden: tuple[int, ...]
) -> dict[str, dict[str, Layers]]:
    """Draw the layers of U probes by probe and target; sizes are (target, inputs, outputs)."""
    return {
        probe: {
            target: init_layers(
                jax.random.fold_in(key, 2 * i + (target == "pair")),
                probes,
                (before, *widths, after),
            )
            for target, before, after in sizes
        }
        for i, (probe, widths) in enumerate((("linear", ()), ("mlp", hidden)))
    }


@functools.partial(jit_unoptimized, static_argnums=(1, 2))
def epochs(key: jax.Array, n: int, training: Training) -> jax.Array:
    """Draw the records of each step, each of n records once per epoch, int [steps, batch]."""
    needed = training.steps * training.batch
    keys = jax.random.split(key, -(-needed // n))
    orders = jax.vmap(lambda one: jax.random.permutation(one, n))(keys)
    return orders.reshape(-1)[:needed].reshape(training.steps, training.batch)


@functools.partial(jax.jit, static_argnums=4)
def _fit_parameters(
    params: Any, order: jax.Array, h: jax.Array, targets: Mapping[str, jax.Array], rate: float
) -> Any:
    # With JAX_DISABLE_JIT, the arguments are NumPy arrays, which traced indices cannot index.
    h, targets = jnp.asarray(h), jax.tree.map(jnp.asarray, targets)
    n = h.shape[1]
    by_record = {name: t.reshape(n, -1, t.shape[-1]) for name, t in targets.items()}

    def loss(params: Any, rows: jax.Array) -> jax.Array:
        inputs = inputs_of(h[:, rows])
        errors = [
            jnp.mean((apply_layers(layers, inputs[target]) - expected) ** 2, axis=(1, 2)).sum()
            for by_target in params.values()
            for target, layers in by_target.items()
            for expected in [by_record[target][rows].reshape(-1, by_record[target].shape[-1])]
        ]
        return sum(errors, jnp.float32(0))

    return _minimize(loss, params, order, rate)


@jax.jit
def predict_parameters(
    probes: Mapping[str, Mapping[str, Layers]], inputs: Mapping[str, jax.Array]
) -> dict[str, dict[str, jax.Array]]:
    """Return the predictions of fitted probes, [U, n, out] by probe and target.

    Args:
      probes: from fit_parameter_probes.
      inputs: by target, see inputs_of.
    """
    return {
        probe: {target: apply_layers(layers, inputs[target]) for target, layers in by.items()}
        for probe, by in probes.items()
    }


def fit_classifiers(
    key: jax.Array,
    x: jax.Array,
    labels: Array,
    subsets: Sequence[Array],
    classes: int,
    training: Training,
) -> Layers:
    """Train linear classifiers by cross-entropy on several subsets of the labels at once.

    Args:
      key: draws initial weights and orders.
      x: vectors under U conditions, standardized, [U, n, D].
      labels: int [n], classes from 0.
      subsets: indices of the vectors that each of S classifiers is fitted on.
      classes: number of classes.
      training: steps of Adam.

    Returns:
      Layers of S U probes, those of the first subset first.
    """
    layers = _init_classifiers(key, len(subsets) * len(x), x.shape[-1], classes)
    orders = [
        epochs(jax.random.fold_in(key, 1 + i), len(subset), training)
        for i, subset in enumerate(subsets)
    ]
    fitted: Layers = _fit_classifiers(layers, orders, subsets, x, labels, training.learning_rate)
    return fitted


@functools.partial(jit_unoptimized, static_argnums=(1, 2, 3))
def _init_classifiers(key: jax.Array, probes: int, entries: int, classes: int) -> Layers:
    return init_layers(key, probes, (entries, classes))


@functools.partial(jax.jit, static_argnums=5)
def _fit_classifiers(
    layers: Layers,
    orders: Sequence[jax.Array],
    subsets: Sequence[jax.Array],
    x: jax.Array,
    labels: jax.Array,
    rate: float,
) -> Layers:
    # With JAX_DISABLE_JIT, the arguments are NumPy arrays, which traced indices cannot index.
    labels, subsets = jax.tree.map(jnp.asarray, (labels, subsets))
    order = jnp.stack([rows[o] for rows, o in zip(subsets, orders, strict=True)], axis=1)

    def loss(layers: Layers, rows: jax.Array) -> jax.Array:
        u, subsets = len(x), len(rows)
        inputs = x[:, rows].swapaxes(0, 1).reshape(subsets * u, -1, x.shape[-1])
        expected = jnp.repeat(labels[rows], u, axis=0)
        logits = apply_layers(layers, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, expected).mean(axis=1).sum()

    fitted: Layers = _minimize(loss, layers, order, rate)
    return fitted


@jax.jit
def classifier_accuracies(layers: Layers, x: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the accuracies of S U classifiers, [S, U].

    Args:
      layers: from fit_classifiers.
      x: vectors under U conditions, standardized as those that they are fitted on, [U, m, D].
      labels: int [m].
    """
    subsets = len(layers[0]["w"]) // len(x)
    predicted = apply_layers(layers, jnp.tile(x, (subsets, 1, 1))).argmax(axis=-1)
    return jnp.mean(predicted == labels, axis=1).reshape(subsets, -1)


def _minimize(loss: Any, params: Any, order: jax.Array, rate: float) -> Any:
    """Take one Adam step for each row of the order."""
    optimizer = optax.adam(rate)

    def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), order)[0][0]
