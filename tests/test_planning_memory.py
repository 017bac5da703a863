"""Memory that is saved for the backward pass, of hand-counted programs."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from contextssl_jax.distributed.collectives import mean_over
from contextssl_jax.planning.memory import COPIES, saved_for_backward, size_of

FLOAT, HALF = 4, 2
B, D, E = 5, 7, 3


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def saved(loss, *shapes, parts=(), axes=()):
    """Return the saved bytes of a loss without auxiliary output."""
    return saved_for_backward(
        lambda *args: (loss(*args), None), *shapes, parts=dict(parts), axes=dict(axes)
    )


def test_sizes():
    tree = {"a": shape(2, 3), "b": [jax.ShapeDtypeStruct((5,), jnp.bfloat16)]}
    assert size_of(tree) == 2 * 3 * FLOAT + 5 * HALF


def test_inputs_and_parameters_are_not_counted():
    result = saved(lambda w, x: jnp.sum(x @ w), shape(D, E), shape(B, D))
    assert result.unfused == result.fused == Counter()


def test_value_for_nonlinearities_is_saved_once():
    """For sin the cosine is saved; for elementwise functions of a product, at most the product."""
    one = saved(lambda w, x: jnp.sum(jnp.sin(x @ w)), shape(D, E), shape(B, D))
    assert one.unfused.total() == one.fused.total() == B * E * FLOAT
    product = jax.jit(jnp.matmul)  # an expensive operation in a called function
    called = saved(lambda w, x: jnp.sum(jnp.sin(product(x, w))), shape(D, E), shape(B, D))
    assert called == one
    two = saved(lambda w, x: jnp.sum(jnp.sin(x @ w) + jnp.exp(x @ w)), shape(D, E), shape(B, D))
    assert two.unfused.total() == 2 * B * E * FLOAT

    def several(w, x):
        h = x @ w
        return jnp.sum(jnp.sin(h) + jnp.exp(h) + jnp.cos(jax.nn.relu(h)))

    three = saved(several, shape(D, E), shape(B, D))
    assert three.fused.total() == B * E * FLOAT
    assert three.unfused.total() >= 3 * B * E * FLOAT


def test_sum_of_products_is_saved_instead_of_its_terms():
    """Recomputing the sum, as in a residual stream, requires all its terms."""

    def loss(w, x):
        return jnp.sum(jnp.sin(x @ w["a"] + x @ w["b"] + x @ w["c"]))

    shapes = {name: shape(D, E) for name in "abc"}
    assert saved(loss, shapes, shape(B, D)).fused.total() == B * E * FLOAT


def test_copies_of_parameters_are_counted_separately():
    def loss(w, x):
        h = (x @ w["a"]).astype(jnp.bfloat16)
        return jnp.sum((h @ w["b"].astype(jnp.bfloat16)).astype(jnp.float32))

    result = saved(loss, {"a": shape(D, D), "b": shape(D, E)}, shape(B, D))
    assert result.unfused == {"other": B * D * HALF, COPIES: D * E * HALF}
    # Recomputing the cast is cheap, but requires a larger value.
    assert result.fused == {"other": B * D * HALF}


def test_saved_values_belong_to_the_part_that_uses_them():
    def loss(w, x):
        with jax.named_scope("Encoder"):
            h = jnp.sin(x @ w["a"])
        return jnp.sum(jnp.sin(h @ w["b"]))

    shapes = {"a": shape(D, E), "b": shape(E, D)}
    result = saved(loss, shapes, shape(B, D), parts={"Encoder": "encoder"})
    # In the encoder: the cosine, and the sine, which is the input of the second product.
    assert result.unfused == {"encoder": 2 * B * E * FLOAT, "other": B * D * FLOAT}
    assert result.fused == {"encoder": B * E * FLOAT, "other": B * D * FLOAT}


def test_rematerialization_saves_less():
    def loss(w, x, remat):
        def block(h):
            return h + jnp.sin(jnp.sin(h @ w) @ w.T)

        block = jax.checkpoint(block) if remat else block
        return jnp.sum(block(block(block(x))) ** 2)

    no_remat, remat = (
        saved(partial(loss, remat=r), shape(D, E), shape(B, D)) for r in (False, True)
    )
    # The inputs of the second and the third block, and the last output; x is an input of the loss.
    assert remat.unfused.total() == 3 * B * D * FLOAT
    assert no_remat.fused.total() > remat.fused.total()
    assert no_remat.unfused.total() > remat.unfused.total()


@pytest.mark.parametrize("devices", [1, 4])
def test_saved_bytes_are_those_of_one_device(devices):
    def loss(w, x):
        h = x @ w
        return jnp.mean(jnp.sin(h - mean_over(h.mean(0), "data")))

    result = saved(loss, shape(D, E), shape(B, D), axes={"data": devices})
    assert result.unfused.total() == B * E * FLOAT
