"""The figures of a report that a model card states."""

from collections.abc import Mapping
from typing import Any

_PROBES = ("linear", "ridge_strong", "ridge_weak")


def headline_figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Select a report's main figures.

    Returns:
      tokens: length of the longest context.
      views: of the test split that probes are scored on.
      r2: R² of single views after that context, by probe, environment and group.
      r2_features: R² of the same probes from the encoder's features, by probe and group.
      classes: accuracy of a linear probe of features with all labels; None without labels.
    """
    provenance = report["provenance"]
    tokens = provenance["lengths"][-1]
    return {
        "tokens": tokens,
        "views": provenance["views"]["test"]["views"],
        "r2": {
            probe: {
                environment: {g: r2[probe]["single"][str(tokens)] for g, r2 in groups.items()}
                for environment, groups in report["r2"].items()
            }
            for probe in _PROBES
        },
        "r2_features": {
            probe: {g: r2[probe]["single"] for g, r2 in report["r2_features"].items()}
            for probe in _PROBES
        },
        "classes": report.get("accuracy_features", {}).get("linear", {}).get("1.0"),
    }
