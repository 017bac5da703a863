"""A sweep's page against reports made by hand; sweep files and labels of all kinds."""

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from handmade import LENGTHS, finish, report
from test_figures import check_text
from test_page import Reader

from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.stored import read_report
from contextssl_jax.reports.comparison import main as compare
from contextssl_jax.reports.paper import PAPER_BY_NAME
from contextssl_jax.sweeps import Sweep, Variant, plane_figure
from contextssl_jax.sweeps import curves_figure as figures
from contextssl_jax.sweeps.definition import check_sweep, load_sweep
from contextssl_jax.sweeps.layout import overview
from contextssl_jax.sweeps.page import write_page
from contextssl_jax.sweeps.plane_figure import can_draw_plane
from contextssl_jax.sweeps.pooled import Result
from contextssl_jax.sweeps.runs import Run, list_runs, read_state
from contextssl_jax.sweeps.selection import R2Selection
from contextssl_jax.sweeps.tables import tables

DEBUG = "configs/debug.py"
LONG = {"eval.lengths": LENGTHS}
ONE = Variant("one", DEBUG, LONG)
OTHER = Variant("other", DEBUG, {"loss.temperature": 0.3} | LONG)
PLAIN = R2Selection({}, None, False)


def figure(seed: int, *path: str) -> float:
    """A value that encodes its seed and its path in the report."""
    return sum(map(ord, "/".join(path))) % 97 / 100 + seed**2 / 1000


def runs_of(sweep: Sweep, folder, seeds=(0, 1, 2)) -> list[Run]:
    return list_runs(sweep, epath.Path(folder), seeds)


def result(point=ONE, seeds=(0, 1, 2), environments=("crop", "blur"), **options) -> Result:
    made = {
        run.seed: report(run, lambda *path, seed=run.seed: figure(seed, *path), **options)
        for run in runs_of(Sweep("A sweep", (point,)), "x", seeds)
    }
    return Result(point.label, point.value, environments, made)


def by_name(made, *keys: int) -> dict[str, list]:
    """The tables' rows by the cells at `keys`, by title."""
    return {
        table.title: {tuple(row[k] for k in (0, 1)): list(row) for row in table.rows}
        for table in made
    }


def pooled(*path: str, seeds=(0, 1, 2), factor=1.0, digits=3) -> str:
    values = [factor * figure(seed, *path) for seed in seeds]
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def test_cells_are_means_and_deviations_over_seeds():
    found = by_name(tables([result()], PLAIN))
    expected = [pooled("r2", "blur", "crop", "linear", "single", str(c)) for c in LENGTHS]
    encoder = pooled("r2_features", "crop", "linear", "single")
    assert found["R² of crop"]["one", "blur"] == ["one", "blur", 3, encoder, *expected]
    expected = [pooled("adaptivity", "blur", "linear", "single", str(c)) for c in LENGTHS]
    assert found["Adaptivity"]["blur", "one"] == ["blur", "one", 3, *expected]
    linear, knn = (
        pooled("accuracy_features", probe, "1.0", factor=100, digits=1)
        for probe in ("linear", "knn")
    )
    assert found["Classes, top-1 %"]["one", 3] == ["one", 3, linear, knn]
    (retrieval,) = (t for t in tables([result()], PLAIN) if t.title == "Retrieval")
    assert [row[:3] for row in retrieval.rows] == [
        [measure, "one", environment]
        for measure in ("MRR", "H@1", "H@5")
        for environment in ("crop", "blur", "crop+blur, not trained", "none, not trained")
    ]
    expected = [pooled("retrieval", "blur", "hit@1", str(c)) for c in LENGTHS]
    assert retrieval.rows[5][3:-1] == [3, *expected]
    assert retrieval.rows[5][-1] == "0.020 ± 0.000"


def test_a_single_seed_has_no_deviation():
    for table in tables([result(seeds=(4,))], PLAIN):
        assert "a single seed has no deviation" in table.caption
        for row in table.rows:
            assert 1 in row and not any("±" in str(cell) for cell in row)
    assert result(seeds=(4,)).at("r2", "crop", "crop", "mlp", "pair", "2").std is None


