"""Image groups render and sample as torchvision does, and are standardized."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from contextssl_jax.data.stored import stored_dataset
from contextssl_jax.data.synthetic import draw_images
from contextssl_jax.errors import UserError
from contextssl_jax.transforms import GROUPS
from contextssl_jax.transforms.color import jitter_color
from contextssl_jax.transforms.crop import sample_boxes

FILL = (0.4, 0.5, 0.6)


def build(name: str, size: int = 32, **options: object):
    return GROUPS[name](size, **{**base.get_config()[name], **options})


def dataset(**options: object):
    config = base.get_config()
    config.update(options)
    images = draw_images(0, 64, 16)
    return stored_dataset("test", config, {"train": images, "test": images}, (0,) * 3, (1,) * 3)


def test_crop_is_torchvisions(recorded):
    record = recorded("groups")
    top, left, height, width = record["crop_top_left_height_width"].T
    transform_params = np.stack(
        [(top + height / 2) / 32, (left + width / 2) / 32, np.log(height / 32), np.log(width / 32)],
        axis=1,
    ).astype(np.float32)
    views = build("crop").render(record["crop_images"], transform_params)
    np.testing.assert_allclose(views, record["crop_bilinear_32"], atol=1e-5)


@pytest.mark.parametrize("taps", [3, 5, 9])
def test_blur_is_torchvisions(recorded, taps):
    record = recorded("groups")
    views = build("blur", taps=taps).render(record["crop_images"], record["blur_sigma"][:, None])
    np.testing.assert_allclose(views, record[f"blur_kernel{taps}"], atol=1e-5)


def test_color_is_torchvisions(recorded):
    record = recorded("groups")
    transform_params = np.column_stack(
        [record["jitter_brightness_contrast_saturation"], record["jitter_hue"]]
    )
    views = jitter_color(record["crop_images"], transform_params)
    np.testing.assert_allclose(views, record["jitter_output"], atol=1e-5)


@pytest.mark.parametrize("name", GROUPS)
def test_identity_leaves_the_image(name):
    group = build(name)
    images = np.random.default_rng(0).uniform(size=(3, 32, 32, 3)).astype(np.float32)
    transform_params = np.tile(np.float32(group.identity), (3, 1))
    np.testing.assert_allclose(group.render(images, transform_params), images, atol=1e-5)


@pytest.mark.parametrize("name", GROUPS)
def test_gradients_of_rendering_are_finite(name):
    group = build(name)
    transform_params = group.sample(np.random.default_rng(0), 4)
    images = np.random.default_rng(1).uniform(size=(4, 32, 32, 3)).astype(np.float32)
    images[0] = 0.5  # gray: hue and saturation are undefined
    grads = jax.grad(lambda i, t: jnp.sum(group.render(i, t) ** 2), (0, 1))(
        images, transform_params
    )
    assert all(np.isfinite(g).all() for g in grads)


def naive_box(rng: np.random.Generator, side: int, scale, ratio) -> tuple[int, int]:
    """Height and width of one box, as torchvision documents it, one at a time."""
    for _ in range(10):
        area = side * side * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
        width, height = int(round((area * aspect) ** 0.5)), int(round((area / aspect) ** 0.5))
        if 0 < width <= side and 0 < height <= side:
            return height, width
    return side, side


def test_boxes_follow_torchvisions_distribution():
    scale, ratio, n = (0.2, 1.0), (3 / 4, 4 / 3), 20000
    top, left, height, width = sample_boxes(np.random.default_rng(0), n, 32, scale, ratio)
    rng = np.random.default_rng(1)
    naive = np.array([naive_box(rng, 32, scale, ratio) for _ in range(n)])
    for ours, theirs in ((height, naive[:, 0]), (width, naive[:, 1])):
        histogram = [np.bincount(x, minlength=33)[:33] / n for x in (ours, theirs)]
        assert np.abs(histogram[0] - histogram[1]).max() < 0.01
    assert (top >= 0).all() and (top + height <= 32).all()
    assert (left >= 0).all() and (left + width <= 32).all()
    # Places are uniform over what the box leaves free.
    free = height < 32
    assert abs(np.mean(top[free] / (32 - height[free])) - 0.5) < 0.01


def test_impossible_boxes_fall_back_to_the_central_one():
    # Boxes twice as wide as high with the whole area never fit a square.
    top, left, height, width = sample_boxes(np.random.default_rng(0), 5, 32, (1.0, 1.0), (2.0, 2.0))
    assert set(zip(top, left, height, width, strict=True)) == {(8, 0, 16, 32)}


def test_padded_boxes_show_the_fill_beyond_the_image():
    group = build("crop", padding=8, fill=FILL)
    # A box of 16 pixels whose centre is the image's top left corner: a quarter shows the image.
    transform_params = np.float32([[0.0, 0.0, np.log(0.5), np.log(0.5)]])
    view = np.asarray(group.render(np.zeros((1, 32, 32, 3), np.float32), transform_params))[0]
    np.testing.assert_allclose(view[:14, :14], np.broadcast_to(FILL, (14, 14, 3)), atol=1e-6)
    np.testing.assert_allclose(view[18:, 18:], 0, atol=1e-6)


def test_padded_boxes_reach_beyond_the_image():
    transform_params = build("crop", padding=8).sample(np.random.default_rng(0), 2000)
    edges = transform_params[:, 0] - np.exp(transform_params[:, 2]) / 2
    assert edges.min() < -0.2 and edges.min() >= -0.25 - 1e-6


def test_views_not_transformed_have_identity_parameters():
    for name in ("blur", "color"):
        group = build(name, probability=0.25)
        transform_params = group.sample(np.random.default_rng(0), 4000)
        untouched = (transform_params == np.float32(group.identity)).all(axis=1)
        assert abs(untouched.mean() - 0.75) < 0.03


@pytest.mark.parametrize("groups", [("crop", "blur"), ("blur", "color", "crop")])
def test_parameters_and_actions_are_standardized(groups):
    data = dataset(groups=groups, unconditioned_transforms=("flip",))
    _, transform_params = data.splits["train"].draw(
        np.random.default_rng(7), np.zeros(50000, int), 2
    )
    for values in (
        data.space.standardize(transform_params[:, 0]),
        np.asarray(data.space.actions(transform_params[:, 0], transform_params[:, 1])),
    ):
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=0.03)
        np.testing.assert_allclose(values.var(axis=0), 1, atol=0.03)


def test_actions_point_from_x_to_y():
    space = dataset().space
    t = dataset().splits["train"].draw(np.random.default_rng(0), np.arange(8), 2)[1]
    forth, back = space.actions(t[:, 0], t[:, 1]), space.actions(t[:, 1], t[:, 0])
    centre = space.actions(t[:, 0], t[:, 0])
    np.testing.assert_allclose(forth + back, 2 * centre, atol=1e-4)
    np.testing.assert_array_equal(space.action_group_ids, [0, 0, 0, 0, 1])
    raw = (t[:, 1] - t[:, 0] - space.action_mean) / space.action_std
    np.testing.assert_allclose(forth, raw, atol=1e-4)


def test_rendering_does_not_depend_on_the_order_of_groups():
    first, second = dataset(groups=("crop", "blur")), dataset(groups=("blur", "crop"))
    record, transform_params = first.splits["train"].draw(np.random.default_rng(0), np.arange(8), 1)
    views = first.render(record[:, 0], transform_params[:, 0])
    swapped = second.render(record[:, 0], np.roll(transform_params[:, 0], 1, axis=1))
    np.testing.assert_allclose(views, swapped, atol=1e-6)


def test_an_unconditioned_transform_is_sampled_and_rendered():
    data = dataset(unconditioned_transforms=("color",))
    record, transform_params = data.splits["train"].draw(np.random.default_rng(0), np.arange(8), 2)
    assert transform_params.shape == (8, 2, 9)
    assert data.space.standardize(transform_params).shape == (8, 2, 5)
    other = transform_params.copy()
    other[..., 5:] = (1, 1, 1, 0)
    views = (
        data.render(record[:, 0], transform_params[:, 0]),
        data.render(record[:, 0], other[:, 0]),
    )
    assert np.abs(views[0] - views[1]).max() > 0.05


@pytest.mark.parametrize(
    "options",
    [{"groups": ("crop", "spin")}, {"groups": ("crop",), "unconditioned_transforms": ("crop",)}],
)
def test_wrong_groups_are_refused(options):
    with pytest.raises(UserError, match="groups"):
        dataset(**options)


def test_groups_are_read_from_their_sections():
    config = ConfigDict(base.get_config())
    config.blur.sigma = (3.0, 3.0)
    images = draw_images(0, 8, 16)
    data = stored_dataset("t", config, {"train": images, "test": images}, (0,) * 3, (1,) * 3)
    _, transform_params = data.splits["train"].draw(np.random.default_rng(0), np.arange(8), 2)
    assert (transform_params[..., 4] == 3).all()


def test_a_group_without_its_options_is_refused(monkeypatch):
    monkeypatch.setitem(GROUPS, "gamma", GROUPS["flip"])
    with pytest.raises(UserError, match="groups: 'gamma' has no section config.gamma"):
        dataset(groups=("gamma",))
