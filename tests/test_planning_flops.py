"""FLOP counts of hand-counted programs, of convolutions of ones, and compared with XLA's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from contextssl_jax.models.convolution import convolve
from contextssl_jax.planning.flops import count_flops
from contextssl_jax.planning.program import build_program

jax.devices()  # initializes JAX with four devices, before a plan initializes it with fewer


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def counted(function, *shapes, platform="tpu", **options):
    return count_flops(jax.make_jaxpr(function)(*shapes).jaxpr, platform, **options)


def total(function, *shapes, **options) -> int:
    return counted(function, *shapes, **options).total()


X, W = shape(5, 7), shape(7, 3)
PRODUCT = 2 * 5 * 7 * 3


def test_matrix_products():
    assert total(jnp.matmul, X, W) == PRODUCT
    assert total(jnp.matmul, shape(4, 5, 7), shape(4, 7, 3)) == 4 * PRODUCT
    assert total(partial(jnp.einsum, "abc,cbd->da"), shape(2, 3, 4), shape(4, 3, 6)) == 2 * 144
    assert total(lambda x: x + jnp.sin(x), X) == 0


CONVOLUTIONS = {
    "plain": dict(window_strides=(1, 1), padding=((0, 0), (0, 0))),
    "padded": dict(window_strides=(1, 1), padding=((1, 1), (2, 0))),
    "strided": dict(window_strides=(2, 3), padding=((1, 1), (1, 1))),
    "cropped": dict(window_strides=(2, 1), padding=((-1, 2), (0, -2))),
    "transposed": dict(window_strides=(1, 1), padding=((2, 1), (1, 2)), lhs_dilation=(2, 3)),
    "dilated": dict(window_strides=(1, 2), padding=((2, 2), (0, 3)), rhs_dilation=(2, 3)),
    "all": dict(
        window_strides=(2, 3), padding=((2, 3), (4, 1)), lhs_dilation=(3, 2), rhs_dilation=(1, 2)
    ),
    "groups": dict(window_strides=(2, 1), padding=((1, 1), (1, 1)), feature_group_count=2),
    "batch groups": dict(window_strides=(1, 2), padding=((1, 1), (0, 0)), batch_group_count=2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
    """On ones, each output is the number of its products with entries of the input."""
    options = CONVOLUTIONS[name]
    x = np.ones((4, 6, 9, 8), np.float32)
    kernel = np.ones((3, 2, 8 // options.get("feature_group_count", 1), 6), np.float32)
    convolution = partial(
        lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )
    assert total(convolution, x, kernel) == 2 * convolution(x, kernel).sum()
    by_xla = jax.jit(convolution).lower(x, kernel).cost_analysis()["flops"]
    assert total(convolution, x, kernel) == by_xla


def test_gradients_of_a_product_cost_two_products():
    step = jax.value_and_grad(lambda x, w: jnp.sum(jnp.sin(x @ w)), argnums=(0, 1))
    result = counted(step, X, W)
    assert result == {("other", "forward"): PRODUCT, ("other", "backward"): 2 * PRODUCT}


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_a_convolution_cost_two_convolutions_on_accelerators(stride):
    """The unused result of a repeated forward convolution in their branch is not counted."""
    x, kernel = shape(2, 8, 8, 4), shape(3, 3, 4, 6)
    forward = total(partial(convolve, stride=stride), x, kernel)
    step = jax.value_and_grad(lambda x, w: jnp.sum(convolve(x, w, stride) ** 2), argnums=(0, 1))
    assert total(step, x, kernel) == total(step, x, kernel, platform="cuda") == 3 * forward
    assert total(step, x, kernel, platform="cpu") > 3 * forward
    # An unused gradient with respect to the input, as in a network's first layer, costs nothing.
    assert total(jax.grad(lambda w, x: step(x, w)[0]), kernel, x) == 2 * forward


def test_loops_are_counted_as_many_times_as_they_run():
    def loop(x, w):
        return lax.scan(lambda carry, _: (carry @ w @ w.T, None), x, length=6)[0]

    def nested(x, w):
        return lax.scan(lambda carry, _: (loop(carry, w), None), x, length=2)[0]

    def unknown(x, w):
        return lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w @ w.T, x)

    assert total(loop, X, W) == 6 * 2 * PRODUCT
    assert total(jax.jit(loop), X, W, loops=False) == 2 * PRODUCT
    assert total(nested, X, W) == 2 * 6 * 2 * PRODUCT
    assert total(unknown, X, W) == 2 * PRODUCT


def once(x, w):
    return (x @ w).sum()


def twice(x, w):
    return (x @ w @ w.T).sum()


def thrice(x, w):
    return (x @ w @ w.T @ w).sum()


def test_conditional_counts_as_its_most_expensive_branch():
    assert total(lambda x, w: lax.cond(x.sum() > 0, once, twice, x, w), X, W) == 2 * PRODUCT
    assert total(lambda x, w: lax.cond(x.sum() > 0, twice, once, x, w), X, W) == 2 * PRODUCT


def test_branch_of_the_target_platform_is_counted():
    def choose(x, w):
        return lax.platform_dependent(x, w, cpu=once, tpu=twice, default=thrice)

    for platform, times in (("cpu", 1), ("tpu", 2), ("cuda", 3)):
        assert total(choose, X, W, platform=platform) == times * PRODUCT


def test_recomputation_is_counted():
    def loss(w, x, remat):
        def layer(h):
            return jnp.tanh(h @ w)

        layer = jax.checkpoint(layer) if remat else layer
        return jnp.sum(layer(layer(x)))

    w, x = shape(7, 7), shape(5, 7)
    one = 2 * 5 * 7 * 7
    assert total(jax.value_and_grad(partial(loss, remat=False)), w, x) == 5 * one
    assert total(jax.value_and_grad(partial(loss, remat=True)), w, x) == 7 * one


def test_count_within_shard_map_is_that_of_one_device():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, all_of = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, all_of), out_specs=rows)
    assert total(jax.jit(mapped), shape(6, 7), W) == 2 * 3 * 7 * 3


def test_unused_values_are_not_counted():
    def dead(x, w):
        product, _ = x @ w, x @ w @ w.T
        return product

    def dead_within(x, w):
        return jax.jit(lambda x: (x @ w, x @ w @ w.T))(x)[0]

    assert total(dead, X, W) == total(dead_within, X, W) == PRODUCT


def test_parts_are_assigned_by_name_scope():
    @jax.named_scope("Encoder")
    def encode(x, w):
        return jax.jit(lambda x: jnp.sin(x @ w))(x)

    step = jax.value_and_grad(lambda w, x: jnp.sum(encode(x, w) @ w.T))
    result = counted(step, W, X, parts={"Encoder": "encoder"})
    assert result == {
        ("encoder", "forward"): PRODUCT,
        ("encoder", "backward"): PRODUCT,
        ("other", "forward"): PRODUCT,
        ("other", "backward"): 2 * PRODUCT,
    }


@pytest.mark.parametrize("devices", [1, 4])
def test_count_of_the_debug_step_is_close_to_xlas(config, devices):
    """XLA includes elementwise operations, which are at most a quarter for this small model."""
    config.train.parallel = "auto"
    program = build_program(config, devices)
    ours = count_flops(program.traced.jaxpr.jaxpr, "tpu", loops=False).total()
    by_xla = program.traced.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]
    assert 0.75 * by_xla < ours <= by_xla