def test_rows_are_the_environments_trained_then_those_measured_alone():
    trained = ("crop+blur", "none", "blur+crop")
    found = by_name(tables([result(environments=trained)], PLAIN))["R² of blur"]
    assert list(found) == [("one", e) for e in (*trained, "crop, not trained", "blur, not trained")]
    crop = pooled("r2", "crop", "blur", "linear", "single", "0")
    assert found["one", "crop, not trained"][4] == crop
    one = by_name(tables([result(environments=("none",))], PLAIN))["R² of blur"]
    assert list(one) == [("one", "none")]  # nothing to adapt to
    assert found["one", "none"][4] == pooled("r2", "none", "blur", "linear", "single", "0")
    assert found["one", "blur+crop"][4:] == [None] * 5  # trained, not measured


def test_a_method_without_contexts_has_one_row_and_no_adaptivity():
    both = [result(), result(OTHER, lengths=(0,), seeds=(0, 2))]
    found = by_name(tables(both, PLAIN))
    encoder = pooled("r2_features", "crop", "linear", "single", seeds=(0, 2))
    alone = pooled("r2", "crop", "crop", "linear", "single", "0", seeds=(0, 2))
    shown = ("crop", "blur", "crop+blur, not trained", "none, not trained")
    assert list(found["R² of crop"]) == [*(("one", e) for e in shown), ("other", None)]
    assert found["R² of crop"]["other", None][2:] == [2, encoder, alone, *[None] * 4]
    assert list(found["Adaptivity"]) == [("crop", "one"), ("blur", "one")]


def test_probes_are_chosen_by_group():
    found = by_name(tables([result()], R2Selection({"blur": "mlp"}, None, False)))
    for group, probe in (("crop", "linear"), ("blur", "mlp")):
        row = found[f"R² of {group}"]["one", "crop"]
        assert row[3] == pooled("r2_features", group, probe, "single")
        assert row[4] == pooled("r2", "crop", group, probe, "single", "0")
        assert found["Adaptivity"][group, "one"][3] == pooled(
            "adaptivity", group, probe, "single", "0"
        )


def test_the_paper_s_rows_stand_beside_by_its_measure():
    measure = R2Selection({}, PAPER_BY_NAME["Table 3"], True)
    made = tables([result()], measure)
    found = by_name(made)
    assert found["R² of crop"]["paper: SimCLR", None] == [
        *("paper: SimCLR", None, None, 0.459),
        *[None] * 5,
    ]
    assert found["R² of blur"]["paper: ContextSSL", "crop"][3:] == [
        *(None, "0.920", "0.854", "0.624", "0.667", "0.694")
    ]
    row = found["R² of blur"]["one", "crop"]
    assert row[3] == pooled("r2_features_global", "blur", "linear", "pair")
    assert row[-1] == pooled("r2_global", "crop", "blur", "linear", "pair", "126")
    assert found["Adaptivity"]["crop", "one"][-1] == pooled(
        "adaptivity_global", "crop", "linear", "pair", "126"
    )
    for table in made[1:3]:
        assert table.quoted == frozenset(range(5))
        assert all(str(table.rows[i][0]).startswith("paper: ") for i in table.quoted)
        assert "does not publish its CIFAR-10 set-up" in table.caption
    classes = found["Classes, top-1 %"]
    (once,) = (table for table in made if table.title == "Classes, top-1 %")
    assert len(once.rows) == 5 and once.quoted == frozenset(range(4))
    assert classes["paper: ContextSSL", None] == ["paper: ContextSSL", None, "88.5", None]
    assert not any("paper" in str(row) for row in found["Retrieval"].values())


