"""When a large table is answered: a Prefect flow around it, with retries and a time limit, once or on a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from copier_mlops.bundle import serving_bundle
from copier_mlops.lifecycle.flow_steps import may_pass, notify
from copier_mlops.serving import batch
from copier_mlops.serving.batch_bundle import answering
from copier_mlops.settings import Settings


@flow(name="score", validate_parameters=False)
def score(given: str, target: str, version: int | None = None) -> batch.Scored:
    """Answer a table with a registered version, the champion by default. What a run leaves undone the next one does.

    Args:
        given: The table, as `batch.score` takes it.
        target: Where the answers go.
        version: The number of the version.
    """
    settings = Settings()
    settings.apply()

    def step(name: str, work: Callable[[], Any]) -> Any:
        return task(
            name=name,
            retries=settings.retries,
            retry_delay_seconds=settings.retry_delay_seconds,
            retry_condition_fn=may_pass,
            timeout_seconds=settings.timeout_minutes * 60,
            cache_policy=NO_CACHE,
        )(work)()

    try:
        folder, digest = step("bundle", lambda: answering(settings, version))
        done: batch.Scored = step(
            "score", lambda: batch.score(serving_bundle.load_made_here(folder, digest), given, target, settings, folder)
        )
    except BaseException as error:
        notify(settings, "scoring failed", f"{target}: {type(error).__name__}: {error}")
        raise
    print(batch.told(done, target), flush=True)
    return done
