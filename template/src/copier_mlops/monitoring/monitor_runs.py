"""Looks at production in MLflow: an experiment of their own beside that of the trainings, a run for each look."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from copier_mlops import project
from copier_mlops.registry.database import warn
from copier_mlops.registry.mlflow_registry import ACTIVE, Registry
from copier_mlops.settings import Settings


def _experiment() -> str:
    return f"{project.name()}-monitoring"


MOST_LETTERS = 250  # of the name of a number


class Looks(Registry):
    """The history of looks.

    Raises:
        UnreachableError: From every method, if MLflow does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        with self._talking():
            found = self._get_or_create(_experiment())
            self.looks = str(found.experiment_id)
            if found.lifecycle_stage != ACTIVE:
                self.client.restore_experiment(self.looks)
                warn(f"the experiment {_experiment()}, which was deleted in MLflow at {self.uri}, was restored")

    def keep(
        self,
        at: dt.datetime,
        digest: str,
        numbers: Mapping[str, float],
        tags: Mapping[str, str],
        files: Sequence[Path],
    ) -> str:
        """Log a look. The same look again changes nothing; one of the same moment that found something else takes its place.

        Args:
            at: When it looked, with a time zone.
            digest: Of what it found.
            numbers: By name; what MLflow does not take in a name is written as _.
            tags: What is not a number.
            files: The report and the numbers.

        Returns:
            The run's id.
        """
        moment = int(at.timestamp() * 1000)
        name = at.astimezone(dt.UTC).isoformat()
        with self._talking():
            for run in self.client.search_runs([self.looks], f"tags.look = '{name}'"):
                if run.data.tags.get("digest") == digest and run.info.status == "FINISHED":
                    return str(run.info.run_id)
                self.client.delete_run(run.info.run_id)
            everything = {**tags, "look": name, "digest": digest}
            run_id = self._create_run(self.looks, everything, run_name=name, start_time=moment)
            for key, value in numbers.items():
                plain = re.sub(r"[^/\w.\- :]", "_", key)[:MOST_LETTERS]
                self.client.log_metric(run_id, plain, value, timestamp=moment)
            for file in files:
                self.client.log_artifact(run_id, str(file))
            self.client.set_terminated(run_id, "FINISHED", end_time=moment)
        return run_id
