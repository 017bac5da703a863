"""A report's answer: one line for each group, with a verdict by the stated thresholds."""

import pytest

from contextssl_jax.evaluation.evaluators.r2_probes import adaptivity
from contextssl_jax.reports.summary import explanation, statements, thresholds, verdict


def report(r2: dict[str, dict[str, float]], lengths=(0, 126), features=0.8, without=0.8) -> dict:
    """Return a report of R² by environment and group after the longest context."""
    groups = list(dict.fromkeys(group for by in r2.values() for group in by))
    longest = str(lengths[-1])

    def by_length(value: float) -> dict[str, float]:
        return {str(c): without if c == 0 and len(lengths) > 1 else value for c in lengths}

    tree = {
        e: {g: {"linear": {"single": by_length(value)}} for g, value in by.items()}
        for e, by in r2.items()
    }
    return {
        "provenance": {"lengths": list(lengths)},
        "r2": tree,
        "r2_features": {g: {"linear": {"single": features}} for g in groups},
        "adaptivity": adaptivity(tree, groups) if int(longest) else {},
        "accuracy_features": {"linear": {"1.0": 0.752}, "knn": {"1.0": 0.5}},
    }


@pytest.mark.parametrize(
    ("own", "others", "known", "expected"),
    [
        (0.81, [0.02], 0.76, "adapts"),
        (0.80, [0.20], 0.80, "adapts"),  # on both thresholds
        (0.80, [0.21], 0.80, "adapts partly"),  # leaves more than a quarter
        (0.59, [0.02], 0.80, "adapts partly"),  # keeps less than three quarters
        (0.80, [0.02, 0.30], 0.80, "adapts partly"),  # one other context does not remove it
        (0.80, [0.02, 0.20], 0.80, "adapts"),
        (0.80, [0.73], 0.80, "ignores its context"),
        (0.80, [0.87], 0.80, "ignores its context"),
        (0.40, [0.80], 0.80, "adapts in reverse"),
        (0.09, [-0.50], 0.80, "is not kept"),
    ],
)
def test_verdicts_are_by_their_thresholds(own, others, known, expected):
    assert verdict(own, others, known) == expected


def test_every_verdict_has_its_threshold_in_words():
    usual, rare = (
        ["adapts", "adapts partly", "ignores its context"],
        ["adapts in reverse", "is not kept"],
    )
    for name in (*usual, *rare):
        assert thresholds([*usual, *rare]).count(f"“{name}”:") == 1
        assert (f"“{name}”:" in thresholds([])) == (name in usual)
    for value in ("75 %", "25 %", "10 %", "below .10"):
        assert value in thresholds(rare)


def test_a_line_is_what_is_kept_and_left():
    made = report({"crop": {"crop": 0.81, "blur": 0.9}, "blur": {"crop": 0.02, "blur": 0.91}})
    crop, blur, classes = statements(made)
    assert crop == (
        "crop",
        "adapts",
        "kept .81 under its own context, .02 under the other's; adaptivity .79.",
    )
    assert blur.verdict == "ignores its context"
    assert classes[:2] == ("classes", "75.2 % correct") and "50.0 % by kNN" in classes.text
    values, verdicts = explanation(made)
    assert "126 tokens" in values and thresholds([]) in verdicts
    del made["accuracy_features"]
    assert statements(made) == [crop, blur]


def test_of_several_other_contexts_the_mean_is_quoted_and_the_highest_decides():
    (first, *_) = statements(
        report({"a": {"a": 0.8}, "b": {"a": 0.02}, "c": {"a": 0.5}, "a+b": {"a": 0.7}})
    )
    assert first.verdict == "adapts partly"
    assert ".26 under the others' on average (.02 to .50); adaptivity .54" in first.text


def test_one_group_is_compared_with_a_context_that_shows_none():
    only, _ = statements(report({"a": {"a": 0.8}, "none": {"a": 0.5}}))
    assert only.text.startswith("kept .80 under its own context, .50 under one that shows no group")
    alone, _ = statements(report({"a": {"a": 0.8}}))
    assert alone.verdict == "is not compared"


def test_several_contexts_have_deviations():
    made = report({"a": {"a": 0.8, "b": 0.8}, "b": {"a": 0.1, "b": 0.8}})
    made["r2_std"] = {
        e: {g: {"linear": {"single": {"0": 0.0, "126": 0.012}}} for g in "ab"} for e in "ab"
    }
    made["adaptivity_std"] = {g: {"linear": {"single": {"0": 0.0, "126": 0.05}}} for g in "ab"}
    text = statements(made)[0].text
    assert text == (
        "kept .80 ± .01 under its own context, .10 ± .01 under the other's; adaptivity .70 ± .05."
    )


def test_a_method_without_contexts_has_values_and_no_verdict():
    made = report({"a+b": {"a": 0.35, "b": -0.001}}, lengths=(0,), features=0.67)
    a, b, _ = statements(made)
    assert a == (
        "a",
        "without contexts",
        "R² .35 from embeddings, .67 from the encoder's features.",
    )
    assert b.text.startswith("R² .00 from embeddings")
    (values,) = explanation(made)
    assert "context" not in values
