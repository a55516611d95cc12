"""The canary analysis: what a release may do while it takes over, judged by the requests that it processed."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TypeVar

from copier_mlops.deploy.rollout_checks import PATH, WrongError, get

REQUESTS, SECONDS, STARTED = "http_requests_total", "http_request_duration_seconds_bucket", "process_start_time_seconds"
LINE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.M)
LABEL = re.compile(r'(\w+)="([^"]*)"')
COMPARED = {"422": "were refused as invalid (422)", "503": "found the service unavailable (503)"}
"""Statuses that callers or a server outside can cause: their share is compared with that of the replaced release."""
MAX_EXTENSION = 5  # a step with too few requests lasts at most this many times STEP_SECONDS
MIN_FAILURES = 2  # failed requests that stop a release although there were too few requests to judge it
STANDARD_ERRORS = 3.0  # a difference of two shares below this many standard errors is chance


@dataclass(frozen=True)
class Counted:
    """The requests to /predict that replicas counted.

    Attributes:
        statuses: Number of requests by status code.
        within: Number of requests by the upper limit of their duration in seconds.
    """

    statuses: Mapping[str, float] = field(default_factory=dict)
    within: Mapping[float, float] = field(default_factory=dict)

    def __add__(self, other: Counted) -> Counted:
        return Counted(_sum(self.statuses, other.statuses, 1), _sum(self.within, other.within, 1))

    def __sub__(self, other: Counted) -> Counted:
        return Counted(_sum(self.statuses, other.statuses, -1), _sum(self.within, other.within, -1))

    @property
    def errors(self) -> float:
        """Requests that the model could not answer: 5xx without 503."""
        return sum(count for status, count in self.statuses.items() if status >= "500" and status != "503")

    @property
    def processed(self) -> float:
        """Requests that reached the model: 2xx, and errors. A caller without a key causes none of them."""
        return self.errors + sum(count for status, count in self.statuses.items() if status.startswith("2"))

    @property
    def judged(self) -> float:
        """Requests that say something about the release: the processed ones, and those whose share is compared."""
        return self.processed + sum(self.statuses.get(status, 0) for status in COMPARED)

    def slowest_twentieth(self) -> float:
        """Return the seconds within which 95 of 100 requests were answered, as a limit of the histogram; 0 without requests."""
        total = self.within.get(math.inf, 0)
        if not total:
            return 0.0
        return next((limit for limit, count in sorted(self.within.items()) if count >= 0.95 * total), math.inf)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a release may do while it takes over.

    Attributes:
        max_errors: Largest share of the processed requests that may fail.
        max_seconds: Longest duration of the slowest twentieth, in seconds.
        max_increase: Largest increase of a compared share over the replaced release, from 0 to 1.
        min_requests: Number of requests below which no share and no duration is judged.
    """

    max_errors: float
    max_seconds: float
    max_increase: float
    min_requests: int


Key = TypeVar("Key", str, float)


def _sum(first: Mapping[Key, float], second: Mapping[Key, float], sign: int) -> dict[Key, float]:
    return {name: first.get(name, 0) + sign * second.get(name, 0) for name in {**first, **second}}


def count(text: str) -> tuple[Counted, float]:
    """Read /metrics of a replica.

    Returns:
        Its requests, and when its process started, in seconds since 1970.
    """
    statuses: dict[str, float] = {}
    within: dict[float, float] = {}
    started = 0.0
    for name, labels, value in LINE.findall(text):
        label = dict(LABEL.findall(labels))
        if name == STARTED:
            started = float(value)
        elif label.get("path") == PATH and name == REQUESTS:
            statuses[label["status"]] = statuses.get(label["status"], 0) + float(value)
        elif label.get("path") == PATH and name == SECONDS:
            within[float(label["le"])] = within.get(float(label["le"]), 0) + float(value)
    return Counted(statuses, within), started


class Replicas:
    """The counters of some replicas.

    Args:
        addresses: Host and port of each replica.

    Raises:
        WrongError: If a replica does not return its metrics.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._first = {address: self._read(address) for address in addresses}

    @staticmethod
    def _read(address: str) -> tuple[Counted, float]:
        try:
            return count(get(address, "/metrics").decode())
        except (OSError, HTTPException) as error:
            raise WrongError(f"the replica at {address} does not return its metrics: {error}") from error

    def since(self) -> Counted:
        """Return the requests since this object was made.

        Raises:
            WrongError: If a replica does not return its metrics, or was restarted: what it counted before is lost.
        """
        total = Counted()
        for address, (before, started) in self._first.items():
            now, started_now = self._read(address)
            if started_now != started or now.processed < before.processed:
                raise WrongError(f"the replica at {address} ended and was restarted while it took over")
            total += now - before
        return total

    def ever(self) -> Counted:
        """Return the requests since the replicas started.

        Raises:
            WrongError: If a replica does not return its metrics.
        """
        total = Counted()
        for address in self._first:
            total += self._read(address)[0]
        return total


def watch(replicas: Replicas, seconds: float, bounds: Bounds, reference: Counted | None = None) -> Counted:
    """Watch replicas for one step of a deployment.

    A step with fewer requests than `bounds.min_requests` is extended, one without any is not.

    Args:
        replicas: Those of the new release; the step begins when this object is made.
        seconds: Length of the step.
        bounds: What the release may do.
        reference: Requests of the replaced release; None if nothing is compared.

    Returns:
        The requests of the step.

    Raises:
        WrongError: If the release exceeds a bound; the text has both figures.
    """
    begun = time.monotonic()
    while True:
        time.sleep(min(0.25, seconds))
        step = replicas.since()
        enough = step.judged >= bounds.min_requests
        if enough:
            _judge_errors(step, bounds)
        elapsed = time.monotonic() - begun
        if elapsed >= seconds and (enough or not step.judged or elapsed >= MAX_EXTENSION * seconds):
            break
    if step.errors >= MIN_FAILURES:
        _judge_errors(step, bounds)
    _judge_seconds(step, bounds)
    if reference is not None:
        _judge_shares(step, reference, bounds)
    return step


def _judge_errors(step: Counted, bounds: Bounds) -> None:
    if step.errors > bounds.max_errors * step.processed:
        raise WrongError(
            f"{step.errors:.0f} of {step.processed:.0f} requests failed; MAX_ERRORS is {bounds.max_errors:g}"
        )


def _judge_seconds(step: Counted, bounds: Bounds) -> None:
    slow = step.slowest_twentieth()
    if step.processed >= bounds.min_requests and slow > bounds.max_seconds:
        raise WrongError(
            f"the slowest twentieth of {step.processed:.0f} requests took {slow:g} s; MAX_SECONDS is {bounds.max_seconds:g}"
        )


def _judge_shares(step: Counted, reference: Counted, bounds: Bounds) -> None:
    for status, what in COMPARED.items():
        some, others = step.statuses.get(status, 0), reference.statuses.get(status, 0)
        of, of_others = step.processed + some, reference.processed + others
        if min(of, of_others) < max(bounds.min_requests, 1):
            continue
        pooled = (some + others) / (of + of_others)
        chance = STANDARD_ERRORS * math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / of_others))
        if some / of - others / of_others > max(bounds.max_increase, chance):
            raise WrongError(
                f"{some / of:.0%} of {of:.0f} requests {what}, and {others / of_others:.0%} of {of_others:.0f} under the release "
                f"that it replaces; CANARY_MAX_INCREASE is {bounds.max_increase:g}"
            )
