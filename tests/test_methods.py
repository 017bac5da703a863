"""Losses equal naive loops over embeddings, small ones by hand; and every method learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from quick import run
from small_methods import small
from test_decorrelation import naive as naive_spread

from contextssl_jax.losses import info_nce_batch
from contextssl_jax.methods import METHODS
from contextssl_jax.methods.contrastive import contrastive_loss
from contextssl_jax.methods.equimod import equimod_loss
from contextssl_jax.methods.heads import Embeddings
from contextssl_jax.methods.sie import sie_loss
from contextssl_jax.methods.vicreg import vicreg_loss

RNG = np.random.default_rng(0)
TEMPERATURE = 0.4
WEIGHTS = ConfigDict(
    {
        "invariance_weight": 3.0,
        "equivariance_weight": 1.3,
        "variance_weight": 5.0,
        "covariance_weight": 0.2,
    }
)


def info_nce(h):
    return info_nce_batch(h, temperature=TEMPERATURE, clamp=False)


LOSSES = {  # of the heads' embeddings
    "contrastive": lambda one: contrastive_loss(one, info_nce, None),
    "equimod": lambda one, other: equimod_loss(one, other, 0.7, info_nce, None),
    "vicreg": lambda one: vicreg_loss(one, WEIGHTS, None),
    "sie": lambda one, other: sie_loss(one, other, WEIGHTS, None),
}


def drawn(e: int, *, y: int = 1, p: int = 4) -> Embeddings:
    """Random embeddings of 3 contexts of 2 pairs in e readings, and in y readings of y tokens."""
    scale = np.linspace(0.4, 1.5, p)
    return Embeddings(*(RNG.normal(size=(3, readings, 2, p)) * scale for readings in (e, y, 1)))


EMBEDDINGS = {
    "simclr": ("contrastive", {"projector": drawn(1)}),
    "sen": ("contrastive", {"equivariant": drawn(2)}),
    "sen_plus": ("contrastive", {"transformer": drawn(2, y=2)}),
    "equimod": ("equimod", {"projector": drawn(1), "equivariant": drawn(2, p=3)}),
    "vicreg": ("vicreg", {"projector": drawn(1)}),
    "vicreg_plus": ("vicreg", {"transformer": drawn(2, y=2)}),
    "sie": ("sie", {"invariant": drawn(1, p=3), "equivariant": drawn(2, p=4)}),
}


def nt_xent(one: Embeddings) -> float:
    """Mean over readings of the mean over 2N rows, of which all but two are negatives."""
    losses = []
    for e in range(one.predicted.shape[1]):
        rows = []
        for b, k in np.ndindex(3, 2):
            rows += [one.predicted[b, e, k], one.y[b, e % one.y.shape[1], k]]
        rows = [row / np.sqrt((row**2).sum()) for row in rows]
        for i, row in enumerate(rows):
            partner = i + 1 if i % 2 == 0 else i - 1
            others = sum(
                np.exp(row @ other / TEMPERATURE) for j, other in enumerate(rows) if j != i
            )
            losses.append(-np.log(np.exp(row @ rows[partner] / TEMPERATURE) / others))
    return sum(losses) / len(losses)


def distance(u: np.ndarray, v: np.ndarray) -> float:
    """Mean over readings, contexts, pairs and entries."""
    readings = max(u.shape[1], v.shape[1])
    squares = [
        (u[b, e % u.shape[1], k, i] - v[b, e % v.shape[1], k, i]) ** 2
        for b, e, k, i in np.ndindex(3, readings, 2, u.shape[-1])
    ]
    return sum(squares) / len(squares)


def spreads(h: np.ndarray) -> tuple[float, float]:
    """Variance and covariance, each the mean over readings."""
    each = [naive_spread(h[:, e].reshape(-1, h.shape[-1])) for e in range(h.shape[1])]
    return tuple(np.mean(each, axis=0))


def naive(kind: str, projected: dict[str, Embeddings]) -> float:
    if kind == "equimod":
        return nt_xent(projected["projector"]) + 0.7 * nt_xent(projected["equivariant"])
    one = next(iter(projected.values()))
    if kind == "contrastive":
        return nt_xent(one)
    if kind == "vicreg":
        (v_x, c_x), (v_y, c_y) = spreads(one.predicted), spreads(one.y)
        moved = distance(one.predicted, one.y)
        return 3.0 * moved + 5.0 * (v_x + v_y) / 2 + 0.2 * (c_x + c_y)
    i, e = projected["invariant"], projected["equivariant"]
    v_x, c_x = spreads(np.concatenate([i.x, e.x], axis=-1))
    v_y, c_y = spreads(np.concatenate([i.y, e.y], axis=-1))
    return (
        3.0 * distance(i.x, i.y)
        + 1.3 * distance(e.predicted, e.y)
        + 5.0 * (v_x + v_y + spreads(e.predicted)[0]) / 2
        + 0.2 * (c_x + c_y)
    )


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_loss_and_its_gradient_are_a_naive_loops(name):
    kind, projected = EMBEDDINGS[name]

    def loss(parts):  # in the heads' order; JAX sorts the keys of a dict
        return LOSSES[kind](*parts)

    parts = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), list(projected.values()))
    (value, metrics), slopes = run(jax.value_and_grad(loss, has_aux=True), parts)
    slopes = dict(zip(projected, slopes, strict=True))
    np.testing.assert_allclose(value, naive(kind, projected), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    for _ in range(2):
        along = jax.tree.map(lambda x: RNG.normal(size=x.shape), projected)
        up, down = (
            jax.tree.map(lambda x, v, s=s: x + s * v, projected, along) for s in (1e-5, -1e-5)
        )
        difference = (naive(kind, up) - naive(kind, down)) / 2e-5
        slope = jax.tree.map(lambda g, v: np.sum(g * v), slopes, along)
        np.testing.assert_allclose(sum(jax.tree.leaves(slope)), difference, rtol=2e-4, atol=1e-4)


def pairs(x, y, source=None) -> Embeddings:
    """Of one context in one reading."""
    parts = (x, y, x if source is None else source)
    return Embeddings(*(jnp.asarray(h, jnp.float32)[None, None] for h in parts))


def loss_of(kind, *embeddings):
    return run(lambda: LOSSES[kind](*embeddings))


def test_contrast_of_small_embeddings():
    ahead = np.exp(1 / TEMPERATURE)
    one = pairs([[2, 0], [0, 3]], [[1, 0], [0, 1]])  # the positive at cosine 1, two at 0
    loss, metrics = loss_of("contrastive", one)
    np.testing.assert_allclose(loss, np.log((ahead + 2) / ahead), rtol=1e-5)
    assert metrics["alignment_accuracy"] == 1 and metrics["similarity_positive"] == 1
    # Where actions take x to the other's y, positives are at 0, and one negative at 1.
    crossed = pairs([[0, 3], [2, 0]], [[1, 0], [0, 1]])
    loss, metrics = loss_of("equimod", one, crossed)
    of_invariant, of_equivariant = np.log((ahead + 2) / ahead), np.log(ahead + 2)
    np.testing.assert_allclose(loss, of_invariant + 0.7 * of_equivariant, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss_equivariant"], of_equivariant, rtol=1e-5)
    assert metrics["alignment_accuracy"] == 1  # of the invariant head


def test_vicreg_of_small_embeddings():
    # Distances 0, 1, 0, 1; deviations sqrt(1/2) and sqrt(2); y's entries vary together.
    one = pairs([[0, 0], [1, 0]], [[0, 1], [1, 3]])
    loss, metrics = loss_of("vicreg", one)
    half = 1 - np.sqrt(0.5001)
    of_x, of_y = (half + 0.99) / 2, half / 2
    assert metrics["loss_invariance"] == pytest.approx((0 + 1 + 0 + 9) / 4)
    assert metrics["loss_variance"] == pytest.approx((of_x + of_y) / 2, rel=1e-5)
    assert metrics["loss_covariance"] == pytest.approx((1**2 + 1**2) / 2, rel=1e-5)
    assert loss == pytest.approx(3 * 2.5 + 5 * (of_x + of_y) / 2 + 0.2 * 1, rel=1e-5)


def test_sie_of_small_embeddings():
    half = 1 - np.sqrt(0.5001)  # of two rows that differ by 1
    invariant = pairs([[0], [1]], [[2], [3]])
    equivariant = pairs([[5], [5]], [[0], [2]], source=[[0], [-1]])
    loss, metrics = loss_of("sie", invariant, equivariant)
    variance = (half + half) / 2 + (half + 0) / 2 + 0.99  # of x, of y, of where the action takes x
    # x is (0, 0), (1, -1), y (2, 0), (3, 2): covariances -1/2 and 1, over two entries.
    covariance = 2 * 0.5**2 / 2 + 2 * 1**2 / 2
    assert metrics["loss_invariance"] == pytest.approx(4)
    assert metrics["loss_equivariance"] == pytest.approx((25 + 9) / 2)
    assert metrics["loss_variance"] == pytest.approx(variance / 2, rel=1e-5)
    assert metrics["loss_covariance"] == pytest.approx(covariance, rel=1e-5)
    expected = 3 * 4 + 1.3 * 17 + 5 * variance / 2 + 0.2 * covariance
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_on_a_fixed_batch(name):
    one = small(name)
    optimizer = optax.adam(1e-2)

    def step(state, _):
        params, stats, moments = state
        gradient = jax.value_and_grad(one.method.loss, has_aux=True)
        (loss, (stats, _)), grads = gradient(params, stats, one.batch, jax.random.key(0))
        updates, moments = optimizer.update(grads, moments)
        return (optax.apply_updates(params, updates), stats, moments), loss

    def train(params, stats):
        start = params, stats, optimizer.init(params)
        return jax.lax.scan(step, start, None, 150)

    (_, stats, _), losses = run(train, one.params, one.batch_stats)
    assert losses[-1] < 0.6 * losses[0] and np.isfinite(losses).all(), losses[::10]
    assert jax.tree.structure(stats) == jax.tree.structure(one.batch_stats)
