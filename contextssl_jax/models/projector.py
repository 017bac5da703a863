"""The baselines' heads: a projector, and a predictor of an action's effect on projections."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from contextssl_jax.models.batchnorm import BatchNorm
from contextssl_jax.models.initializers import torch_bias, torch_kernel


class Projector(nn.Module):
    """Linear, BatchNorm and ReLU for every width but the last, which is linear without a bias.

    Attributes:
      widths: of the layers; the last is P.
      axis: name of the axis of synchronized statistics, or None.
      dtype: of the arithmetic; the result is float32.
    """

    widths: Sequence[int]
    axis: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
        """Project features [..., F] to [..., P]; batch statistics are over all leading axes."""
        for width in self.widths[:-1]:
            bias = torch_bias(z.shape[-1])
            z = nn.Dense(width, dtype=self.dtype, kernel_init=torch_kernel, bias_init=bias)(z)
            z = nn.relu(BatchNorm(train, self.axis)(z))
        last = nn.Dense(self.widths[-1], use_bias=False, dtype=self.dtype, kernel_init=torch_kernel)
        return last(z).astype(jnp.float32)


class ActionProjector(nn.Module):
    """A projector of views, and a predictor of the projection that an action leads to.

    Attributes:
      widths: of the projector.
      predictor: "linear", one layer on the concatenated action and projection; or
        "hypernetwork", a map from the action to a matrix that multiplies the projection (SIE,
        arXiv 2302.10283).
      axis: name of the axis of synchronized statistics, or None.
      dtype: of the arithmetic; results are float32.
    """

    widths: Sequence[int]
    predictor: str
    axis: str | None = None
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        self.projector = Projector(self.widths, self.axis, self.dtype)
        outputs = self.widths[-1]
        action = _Linear if self.predictor == "linear" else _Hypernetwork
        self.action = action(outputs, self.dtype)

    def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
        """Project features [..., F] to [..., P]."""
        projected: jax.Array = self.projector(z, train)
        return projected

    def predict(self, projected: jax.Array, actions: jax.Array) -> jax.Array:
        """Predict the target's projection.

        Args:
          projected: of the source, [..., P].
          actions: standardised, [..., A]; leading axes broadcast against each other.
        """
        predicted: jax.Array = self.action(projected, actions)
        return predicted.astype(jnp.float32)

    def project_and_predict(self, z: jax.Array, actions: jax.Array) -> jax.Array:
        """Project and predict, so that all parameters are initialized."""
        return self.predict(self(z), actions)


class _Linear(nn.Module):
    outputs: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, projected: jax.Array, actions: jax.Array) -> jax.Array:
        lead = jnp.broadcast_shapes(projected.shape[:-1], actions.shape[:-1])
        parts = [jnp.broadcast_to(x, (*lead, x.shape[-1])) for x in (actions, projected)]
        x = jnp.concatenate(parts, axis=-1)
        bias = torch_bias(x.shape[-1])
        return nn.Dense(self.outputs, dtype=self.dtype, kernel_init=torch_kernel, bias_init=bias)(x)


class _Hypernetwork(nn.Module):
    """W(a) p, with W affine in a.

    SIE's W is linear in a quaternion, whose identity is not 0. A standardized action of 0 is the
    mean, which for differences is the identity, and a linear W would predict 0 there. With the
    constant entry W is affine, and that of a standardized quaternion includes SIE's.
    """

    outputs: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, projected: jax.Array, actions: jax.Array) -> jax.Array:
        entries = actions.shape[-1] + 1
        initial = nn.initializers.normal((entries * projected.shape[-1]) ** -0.5)
        shape = entries, projected.shape[-1], self.outputs
        kernel = self.param("kernel", initial, shape).astype(self.dtype)
        # By entry first: the matrices themselves, one a row, would be P times larger.
        by_entry = jnp.einsum("...p,apq->...aq", projected.astype(self.dtype), kernel)
        extended = jnp.concatenate([actions, jnp.ones_like(actions[..., :1])], axis=-1)
        return jnp.sum(by_entry * extended[..., None], axis=-2)
