"""The optimiser is torch's arithmetic, step by step."""

import jax
import numpy as np
import pytest

from configs import base
from contextssl_jax.step import build_optimizer, build_schedule, warmup_steps


def naive(options, params: np.ndarray, grads: np.ndarray) -> np.ndarray:
    """Adam with coupled L2, or AdamW, as their papers and torch write them, in float64."""
    m = v = np.zeros_like(params)
    for t, grad in enumerate(grads, start=1):
        if options.clip:
            grad = grad * min(1, options.clip / np.linalg.norm(grad))
        rate = float(build_schedule(options)(t - 1))
        if options.optimizer == "adam":
            grad = grad + options.weight_decay * params
        m = options.beta1 * m + (1 - options.beta1) * grad
        v = options.beta2 * v + (1 - options.beta2) * grad**2
        update = m / (1 - options.beta1**t) / (np.sqrt(v / (1 - options.beta2**t)) + 1e-8)
        if options.optimizer == "adamw":
            update = update + options.weight_decay * params
        params = params - rate * update
    return params


@pytest.mark.parametrize("optimizer, clip", [("adam", 0.0), ("adam", 0.5), ("adamw", 0.5)])
def test_steps_are_a_naive_version(optimizer, clip):
    options = base.get_config().train
    options.update(
        optimizer=optimizer, clip=clip, weight_decay=0.3, learning_rate=0.1, steps=8, warmup_steps=2
    )
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=5), rng.normal(size=(8, 5))
    tx = build_optimizer(options)
    params, state = start.astype(np.float32), None
    state = tx.init(params)
    for grad in grads.astype(np.float32):
        updates, state = tx.update(grad, state, params, norm=np.linalg.norm(grad))
        params = params + updates
    np.testing.assert_allclose(params, naive(options, start, grads), rtol=1e-4)


def test_the_rate_rises_to_its_peak_and_falls_to_zero():
    options = base.get_config().train
    options.update(learning_rate=0.5, steps=100, warmup_steps=10)
    rates = np.array(jax.vmap(build_schedule(options))(np.arange(101)))
    np.testing.assert_allclose(rates[:11], np.arange(11) * 0.05, atol=1e-6)
    np.testing.assert_allclose(rates[55], 0.25, atol=1e-6)
    assert rates[100] == 0 and (np.diff(rates[10:]) <= 0).all()


def test_a_warm_up_that_is_not_shorter_than_the_run_takes_a_tenth():
    options = base.get_config().train
    for steps, warmup, expected in (
        (20, 1000, 2),
        (1000, 1000, 100),
        (1, 5, 0),
        (1001, 1000, 1000),
    ):
        options.update(steps=steps, warmup_steps=warmup)
        assert warmup_steps(options) == expected
        assert float(build_schedule(options)(expected)) == np.float32(options.learning_rate)
