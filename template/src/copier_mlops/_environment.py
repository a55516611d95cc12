"""The environment of child processes: the caller's, without what leads git, uv, pip or Python away from this project.

The template renders this file twice, here and into the package, because neither can import the other on every machine:
an image has no `ci`, and a host that deploys has no package. The Makefile unexports the same names; a test compares the
lists.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from copier_mlops._environment_names import (
    DROPPED,
    DROPPED_PATTERNS,
    FILE_ONLY,
    GIT_NEUTRAL,
    LOOPBACK,
    MAKE,
    MODEL_KEPT,
    PIP_KEPT,
    PROXIES,
    PROXY_SCHEMES,
    UV_KEPT,
)

git_settings: dict[str, str] = {}
"""More settings for each git that this process starts, such as a header with a token; no other process gets them."""


def for_child(given: Mapping[str, str] | None = None, folder: Path | None = None) -> dict[str, str]:
    """Return the environment for a child process.

    Args:
        given: the environment to start from; by default this process's own.
        folder: the project that the child works in; by default the current folder.
    """
    given = os.environ if given is None else given
    kept = {name: value for name, value in given.items() if not _dropped(name)}
    path = source_path(kept.pop("PYTHONPATH", ""), folder or Path())
    if path:
        kept["PYTHONPATH"] = path
    kept.setdefault("PYTHONUTF8", "1")
    return kept | _without_proxy(kept) if _proxied(kept) else kept


def for_make(given: Mapping[str, str] | None = None, folder: Path | None = None) -> dict[str, str]:
    """Return the environment for make in another folder: `for_child`, without what this project's make passed on."""
    return {name: value for name, value in for_child(given, folder).items() if name not in MAKE}


def for_git(
    given: Mapping[str, str] | None = None, hooks: bool = False, settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment for git, so that the user's configuration changes neither stored objects nor output.

    Args:
        given: the environment to start from; by default this process's own.
        hooks: whether the user's hooks run, as for a push.
        settings: more settings of git, by name.
    """
    wanted = {**GIT_NEUTRAL, **({} if hooks else {"core.hooksPath": os.devnull}), **git_settings, **(settings or {})}
    numbered = {"GIT_CONFIG_COUNT": str(len(wanted))}
    for number, (name, value) in enumerate(wanted.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    # Messages in English: some become a part of an error's text, which would otherwise mix two languages.
    return {**for_child(given), "LC_ALL": "C.UTF-8", "LANGUAGE": "", "GIT_PAGER": "cat", **numbered}


PASSWORD = re.compile(r"://[^/\s@]*@")


def for_model(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a process that loads a model: no secrets, since a model is code.

    MODEL_ENVIRONMENT names further variables, for a model that reads settings of its own.

    Args:
        given: the environment to start from; by default this process's own.
    """
    kept = for_child(given)
    chosen = kept.get("MODEL_ENVIRONMENT", "").split()
    return {
        name: value
        for name, value in kept.items()
        if name in chosen or (name in MODEL_KEPT and not PASSWORD.search(value))
    }


def restart_for_model(given: Mapping[str, str]) -> None:
    """Replace this process by the same command with that environment, unless it has that environment.

    Deleting the variables here is not enough: the kernel keeps what a process was started with.
    """
    wanted = for_model(given)
    if wanted != dict(os.environ):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)


def source_path(python_path: str, folder: Path) -> str:
    """Return the part of a PYTHONPATH that is the project's own source; other entries shadow the installed packages."""
    own = (folder / "src").resolve()
    return next((part for part in python_path.split(os.pathsep) if part and (folder / part).resolve() == own), "")


def without_file_only(given: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's variables without those that only `.env` may set."""
    return {name: value for name, value in given.items() if not _matches(name, FILE_ONLY)}


def _dropped(name: str) -> bool:
    if name.startswith("UV_"):
        return not _matches(name, UV_KEPT)
    if name.startswith("PIP_"):
        return name not in PIP_KEPT
    return name in DROPPED or _matches(name, DROPPED_PATTERNS)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _proxied(given: Mapping[str, str]) -> bool:
    return any(name.lower() in PROXIES and value for name, value in given.items())


def _without_proxy(given: Mapping[str, str]) -> dict[str, str]:
    """Return proxy settings that Python's HTTP clients understand; they exclude the hosts of this machine."""
    changed = {}
    for name, value in given.items():
        if name.lower() in PROXIES and value:
            scheme, separator, rest = value.partition("://")
            if separator and scheme.lower() == "socks":  # as desktops write it
                changed[name] = f"socks5://{rest}"
            elif separator and scheme.lower() not in PROXY_SCHEMES:
                changed[name] = ""
    hosts = given.get("no_proxy") or given.get("NO_PROXY") or ""  # the order of Python's own library
    if hosts.strip() != "*" and LOOPBACK not in hosts:
        hosts = f"{LOOPBACK},{hosts}".rstrip(",")
    return {**changed, "NO_PROXY": hosts, "no_proxy": hosts}
