"""Reading of monitor.json, which may come from an earlier release.

A reader takes what it can use: what is missing, unknown or of another type has its default.
"""

from __future__ import annotations

import functools
import json
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from copier_mlops.monitoring.report import Report


def read_report(file: Path) -> Report:
    """Read monitor.json.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not JSON.
        RecursionError: If it is nested too deeply.
    """
    return from_json(json.loads(file.read_text(encoding="utf-8")))


def from_json(content: object) -> Report:
    """Return what a report can use of some JSON; what is missing or of another type has its default."""
    return _usable(content, Report) if isinstance(content, Mapping) else Report()


def _usable(value: Any, kind: Any) -> Any:
    """Return a value as a type has it, without the parts that have another type.

    Raises:
        msgspec.ValidationError: If the value itself has another type.
    """
    for option in get_args(kind) if isinstance(kind, types.UnionType) else (kind,):
        if isinstance(option, type) and issubclass(option, msgspec.Struct) and isinstance(value, Mapping):
            given = [one for one in _fields(option) if one.encode_name in value]
            return option(**_usable_items((one.name, value[one.encode_name], one.type) for one in given))
        if get_origin(option) is dict and isinstance(value, Mapping):
            return _usable_items((str(name), part, get_args(option)[1]) for name, part in value.items())
        if get_origin(option) is list and isinstance(value, list):
            return list(_usable_items((place, part, get_args(option)[0]) for place, part in enumerate(value)).values())
    return msgspec.convert(value, kind)


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return the fields of a type, whose annotations are resolved once: a report may have thousands of columns."""
    return msgspec.structs.fields(kind)


def _usable_items(items: Iterable[tuple[Any, Any, Any]]) -> dict[Any, Any]:
    """Return the usable ones of some values, by the names that come with them."""
    found = {}
    for name, value, kind in items:
        try:
            found[name] = _usable(value, kind)
        except (msgspec.ValidationError, OverflowError):
            continue
    return found
