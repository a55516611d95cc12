"""The figures, one module per group. A new one joins by a line in GROUPS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lab import Lab
from rows import Row

from . import (
    adopt,
    again,
    auc,
    batch,
    ci,
    copying,
    delivery,
    demo,
    drift,
    interrupt,
    loop,
    memory,
    online,
    overhead,
    overload,
    replay,
    scale,
    shadow,
    size,
    streaming,
    updating,
)

Measure = Callable[[Lab], list[Row]]


@dataclass(frozen=True)
class Group:
    """Figures that are measured together.

    Attributes:
        measure: Does it.
        meaning: By name of each row that it gives, what the row is.
        long: Whether it takes more than a few minutes; then it is measured when asked for by name, or with --all.
    """

    measure: Measure
    meaning: dict[str, str]
    long: bool = False


GROUPS: dict[str, Group] = {
    "size": Group(size.measure, size.MEANING),
    "copier_copy": Group(copying.measure, copying.MEANING),
    "demo": Group(demo.measure, demo.MEANING),
    "run_over_script": Group(overhead.measure, overhead.MEANING),
    "again": Group(again.measure, again.MEANING),
    "peak_memory_pipeline": Group(memory.measure, memory.MEANING),
    "auc_months": Group(auc.measure, auc.MEANING),
    "adopt": Group(adopt.measure, adopt.MEANING),
    "updating": Group(updating.measure, updating.MEANING),
    "online": Group(online.measure, online.MEANING),
    "delivery": Group(delivery.measure, delivery.MEANING),
    "replay": Group(replay.measure, replay.MEANING),
    "streaming": Group(streaming.measure, streaming.MEANING),
    "overload": Group(overload.measure, overload.MEANING),
    "shadow": Group(shadow.measure, shadow.MEANING),
    "loop": Group(loop.measure, loop.MEANING, long=True),
    "drift": Group(drift.measure, drift.MEANING, long=True),
    "batch": Group(batch.measure, batch.MEANING, long=True),
    "ci": Group(ci.measure, ci.MEANING, long=True),
    "interrupt": Group(interrupt.measure, interrupt.MEANING, long=True),
    "scale": Group(scale.measure, scale.MEANING, long=True),
}

MEANING = {name: text for group in GROUPS.values() for name, text in group.meaning.items()}
