"""The limits that a model must keep: what a change lowers in params.yaml, and champion.json that was edited by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from copier_mlops.ci.base import Base, Finding, read
from copier_mlops.params import Params

PARAMS, CHAMPION = "params.yaml", "champion.json"
RAISES = {
    "gate.at_least.*", "gate.better_than_baseline", "review.keeps", "review.rows", "split.test_days", "split.test_share",
    "split.folds", "evaluation.bootstrap", "evaluation.importance_rows", "monitoring.level", "monitoring.promote_confidence",
    "monitoring.promote_margin", "monitoring.new_version_days",
}  # fmt: skip
"""Limits that are stricter when they are higher."""
LOWERS = {
    "gate.at_most.*", "gate.worse_than_champion", "validation.max_bad_share", "validation.max_single_input_skill",
    "validation.max_model_skill", "review.slower", "monitoring.drifted_columns", "monitoring.silent_hours",
    "monitoring.cool_down_hours",
}  # fmt: skip
"""Limits that are stricter when they are lower."""
CHOICES = ("gate.metric", "problem", "promotion.automatic", "evaluation.slices")
BIGGER_IS_BETTER = ("auc", "average_precision", "r2")


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested sections by their dotted names."""
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= flat(inner, f"{prefix}{name}.") if isinstance(inner, Mapping) else {f"{prefix}{name}": inner}
    return found


def effective(text: str | None) -> dict[str, Any]:
    """Return the limits of a params.yaml with the defaults of the keys that it leaves out."""
    try:
        content = yaml.safe_load(text or "")
    except yaml.YAMLError:  # the stages report what is wrong with it
        return {}
    if not isinstance(content, Mapping):
        return {}
    try:
        params = Params.model_validate(content)
    except ValidationError:
        return flat(content)
    return flat({**params.model_dump(mode="json"), "monitoring": params.monitoring.model_dump(mode="json")})


def lowered_limits(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each limit that is less strict than it was, and a sentence about it."""
    for key in sorted({*before, *now}):
        was, here = before.get(key), now.get(key)
        if was == here:
            continue
        kind = key if key.count(".") < 2 else f"{key.rpartition('.')[0]}.*"
        text = f"{key} is {_shown(here)}; it was {_shown(was)}"
        if _less_strict(kind, was, here):
            yield key, text
        elif key == "evaluation.slices" and set(was or ()) <= set(here or ()):
            continue
        elif key in CHOICES and (key != "promotion.automatic" or here):
            yield key, text


def _less_strict(kind: str, before: Any, now: Any) -> bool:
    """Whether a limit is less strict than it was; a new limit is stricter."""
    if before is None or kind not in RAISES | LOWERS:
        return False
    return now is None or bool(now < before if kind in RAISES else now > before)


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)


def edited_champion(before: str | None, now: str | None, tolerance: float) -> Iterator[tuple[str, str]]:
    """Yield which metrics of champion.json are lower than before, and which edits no promotion would have written.

    Args:
        before: The text of champion.json at the base.
        now: The text of champion.json in the work tree.
        tolerance: The loss of a metric that params.yaml allows; it is applied to all metrics.
    """
    if before is None:
        return
    try:
        was, here = json.loads(before), json.loads(now or "null")
    except ValueError:
        yield "champion.json", "champion.json is not valid JSON"
        return
    if not isinstance(here, Mapping):
        yield "champion.json", "champion.json is gone, so a change is no longer compared with the champion"
        return
    identity = ("version", "run_id", "bundle")
    if [here.get(key) for key in identity] == [was.get(key) for key in identity]:
        free = {"since", "by", "why"}
        edited = sorted(key for key in {*was, *here} - free if key in was and was[key] != here.get(key))
        if edited:
            changes = ", ".join(f"{key} {_change(was.get(key), here.get(key))}" for key in edited)
            yield (
                "champion.json",
                f"champion.json was edited by hand: version {was.get('version')} has another {changes}",
            )
        return
    if was.get("version") == here.get("version") and was.get("model") == here.get("model"):
        yield "champion.json", f"champion.json names another run or bundle for the same version {was.get('version')}"
    for name, value in was.get("metrics", {}).items():
        new = here.get("metrics", {}).get(name)
        if name in ("bias", "answer_cost") or name.startswith(("baseline_", "rows_")) or value is None:
            continue
        loss = float("inf") if new is None else (value - new if name in BIGGER_IS_BETTER else new - value)
        if loss > max(tolerance, 0.05 * abs(value)):
            yield f"champion.{name}", f"champion.json: {name} is {_shown(new)}; it was {_shown(value)}"


def _change(before: Any, now: Any) -> str:
    """Return which parts of a value differ, as `(auc 0.71 -> 0.55)`."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return ""
    parts = [
        f"{key} {_shown(before.get(key))} -> {_shown(now.get(key))}" for key in before if before[key] != now.get(key)
    ]
    return f"({', '.join(parts[:5])})"


def lowered(base: Base) -> Iterator[Finding]:
    """Find limits of params.yaml that are less strict than at the base, and a champion.json that was edited."""
    now = effective(read(PARAMS))
    if PARAMS in base.changed and base.read(PARAMS) is not None:
        for name, text in lowered_limits(effective(base.read(PARAMS)), now):
            yield Finding(PARAMS, name, text)
    if CHAMPION in base.changed:
        tolerance = float(now.get("gate.worse_than_champion") or 0)
        for name, text in edited_champion(base.read(CHAMPION), read(CHAMPION), tolerance):
            yield Finding(CHAMPION, name, text)
