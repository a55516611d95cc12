"""Actions that the alert webhook starts in a process of their own: request a training, notify people.

`mlops request-training`, `promote-proposed` and `notify` exit with 0 if it was done, with 75 if the same may work later, and with 1
if a person has to fix something first.
"""

from __future__ import annotations

from copier_mlops import ProjectError, UnreachableError, _notifications, project
from copier_mlops.settings import Settings

MOST_LETTERS = 200  # of a title


def retrain(settings: Settings, key: str) -> str:
    """Ask for a run of the deployment that trains, and do not wait for it.

    Args:
        settings: Which server.
        key: The same key asks for one run, however often; it is in the name of the run.

    Returns:
        What became of it; where a training is waiting or going on, that one.

    Raises:
        UnreachableError: If the server does not answer.
        ProjectError: If there is no server, or no deployment that trains.
    """
    if not settings.prefect_api_url:
        raise ProjectError(
            "a training that is asked for needs a server: `make up` starts one, or set PREFECT_API_URL in .env."
        )
    import httpx  # with Prefect, which brings seconds that a notice does not need
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters as by
    from prefect.client.schemas.objects import StateType
    from prefect.deployments import run_deployment
    from prefect.exceptions import PrefectException

    states = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    try:
        with get_client(sync_client=True) as client:
            # The flow of every project has this name; the work pool is that of this one.
            ours = client.read_deployments(
                flow_filter=by.FlowFilter(name=by.FlowFilterName(any_=["train"])),
                work_pool_filter=by.WorkPoolFilter(name=by.WorkPoolFilterName(any_=[project.name()])),
            )
            if not ours:
                raise ProjectError(
                    f"no deployment of the flow train is registered with the work pool {project.name()} at {settings.prefect_api_url}. "
                    "`make schedule` registers what prefect.yaml says, and works it off; `make up` does it, too."
                )
            these = by.DeploymentFilter(id=by.DeploymentFilterId(any_=[one.id for one in ours]))
            same = by.FlowRunFilter(idempotency_key=by.FlowRunFilterIdempotencyKey(any_=[key]))
            alive = by.FlowRunFilter(state=by.FlowRunFilterState(type=by.FlowRunFilterStateType(any_=states)))
            runs = client.read_flow_runs(deployment_filter=these, flow_run_filter=same)
            runs += [
                run
                for run in client.read_flow_runs(deployment_filter=these, flow_run_filter=alive)
                # What the schedule has for some day to come is not waited for.
                if not run.auto_scheduled or run.state_type != StateType.SCHEDULED or run.state_name == "Late"
            ]
        if runs:
            return f"run {runs[0].name} is there already ({runs[0].state_name})"
        name = f"alert-{key}"
        run_deployment(ours[0].id, timeout=0, idempotency_key=key, tags=["alert"], as_subflow=False, flow_run_name=name)
    except (httpx.HTTPError, PrefectException, RuntimeError) as error:
        raise UnreachableError(
            f"Prefect's server ({settings.prefect_api_url}) does not answer: {str(error).strip() or type(error).__name__}"
        ) from error
    return f"run {name} was asked for"


def tell(settings: Settings, text: str) -> str:
    """Tell the people behind NOTIFY_URLS.

    Args:
        settings: Who they are.
        text: What they read; its first line is the title.

    Returns:
        What became of it.

    Raises:
        UnreachableError: If one of them was not reached.
    """
    title = text.partition("\n")[0][:MOST_LETTERS]
    sent = _notifications.notify(settings, title=f"{project.name()}: {title}", body=text)
    return "told" if sent else "nobody was told: NOTIFY_URLS is not set in .env"
