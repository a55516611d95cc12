"""The folders of tests.

A workspace has the tools that later sessions can use, and each session has a folder that is removed when it ends. Home,
temporary files and podman's storage are in that folder, so that tests do not read files of another run or of the developer.
Only the caches and settings of package managers are shared.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import reaper

ROOT = Path(__file__).parent.parent
WORKSPACE = "COPIER_MLOPS_WORKSPACE"
"""Variable that names the workspace. `.ci/run` makes a new one; without it tools are in .tools of this repository."""
SESSION = "COPIER_MLOPS_TESTS"
"""Variable that names the folder of a test session, and so marks every process that the session starts."""
OUTSIDE = (*(f"XDG_{kind}_HOME" for kind in ("CACHE", "CONFIG", "DATA", "STATE")), "PREFECT_HOME", "PRE_COMMIT_HOME", "GOPATH", "GOCACHE",
           "GOBIN", "DOCKER_CONFIG", "CONTAINER_HOST", "DOCKER_HOST")  # fmt: skip
"""Variables that would lead out of the session's folder."""
CACHES = {
    "UV_CACHE_DIR": ".cache/uv",
    "UV_PYTHON_INSTALL_DIR": ".local/share/uv/python",
    "PIP_CACHE_DIR": ".cache/pip",
    "GOMODCACHE": "go/pkg/mod",
    "NPM_CONFIG_CACHE": ".npm",
    "PYENV_ROOT": ".pyenv",
    "CARGO_HOME": ".cargo",
    "RUSTUP_HOME": ".rustup",
}
"""Folders of package managers and toolchains in a home."""
SETTINGS = (".config/uv", ".config/pip", ".config/go", ".pip", ".npmrc", ".netrc")
"""Settings of package managers in a home, such as the address of a mirror."""
IDENTITY = "[user]\n\tname = tests\n\temail = tests@localhost\n"


def tools() -> Path:
    """Return the folder of downloaded tools."""
    place = os.environ.get(WORKSPACE)
    return Path(place) / "tools" if place else ROOT / ".tools"


def session() -> Path:
    """Return the folder of this test session."""
    return Path(os.environ[SESSION])


def begin() -> Path:
    """Make the folder of a test session, and move this process and its children into it.

    Another process waits for the end of this one, and then removes what is left, even if this one is killed.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    # Names are short because sockets are below them: the path of a socket has 107 characters at most.
    outer = os.environ.get(WORKSPACE)
    place = Path(tempfile.mkdtemp(prefix="s-" if outer else "mlops-", dir=outer)).resolve()
    place.chmod(0o711)  # servers with accounts of their own have folders in it
    _remove_after_this_process(place)
    os.environ[SESSION] = str(place)
    os.environ.update(_home(place / "home"))
    for name in OUTSIDE:
        os.environ.pop(name, None)
    (place / "t").mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(place / "t")
    (place / "t").chmod(0o1777)
    return place


def _remove_after_this_process(place: Path) -> None:
    """Start the process that cleans up; neither its command nor its environment has the name of the folder."""
    command = [sys.executable, str(Path(reaper.__file__)), "--after", str(os.getpid())]
    silent = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=silent, stderr=silent, start_new_session=True, cwd="/", text=True
    )
    assert process.stdin
    process.stdin.write(f"{place}\n")
    process.stdin.close()
    process.returncode = 0  # it outlives this process, which does not wait for it


def _home(new: Path) -> dict[str, str]:
    """Make an empty home that shares the caches and settings of package managers; return its variables."""
    old, given = Path.home(), os.environ
    (new / ".cache").mkdir(parents=True)
    (new / ".gitconfig").write_text(IDENTITY)
    parents = {".cache": given.get("XDG_CACHE_HOME"), "go": given.get("GOPATH")}
    found = {"HOME": str(new)}
    for name, below in CACHES.items():
        first, _, rest = below.partition("/")
        cache = Path(
            given.get(name) or (Path(parents[first] or old / first) / rest if first in parents else old / below)
        )
        if cache.exists() or "CACHE" in name:
            found[name] = str(cache)
    (new / ".cache/uv").symlink_to(found["UV_CACHE_DIR"])  # for commands that drop the variables of uv
    for name in SETTINGS:
        if (old / name).exists():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).symlink_to(old / name)
    return found


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def end(keep: bool) -> None:
    """End everything that this session started, and remove its folder.

    Args:
        keep: whether its files stay, so that a developer can look for the cause of a failure.
    """
    if keep:
        (session() / reaper.KEEP).touch()
    os.chdir(ROOT)
    reaper.sweep(session())
