"""Quaternions, and the groups of 3D scenes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from configs import base
from contextssl_jax.errors import UserError
from contextssl_jax.transforms.quaternion import from_euler, inverse, multiply, to_matrix, upper
from contextssl_jax.transforms.scene import scene_groups

ANGLES = np.random.default_rng(0).uniform(-np.pi / 2, np.pi / 2, (50, 3))


def groups(**scene):
    config = base.get_config()
    config.groups, config.unconditioned_transforms = ("rotation", "color"), ("light",)
    config.scene.update(scene)
    return scene_groups(config)


def scenes(n, seed=0):
    rng = np.random.default_rng(seed)
    high = [np.pi / 2] * 3 + [1, np.pi / 4, 2 * np.pi, 1]
    low = [-np.pi / 2] * 3 + [0] * 4
    return rng.uniform(low, high, (n, 7))


def test_quaternions_are_those_of_scipy():
    p, q = (Rotation.from_euler("xyz", a) for a in (ANGLES[:25], ANGLES[25:]))
    np.testing.assert_allclose(from_euler(ANGLES[:25]), p.as_quat(), atol=1e-12)
    np.testing.assert_allclose(
        upper(multiply(p.as_quat(), q.as_quat())), (p * q).as_quat(canonical=True), atol=1e-12
    )
    np.testing.assert_allclose(inverse(p.as_quat()), p.inv().as_quat(), atol=1e-12)
    matrix = np.moveaxis(np.array(to_matrix(p.as_quat())), -1, 0)
    np.testing.assert_allclose(matrix, p.as_matrix(), atol=1e-12)


def test_upper_turns_the_sign_where_w_is_negative():
    q = np.array([[0.5, 0.5, 0.5, -0.5], [0.5, 0.5, 0.5, 0.5], [1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(upper(q)[:, 3], [0.5, 0.5, 0.0])
    np.testing.assert_array_equal(upper(q)[0], -q[0])


@pytest.mark.parametrize("hue", ["circle", "linear"])
def test_latents_of_scenes(hue):
    drawn = scenes(20)
    transform_params = groups(hue=hue).transform_params(drawn.reshape(10, 2, 7)).reshape(20, -1)
    quaternion = Rotation.from_euler("xyz", drawn[:, :3]).as_quat()
    np.testing.assert_allclose(transform_params[:, :4], quaternion, atol=1e-6)
    hues = drawn[:, [3, 6]]
    if hue == "linear":
        np.testing.assert_allclose(transform_params[:, 4:6], hues, atol=1e-6)
    else:
        told = np.exp(2j * np.pi * hues)
        np.testing.assert_allclose(transform_params[:, 4:8:2], told.real, atol=1e-6)
        np.testing.assert_allclose(transform_params[:, 5:8:2], told.imag, atol=1e-6)
    towards = transform_params[:, -2:]
    np.testing.assert_allclose(np.hypot(*towards.T), np.sin(drawn[:, 4]), atol=1e-6)
    np.testing.assert_allclose(
        np.arctan2(towards[:, 1], towards[:, 0]) % (2 * np.pi), drawn[:, 5], atol=1e-4
    )


@pytest.mark.parametrize("numpy", [np, jnp])
def test_actions_lead_from_x_to_y(numpy):
    x, y = scenes(20), scenes(20, seed=1)
    told = groups()
    t_x, t_y = (numpy.asarray(told.transform_params(s)) for s in (x, y))
    rotation, color = (one.group for one in told.told)
    turn = rotation.relative(t_x[:, :4], t_y[:, :4])
    assert isinstance(turn, jax.Array if numpy is jnp else np.ndarray)
    r_x, r_y = (Rotation.from_euler("xyz", s[:, :3]) for s in (x, y))
    np.testing.assert_allclose(
        np.asarray(turn), (r_x.inv() * r_y).as_quat(canonical=True), atol=1e-6
    )
    shift = np.exp(2j * np.pi * (y - x)[:, [3, 6]])
    action = np.asarray(color.relative(t_x[:, 4:8], t_y[:, 4:8]))
    np.testing.assert_allclose(action[:, ::2] + 1j * action[:, 1::2], shift, atol=1e-5)


def test_official_actions_keep_the_sign_and_subtract_hues():
    x, y = scenes(500), scenes(500, seed=1)
    told = groups(hue="linear", canonical=False)
    t_x, t_y = told.transform_params(x), told.transform_params(y)
    rotation, color = (one.group for one in told.told)
    w = rotation.relative(t_x[:, :4], t_y[:, :4])[:, 3]
    assert 0.01 < (w < 0).mean() < 0.1  # 4.4 % of relative rotations
    np.testing.assert_allclose(
        color.relative(t_x[:, 4:6], t_y[:, 4:6]), (y - x)[:, [3, 6]], atol=1e-6
    )


def test_drawn_latents_follow_the_law_of_scenes():
    told = groups()
    space = told.space()
    assert space.names == ("rotation", "color") and space.identity is None
    transform_params = told.transform_params(scenes(100_000))
    np.testing.assert_allclose(space.param_mean, transform_params[:, :8].mean(0), atol=0.01)
    np.testing.assert_allclose(space.param_std, transform_params[:, :8].std(0), atol=0.01)
    rotation = told.told[0].group
    assert (rotation.sample(np.random.default_rng(0), 1000)[:, 3] >= 0).all()


def test_a_smaller_range_of_angles():
    turns = groups(angle=30.0).told[0].group.sample(np.random.default_rng(0), 1000)
    angles = Rotation.from_quat(turns).as_euler("xyz", degrees=True)
    assert 29 < np.abs(angles).max() < 30.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scene.angle": 100.0}, "scene.angle: 100.0"),
        ({"scene.hue": "square"}, "scene.hue: 'square'"),
        ({"groups": ("rotation", "crop")}, "'crop'. Choose one of rotation, color, light"),
        ({"unconditioned_transforms": ("color",)}, "named twice"),
    ],
)
def test_mistakes(change, message):
    config = base.get_config()
    config.groups = ("rotation", "color")
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        scene_groups(config)
