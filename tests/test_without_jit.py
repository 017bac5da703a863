"""JAX_DISABLE_JIT, as people debug. A whole run takes minutes: here is what failed in one."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from contextssl_jax.distributed.parallel import make_mesh
from contextssl_jax.evaluation.probes import knn_accuracy
from contextssl_jax.evaluation.reader import _fetch
from contextssl_jax.models.convolution import _filter_gradient


def test_knn_of_numpy_arrays():
    vectors, labels = np.eye(6, 3, dtype=np.float32) + 0.1, np.arange(6, dtype=np.int32) % 3
    with jax.disable_jit():
        found = knn_accuracy(vectors, labels, vectors, labels, 2)
    assert found == knn_accuracy(vectors, labels, vectors, labels, 2)


def test_gradients_of_convolutions_of_one_chunk(monkeypatch):
    """Of several as well."""
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.normal(size=(4, 4, 4, n)), jnp.float32) for n in (2, 3))
    for size in (1 << 20, 1):
        monkeypatch.setattr("contextssl_jax.models.convolution._CHUNK_BYTES", size)
        expected = _filter_gradient(x, g, 3, 1)
        with jax.disable_jit():
            found = _filter_gradient(x, g, 3, 1)
        # Sums of 64 products of order 1 in float32, in another order.
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_results_that_stay_split_over_devices_are_fetched_whole():
    """Without JIT, nothing replicates the results of forward passes."""
    mesh = make_mesh(jax.devices(), "views")
    split = jax.device_put(np.arange(8.0), NamedSharding(mesh, PartitionSpec("views")))
    np.testing.assert_array_equal(_fetch({"x": split})["x"], np.arange(8.0))
