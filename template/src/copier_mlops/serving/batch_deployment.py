"""Batch predictions on a schedule of Prefect.

Prefect reads its settings from the environment when it is imported, so the environment has to be applied before.
"""

from __future__ import annotations

import re

from copier_mlops import ProjectError
from copier_mlops.settings import Settings


def serve(settings: Settings, given: str, target: str, version: int | None, cron: str) -> None:
    """Predict a table on a schedule until stopped; without one once, at this moment.

    Args:
        settings: the Prefect server; their environment is that of this process.
        given: the table.
        target: folder of the predictions.
        version: number of a registered version; None for the champion.
        cron: the schedule, in UTC; empty for none.

    Raises:
        ProjectError: If the table, the server or a valid schedule is missing.
    """
    from copier_mlops.lifecycle.flow_steps import server_ends_with_us
    from copier_mlops.serving.batch_flow import score

    if not given or not target:
        raise ProjectError(
            'name the table and where its answers go: make schedule-score INPUT=rows/ OUTPUT=answers CRON="0 4 * * *"'
        )
    if not cron:
        with server_ends_with_us(settings):
            score(given, target, version)
        return
    if not settings.prefect_api_url:
        raise ProjectError(
            "a schedule needs a server: `prefect server start`, then PREFECT_API_URL=http://127.0.0.1:4200/api in .env."
        )
    parameters = {"given": given, "target": target, "version": version}
    name = re.sub(r"[^\w.-]+", "-", target).strip("-")
    try:
        score.serve(name=name, cron=cron, parameters=parameters, limit=1, print_starting_message=False)
    except ValueError as error:  # of the schedule
        raise ProjectError(f"CRON={cron} is no schedule ({error}).") from error
