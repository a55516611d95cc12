"""What a change lowers in the settings of the tools, in DVC and in the sources of packages."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import PurePosixPath
from typing import Any

from copier_mlops.ci.base import Base, Finding, read

CONFIGURATION = {"pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", ".coveragerc", "mypy.ini", ".mypy.ini",
                 "ruff.toml", ".ruff.toml", "tox.ini", "setup.cfg", "zizmor.yml", ".secrets.baseline"}  # fmt: skip
"""Files that the tools prefer to pyproject.toml, or that switch checks off."""
FROZEN = re.compile(r"^[^#\n]*\bfrozen[\"']?\s*:\s*[\"']?(?:true|yes|on)\b", re.M | re.I)
VERIFIED = re.compile(r"^\s*verify\s*=\s*true\b", re.M | re.I)
LOCK = "uv.lock"
# ----------------------------------------------------------------------------------------- Settings of the tools

FREE = (
    "line-length",
    "target-version",
    "markers",
    "filterwarnings",
    "skip_covered",
    "show_missing",
    "precision",
    "src",
)


def flat(value: object, prefix: str = "") -> dict[str, object]:
    """Return the leaves of nested tables by their dotted names."""
    if isinstance(value, Mapping):
        return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, f"{prefix}.{name}").items()}
    return {prefix.removeprefix("."): value}


def loosened(before: str, now: str) -> Iterator[str]:
    """Yield one sentence for each setting of the tools in pyproject.toml that is less strict than it was."""
    sides = []
    for text in (before, now):
        tool = tomllib.loads(text).get("tool", {})
        sides.append(flat({name: tool.get(name, {}) for name in ("ruff", "mypy", "pytest", "coverage")}))
    was, here = sides
    for key in sorted({*was, *here}):
        one, other = was.get(key), here.get(key)
        if one == other or key.rpartition(".")[2] in FREE:
            continue
        if isinstance(one, list) or isinstance(other, list):
            yield from _other_list(key, _entries(one), _entries(other))
        elif not _stricter(key, one, other):
            yield f"tool.{key} is {_shown(other)}; it was {_shown(one)}"


def _shown(value: object) -> str:
    return "not set" if value is None else json.dumps(value, default=str)


def _entries(value: object) -> dict[str, Any]:
    return {json.dumps(one, sort_keys=True, default=str): one for one in (value if isinstance(value, list) else [])}


def _other_list(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Lists of what is checked may only grow, lists of exceptions may only shrink."""
    removed, added = [[was[one] for one in was if one not in other] for was, other in ((before, now), (now, before))]
    if key.rpartition(".")[2] in ("select", "extend-select", "packages", "files", "source", "testpaths"):
        if removed or key.endswith(("source", "testpaths")):
            yield f"tool.{key} lost {_shown(removed)}" if removed else f"tool.{key} changed: {_shown(added)}"
        return
    if key == "mypy.overrides":
        added = [one for one in added if set(one) - {"module", "ignore_missing_imports"}]
    if added:
        yield f"tool.{key} gained {_shown(added)}"


def _stricter(key: str, before: object, now: object) -> bool:
    name = key.rpartition(".")[2]
    if name == "fail_under" and isinstance(now, (int, float)):
        return now >= (before if isinstance(before, (int, float)) else 0)
    lenient = name.startswith(("ignore", "allow", "implicit", "follow", "no_"))
    return now is True and key.startswith(("mypy.", "coverage.run.branch")) and not lenient


def lowered_settings(base: Base) -> Iterator[Finding]:
    """Find settings of the linter, the type checker, pytest and the coverage that are less strict than at the base."""
    before, now = base.read("pyproject.toml"), read("pyproject.toml")
    if before and now and before != now:
        for text in loosened(before, now):
            yield Finding("pyproject.toml", text.split()[0], text)
    for path in base.changed:
        name, content = PurePosixPath(path).name, read(path)
        nested = name == "pyproject.toml" and path != name and content is not None and "[tool.ruff" in content
        if content is not None and (name in CONFIGURATION or nested):
            yield Finding(path, path, f"{path} takes precedence over the settings of pyproject.toml")
        if path.endswith(".pyi") and base.read(path) is None and read(path[:-1]) is not None:
            yield Finding(path, path, f"{path} hides {path[:-1]} from the type checker")


def shadowing_modules(base: Base) -> Iterator[Finding]:
    """Find new modules that Python imports instead of those that the gates need."""
    installed: set[str] | None = None
    for path in base.changed:
        *folders, name = path.removesuffix("/__init__.py").split("/")
        module = name.removesuffix(".py")
        if (
            not path.endswith(".py")
            or folders not in ([], ["src"])
            or read(path) is None
            or base.read(path) is not None
        ):
            continue
        if installed is None:
            installed = {*sys.stdlib_module_names, *metadata.packages_distributions()}
        if module in ("sitecustomize", "usercustomize") or (folders != ["src"] and module in installed):
            yield Finding(path, path, f"{path} replaces the module {module} in the gates, or runs before them")


def lowered_data_checks(base: Base) -> Iterator[Finding]:
    """Find stages that no longer run when their inputs change, and data that is no longer verified."""
    for path in base.changed:
        before, now = base.read(path) or "", read(path) or ""
        if PurePosixPath(path).name == "dvc.yaml" and _count(FROZEN, now) > _count(FROZEN, before):
            yield Finding(path, "frozen", f"{path} freezes a stage: it no longer runs when its inputs change")
        if path == ".dvc/config" and _count(VERIFIED, now) < _count(VERIFIED, before):
            yield Finding(path, "verify", f"{path} no longer verifies what the remote store returns")


def _count(shape: re.Pattern[str], text: str) -> int:
    return len(shape.findall(text))


def other_sources(base: Base) -> Iterator[Finding]:
    """Find packages in uv.lock from places that the lock of the base does not have."""
    before, now = base.read(LOCK), read(LOCK)
    if LOCK not in base.changed or not before or not now:
        return
    from copier_mlops.updates.update_pr import unexpected
    from copier_mlops.updates.upstream import OriginError  # both need more than the standard library

    try:
        found = unexpected(before.encode(), now.encode())
    except (OriginError, ValueError, KeyError, TypeError) as error:
        found = [f"the lock cannot be read: {error}"]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        yield Finding(LOCK, LOCK, f"{LOCK} has packages from other places than before: {'; '.join(found[:3])}{more}")