def test_one_table_is_laid_out_as_the_paper_s():
    plain = result(OTHER, lengths=(0,))
    table = overview([result(), plain], R2Selection({}, PAPER_BY_NAME["Table 3"], True))
    assert table.header[3:9] == (*(f"crop, {c}" for c in (0, 2, 14, 30, 126)), "blur, 0")
    rows = {(row[0], row[1]): list(row[2:]) for row in table.rows}
    assert rows["paper: SimCLR", None] == [
        *(None, 0.459, *[None] * 4),
        *(0.371, *[None] * 4, "89.1"),
    ]
    assert rows["paper: ContextSSL", "blur"][1:6] == ["0.609", "0.482", "0.434", "0.417", "0.465"]
    ours = rows["one", "blur"]
    assert ours[5] == pooled("r2_global", "blur", "crop", "linear", "pair", "126")
    assert ours[10] == pooled("r2_global", "blur", "blur", "linear", "pair", "126")
    alone = rows["other", None]
    fixed = overview([result(environments=("none",))], PLAIN).rows  # reads, but has no choice
    assert [row[3] for row in fixed] == [pooled("r2_features", "crop", "linear", "single")]
    encoder = [pooled("r2_features_global", group, "linear", "pair") for group in ("crop", "blur")]
    assert [alone[1], alone[6]] == encoder and alone[2:6] == [None] * 4
    assert table.quoted == frozenset(range(5)) and "does not publish" in table.caption


def test_predicted_classes_are_in_the_table_by_length():
    groups = ("rotation", "color")
    some = result(environments=groups, groups=groups, predicted=True)
    table = overview([some], R2Selection({}, PAPER_BY_NAME["Table 5"], False))
    assert table.header[-5:] == tuple(f"top-1 %, {c}" for c in (0, 2, 14, 30, 126))
    rows = {(row[0], row[1]): list(row[-5:]) for row in table.rows}
    assert rows["paper: ContextSSL", "color"] == ["8.9", "82.4", "82.7", "82.8", "83.0"]
    assert rows["one", "color"] == [
        pooled("accuracy_told", "color", str(c), factor=100, digits=1) for c in LENGTHS
    ]


def test_a_plane_has_points_and_ways():
    plain, uses_context = result(OTHER, lengths=(0,)), result()
    assert can_draw_plane([plain, uses_context])
    assert not can_draw_plane([uses_context]) and not can_draw_plane([plain])
    assert can_draw_plane([uses_context, result(environments=("none",))])
    three = [
        result(groups=("crop", "blur", "color")),
        result(OTHER, lengths=(0,), groups=("crop",)),
    ]
    assert not can_draw_plane(three)
    (axis,) = plane_figure._figure([uses_context, plain], PLAIN).axes
    drawn = {line.get_label(): line.get_xydata() for line in axis.lines}
    for name in ("crop", "blur"):
        figures = [
            [
                uses_context.at("r2", name, g, "linear", "single", str(c)).mean
                for g in ("crop", "blur")
            ]
            for c in LENGTHS
        ]
        np.testing.assert_allclose(drawn[f"one, {name}"], figures)
    (bars,) = (c for c in axis.containers if c.get_label() == "other")
    encoder = [plain.at("r2_features", g, "linear", "single") for g in ("crop", "blur")]
    np.testing.assert_allclose(bars[0].get_xydata(), [[one.mean for one in encoder]])
    along, up = (segments.get_segments()[0][0] for segments in bars[2])  # their lower ends
    np.testing.assert_allclose(encoder[0].mean - along[0], encoder[0].std)
    np.testing.assert_allclose(encoder[1].mean - up[1], encoder[1].std)


def test_the_paper_s_rows_may_stand_beside_another_measure():
    found = by_name(tables([result()], R2Selection({}, PAPER_BY_NAME["Table 3"], False)))
    assert found["R² of crop"]["paper: SimCLR", None][3] == 0.459
    ours = found["R² of crop"]["one", "crop"]
    assert ours[4] == pooled("r2", "crop", "crop", "linear", "single", "0")


