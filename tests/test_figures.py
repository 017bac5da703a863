"""Pictures hold the numbers that they were given, whatever groups and lengths these are of."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from contextssl_jax.evaluation.neighbours import Neighbours
from contextssl_jax.evaluation.parameter_probes import PROBES
from contextssl_jax.figures import adaptation, comparison, curves, neighbours
from contextssl_jax.figures.adaptation import draw_adaptation
from contextssl_jax.figures.comparison import draw_comparison
from contextssl_jax.figures.curves import draw_curves
from contextssl_jax.figures.neighbours import draw_neighbours
from contextssl_jax.figures.style import COLORS, marker

# groups, environments, lengths
TWO = ("crop", "blur"), ("crop", "blur", "crop+blur", "none"), (0, 2, 14, 30, 126)
THREE = ("crop", "blur", "color"), ("crop", "blur", "color", "crop+blur+color", "none"), (0, 2, 14)
ONE = ("color",), ("color", "none"), (14, 126)


def report(
    groups: Sequence[str], environments: Sequence[str], lengths: Sequence[int], draws: int = 1
) -> dict:
    rng = np.random.default_rng(len(lengths))

    def tree(low: float, high: float, *keys):
        if not keys:
            return float(rng.uniform(low, high))
        return {str(key): tree(low, high, *keys[1:]) for key in keys[0]}

    probes = groups, ("ridge_weak", "linear"), ("single", "pair")
    made = {
        "r2": tree(-0.4, 1, environments, *probes, lengths),
        "r2_features": tree(0, 1, *probes),
        "provenance": {
            "data": "cifar10",
            "config": "3238fc8112dd",
            "seed": 0,
            "step": 3000,
            "draws": draws,
            "draws_of": "contexts",
            "lengths": list(lengths),
            "context_split": "train",
            "views": {"test": {"split": "test", "records": 2000, "views": 4000}},
        },
    }
    return made | ({"r2_std": tree(0, 0.1, environments, *probes, lengths)} if draws > 1 else {})


def drawn(axis: Axes, label: str) -> dict[str, float]:
    (line,) = (line for line in axis.lines if line.get_label() == label)
    return {str(x): y for x, y in zip(*line.get_data(), strict=True)}


def check_text(figure: Figure) -> None:
    """Fails where text leaves the page or lies on other text."""
    figure.draw_without_rendering()
    axes = [axis for page in figure.axes for axis in (page.xaxis, page.yaxis)]
    ticks = {text for axis in axes for text in axis.findobj(Text)} - {axis.label for axis in axes}
    seen = {tick.label1 for axis in axes if axis.axes.axison for tick in axis._update_ticks()}
    texts = [text for text in figure.findobj(Text) if text not in ticks - seen]
    texts = [text for text in texts if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    for i, (text, box) in enumerate(boxes):
        assert min(box.min) >= -1 and (box.max <= figure.bbox.max + 1).all(), text
        over = [other for other, their in boxes[:i] if box.padded(-0.5).overlaps(their)]
        assert not over, (text, over)


def test_markers_distinguish_curves_of_one_color():
    for i in range(len(COLORS)):
        first, again = marker(i), marker(i + len(COLORS))
        assert first["marker"] != again["marker"]
        assert "markerfacecolor" not in first and first["markeredgecolor"] == "white"
        assert (again["markerfacecolor"], again["markeredgecolor"]) == ("white", COLORS[i])


@pytest.mark.parametrize(("groups", "environments", "lengths"), [TWO, THREE, ONE])
@pytest.mark.parametrize("draws", [1, 5])
def test_adaptation_holds_the_report(groups, environments, lengths, draws):
    result = report(groups, environments, lengths, draws)
    figure = adaptation._figure(result)
    check_text(figure)
    axes = np.reshape(figure.axes, (2, len(groups)))
    for row, probe in zip(axes, ("linear", "ridge_weak"), strict=True):
        for axis, group in zip(row, groups, strict=True):
            assert axis.get_title() == f"{group}: {PROBES[probe]} probe"
            features = result["r2_features"][group][probe]["single"]
            assert set(drawn(axis, "encoder's features").values()) == {features}
            looks, widths = set(), {}
            for environment in environments:
                alone = environment in groups
                label = f"{environment} context" if alone else environment
                values = result["r2"][environment][group][probe]["single"]
                assert drawn(axis, label) == values
                (line,) = (line for line in axis.lines if line.get_label() == label)
                looks.update({line.get_color(), line.get_marker(), str(line._dash_pattern)})
                widths[environment] = line.get_linewidth()
                assert axis.get_ylim()[0] <= min(values.values()) and axis.get_ylim()[1] == 1
            assert len(looks) == 3 * len(environments)
            own = widths.pop(group)
            assert all(own > 2 * other for other in widths.values())
            assert list(axis.get_xticks()) == list(lengths)
            assert len(axis.collections) == (len(environments) if draws > 1 else 0)  # bands
    for axis in axes[-1]:
        assert [tick.get_text() for tick in axis.get_xticklabels()] == list(map(str, lengths))
    words = figure.get_supxlabel()
    for word in ("cifar10", "3238fc8112dd", "seed 0", "step 3000", f"{draws} train", "4,000 test"):
        assert word in words


def test_lengths_beyond_those_of_training_are_marked():
    result = report(*TWO)
    for trained, marked in ((126, False), (30, True)):
        result["provenance"]["trained_tokens"] = trained
        figure = adaptation._figure(result)
        check_text(figure)
        for axis in figure.axes:
            edges = [(area.get_x(), area.get_x() + area.get_width()) for area in axis.patches]
            assert edges == [(30, 126)] * marked
        words = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert ("longer than in training" in words) == marked


def test_orders_of_one_context_are_named():
    result = report(*TWO, draws=5)
    result["provenance"]["draws_of"] = "orders"
    assert "5 orders of one train context (mean" in adaptation._figure(result).get_supxlabel()


def test_a_method_without_context_is_a_dot_beside_its_encoder():
    result = report(("crop", "blur"), ("crop", "blur", "crop+blur"), (0,))
    figure = adaptation._figure(result)
    check_text(figure)
    for axis, group in zip(figure.axes[:2], ("crop", "blur"), strict=True):
        dots = [line for line in axis.lines if line.get_label() != "encoder's features"]
        assert [list(line.get_ydata()) for line in dots] == [
            [result["r2"]["crop"][group]["linear"]["single"]["0"]]
        ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["embeddings", "encoder's features"]
    assert "no context" in figure.get_supxlabel()


def test_a_band_is_one_deviation_wide():
    result = report(*TWO, draws=5)
    band = adaptation._figure(result).axes[0].collections[0]
    values, spread = (
        result[k]["crop"]["crop"]["linear"]["single"]["126"] for k in ("r2", "r2_std")
    )
    ends = [y for x, y in band.get_paths()[0].vertices if x == 126]
    assert (min(ends), max(ends)) == pytest.approx((values - spread, values + spread))


def test_lengths_that_lie_close_leave_labels_out():
    figure = adaptation._figure(report(*TWO[:2], range(0, 128, 2)))
    check_text(figure)
    labels = [tick.get_text() for tick in figure.axes[-1].get_xticklabels()]
    assert len(labels) == 64 and labels[0] == "0" and labels[-1] == "126"


def test_comparison_copes_with_runs_that_differ():
    runs = {"two": report(*TWO, draws=5), "three": report(*THREE), "one": report(*ONE)}
    figure = comparison._figure(runs, "linear", "pair")
    check_text(figure)
    crop, blur, color = figure.axes

    def r2(run: str, environment: str, group: str) -> dict[str, float]:
        return runs[run]["r2"][environment][group]["linear"]["pair"]

    def mean(a: dict[str, float], b: dict[str, float]):
        return pytest.approx({length: (a[length] + b[length]) / 2 for length in a})

    assert drawn(blur, "two, own") == r2("two", "blur", "blur")
    assert drawn(blur, "two, other") == r2("two", "crop", "blur")
    others = mean(r2("three", "crop", "blur"), r2("three", "color", "blur"))
    assert drawn(blur, "three, other") == others
    assert drawn(color, "one, other") == r2("one", "none", "color")  # no other group: shows none
    assert [len(axis.lines) for axis in (crop, blur, color)] == [4, 4, 4]
    assert [len(axis.collections) for axis in (crop, blur, color)] == [2, 2, 0]
    ticks = [[tick.get_text() for tick in axis.get_xticklabels()] for axis in (crop, color)]
    assert ticks == [["0", "2", "14", "30", "126"], ["0", "2", "14", "126"]]
    styles = {line.get_label(): line.is_dashed() for line in blur.lines}
    assert styles["two, other"] and not styles["two, own"]
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["own context", "other groups' (or none)", "two", "three", "one"]


def near(
    records: int, groups: Sequence[str], lengths: Sequence[int], environments: Sequence[str] = ()
) -> Neighbours:
    rng = np.random.default_rng(0)
    environments = tuple(environments or groups)
    nearest = rng.integers(0, 40, (records, len(environments), len(lengths), 4))
    ends = rng.integers(0, 40, (2, records))
    images = rng.integers(0, 256, (40, 32, 32, 3), np.uint8)
    distances, means = rng.random((40, len(groups))), rng.random((records, len(groups)))
    return Neighbours(
        environments, tuple(lengths), tuple(groups), images, distances, *ends, nearest, means
    )


@pytest.mark.parametrize(
    ("records", "groups", "lengths", "shown"),
    [
        (4, ("crop", "blur"), (0, 14, 126), 4),
        (4, ("crop", "blur", "color"), (0, 14, 126), 3),  # what one page has room for
        (1, ("crop",), (0,), 1),
    ],
)
def test_neighbours_have_their_distances(records, groups, lengths, shown):
    given = near(records, groups, lengths)
    figure = neighbours._figure(given)
    check_text(figure)
    assert figure.get_figheight() <= 13 and figure.get_figwidth() <= 11.5
    (page,) = figure.axes
    assert len(page.images) == shown * (2 + len(groups) * len(lengths) * 3)
    headings = [f"{length} tokens" if length else "no context" for length in lengths]
    words = [text.get_text() for text in page.texts]
    assert [word for word in words if word in headings] == headings
    m, e, c, k = shown - 1, len(groups) - 1, len(lengths) - 1, 2  # the last on the page
    np.testing.assert_array_equal(
        page.images[-1].get_array(), given.images[given.nearest[m, e, c, k]]
    )
    left, right, bottom, _ = page.images[-1].get_extent()
    below = [t for t in page.texts if left < t.get_position()[0] < right]
    below = [t for t in below if t.get_position()[1] > bottom][: len(groups)]
    for text, group, distance in zip(
        below, groups, given.distances[given.nearest[m, e, c, k]], strict=True
    ):
        assert text.get_text() == f"{group} {distance:.1f}"
        assert (text.get_weight() == "bold") == (group == groups[e])


def test_neighbours_are_drawn_of_single_groups_and_three_lengths():
    given = near(1, ("crop", "blur"), (0, 2, 14, 30, 126), ("none", "crop+blur", "blur"))
    (page,) = neighbours._figure(given).axes
    drawn = [image.get_array() for image in page.images][2:]
    expected = given.nearest[0, 2][[0, 2, 4], :3].ravel()
    np.testing.assert_array_equal(drawn, given.images[expected])


def test_curves_are_of_the_whole_lines(tmp_path):
    workdir, path = epath.Path(tmp_path), epath.Path(tmp_path) / "drawn.png"
    assert not draw_curves(workdir, path)
    file = workdir / "metrics.jsonl"
    for nothing in ("", '{"step": 0, "monitor/kn'):
        file.write_text(nothing)
        assert not draw_curves(workdir, path) and not path.exists()
    lines = [
        {"step": step, "loss_contrastive": 8 / step, "monitor/r2/crop/blur/126": step / 10}
        for step in (1, 2, 3)
    ]
    rows = "\n".join(map(json.dumps, lines))
    file.write_text(rows[:-5])  # a kill
    figure = curves._figure(curves._read(file))
    shown = {axis.get_title(): axis for axis in figure.axes}
    assert drawn(shown["losses"], "InfoNCE") == {"1.0": 8, "2.0": 4}
    blur = shown["blur: R² of a ridge probe, held out"]
    assert drawn(blur, "crop context, 126 tokens") == {"1.0": 0.1, "2.0": 0.2}
    assert draw_curves(workdir, path) and path.exists()
    file.write_text(rows.replace("}", "", 1))  # no kill does that
    figure = curves._figure(curves._read(file))
    losses = next(axis for axis in figure.axes if axis.get_title() == "losses")
    assert drawn(losses, "InfoNCE") == {"2.0": 4, "3.0": 8 / 3}


def test_pictures_are_written(tmp_path):
    path = epath.Path(tmp_path)
    draw_adaptation(report(*TWO), path / "a.png")
    draw_comparison({"a run": report(*TWO)}, path / "c.png")
    draw_neighbours(near(1, ("crop",), (0,)), path / "n.png")
    for name in ("a.png", "c.png", "n.png"):
        with Image.open(path / name) as image:
            assert image.format == "PNG" and image.width > 400 and len(image.getcolors(10**7)) > 9


def test_a_method_without_context_has_one_curve_per_group(tmp_path):
    seen = {f"monitor/r2/{e}/crop/0": 0.5 for e in ("crop", "blur")}
    lines = [{"step": step, "loss_invariance": 1 / step, **seen} for step in (1, 2)]
    file = epath.Path(tmp_path) / "metrics.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    figure = curves._figure(curves._read(file))
    shown = {axis.get_title(): axis for axis in figure.axes}
    (one,) = shown["crop: R² of a ridge probe, held out"].lines
    assert one.get_label() == "no context"
    assert drawn(shown["losses"], "invariance") == {"1.0": 1, "2.0": 0.5}
