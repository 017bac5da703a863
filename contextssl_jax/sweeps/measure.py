"""Which of a report's R² a sweep's page shows, and what its points have in common."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from contextssl_jax.figures.style import PROBES
from contextssl_jax.reports.paper import LENGTHS, PaperTable
from contextssl_jax.sweeps.pooled import Result

_TARGETS = {"single": "latents, from single views", "pair": "relative actions, from pairs of views"}


class Measure(NamedTuple):
    """Which of a report's R² is shown."""

    probes: Mapping[str, str]  # by group; "linear" of others
    paper: PaperTable | None  # whose rows stand beside
    official: bool  # measure as the paper does

    @property
    def kind(self) -> str:
        """The definition, as reports name it."""
        return "r2_global" if self.official else "r2"

    @property
    def target(self) -> str:
        """What is told."""
        return "pair" if self.official else "single"

    @property
    def told(self) -> str:
        """What is told, in words."""
        return _TARGETS[self.target]

    def probe(self, group: str) -> str:
        """The probe that tells a group."""
        theirs = self.paper.probes if self.paper and self.official else {}
        return self.probes.get(group, theirs.get(group, "linear"))

    def path(self, environment: str, group: str) -> tuple[str, ...]:
        """Leads to a group's R² by length."""
        return (self.kind, environment, group, self.probe(group), self.target)

    def features(self, group: str) -> tuple[str, ...]:
        """Leads to the R² of the encoder's features."""
        kind = self.kind.replace("r2", "r2_features")
        return (kind, group, self.probe(group), self.target)

    def described(self, group: str) -> str:
        """Says what is told, and how."""
        definition = (
            "one mean over samples and entries in their own units (the official definition: a"
            " constant may score above 0)"
            if self.official
            else "mean over the group's entries (a constant scores 0)"
        )
        name = PROBES[self.probe(group)]
        return f"{self.told.capitalize()}; {name}; {definition}."


def groups_of(results: Iterable[Result]) -> list[str]:
    """Returns the groups of all points, in their order."""
    reports = [report for result in results for report in result.reports.values()]
    return list(dict.fromkeys(group for report in reports for group in report["r2_features"]))


def lengths_of(results: Iterable[Result], measure: Measure | None = None) -> list[str]:
    """Returns the lengths of contexts of all points and of the paper's rows, rising."""
    found = {length for result in results for length in result.lengths()}
    if measure and measure.paper:
        found |= set(map(int, LENGTHS))
    return list(map(str, sorted(found)))