def test_tables_4_and_5_and_the_retrieval_of_table_1():
    groups = ("rotation", "color")
    some = result(environments=groups, groups=groups, predicted=True)
    five = by_name(tables([some], R2Selection({}, PAPER_BY_NAME["Table 5"], True)))
    classes = five["Classes, top-1 %"]
    assert classes["paper: SimCLR+", "rotation"][2:] == [
        *(None, None, None, "56.1", "58.2", "58.4", "58.4", "59.1")
    ]
    assert classes["paper: SimCLR", "color"][2:] == [None, None, None, "72.0", *[None] * 4]
    actual = [pooled("accuracy_told", "color", str(c), factor=100, digits=1) for c in LENGTHS]
    assert classes["one", "color"][5:] == actual
    plain = result(OTHER, environments=groups, groups=groups, predicted=True, lengths=(0,))
    made = by_name(tables([plain], R2Selection({}, None, False)))
    assert list(made["R² of color"]) == [("other", None)]
    actual = pooled("accuracy_told", "color", "0", factor=100, digits=1)
    assert made["Classes, top-1 %"]["other", "color"][5:] == [actual]
    (retrieval,) = (
        t for t in tables([plain], R2Selection({}, None, False)) if t.title == "Retrieval"
    )
    assert [row[2] for row in retrieval.rows] == 3 * list(groups)
    row = five["R² of rotation"]["one", "rotation"]
    assert row[4] == pooled("r2_global", "rotation", "rotation", "mlp", "pair", "0")
    assert (
        "moves by 10"
        in next(iter(tables([some], R2Selection({}, PAPER_BY_NAME["Table 5"], True)))).caption
    )
    four = by_name(tables([some], R2Selection({}, PAPER_BY_NAME["Table 4"], True)))
    assert four["R² of rotation"]["paper: ContextSSL", "none"][4:] == [
        *("0.737", "0.717", "0.477", "0.377", "0.473")
    ]
    assert not any("paper" in name for name, _ in four["R² of color"])
    one = tables([some], R2Selection({}, PAPER_BY_NAME["Table 1"], True))[-1]
    assert ["H@1", "paper: EquiMod", None, None, "0.050", *[None] * 5] in one.rows
    assert len(one.quoted) == 9 and "released script" in one.caption
    assert all("paper" in str(one.rows[i][1]) for i in one.quoted)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page of a sweep of which one run failed and one is not begun."""
    place = epath.Path(tmp_path_factory.mktemp("sweep"))
    sweep = Sweep("A sweep", (ONE, OTHER), overrides={"train.steps": 9})
    runs = runs_of(sweep, place)
    for run in runs[:-1]:
        finish(run, report(run, lambda *path, seed=run.seed: figure(seed, *path)))
    runs[0].report.write_text("{}")
    write_page(place, sweep, runs)
    return place


def test_what_is_not_done_is_listed(folder):
    text = (folder / "sweep.md").read_text()
    assert "4 of 6 runs are done: 2 variants, 3 seeds; options of all variants" in text
    assert "train.steps=9.\n" in text
    left = text.partition("Not in the tables: ")[2].splitlines()[0]
    assert "one, seed 0 (failed: " in left and "is no report of an evaluation" in left
    assert left.endswith("other, seed 2 (not begun).")
    rows = [line for line in text.splitlines() if "configs/debug.py" in line]
    assert rows[0].endswith("| done | done |") and "failed, " in rows[0]
    options = "loss.temperature=0.3, eval.lengths=(0, 2, 14, 30, 126)"
    assert rows[1].startswith(f"| other | configs/debug.py | {options} | done | done | not begun")


def test_the_json_has_every_figure_its_seeds_and_where_it_is_from(folder):
    actual = json.loads((folder / "sweep.json").read_text())
    assert set(actual["figures"]) == {"one", "other"}
    some = actual["figures"]["other"]["r2_global"]["none"]["blur"]["ridge_weak"]["pair"]["30"]
    values = [figure(n, "r2_global", "none", "blur", "ridge_weak", "pair", "30") for n in (0, 1)]
    assert some["seeds"] == {"0": values[0], "1": values[1]}
    assert some["mean"] == pytest.approx(statistics.mean(values))
    assert some["std"] == pytest.approx(statistics.stdev(values))
    states = {(run["label"], run["seed"]): run for run in actual["runs"]}
    assert len(states) == 6 and states["one", 0]["provenance"] is None
    assert states["one", 1]["provenance"]["step"] == 9
    assert (folder / states["one", 1]["report"]).exists()


def test_the_page_is_one_file_of_whole_tables(folder):
    page = Reader((folder / "sweep.html").read_text())
    (picture,) = page.all("img")
    assert picture["src"].startswith("data:image/png;base64,")
    expected = pooled("r2", "blur", "crop", "linear", "single", "126", seeds=(1, 2))
    assert any(row[:3] == ["one", "blur", "2"] and row[-1] == expected for row in page.rows)
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        f"sweep.{kind}" for kind in ("md", "html", "png", "json")
    }


def test_without_any_result_the_page_says_so(tmp_path):
    sweep = Sweep("A sweep", (ONE,))
    write_page(epath.Path(tmp_path), sweep, runs_of(sweep, tmp_path, (5, 7)))
    text = (tmp_path / "sweep.md").read_text()
    assert "0 of 2 runs are done: 1 variant, 2 seeds.\n" in text
    assert "Not in the tables: one, seeds 5, 7 (not begun).\n" in text
    assert not (tmp_path / "sweep.png").exists()


def test_a_report_of_another_run_is_none(tmp_path):
    one, two = runs_of(Sweep("A sweep", (ONE,)), tmp_path, (0, 1))
    finish(one, report(two, lambda *path: 0.5))
    assert read_state(one).kind == "failed" and "is of another run" in read_state(one).said


def test_reports_of_other_evaluations_are_marked(tmp_path):
    sweep = Sweep("A sweep", (ONE,))
    for run in runs_of(sweep, tmp_path, (0, 1)):
        finish(run, report(run, lambda *path: 0.5, draws=1 + run.seed))
    write_page(epath.Path(tmp_path), sweep, runs_of(sweep, tmp_path, (0, 1)))
    text = (tmp_path / "sweep.md").read_text()
    assert "seed 1 (failed: its report has other settings than the sweep: draws 2, not 1)" in text
    points = Variant("one", DEBUG, LONG), Variant("two", DEBUG, {**LONG, "eval.draws": 3})
    sweep = Sweep("A sweep", points)
    runs = runs_of(sweep, tmp_path / "two", (0, 1))
    for run in runs:
        finish(run, report(run, lambda *path: 0.5))
    write_page(epath.Path(tmp_path / "two"), sweep, runs)
    text = (tmp_path / "two" / "sweep.md").read_text()
    assert "the evaluations of these reports differ in draws (1 or 3)" in text
    assert "each seed the mean over 1 or 3 train contexts, " in text


def test_how_contexts_were_drawn_is_nothing_to_a_report_without_any(tmp_path):
    alone = {**LONG, "method": "simclr", "environments": ("none",), "eval.environments": ("none",)}
    for folder, other in ((tmp_path / "some", LONG), (tmp_path / "none", alone)):
        points = Variant("one", DEBUG, alone), Variant("two", DEBUG, {**other, "eval.draws": 3})
        sweep = Sweep("A sweep", points)
        runs = runs_of(sweep, folder, (0,))
        for run in runs:
            lengths = (0,) if run.config.method == "simclr" else LENGTHS
            finish(run, report(run, lambda *path: 0.5, lengths=lengths))
        write_page(epath.Path(folder), sweep, runs)
        text = (folder / "sweep.md").read_text()
        assert "Warning" not in text
        assert ("each seed the mean over 3 train contexts, " in text) == (other is LONG)
        assert ("the mean over" in text.split("##")[0]) == (other is LONG)


def test_the_figure_by_length_holds_the_figures():
    both = [result(), result(OTHER, lengths=(0,))]
    drawn = figures._by_length(both, PLAIN)
    check_text(drawn)
    axis = drawn.axes[1]
    assert axis.get_title().startswith("blur")
    lines = {line.get_label(): line for line in axis.lines}
    for kind, environment in (("own", "blur"), ("other", "crop")):
        found = [
            statistics.mean(
                figure(n, "r2", environment, "blur", "linear", "single", str(c)) for n in (0, 1, 2)
            )
            for c in LENGTHS
        ]
        assert list(lines[f"one, {kind}"].get_ydata()) == pytest.approx(found)
    alone = [figure(n, "r2", "crop", "blur", "linear", "single", "0") for n in (0, 1, 2)]
    level = [statistics.mean(alone)] * 2
    assert list(lines["other, level"].get_ydata()) == pytest.approx(level)
    assert lines["one, own"].get_linestyle() != lines["one, other"].get_linestyle()
    shades = [c for c in axis.collections if len(c.get_paths()[0].vertices) > 4]
    middle, spread = (
        f(figure(n, "r2", "blur", "blur", "linear", "single", "126") for n in (0, 1, 2))
        for f in (statistics.mean, lambda v: statistics.stdev(list(v)))
    )
    ends = [y for x, y in shades[0].get_paths()[0].vertices if x == 126]
    assert (min(ends), max(ends)) == pytest.approx((middle - spread, middle + spread))


@pytest.mark.parametrize("values", [(0.98, 0.0, 0.5), (1e-3, 1.0, 1e-2)])
def test_the_figure_by_value_has_a_line_for_each_length(values):
    points = [Variant(f"p{v:g}", DEBUG, {"mask.probability": 0.5}, v) for v in values]
    some = [result(p, seeds=(0, 1 + i)) for i, p in enumerate(points)]
    drawn = figures._by_value(some, PLAIN, "some value")
    check_text(drawn)
    titles = [axis.get_title().split("\n")[0] for axis in drawn.axes]
    assert titles == [f"{g}, {e} context" for e in ("crop", "blur") for g in ("crop", "blur")]
    axis = drawn.axes[1]
    assert axis.get_xscale() == ("linear" if 0.0 in values else "log")
    assert list(axis.get_xticks()) == sorted(values)
    assert drawn.axes[-1].get_xlabel() == "some value"
    containers = {c.get_label(): c for c in axis.containers}
    assert list(containers) == list(map(str, LENGTHS))
    line, _, (bars,) = containers["30"]
    order = sorted(range(len(values)), key=lambda i: values[i])
    for place, i in enumerate(order):
        by = [figure(n, "r2", "crop", "blur", "linear", "single", "30") for n in (0, 1 + i)]
        assert line.get_xdata()[place] == values[i]
        assert line.get_ydata()[place] == pytest.approx(statistics.mean(by))
        low, high = bars.get_segments()[place][:, 1]
        assert high - low == pytest.approx(2 * statistics.stdev(by))


WITHOUT = ("adaptivity", "adaptivity_global")


def test_a_report_without_contexts_is_read_and_compared(tmp_path, capsys):
    one, other = runs_of(Sweep("A sweep", (ONE, OTHER)), tmp_path, (0,))
    made = report(one, lambda *path: figure(0, *path), lengths=(0,), predicted=True)
    assert made["adaptivity"] == {} and "predictor_r2" not in made
    finish(one, made)
    finish(other, report(other, lambda *path: figure(1, *path)))
    assert read_report(one.report) == json.loads(json.dumps(made))
    runs = [str(run.workdir) for run in (one, other)]
    assert compare(["", *runs, f"--out={tmp_path / 'out'}"]) == 0
    assert "one/seed_0" in capsys.readouterr().out
    assert (tmp_path / "out" / "comparison.png").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r["accuracy_told"].update(crop=1.0),
        lambda r: r["accuracy_told"]["crop"].update({"2": 0.5}),
        lambda r: r["accuracy_told"]["crop"].update({"0": "0.5"}),
        lambda r: r["accuracy_told"]["crop"].clear(),
        lambda r: r["r2_global"]["crop"]["blur"].pop("mlp"),
        lambda r: r["r2_global"]["crop"]["blur"]["mlp"]["pair"].update({"2": 0.5}),
        lambda r: r["r2_features_global"].update(crop=None),
        lambda r: r["adaptivity_global"].update(crop=0.1),
        lambda r: r["provenance"]["retrieval_chance"].update(mrr="x"),
        lambda r: r["provenance"].update(lengths=[]),
        lambda r: r.update(accuracy_told_std={}),
        lambda r: r.pop("adaptivity"),
    ],
)
def test_a_report_without_contexts_is_checked_as_the_others(damage: Callable, tmp_path):
    (run,) = runs_of(Sweep("A sweep", (ONE,)), tmp_path, (0,))
    made = report(run, lambda *path: figure(0, *path), lengths=(0,), predicted=True)
    damage(made)
    finish(run, made)
    with pytest.raises(UserError, match="is no report of an evaluation"):
        read_report(run.report)


LABELS = ("a/b", "a\\b", "../../x", "x" * 60, "λ = 0", "–", "A b", "<b>|`*", "sweep.md", "a..", "1")


@pytest.mark.parametrize("label", [label for label in LABELS if label[0].isalnum()])
def test_a_label_is_a_folder_in_the_workdir(label):
    assert Variant(label, DEBUG).folder == Variant(label, "another.py").folder
    check_sweep(Sweep("A sweep", (Variant(label, DEBUG), ONE)))
    folder = Variant(label, DEBUG).folder
    assert folder.isascii() and len(folder) <= 60 and not folder.startswith(".")
    assert folder not in [f"sweep.{kind}" for kind in ("md", "html", "png", "json")]
    assert not set(folder) & set("/\\ <>|`*?:\"'$~")


def test_labels_that_differ_have_folders_that_differ():
    folders = {
        Variant(label, DEBUG).folder.casefold() for label in (*LABELS, "a|b", "a:b", "λ  = 0")
    }
    assert len(folders) == len(LABELS) + 3
    assert Variant("p=0.2", DEBUG).folder == "p=0.2"
    assert Variant("No mask", DEBUG).folder == "No_mask"


def test_hostile_labels_come_out_as_text(tmp_path):
    label, title = "<script>x</script>", "A|b* <i> `c`"
    label = f"x{label} | [a](b) *c* \\"
    sweep = Sweep(title, (Variant(label, DEBUG, LONG), OTHER))
    check_sweep(sweep)
    for run in runs_of(sweep, tmp_path, (0,)):
        finish(run, report(run, lambda *path: 0.5))
    write_page(epath.Path(tmp_path), sweep, runs_of(sweep, tmp_path, (0,)))
    page = (tmp_path / "sweep.html").read_text()
    assert "<script>x" not in page and [label] == sorted(
        {r[0] for r in Reader(page).rows} & {label}
    )
    assert r"x\<script>x\</script> \| \[a\](b) \*c\* \\" in (tmp_path / "sweep.md").read_text()


BASE = "from contextssl_jax.sweeps import Sweep, Variant\ndef get_sweep(): return "
P = 'Variant("p", "configs/debug.py"'


@pytest.mark.parametrize(
    "code, message",
    [
        ("None", "returns no"),
        ("1 / 0", "cannot be run (ZeroDivisionError"),
        ("Sweep('t')", "cannot be run (TypeError"),
        ("Sweep('t', ())", "points: name at least one"),
        ("Sweep('t', ('p',))", "points: p is no"),
        (f"Sweep('$', ({P}),))", "title: '$' is none"),
        (f"Sweep('t', ({P}), {P})))", "'p' and 'p' have the same folder"),
        (f"Sweep('t', ({P}), Variant('P', 'x')))", "'p' and 'P' have the same folder"),
        *(
            (f"Sweep('t', (Variant({label!r}, ''),))", "points: label: ")
            for label in ("", "_a", " a", "a\n", "a$b", "../x", "/x", ".", "x" * 61, "a ", None, 3)
        ),
        (f"Sweep('t', ({P}),), (0, 0))", "seeds: name different"),
        (f"Sweep('t', ({P}),), ())", "seeds: name different"),
        (f"Sweep('t', ({P}),), (True,))", "seeds: name different"),
        (f"Sweep('t', ({P}, {{'seed': 1}}),))", "'p': overrides: seed: "),
        (f"Sweep('t', ({P}, {{'a b': 1}}),))", "'a b' is no option"),
        (f"Sweep('t', ({P}, {{'a=1 --b': 1}}),))", "is no option"),
        (f"Sweep('t', ({P}, {{'mask.probability_low': None}}),))", "None cannot be set"),
        (f"Sweep('t', ({P}, {{'mask': {{}}}}),))", "is no value of an option"),
        (f"Sweep('t', ({P}, []),))", "name values by option"),
        (f"Sweep('t', ({P}),), axis='a')", "'p': value: the sweep has an axis"),
        (f"Sweep('t', ({P}, value=float('nan')),), axis='a')", "'p': value: "),
        (f"Sweep('t', ({P}, value=1.0),))", "but the sweep no axis"),
        (f"Sweep('t', ({P}),), probes={{'crop': 'knn'}})", "probes: of crop: unknown value 'knn'"),
        (f"Sweep('t', ({P}),), paper='Table 2')", "paper: unknown value 'Table 2'"),
        ("(", "cannot be run (SyntaxError"),
    ],
)
def test_a_wrong_sweep_is_one_line(code, message, tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text(BASE + code)
    with pytest.raises(UserError) as error:
        load_sweep(str(file))
    actual = str(error.value)
    assert actual.startswith("--sweep: ") and message in actual and actual.isprintable()


@pytest.mark.parametrize(
    "sweep, message",
    [
        (Sweep("t", (Variant("p", "nowhere.py"),)), "'p': --config: cannot read 'nowhere.py'"),
        (Sweep("t", (Variant("p", DEBUG, {"mask.x": 1}),)), "'p': --config.mask.x: no such option"),
        (Sweep("t", (Variant("p", DEBUG, {"mask": 1}),)), "'p': --config.mask: no such option"),
        (Sweep("t", (Variant("p", DEBUG, {"train.steps": "x"}),)), "'p': "),
        (Sweep("t", (Variant("p", DEBUG, {"train.steps": 0}),)), "must be an integer from 1"),
        (Sweep("t", (ONE, Variant("two", DEBUG, LONG))), "'one' and 'two' are the same run"),
        (Sweep("t", (ONE,), probes={"hue": "mlp"}), "probes: 'hue' is none of the groups blur"),
    ],
)
def test_a_sweep_that_fits_no_config_is_one_line(sweep, message, tmp_path):
    check_sweep(sweep)
    with pytest.raises(UserError) as error:
        runs_of(sweep, tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_values_reach_the_config_as_they_are(tmp_path):
    options = {
        "environments": ("crop",),
        "mask.hide_own_x": False,
        "data.environment_per": "batch",
        "mask.probability_low": 0.25,
        "model.predictor.hidden": [8, 8],
        "train.learning_rate": 1e-7,
        "data.contexts": 2,
    }
    common = {"data.contexts": 1, "data.pairs": 5}
    (run,) = runs_of(Sweep("t", (Variant("p", DEBUG, options),), overrides=common), tmp_path, (3,))
    config = run.config
    for name, value in {**options, "data.pairs": 5, "seed": 3}.items():
        found = config
        for key in name.split("."):
            found = found[key]
        assert found == (tuple(value) if isinstance(value, list) else value), name
    assert config.eval.every == config.train.steps == 30


_SWEEPS = [file for file in Path("configs/sweeps").glob("*.py") if "get_sweep" in file.read_text()]
_NUMBERS = {"One": 1, "Two": 2, "Three": 3, "Six": 6, "Eight": 8, "Ten": 10, "Sixteen": 16}


@pytest.mark.parametrize("file", sorted(_SWEEPS), ids=lambda file: file.stem)
def test_the_sweeps_that_come_along_fit_their_configs_and_say_what_they_are(file, tmp_path):
    sweep = load_sweep(str(file))
    runs = runs_of(sweep, tmp_path, sweep.seeds)
    assert len({run.workdir for run in runs}) == len(runs) == 3 * len(sweep.points)
    said = file.read_text().split('"""')[1]
    assert f"--sweep={file} " in said and "three seeds" in said
    assert f"\n{next(w for w, n in _NUMBERS.items() if n == len(sweep.points))} p" in said
    results = re.findall(r"See (results/\w+)\.\n", said)
    assert len(results) + ("No\nrun" in said or "No run" in said) == 1
    assert all(Path(folder, "sweep.json").is_file() for folder in results)
    if sweep.axis:
        for run in runs:
            mask = run.config.mask
            assert mask.probability == mask.probability_low == run.point.value
