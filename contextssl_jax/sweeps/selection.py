"""Which R² a sweep's page displays, and the groups and lengths of its variants."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from contextssl_jax.evaluation.parameter_probes import PROBES, TARGETS
from contextssl_jax.reports.paper import LENGTHS, PaperTable
from contextssl_jax.sweeps.pooled import Result


class R2Selection(NamedTuple):
    """The R² that is displayed: definition, target, and probe of each group."""

    probes: Mapping[str, str]  # by group; "linear" for others
    paper: PaperTable | None  # displayed beside the sweep's rows
    official: bool  # definition and target of the paper

    @property
    def key(self) -> str:
        """Return the definition's key in report.json."""
        return "r2_global" if self.official else "r2"

    @property
    def target(self) -> str:
        """Return the probes' target, a key of TARGETS."""
        return "pair" if self.official else "single"

    def probe(self, group: str) -> str:
        """Return the probe of a group, a key of PROBES."""
        of_paper = self.paper.probes if self.paper and self.official else {}
        return self.probes.get(group, of_paper.get(group, "linear"))

    def path(self, environment: str, group: str) -> tuple[str, ...]:
        """Return the path to a group's R² by length in a report."""
        return (self.key, environment, group, self.probe(group), self.target)

    def features_path(self, group: str) -> tuple[str, ...]:
        """Return the path to the R² from the encoder's features in a report."""
        key = self.key.replace("r2", "r2_features")
        return (key, group, self.probe(group), self.target)

    def adaptivity_path(self, group: str) -> tuple[str, ...]:
        """Return the path to a group's adaptivity by length in a report."""
        key = self.key.replace("r2", "adaptivity")
        return (key, group, self.probe(group), self.target)

    def describe(self, group: str) -> str:
        """Return a sentence on target, probe and definition."""
        definition = (
            "one mean over samples and entries in their own units (the official definition: a"
            " constant may score above 0)"
            if self.official
            else "mean over the group's entries (a constant scores 0)"
        )
        target = TARGETS[self.target]
        return f"{target.capitalize()}; {PROBES[self.probe(group)]} probe; {definition}."


def groups_of(results: Iterable[Result]) -> list[str]:
    """Return the groups of all variants, in their order."""
    reports = [report for result in results for report in result.reports.values()]
    return list(dict.fromkeys(group for report in reports for group in report["r2_features"]))


def lengths_of(results: Iterable[Result], paper: PaperTable | None = None) -> list[str]:
    """Return the context lengths of all variants, and of the paper's rows, rising."""
    found = {length for result in results for length in result.lengths()}
    if paper:
        found |= set(map(int, LENGTHS))
    return list(map(str, sorted(found)))
