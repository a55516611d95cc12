"""May this model be used? Each limit of params.yaml gives one check, and a check says by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from copier_mlops.evaluation.metrics import Interval, gain


@dataclass(frozen=True)
class Check:
    """One limit and whether it is kept.

    Attributes:
        name: Which limit, as it stands in params.yaml.
        value: What was measured.
        limit: What it is held against.
        passed: Whether the limit is kept; a value that is not defined does not keep it.
        says: The sentence for people.
    """

    name: str
    value: float
    limit: float
    passed: bool
    says: str


@dataclass(frozen=True)
class Verdict:
    """All checks; passed when each of them is."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """What is not kept, by how much."""
        return [check.says for check in self.checks if not check.passed]

    def as_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "checks": [vars(check) for check in self.checks]}


def run_name(metric: str, value: float | None, status: str, version: int | None = None) -> str:
    """Return the name of a run for lists of runs, such as `v2 auc 0.698 challenger`.

    Args:
        metric, value: The metric of the gate, and what the run reached.
        status: champion, challenger, archived, passed or rejected.
        version: Number of the registered version.
    """
    figure = "" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    words = [f"v{version}" if version else "", f"{metric} {figure}" if figure else "", status]
    return " ".join(filter(None, words))


def judge(
    metric: str,
    metrics: Mapping[str, float],
    *,
    over_baseline: float,
    over_champion: Interval | None,
    at_least: Mapping[str, float],
    at_most: Mapping[str, float],
    better_than_baseline: float,
    worse_than_champion: float,
    effects: Sequence[Mapping[str, Any]] = (),
) -> Verdict:
    """Hold a model against its limits.

    Args:
        metric: The one that decides between models.
        metrics: Value by name, on the test rows.
        over_baseline: Gain over the baseline in `metric`, positive is better.
        over_champion: Gain over the champion on the same rows; None where there is no champion.
        at_least, at_most: Limits by metric.
        better_than_baseline: The gain that is demanded.
        worse_than_champion: The loss that is allowed.
        effects: What `metrics.effects` found, for the columns whose effect the contract declares; one that could not be
            told (change is None) is left out.
    """
    checks = [_bound(f"gate.at_least.{name}", name, metrics[name], limit, 1) for name, limit in at_least.items()]
    checks += [_bound(f"gate.at_most.{name}", name, metrics[name], limit, -1) for name, limit in at_most.items()]
    checks.append(
        _bound(
            "gate.better_than_baseline", f"gain in {metric} over the baseline", over_baseline, better_than_baseline, 1
        )
    )
    if over_champion is not None:
        checks.append(
            _bound(
                "gate.worse_than_champion",
                f"gain in {metric} over the champion",
                over_champion.value,
                -worse_than_champion,
                1,
            )
        )
    checks += [_effect(line) for line in effects if line["change"] is not None]
    return Verdict(tuple(checks))


def against_pointer(
    metric: str, value: float, *, baseline: float, known: Mapping[str, float], keeps: float, cost: float, slower: float
) -> Verdict:
    """Hold a model of a review against what champion.json says: it learnt from less, so a share of the champion's gain over
    its baseline will do.

    Args:
        metric: The one that decides between models.
        value, baseline: Of the model and of the baseline, in that metric, on the rows of the review.
        known: The metrics in champion.json.
        keeps: The share of the gain that has to be left.
        cost: Of an answer, as `bundle.cost` measures it.
        slower: How many times the champion's cost it may be.
    """
    checks = []
    if metric in known and f"baseline_{metric}" in known:
        theirs = gain(metric, known[metric], known[f"baseline_{metric}"])
        if theirs > 0:
            what = f"share of the champion's gain in {metric} over the baseline"
            checks.append(_bound("review.keeps", what, gain(metric, value, baseline) / theirs, keeps, 1))
    if known.get("answer_cost"):
        checks.append(
            _bound("review.slower", "time of an answer, in the champion's", cost / known["answer_cost"], slower, -1)
        )
    return Verdict(tuple(checks))


def _effect(line: Mapping[str, Any]) -> Check:
    sign = 1 if line["declared"] == "raises" else -1
    passed = bool(sign * line["change"] >= 0)
    return Check(
        f"contract.effect.{line['input']}",
        line["change"],
        0.0,
        passed,
        f"{line['input']} from {line['low']:.4g} to {line['high']:.4g} changes the answer by {line['change']:+.4g} on average, "
        f"and the contract says that it {line['declared']} it: {'kept' if passed else 'missed'} (contract.effect.{line['input']})",
    )


def _bound(name: str, what: str, value: float, limit: float, sign: int) -> Check:
    room = sign * (value - limit)
    passed = bool(room >= 0)  # NaN is not
    side = "at least" if sign > 0 else "at most"
    if math.isnan(value):
        why = f"{what} has no value on the test rows, which may be of one class alone; {side} {limit:.4g} is demanded ({name})"
        return Check(name, value, limit, passed, why)
    kept = f"kept with {room:.4g} to spare" if passed else f"missed by {-room:.4g}"
    return Check(name, value, limit, passed, f"{what} is {value:.4g}, {side} {limit:.4g} is demanded: {kept} ({name})")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run of the stages.

    Attributes:
        lineage: Names what it was made from.
        verdict: A Verdict as JSON.
        version: The registered version; None if it did not pass.
        status: champion, challenger, archived or rejected.
        champion: The champion's number after the run; None if there is none.
        over_champion: Gain over the champion of before on the same rows; None where there was none.
        markdown: Metrics and verdict for a page.
    """

    lineage: str
    verdict: Mapping[str, Any]
    version: int | None
    status: str
    champion: int | None
    over_champion: Mapping[str, float | None] | None
    markdown: str

    @property
    def passed(self) -> bool:
        return bool(self.verdict["passed"])
