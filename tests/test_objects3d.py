"""The built-in 3D objects: shapes, distances, pictures and the data set of them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import compiled
from scipy.spatial.transform import Rotation
from tiny import QUICK, run

from configs import base
from contextssl_jax.data.objects3d import shading, tracing, world
from contextssl_jax.data.objects3d.shapes import PARTS, RADIUS, Shape, draw_instances, draw_recipes
from contextssl_jax.errors import UserError

CLASSES = 24
RECIPES = draw_recipes(CLASSES)
RENDER = jax.jit(shading.render, static_argnums=(2, 3))


def shapes(classes, stream=1):
    return draw_instances(RECIPES, np.asarray(classes), [(stream, i) for i in range(len(classes))])


def one_part(**part):
    """A shape of one part at the origin; its other parts are absent."""
    leaves = dict(core=[0.2] * 3, rounding=0.0, turned=0, ring=0.0, taper=0.0, color=[1.0] * 3)
    shape = {name: np.zeros((1, PARTS, *np.shape(value))) for name, value in leaves.items()}
    for name, value in (leaves | part).items():
        shape[name][0, 0] = value
    shape["rounding"][0, 1:] = -10
    frame = np.tile(np.eye(3, 4), (1, PARTS, 1, 1))
    return Shape(**{k: v.astype(np.float32) for k, v in shape.items()}, frame=frame)


def scene(n=1, rotation=(0.0, 0.0, 0.0, 1.0), floor=0.6, light=0.1, towards=(0.4, -0.3)):
    def rows(values):
        return jnp.broadcast_to(jnp.asarray(values, jnp.float32), (n, len(values)))

    def circle(hue):
        return rows((np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)))

    return shading.Scene(rows(rotation), circle(floor), circle(light), rows(towards))


DISTANCE = jax.jit(tracing.distance)


def distances(shape, points):
    """Of points [M, 3] or [N, M, 3] to each of the N objects, [N, M]."""
    points = np.broadcast_to(points, (len(shape.core), *points.shape[-2:]))
    return np.asarray(DISTANCE(shape, tuple(jnp.moveaxis(jnp.asarray(points), -1, 0))))


def points(m, seed=0):
    return np.random.default_rng(seed).uniform(-1.2, 1.2, (m, 3)).astype(np.float32)


# Distances


@pytest.mark.parametrize(
    ("part", "exact"),
    [
        (dict(core=[0, 0, 0], rounding=0.4), lambda p: np.linalg.norm(p, axis=1) - 0.4),
        (
            dict(core=[0.3, 0.2, 0.1], rounding=0.05),  # the nearest of the box's points
            lambda p: (
                np.linalg.norm(p - np.clip(p, [-0.3, -0.2, -0.1], [0.3, 0.2, 0.1]), axis=1) - 0.05
            ),
        ),
        (
            dict(core=[0, 0, 0], rounding=0.1, turned=1, ring=0.4),  # a torus around y
            lambda p: np.hypot(np.hypot(p[:, 0], p[:, 2]) - 0.4, p[:, 1]) - 0.1,
        ),
        (
            dict(core=[0.3, 0.2, 9.0], turned=1),  # a cylinder: nearest in the half plane
            lambda p: np.hypot(
                np.maximum(np.hypot(p[:, 0], p[:, 2]) - 0.3, 0), np.maximum(abs(p[:, 1]) - 0.2, 0)
            ),
        ),
    ],
    ids=["ball", "box", "torus", "cylinder"],
)
def test_distance_of_one_part(part, exact):
    p = points(500)
    outside = exact(p) > 0.01
    assert outside.sum() > 200
    found = distances(one_part(**part), p)[0]
    np.testing.assert_allclose(found[outside], exact(p)[outside], atol=1e-5)
    assert (found[exact(p) < -0.01] < 0).all()


def test_a_distance_is_never_more_than_the_way_to_the_surface():
    """Else rays would step through it: no point so near may be on the other side."""
    shape = shapes(range(CLASSES))
    p, rng = points(400), np.random.default_rng(1)
    d = distances(shape, p)
    for _ in range(8):
        way = rng.normal(size=(CLASSES, 400, 3)).astype(np.float32)
        way /= np.linalg.norm(way, axis=-1, keepdims=True)
        there = distances(shape, p + way * d[..., None])
        assert (there[d > 0] > -2e-3).all()


def test_objects_lie_in_their_ball_and_fill_it():
    shape = shapes(range(CLASSES))
    p = points(20_000)
    far = np.linalg.norm(p, axis=1) > RADIUS + 0.01
    inside = distances(shape, p) < 0
    assert not inside[:, far].any()
    assert (inside.sum(axis=1) > 50).all()


# Shapes


def test_instances_are_of_their_class_and_seed_alone():
    alone = draw_instances(RECIPES, np.array([5]), [(1, 7)])
    beside = draw_instances(RECIPES, np.array([3, 5]), [(1, 2), (1, 7)])
    again, other = (draw_instances(RECIPES, np.array([5]), [seed]) for seed in ((1, 7), (2, 7)))
    for a, b, c in zip(alone, beside, again, strict=True):
        np.testing.assert_allclose(a[0], b[1], atol=1e-6)
        np.testing.assert_array_equal(a, c)
    assert any((a != b).any() for a, b in zip(alone, other, strict=True))


def test_instances_resemble_their_class_more_than_others():
    p = points(8000)
    first, second = (distances(shapes(range(CLASSES), stream), p) < 0 for stream in (1, 2))
    both = (first[:, None] & second).sum(-1) / (first[:, None] | second).sum(-1)
    assert (both.argmax(axis=1) == np.arange(CLASSES)).mean() > 0.9


def test_more_classes_keep_the_recipes_of_fewer():
    for few, many in zip(draw_recipes(3), draw_recipes(5), strict=True):
        np.testing.assert_array_equal(few, many[:3])


# Pictures


def test_rotating_an_object_is_moving_its_points():
    shape = shapes([0, 1, 2])
    turn = Rotation.from_euler("xyz", [0.5, -0.8, 1.1])
    back = turn.inv().as_matrix()
    frame = shape.frame.copy()
    frame[..., :3] = frame[..., :3] @ back  # points are turned back before they are compared
    p = points(500)
    moved = shape._replace(frame=frame.astype(np.float32))
    np.testing.assert_allclose(
        distances(moved, turn.apply(p).astype(np.float32)), distances(shape, p), atol=1e-5
    )
    drawn = RENDER(shape, scene(3, turn.as_quat()), 96, 1)
    # But for edges, whose width is measured along the object's axes.
    assert (np.abs(drawn - RENDER(moved, scene(3), 96, 1)).max(-1) > 0.02).mean() < 0.04
    assert (np.abs(drawn - RENDER(shape, scene(3), 96, 1)).max(-1) > 0.02).mean() > 0.1


def test_a_ball_is_seen_where_it_is():
    """The silhouette of a ball of radius r at distance D: the cone of half angle asin(r / D)."""
    eye, rays = shading._camera(64)
    ball = one_part(core=[0, 0, 0], rounding=0.5)
    origin = [jnp.full((1, 1), x) for x in eye]
    hit = tracing.trace(ball, tuple(origin), tuple(jnp.asarray(rays)[:, None]))
    along = -eye @ rays  # of the point nearest to the ball's centre
    aside = np.sqrt(eye @ eye - along**2)
    inside, outside = aside < 0.48, aside > 0.52
    exact = along - np.sqrt(np.maximum(0.25 - aside**2, 0))
    np.testing.assert_allclose(hit.distance[0][inside], exact[inside], atol=2e-3)
    assert (np.asarray(hit.gap[0])[outside] > 0.002).all()
    picture = np.asarray(RENDER(ball, scene(), 64, 1))[0].reshape(-1, 3)
    assert picture[inside].std() > 0.05 and len(picture[inside]) > 400


def test_light_is_hidden_behind_objects_alone():
    ball = one_part(core=[0, 0, 0], rounding=0.5)
    up = (jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.ones((1, 1)))
    below = jnp.asarray([[0.0, 0.2, 0.45, 0.6, 0.9]])
    point = (below, jnp.zeros((1, 5)), jnp.full((1, 5), -0.9))
    seen = np.asarray(tracing.visibility(ball, point, up, 0.16))[0]
    assert (seen[:2] < 0.01).all() and seen[4] == 1
    assert (np.diff(seen) >= 0).all() and 0.01 < seen[3] < 1
    above = (jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.full((1, 1), 0.9))
    assert np.asarray(tracing.visibility(ball, above, up, 0.16)) == 1


def test_hues_act_where_they_should():
    shape = shapes([2])
    plain = np.asarray(RENDER(shape, scene(), 64, 1))[0]
    floor = np.abs(np.asarray(RENDER(shape, scene(floor=0.1), 64, 1))[0] - plain).max(-1)
    light = np.abs(np.asarray(RENDER(shape, scene(light=0.6), 64, 1))[0] - plain).max(-1)
    middle, corner = slice(28, 36), slice(0, 6)
    assert floor[middle, middle].max() < 1e-6 and floor[corner, corner].min() > 0.1
    assert light[middle, middle].min() > 0.02 and light[corner, corner].min() > 0.05
    same = RENDER(shape, scene(floor=1.6, light=1.1), 64, 1)  # a whole turn
    np.testing.assert_allclose(same[0], plain, atol=1e-5)


def test_a_rotation_leaves_the_floor_and_the_light_moves_the_shadow():
    shape = shapes([2])
    plain = np.asarray(RENDER(shape, scene(), 64, 1))[0]
    turned = np.asarray(RENDER(shape, scene(rotation=(0.5, 0.5, 0.5, 0.5)), 64, 1))[0]
    np.testing.assert_allclose(turned[:6, :6], plain[:6, :6], atol=1e-6)
    moved = np.asarray(RENDER(shape, scene(towards=(-0.4, 0.3)), 64, 1))[0]
    assert np.abs(moved - plain)[40:].max() > 0.1


def test_the_same_scene_gives_the_same_pixels_however_many_are_drawn():
    three = RENDER(shapes([0, 1, 2]), scene(3), 32, 1)
    np.testing.assert_array_equal(three, RENDER(shapes([0, 1, 2]), scene(3), 32, 1))
    one = RENDER(Shape(*(leaf[1:2] for leaf in shapes([0, 1, 2]))), scene(), 32, 1)
    np.testing.assert_allclose(one[0], three[1], atol=1e-3)


def test_edges_are_as_smooth_as_with_many_rays():
    shape = shapes(range(8))
    few, many = (np.asarray(RENDER(shape, scene(8), 32, samples)) for samples in (1, 4))
    assert few.min() >= 0 and few.max() <= 1
    assert np.abs(few - many).mean() < 0.015


def test_derivatives_are_finite():
    """Use forward mode: it has the coefficients of the gradient and compiles in less time."""
    arguments = shapes([0, 7]), scene(2)

    def brightness(shape, scene):
        return shading.render(shape, scene, 16, 1).mean((1, 2, 3))

    def derivative(arguments, direction):
        return jax.jvp(brightness, arguments, direction)[1]

    of_all = jax.tree.map(np.ones_like, arguments)
    program = compiled(derivative, arguments, of_all)
    assert np.isfinite(program(arguments, of_all)).all()
    of_rotation = jax.tree.map(np.zeros_like, arguments)
    of_rotation = of_rotation[0], of_rotation[1]._replace(rotation=of_all[1].rotation)
    assert np.abs(program(arguments, of_rotation)).min() > 0


# The data set


def options(**changes):
    config = base.get_config()
    config.groups, config.unconditioned_transforms = ("rotation", "color"), ("light",)
    config.objects3d.update(train=48, test=24, side=16)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def draw(dataset, split="train", seed=0, views=2):
    rng = np.random.default_rng(seed)
    return dataset.splits[split].draw(rng, np.array([3, 0, 5]), views)


def test_views_of_a_record_share_its_shape():
    dataset = world.build(options())
    record, transform_params = draw(dataset)
    assert record.core.shape == (3, 1, PARTS, 3) and transform_params.shape == (3, 2, 10)
    images = dataset.render(jax.tree.map(lambda leaf: leaf[:, 0], record), transform_params[:, 0])
    assert images.shape == (3, 16, 16, 3) and images.dtype == np.float32
    pixels = np.asarray(dataset.pixels(images))
    assert 0 <= pixels.min() and pixels.max() <= 1
    assert dataset.splits["train"].labels.tolist() == [i % 24 for i in range(48)]


def test_each_shape_is_generated_once_with_the_bits_of_its_own_seed(monkeypatch):
    def same(split, indices):
        for leaf, one in zip(split.shapes(indices), shapes(indices % 24), strict=True):
            assert leaf.shape == (len(indices), 1, *one.shape[1:])
            np.testing.assert_array_equal(leaf[:, 0], one)

    def shapes(classes):
        return draw_instances(RECIPES, classes, [(1, int(index)) for index in indices])

    seen = []
    monkeypatch.setattr(
        world, "draw_instances", lambda *args: seen.append(args[2]) or draw_instances(*args)
    )
    split = world.build(options()).splits["train"]
    for drawn in ([5, 0, 31], [31, 7, 5], range(48), [40, 5, 5]):
        indices = np.array(drawn)
        same(split, indices)
    generated = [index for seeds in seen[1:] for _, index in seeds]  # the first gives the shapes
    assert sorted(generated) == list(range(48))
    monkeypatch.setattr(world, "_MAX_CACHED", 47)  # a larger split has no cache
    same(split, indices)
    assert len(seen[-1]) == 3


def test_train_and_test_have_no_instance_in_common():
    dataset = world.build(options())
    train, test = (draw(dataset, split)[0].core for split in ("train", "test"))
    assert (np.abs(train - test).max(axis=(1, 2, 3)) > 1e-3).all()


def test_normalized_views_have_mean_0_and_deviation_1():
    dataset = world.build(options(objects3d__side=32, objects3d__train=200))
    record, transform_params = dataset.splits["train"].draw(
        np.random.default_rng(0), np.arange(200), 1
    )
    images = jax.jit(dataset.render)(
        jax.tree.map(lambda x: x[:, 0], record), transform_params[:, 0]
    )
    assert np.abs(np.asarray(images).mean((0, 1, 2))).max() < 0.15
    assert np.abs(np.asarray(images).std((0, 1, 2)) - 1).max() < 0.15


def test_a_linear_hue_is_the_same_picture():
    circle, linear = (world.build(options(scene__hue=hue)) for hue in ("circle", "linear"))
    record, transform_params = draw(linear)
    hues = 2 * np.pi * transform_params[..., 4:6]
    points = np.stack([np.cos(hues), np.sin(hues)], -1).reshape(3, 2, 4)
    on_circle = np.concatenate(
        [transform_params[..., :4], points, transform_params[..., 6:]], axis=-1
    )
    record = jax.tree.map(lambda leaf: leaf[:, 0], record)
    a, b = circle.render(record, on_circle[:, 0]), linear.render(record, transform_params[:, 0])
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_group_that_is_not_named_rests():
    dataset = world.build(options(groups=("color",), environments=("color",)))
    record, transform_params = draw(dataset, views=1)
    assert transform_params.shape == (3, 1, 6)
    one = dataset.render(jax.tree.map(lambda leaf: leaf[:, 0], record), transform_params[:, 0])
    with_rest = np.concatenate([np.tile([0, 0, 0, 1], (3, 1)), transform_params[:, 0]], axis=1)
    whole = world.build(options())
    other = whole.render(
        jax.tree.map(lambda leaf: leaf[:, 0], record), with_rest.astype(np.float32)
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_pool_holds_what_would_be_rendered():
    fresh, pooled = (world.build(options(objects3d__pool=n)) for n in (0, 3))
    record, transform_params = draw(pooled)
    assert record.shape == (3, 2, 16, 16, 3) and record.dtype == np.uint8
    shape, _ = draw(fresh)
    for view in range(2):
        stored = pooled.render(record[:, view], transform_params[:, view])
        drawn = fresh.render(
            jax.tree.map(lambda leaf: leaf[:, 0], shape), transform_params[:, view]
        )
        assert np.abs(pooled.pixels(stored) - fresh.pixels(drawn)).max() < 0.51 / 255 + 1e-3
    assert (record[:, 0] != record[:, 1]).any(axis=(1, 2, 3)).all()
    seen = {tuple(draw(pooled, seed=s)[1][0].ravel().round(3)) for s in range(60)}
    assert len(seen) == 6  # ordered pairs of three views


def test_unknown_group():
    with pytest.raises(UserError, match="groups: unknown value 'spin'"):
        world.build(options(groups=("spin", "color")))


def test_more_views_than_the_pool_has():
    with pytest.raises(
        UserError, match=r"objects3d.pool: 2 views of each object, but 3 are needed"
    ):
        draw(world.build(options(objects3d__pool=2)), views=3)


def test_a_run_trains_and_reports(tmp_path):
    """With a fresh rendering of each view; that of the wheel's test is with a pool."""
    steps = [f"--config.{name}=2" for name in ("train.steps", "log.every", "eval.every")]
    data = {"data.name": "objects3d", "objects3d.side": 16, "objects3d.train": 160,
            "objects3d.test": 80, "objects3d.pool": 0, "groups": "('rotation','color')",
            "unconditioned_transforms": "('light',)",
            "environments": "('rotation','color')"}  # fmt: skip
    few = ["--config.train.warmup_steps=1", "--config.eval.environments=('rotation','color')"]
    flags = [f"--config.{name}={value}" for name, value in data.items()]
    workdir = tmp_path / "run"
    quick = [option for option in QUICK if "environments" not in option]
    assert run(*quick, f"--workdir={workdir}", *steps, *few, *flags) == 0
    report = json.loads((workdir / "eval" / "2" / "report.json").read_text())
    assert set(report["adaptivity"]) == {"rotation", "color"}
    assert set(report["accuracy_features"]) == {"linear", "knn"}
    page = (workdir / "eval" / "2" / "report.html").read_text()
    assert "Table 1 (3DIEBench, rotation and color)" in page
