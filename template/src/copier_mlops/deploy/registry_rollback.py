"""After production went back by itself: the registry goes back, too, and the page of the job says what is left to a person.

The registry's champion is moved only while it is the version that champion.json of this checkout names, the one that was
delivered. champion.json itself is git's, where a job may not write.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

from copier_mlops import ProjectError
from copier_mlops._errors import print_error
from copier_mlops.deploy.host import settings
from copier_mlops.deploy.image import POINTER, shared

LEFT = """\
Version {now} is the champion again, here and in production. On the branch `champion.json` still names version {left}. Bring it along; \
that delivers version {now}, and so takes staging back, too:

    git pull && make history && git commit --message "Back to version {now}" champion.json && git push
"""
NOT_HERE = """\
Production went back, the registry did not: {why}. What answers is not what it calls the champion. Where the registry is at hand:

    make rollback WHY={reason} && git commit --message "Back to the version before" champion.json && git push
"""


def version() -> int:
    """The version that champion.json names."""
    return int(json.loads(POINTER.read_text(encoding="utf-8"))["version"])


def tell(text: str) -> None:
    """Say it, also on the page of the job."""
    print(text, flush=True)
    if os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(os.environ["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as page:
            page.write(text)


def roll_back(registry: Callable[[str], object]) -> bool:
    """Roll back the registry, and write on the page of the job what is left to do.

    Args:
        registry: rolls back the registry if its champion is the delivered version, for the reason that it is called with.

    Returns:
        Whether it was done.
    """
    there, left = settings(), version()
    reason = there.get("WHY") or "production went back"
    why = "MLFLOW_TRACKING_URI names no server"
    if shared(there.get("MLFLOW_TRACKING_URI", "")):
        try:
            registry(reason)
        except ProjectError as error:
            print_error(error)
            why = str(error).rstrip(".")
        else:
            tell(LEFT.format(now=version(), left=left))
            return True
    tell(NOT_HERE.format(why=why, reason=shlex.quote(reason)))
    return False
