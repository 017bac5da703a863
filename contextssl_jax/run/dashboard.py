"""The interface of programs in which people watch runs."""

import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.run.tensorboard import TensorBoardWriter
from contextssl_jax.run.wandb import WandbWriter


class Dashboard(Protocol):
    """Displays the metrics and reports of a run. Optional: a failure is one warning."""

    def write(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Write the scalars of a step.

        Args:
          step: the step.
          values: scalars by name.
          wall_time: seconds since the epoch.
        """

    def write_pictures(self, step: int, pictures: Mapping[str, bytes], wall_time: float) -> None:
        """Write the pictures of a step, PNG files by name; see `write`."""

    def close(self, failed: bool) -> None:
        """Write what is left, and end.

        Args:
          failed: whether the run ends by an exception.
        """


def open_dashboards(config: ConfigDict, workdir: epath.Path, start: int) -> list[Dashboard]:
    """Open the dashboards of a run that starts or resumes at step `start`; process 0 only."""
    dashboards: list[Dashboard] = []
    if config.log.tensorboard:
        dashboards.append(TensorBoardWriter(workdir / "tensorboard", start))
    if config.log.wandb:
        dashboards.append(WandbWriter(workdir, config.to_dict()))
    return dashboards


class ReportSummary(NamedTuple):
    """What dashboards display of a report."""

    values: Mapping[str, float]  # by name
    pictures: Mapping[str, bytes]  # PNG files by name

    def write(self, dashboard: Dashboard, step: int) -> None:
        """Write all of it to a dashboard, with names that start with "report/"."""
        now = time.time()
        dashboard.write(step, {f"report/{k}": v for k, v in self.values.items()}, now)
        dashboard.write_pictures(step, {f"report/{k}": v for k, v in self.pictures.items()}, now)
