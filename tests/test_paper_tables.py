"""A run's figures beside the paper's: the same measure, the same probes, the same columns."""

import pytest

from contextssl_jax.evaluation.evaluators.retrieval import chance
from contextssl_jax.evaluation.parameter_probes import PROBES
from contextssl_jax.reports.paper import LENGTHS, PAPER_TABLES
from contextssl_jax.reports.paper_tables import beside_r2, beside_retrieval, describe_differences

GROUPS = ["rotation", "color"]


def figure(*path: str) -> float:
    """A value that encodes its path in the report."""
    return float(sum(map(ord, "/".join(path))))


def report(groups=GROUPS, lengths=LENGTHS, environments=GROUPS, views=50) -> dict:
    return {
        "provenance": {
            "groups": groups,
            "lengths": [int(length) for length in lengths],
            "retrieval_chance": chance(views),
        },
        "r2_global": {
            e: {
                g: {p: {"pair": {c: figure(e, g, p, c) for c in lengths}} for p in PROBES}
                for g in groups
            }
            for e in environments
        },
        "retrieval": {
            e: {m: {c: figure(e, m, c) for c in lengths} for m in ("mrr", "hit@1", "hit@5")}
            for e in environments
        },
        "accuracy_features": {"linear": {"1.0": 0.5}},
    }


def rows(table) -> dict[str, list]:
    assert all(len(row) == len(table.header) for row in table.rows)
    return {name: figures for name, *figures in table.rows}


def test_r2_of_both_groups_by_the_probes_that_the_paper_used():
    table = beside_r2(report())
    assert table.title == "Beside the paper's Table 1" and "Left out" not in table.caption
    expected = [f"{group} {c}" for group in GROUPS for c in LENGTHS]
    assert table.header == ("", *expected, "top-1 %")
    by_name = rows(table)
    assert by_name["paper: ContextSSL, rotation context"] == [
        *(0.734, 0.740, 0.743, 0.743, 0.744, 0.908, 0.664, 0.037, 0.023, 0.046, 80.4),
    ]
    assert by_name["paper: SIE, color"] == [0.304, *[None] * 4, 0.975, *[None] * 4, 70.3]
    for environment in GROUPS:
        name = f"this run: {environment} context; "
        used = by_name[f"{name}the paper's probes (rotation MLP, color linear)"]
        assert used == [
            *(figure(environment, "rotation", "mlp", c) for c in LENGTHS),
            *(figure(environment, "color", "linear", c) for c in LENGTHS),
            50.0,
        ]
    assert len(table.rows) == len(table.quoted) + 2  # no other probe
    quoted = {table.rows[i][0] for i in table.quoted}
    assert quoted == {name for name in by_name if name.startswith("paper: ")}


def test_a_group_whose_action_no_linear_probe_predicts_is_left_out_and_named():
    result = report()
    result["r2_ceiling"] = {
        "rotation": {"pair": {"mean": 0.2, "global": 0.3}},  # of an MLP in the paper
        "color": {"pair": {"mean": -0.01, "global": -0.004}},
    }
    table = beside_r2(result)
    ours = rows(table)["this run: color context; the paper's probes (rotation MLP)"]
    assert ours[:5] == [figure("color", "rotation", "mlp", c) for c in LENGTHS]
    assert ours[5:] == [*[None] * 5, 50.0]
    assert "Left out: color, whose action no linear probe predicts." in table.caption
    details = describe_differences(result)
    assert "R² of 0.00 for color" in details["paper"] and "3DIEBench" in details["paper"]
    assert "train objects" in details["paper_retrieval"]
    result["r2_ceiling"]["color"]["pair"]["global"] = 0.99
    assert rows(beside_r2(result)) == rows(beside_r2(report()))


def test_a_method_without_contexts_has_one_figure_of_its_encoder():
    result = report(lengths=("0",), environments=("rotation+color",))
    result["provenance"]["method"] = "sie"
    result["r2_features_global"] = {
        g: {p: {"pair": figure("features", g, p)} for p in PROBES} for g in GROUPS
    }
    by_name = rows(beside_r2(result))
    ours = {name: row for name, row in by_name.items() if name.startswith("this run")}
    assert list(ours) == ["this run: sie; the paper's probes (rotation MLP, color linear)"]
    assert [*ours.values()][0] == [
        *(figure("features", "rotation", "mlp"), *[None] * 4),
        *(figure("features", "color", "linear"), *[None] * 4),
        50.0,
    ]


def test_probes_that_the_paper_does_not_name_are_not_chosen():
    groups = ["crop", "blur"]
    table = beside_r2(report(groups, environments=groups))
    ours = [row[0] for row in table.rows if row[0].startswith("this run")]
    assert ours == [f"this run: {e} context; {name}" for e in groups for name in PROBES.values()]


def test_retrieval_under_the_rotation_context():
    table = beside_retrieval(report(views=20))
    assert table.title == "Beside the paper's Table 2"
    assert table.header[1:] == tuple(f"{m} {c}" for m in ("MRR", "H@1", "H@5") for c in LENGTHS)
    by_name = rows(table)
    assert by_name["paper: ContextSSL, rotation context"] == [
        *(0.240, 0.270, 0.373, 0.396, 0.402, 0.108, 0.129, 0.223, 0.245, 0.292),
        *(0.366, 0.412, 0.541, 0.561, 0.568),
    ]
    gap = [None] * 4
    assert by_name["paper: EquiMod"] == [0.16, *gap, 0.05, *gap, 0.22, *gap]
    assert by_name["paper: SEN"] == [0.17, *gap, 0.05, *gap, 0.22, *gap]
    assert by_name["this run: rotation context"] == [
        figure("rotation", measure, c) for measure in ("mrr", "hit@1", "hit@5") for c in LENGTHS
    ]
    theirs, ours = by_name["chance among the paper's 50"], by_name["chance among this run's 20"]
    assert [theirs[i] for i in (0, 5, 10)] == pytest.approx([0.09, 0.02, 0.1], abs=1e-4)
    assert [ours[i] for i in (5, 10)] == pytest.approx([0.05, 0.25])
    assert len(table.quoted) == 3


def test_what_a_report_lacks_is_left_out():
    some = report(lengths=("0", "60", "126"), environments=["color", "none"])
    del some["accuracy_features"]
    by_name = rows(beside_r2(some))
    assert not any("rotation context; " in name for name in by_name)
    row = by_name["this run: color context; the paper's probes (rotation MLP, color linear)"]
    assert row[:5] == [figure("color", "rotation", "mlp", "0"), None, None, None,
                       figure("color", "rotation", "mlp", "126")]  # fmt: skip
    assert row[-1] is None
    assert beside_retrieval(some) is None
    for other in (report(["crop", "color"]), report(lengths=("60",))):
        assert beside_r2(other) is None and beside_retrieval(other) is None


def test_the_paper_has_every_length_or_one_value():
    for groups, table in PAPER_TABLES.items():
        for row in table.rows:
            assert set(row.r2) == groups
            assert {len(figures) for figures in row.r2.values()} < {1, len(LENGTHS)}
