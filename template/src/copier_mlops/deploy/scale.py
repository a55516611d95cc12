"""One replica more of what answers, as it answers: what the receiver of alerts may do where monitoring/policy.yaml lets it.

The release stays the one that is live; it starts anew in the other colour, and takes over as any version does.
"""

from __future__ import annotations

import os

from copier_mlops.deploy import scrape_targets
from copier_mlops.deploy.blue_green import ENVIRONMENTS, HOME, DeployError, Host
from copier_mlops.deploy.host import settings


def add(maximum: int, environment: str, why: str) -> str:
    """Add one.

    Args:
        maximum: How many there may be afterwards.
        environment: Where; the one that is live here, if empty.
        why: For the record.

    Returns:
        What was done.

    Raises:
        DeployError: If nothing is live there, there are as many as there may be, or the new ones do not start.
    """
    live = {name: Host(name).live for name in ENVIRONMENTS if (HOME / name / "state.json").exists()}
    here = [name for name, one in live.items() if one is not None and environment in ("", name)]
    if len(here) != 1:
        said = f"in {environment}" if environment else "in one environment alone"
        raise DeployError(f"a replica is added to what is live {said}; live here: {', '.join(here) or 'nothing'}")
    now = live[here[0]]
    assert now is not None
    if now.replicas >= maximum:
        raise DeployError(f"{here[0]} has {now.replicas} replicas; monitoring/policy.yaml lets it have {maximum}")
    os.environ |= {"REPLICAS": str(now.replicas + 1), "FORCE": "1"}
    Host(here[0]).go("deploy", now.release, why)
    scrape_targets.write(settings())
    return f"{here[0]} has {now.replicas + 1} replicas; `make deploy` goes back to those of deploy/{here[0]}.env"
