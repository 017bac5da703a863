"""A report's answer: what each group's own context keeps, what others leave, and a verdict."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from contextssl_jax.evaluation.contexts import other_environments
from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.reports.page import Statement

Report = Mapping[str, Any]

_PROBE, _TARGET = "linear", "single"
# Fractions of R², except the last, which is an R².
KEPT, LEFT, CHANGED, FOUND = 0.75, 0.25, 0.1, 0.1

ADAPTS = "adapts"
PARTLY = "adapts partly"
IGNORES = "ignores its context"
REVERSED = "adapts in reverse"
LOST = "is not kept"


def verdict(own: float, others: Sequence[float], known: float) -> str:
    """Return in words how a group's R² depends on the context; see `thresholds`.

    Args:
      own: R² after a context that shows the group alone.
      others: R² after contexts that show another group, or none; at least one.
      known: the best R² of the same probe from features, or from embeddings without a context.
    """
    if own < FOUND:
        return LOST
    change = 1 - sum(others) / len(others) / own
    if own >= KEPT * known and max(others) <= LEFT * own:
        return ADAPTS
    if abs(change) < CHANGED:
        return IGNORES
    return PARTLY if change > 0 else REVERSED


def thresholds(verdicts: Collection[str]) -> str:
    """Return the sentence that defines the three usual verdicts, and others that occur."""
    rare = {
        REVERSED: f"the others add at least {_percent(CHANGED)} on average",
        LOST: f"R² is below {_decimal(FOUND)} even under the own context",
    }
    clauses = [
        f"“{ADAPTS}”: the own context keeps at least {_percent(KEPT)} of the best R² (from"
        " features, or without a context), and every other context leaves at most"
        f" {_percent(LEFT)} of that",
        f"“{PARTLY}”: the others take at least {_percent(CHANGED)} on average",
        f"“{IGNORES}”: the others take less",
        *(f"“{name}”: {meaning}" for name, meaning in rare.items() if name in verdicts),
    ]
    return f"{'; '.join(clauses)}."


def statements(report: Report) -> list[Statement]:
    """Return one line for each group (kept, left, adaptivity, verdict), and one for classes.

    Values are of the linear probe (Adam) from single views, after the longest context. A method
    without contexts, or a group without an own and another environment, has no verdict.
    """
    lines = [_statement(report, group) for group in report["r2_features"]]
    if "accuracy_features" in report:
        linear, knn = (report["accuracy_features"][probe]["1.0"] for probe in ("linear", "knn"))
        by = f"by a linear probe of the encoder's features, {100 * knn:.1f} % by kNN."
        lines.append(Statement("classes", f"{100 * linear:.1f} % correct", by))
    return lines


def explanation(report: Report) -> list[str]:
    """Return paragraphs on the values, and on the thresholds where there are verdicts."""
    p = report["provenance"]
    values = (
        "Values: R² of a linear probe, the fraction of a group's variance that it predicts from"
        " embeddings of held-out views"
    )
    if not report["adaptivity"]:
        return [f"{values}."]
    return [
        f"{values} after {p['lengths'][-1]} tokens of context. A model that adapts keeps what its"
        " context shows and drops what it hides.",
        f"Verdicts: {thresholds([line.verdict for line in statements(report)])} This probe misses"
        " what is only squeezed into small variance, see “Erased or squeezed”.",
    ]


def _statement(report: Report, group: str) -> Statement:
    p, features = report["provenance"], report["r2_features"][group][_PROBE][_TARGET]
    if not report_uses_context(p):
        (length,) = map(str, p["lengths"])
        first = next(iter(report["r2"]))
        value = _value(report, "r2", (first, group, _PROBE, _TARGET, length))
        text = f"R² {value} from embeddings, {_decimal(features)} from the encoder's features."
        return Statement(group, "without contexts", text)
    length, environments = str(p["lengths"][-1]), report["r2"]
    if group not in report["adaptivity"]:
        alone = "is not compared"
        return Statement(group, alone, "Its own and another context were not both evaluated.")

    def r2(environment: str) -> float:
        return float(environments[environment][group][_PROBE][_TARGET][length])

    names = other_environments(environments, group)
    others = [r2(name) for name in names]
    own = _value(report, "r2", (group, group, _PROBE, _TARGET, length))
    adaptivity = _value(report, "adaptivity", (group, _PROBE, _TARGET, length))
    without = environments[group][group][_PROBE][_TARGET].get("0", features)
    if len(others) > 1:
        low, high = sorted(others)[0], sorted(others)[-1]
        left = f"{_decimal(sum(others) / len(others))} under the others' on average"
        left += f" ({_decimal(low)} to {_decimal(high)})"
    else:
        path = (names[0], group, _PROBE, _TARGET, length)
        whose = "one that shows no group" if names == ["none"] else "the other's"
        left = f"{_value(report, 'r2', path)} under {whose}"
    words = verdict(r2(group), others, max(features, without))
    first = "R²" if words == LOST else "kept"
    text = f"{first} {own} under its own context, {left}; adaptivity {adaptivity}."
    return Statement(group, words, text)


def _value(report: Report, key: str, path: Sequence[str]) -> str:
    """Return a value by its path, with its deviation over drawn contexts where it has one."""
    value, deviation = report[key], report.get(f"{key}_std")
    for name in path:
        value, deviation = value[name], deviation and deviation[name]
    spread = "" if deviation is None else f" ± {_decimal(deviation)}"
    return f"{_decimal(value)}{spread}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


def _decimal(value: float) -> str:
    """Return a number with two decimals and without the zero before the point, such as .81."""
    return f"{value:z.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"
