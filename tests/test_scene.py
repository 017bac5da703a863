"""Quaternions, and the groups of 3D scenes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from configs import base
from contextssl_jax.errors import UserError
from contextssl_jax.transforms import build_space
from contextssl_jax.transforms.quaternion import from_euler, inverse, multiply, to_matrix, upper

ANGLES = np.random.default_rng(0).uniform(-np.pi / 2, np.pi / 2, (50, 3))


def groups(**scene):
    config = base.get_config()
    config.groups, config.unconditioned_transforms = ("rotation", "color"), ("light",)
    config.scene.update(scene)
    return build_space(config, side=16, scenes=True)


def params(space, scenes):
    return space.from_scenes(np.random.default_rng(0), scenes)


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
def test_parameters_of_scenes(hue):
    drawn = scenes(20)
    transform_params = params(groups(hue=hue), drawn.reshape(10, 2, 7)).reshape(20, -1)
    quaternion = Rotation.from_euler("xyz", drawn[:, :3]).as_quat()
    np.testing.assert_allclose(transform_params[:, :4], quaternion, atol=1e-6)
    hues = drawn[:, [3, 6]]
    if hue == "linear":
        np.testing.assert_allclose(transform_params[:, 4:6], hues, atol=1e-6)
    else:
        points = np.exp(2j * np.pi * hues)
        np.testing.assert_allclose(transform_params[:, 4:8:2], points.real, atol=1e-6)
        np.testing.assert_allclose(transform_params[:, 5:8:2], points.imag, atol=1e-6)
    towards = transform_params[:, -2:]
    np.testing.assert_allclose(np.hypot(*towards.T), np.sin(drawn[:, 4]), atol=1e-6)
    np.testing.assert_allclose(
        np.arctan2(towards[:, 1], towards[:, 0]) % (2 * np.pi), drawn[:, 5], atol=1e-4
    )


@pytest.mark.parametrize("numpy", [np, jnp])
def test_actions_lead_from_x_to_y(numpy):
    x, y = scenes(20), scenes(20, seed=1)
    space = groups()
    t_x, t_y = (numpy.asarray(params(space, s)) for s in (x, y))
    rotation, color = space.groups
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
    space = groups(hue="linear", canonical=False)
    t_x, t_y = params(space, x), params(space, y)
    rotation, color = space.groups
    w = rotation.relative(t_x[:, :4], t_y[:, :4])[:, 3]
    assert 0.01 < (w < 0).mean() < 0.1  # 4.4 % of relative rotations
    np.testing.assert_allclose(
        color.relative(t_x[:, 4:6], t_y[:, 4:6]), (y - x)[:, [3, 6]], atol=1e-6
    )


def test_sampled_parameters_follow_the_distribution_of_scenes():
    space = groups()
    assert space.names == ("rotation", "color") and space.identity is None
    transform_params = params(space, scenes(100_000))
    np.testing.assert_allclose(space.param_mean, transform_params[:, :8].mean(0), atol=0.01)
    np.testing.assert_allclose(space.param_std, transform_params[:, :8].std(0), atol=0.01)
    rotation = space.groups[0]
    assert (rotation.sample(np.random.default_rng(0), 1000)[:, 3] >= 0).all()


def test_a_smaller_range_of_angles():
    turns = groups(angle=30.0).groups[0].sample(np.random.default_rng(0), 1000)
    angles = Rotation.from_quat(turns).as_euler("xyz", degrees=True)
    assert 29 < np.abs(angles).max() < 30.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"groups": ("rotation", "spin")},
            "'spin'. Choose one of rotation, color, light, flip, crop",
        ),
        ({"unconditioned_transforms": ("color",)}, "named twice"),
    ],
)
def test_user_errors(change, message):
    config = base.get_config()
    config.groups = ("rotation", "color")
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        build_space(config, side=16, scenes=True)


def mixed(**changes):
    config = base.get_config()
    config.groups, config.unconditioned_transforms = ("blur", "rotation"), ("light", "flip")
    config.update(changes)
    return build_space(config, side=16, scenes=True)


def test_image_groups_stand_beside_scene_groups():
    space = mixed()
    assert space.names == ("blur", "rotation") and space.identity is None
    assert space.param_group_ids.tolist() == [0, 1, 1, 1, 1]
    assert [group.render is None for group in space.all_groups] == [False, True, True, False]
    drawn = scenes(4000)
    transform_params = params(space, drawn)
    assert transform_params.shape == (4000, 1 + 4 + 2 + 1) and transform_params.dtype == np.float32
    np.testing.assert_allclose(
        transform_params[:, 1:5], Rotation.from_euler("xyz", drawn[:, :3]).as_quat(), atol=1e-6
    )
    # Image groups are sampled: they are not a function of the scene.
    np.testing.assert_allclose(transform_params[:, 0].mean(), space.param_mean[0], atol=0.05)
    assert set(transform_params[:, -1]) == {0, 1}
    again = space.resample_image_groups(np.random.default_rng(1), transform_params)
    np.testing.assert_array_equal(again[:, 1:7], transform_params[:, 1:7])
    assert (again[:, 0] != transform_params[:, 0]).all()


def test_color_is_that_of_the_scene_on_3d_data_sets():
    space = mixed(groups=("color",))
    assert space.groups[0].render is None and space.groups[0].dim == 4
    config = base.get_config()
    config.groups = ("color",)
    (jitter,) = build_space(config, side=16).groups
    assert jitter.parameter_names == ("brightness", "contrast", "saturation", "hue")


def test_without_image_groups_nothing_is_sampled_of_scenes():
    rng = np.random.default_rng(0)
    groups().from_scenes(rng, scenes(5))
    assert rng.random() == np.random.default_rng(0).random()
