"""The smoke test of a replica: it is ready, and returns the predictions that its bundle expects."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from copier_mlops import ProjectError

TOLERANCE = 1e-6  # of the largest answer, at least of 1: as bundles are held between machines
PATH = "/predict"
BUSY = (429, 503, 504)  # statuses of a service or a proxy without capacity; they do not show that the model is wrong
BUSY_SECONDS, PAUSE_SECONDS = 10.0, 0.5  # how long a busy replica is asked again, and the pause without Retry-After


class WrongError(ProjectError):
    """A replica does not do what its bundle says; the text says what."""


class BusyError(WrongError):
    """A replica has no capacity for the smoke test.

    Attributes:
        identified: whether it reported the expected version and digest.
    """

    def __init__(self, text: str, identified: bool) -> None:
        super().__init__(text)
        self.identified = identified


def get(address: str, path: str, who: Mapping[str, str] | None = None, seconds: float = 5) -> bytes:
    """The body of an answer; OSError if there is none, or it is an error."""
    request = urllib.request.Request(f"http://{address}{path}", headers=dict(who or {}))
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        return bytes(answer.read())


def is_ready(address: str) -> bool:
    try:
        get(address, "/health/ready", seconds=2)
    except OSError:
        return False
    return True


def headers(settings: Mapping[str, str]) -> dict[str, str]:
    """Who asks: SMOKE_TOKEN where an identity provider says who may, else the first of API_KEYS."""
    keys = re.split(r"[,\s]+", settings.get("API_KEYS", "").strip())
    if settings.get("SMOKE_TOKEN"):
        return {"Authorization": f"Bearer {settings['SMOKE_TOKEN']}"}
    return {"X-API-Key": keys[0]} if keys[0] else {}


def predict(
    address: str, rows: Sequence[Mapping[str, Any]], who: Mapping[str, str], until: float = 0
) -> list[dict[str, Any]]:
    """Request predictions, and return them.

    Args:
        address: host and port of the replica or the proxy.
        rows: input rows.
        who: headers with the key or the token.
        until: time, by time.monotonic, until which a request that found the service busy is repeated.

    Raises:
        BusyError: If the service was busy all the time.
        WrongError: If there are no predictions.
    """
    status, body = _post(address, rows, who, until)
    if status == 422 and len(fields := {fault["field"] for fault in json.loads(body)["faults"]}) == 1:
        # Ids of examples are made up and follow no rule; without one the service makes it up.
        without = fields.pop()
        asked = [{name: value for name, value in row.items() if name != without} for row in rows]
        status, body = _post(address, asked, who, until)
    if status in BUSY:
        raise BusyError(f"the service has no capacity for the example rows (status {status})", identified=True)
    if status != 200:
        raise WrongError(f"it answers its example rows with {status}: {body[:300].decode(errors='replace')}")
    return list(json.loads(body))


def _post(address: str, rows: Sequence[Mapping[str, Any]], who: Mapping[str, str], until: float) -> tuple[int, bytes]:
    head = {"Content-Type": "application/json", "X-Smoke-Test": "true", **who}  # no answer that production gave
    request = urllib.request.Request(f"http://{address}{PATH}", json.dumps(rows).encode(), head, method="POST")
    try:
        return _send(request, 15, until)
    except OSError as error:
        raise WrongError(f"it does not answer its example rows ({error})") from error


def _send(request: urllib.request.Request, seconds: float, until: float) -> tuple[int, bytes]:
    """Send a request, and repeat it while the service is busy; return the last status and body.

    Raises:
        OSError: If there is no response.
    """
    while True:
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body, after = error.code, error.read(), error.headers.get("Retry-After", "")
        left = until - time.monotonic()
        if status not in BUSY or left <= 0:
            return status, body
        time.sleep(min(max(float(after), PAUSE_SECONDS) if after.isdecimal() else PAUSE_SECONDS, left))


def smoke(address: str, version: int, digest: str, expected: Mapping[str, Any], who: Mapping[str, str]) -> None:
    """Compare the version of a replica, and its predictions for the example rows of its bundle, with the expected ones.

    A request that finds the service busy is repeated for `BUSY_SECONDS`.

    Raises:
        BusyError: If the service was busy all the time.
        WrongError: If it is another version, or answers otherwise.
    """
    until = time.monotonic() + BUSY_SECONDS
    try:
        status, body = _send(urllib.request.Request(f"http://{address}/model", headers=dict(who)), 5, until)
        if status in BUSY:
            raise BusyError(f"the service has no capacity to report its version (status {status})", identified=False)
        if status != 200:
            raise WrongError(f"/model responds with {status}: {body[:300].decode(errors='replace')}")
        model = json.loads(body)
    except (OSError, ValueError) as error:
        raise WrongError(f"it does not say which model answers ({error})") from error
    if (model.get("version"), model.get("digest")) != (version, digest):
        raise WrongError(
            f"version {model.get('version')} ({str(model.get('digest'))[:12]}) answers, not version {version} ({digest[:12]})"
        )
    rows = [dict(zip(expected["columns"], row, strict=True)) for row in expected["rows"]]
    answers = predict(address, rows, who, until)
    wanted = [value if isinstance(value, list) else [value] for value in expected["answers"]]
    if len(answers) != len(wanted) or {answer["version"] for answer in answers} != {version}:
        raise WrongError(
            f"it gives {len(answers)} answers of another version, or to other rows than the {len(wanted)} that were asked"
        )
    given = any(answer["id"] in row.values() for answer in answers for row in rows)  # and not made up
    limit = TOLERANCE * max(1.0, *(abs(number) for numbers in wanted for number in numbers))
    for number, (answer, numbers) in enumerate(zip(answers, wanted, strict=True)):
        found = list(answer["scores"].values()) if "scores" in answer else [answer["score"]]
        if len(found) != len(numbers) or any(abs(a - b) > limit for a, b in zip(found, numbers, strict=True)):
            raise WrongError(f"example row {number} is answered with {found}, where the bundle has {numbers}")
        if given and answer["id"] not in rows[number].values():
            raise WrongError(f"example row {number} comes back as {answer['id']!r}, which it is not")
