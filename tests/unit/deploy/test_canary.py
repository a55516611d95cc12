"""The canary analysis: which requests count, how many it needs, and what it compares them with."""

import math
from types import SimpleNamespace

import pytest

from copier_mlops.deploy import canary
from copier_mlops.deploy.canary import Bounds, Counted
from copier_mlops.deploy.rollout_checks import WrongError

BOUNDS = Bounds(max_errors=0.01, max_seconds=0.5, max_increase=0.05, min_requests=20)


class Replica:
    """Counters of a pretended replica: each reading of /metrics adds the requests of one interval."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, seconds: float = 0.1, **each: int) -> None:
        self.each, self.seconds, self.readings, self.started = each, seconds, 0, 1.0
        self.clock = 0.0
        monkeypatch.setattr(canary, "get", lambda address, path: self.text().encode())
        monkeypatch.setattr(canary, "time", SimpleNamespace(monotonic=lambda: self.clock, sleep=self.sleep))

    def sleep(self, seconds: float) -> None:
        self.clock += seconds
        self.readings += 1

    def text(self) -> str:
        counts = {name.removeprefix("s"): number * self.readings for name, number in self.each.items()}
        total = sum(counts.values())
        lines = [
            f'http_requests_total{{path="/predict",status="{status}"}} {number}.0' for status, number in counts.items()
        ]
        for limit in ("0.1", "0.5", "2.5", "+Inf"):
            within = total if float(limit) >= self.seconds else 0
            lines.append(f'http_request_duration_seconds_bucket{{le="{limit}",path="/predict"}} {within}.0')
        lines.append('http_requests_total{path="/explain",status="500"} 90.0')
        return "\n".join([*lines, f"process_start_time_seconds {self.started}"]) + "\n"

    def watch(self, bounds: Bounds = BOUNDS, reference: Counted | None = None, seconds: float = 2) -> Counted:
        return canary.watch(canary.Replicas(["127.0.0.1:1"]), seconds, bounds, reference)


def test_requests_without_a_key_do_not_dilute_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the processed requests fails, while thousands of requests without a key are refused."""
    replica = Replica(monkeypatch, s200=4, s500=2, s401=1500, s404=50, s405=10, s408=30, s413=20, s429=90, s499=8)
    with pytest.raises(WrongError, match=r"8 of 24 requests failed; MAX_ERRORS is 0\.01"):
        replica.watch()


def test_a_step_without_enough_requests_is_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica(monkeypatch, s200=1, s401=100)
    assert replica.watch().processed == 20 and replica.clock == 5.0
    replica = Replica(monkeypatch, s200=1)
    assert replica.watch(seconds=0.5).processed == 10 and replica.clock == 2.5
    replica = Replica(monkeypatch, s401=100)
    assert replica.watch().judged == 0 and replica.clock == 2.0


@pytest.mark.parametrize(("errors", "stops"), [(1, False), (2, True)])
def test_few_requests_stop_a_release_only_if_two_of_them_fail(
    monkeypatch: pytest.MonkeyPatch, errors: int, stops: bool
) -> None:
    replica = Replica(monkeypatch)
    text = f'http_requests_total{{path="/predict",status="500"}} {errors}.0\n'
    monkeypatch.setattr(canary, "get", lambda address, path: text.encode() if replica.readings else b"")
    if stops:
        with pytest.raises(WrongError, match="2 of 2 requests failed"):
            replica.watch()
    else:
        assert replica.watch().errors == 1


def test_a_slow_release_is_stopped_where_enough_requests_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WrongError, match=r"the slowest twentieth of 80 requests took 2\.5 s; MAX_SECONDS is 0\.5"):
        Replica(monkeypatch, s200=10, seconds=2.0).watch()
    assert Replica(monkeypatch, s200=1, seconds=2.0).watch(seconds=0.5).processed == 10
    rollback = Bounds(max_errors=0.01, max_seconds=math.inf, max_increase=0.05, min_requests=20)
    assert Replica(monkeypatch, s200=10, seconds=2.0).watch(rollback).processed == 80


@pytest.mark.parametrize(
    ("status", "says"), [("422", "were refused as invalid"), ("503", "found the service unavailable")]
)
def test_the_share_that_is_refused_is_compared_with_the_replaced_release(
    monkeypatch: pytest.MonkeyPatch, status: str, says: str
) -> None:
    replica = Replica(monkeypatch, s200=7, **{f"s{status}": 3})
    with pytest.raises(WrongError, match=rf"30% of 80 requests {says} \({status}\), and 2% of 500 under the release"):
        replica.watch(reference=Counted({"200": 490, status: 10}))
    for others in ({"200": 350, status: 150}, {"200": 12}, {}):  # the same share, too few requests, none
        assert Replica(monkeypatch, s200=7, **{f"s{status}": 3}).watch(reference=Counted(others)).judged == 80
    assert Replica(monkeypatch, s200=7, **{f"s{status}": 3}).watch().judged == 80


def test_a_release_that_refuses_everything_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WrongError, match="100% of 40 requests"):
        Replica(monkeypatch, s422=5).watch(reference=Counted({"200": 1000}))


def test_a_difference_that_may_be_chance_does_not_stop_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = Counted({"200": 22, "422": 8})
    assert Replica(monkeypatch, s200=2, s422=1).watch(reference=reference, seconds=2).judged == 24


def test_a_replica_that_was_restarted_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts before the restart are lost, errors among them."""
    replica = Replica(monkeypatch, s200=10)
    replicas = canary.Replicas(["127.0.0.1:1"])
    replica.started = 2.0
    with pytest.raises(WrongError, match="ended and was restarted"):
        replicas.since()


def test_a_replica_without_metrics_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str, path: str) -> bytes:
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(canary, "get", refuse)
    with pytest.raises(WrongError, match="does not return its metrics: refused"):
        canary.Replicas(["127.0.0.1:1"])


def test_counters_of_several_replicas_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "a": 'http_requests_total{path="/predict",status="200"} 3.0\n',
        "b": 'http_requests_total{path="/predict",status="200"} 4.0\nhttp_requests_total{path="/predict",status="504"} 1.0\n',
    }
    monkeypatch.setattr(canary, "get", lambda address, path: texts[address].encode())
    found = canary.Replicas(["a", "b"]).ever()
    assert (found.processed, found.errors, found.slowest_twentieth()) == (8, 1, 0.0)
