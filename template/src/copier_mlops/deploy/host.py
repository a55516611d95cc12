"""What this machine is asked for: its settings, the engine of its containers, and processes that outlive whoever starts them."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from copier_mlops import ProjectError, _env_file

INSTALL = "Install docker (docs.docker.com/engine/install) or podman (apt-get install podman), or say ENGINE=process to do without"
MAX_RESTARTS = 3
SECONDS_TO_RESTART = 1.0
SECONDS_TO_LOG = 10.0
RECORD_AND_RUN = (
    'printf "%s %s\\n" "$$" "$(LC_ALL=C ps -o lstart= -p $$)" > "$0.partial" && mv "$0.partial" "$0" && exec "$@"'
)
"""A shell that records its own number and start, then becomes the command: if whoever starts it is killed, the record is still there."""


class EngineError(ProjectError):
    """An engine is not there, or does not do what it is told; the text says what is missing."""


def run(
    words: list[str], more: Mapping[str, str] | None = None, fails: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Raises:
        EngineError: If it fails and may not.
    """
    done = subprocess.run(words, env={**os.environ, **(more or {})}, capture_output=True, text=True, check=False)
    if done.returncode and not fails:
        last = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-12:])
        raise EngineError(f"`{' '.join(words)}` failed:\n{last}")
    return done


# ------------------------------------------------------------------------------------------------------- Settings


def settings() -> dict[str, str]:
    """The environment, and .env under it."""
    return {**variables(Path(".env")), **{name: value for name, value in os.environ.items() if value}}


def variables(file: Path) -> dict[str, str]:
    """Return the variables of a file such as `.env`; none if there is no such file.

    Raises:
        EngineError: If the file cannot be read as such.
    """
    try:
        return _env_file.read(file)
    except _env_file.EnvFileError as error:
        raise EngineError(str(error)) from error


def version_number(given: Mapping[str, str]) -> int | None:
    """Return VERSION, the number of a registered version; None if it is not set.

    Raises:
        EngineError: If it is no such number.
    """
    text = given.get("VERSION", "")
    if text and not (text.isascii() and text.isdecimal() and int(text)):
        raise EngineError(f"VERSION is {text}; it is the number of a registered version. `make history` lists them")
    return int(text) if text else None


# ----------------------------------------------------------------------------------------------------- Containers


def docker() -> list[str]:
    """The command of the container engine: DOCKER, or the one of docker and podman that answers.

    Raises:
        EngineError: If there is none; the text says what to install.
    """
    if settings().get("DOCKER"):
        return shlex.split(settings()["DOCKER"])
    for name in ("docker", "podman"):
        if shutil.which(name) and run([name, "info"], fails=True).returncode == 0:
            return [name]
    found = [name for name in ("docker", "podman") if shutil.which(name)]
    if found:
        start = f"Start it (`{found[0]} info` shows why it does not answer), or say ENGINE=process to do without"
        raise EngineError(f"{' and '.join(found)} is installed but does not answer. {start}")
    raise EngineError(f"there is neither docker nor podman. {INSTALL}")


def compose(engine: list[str]) -> list[str]:
    """The command of Compose for an engine: COMPOSE, or what comes with it.

    Raises:
        EngineError: If there is none.
    """
    if settings().get("COMPOSE"):
        return shlex.split(settings()["COMPOSE"])
    known = ["podman-compose"] if engine[0].endswith("podman") else ["docker-compose"]
    for words in ([*engine, "compose"], known):
        if shutil.which(words[0]) and run([*words, "version"], fails=True).returncode == 0:
            return words
    raise EngineError(f"{engine[0]} has no Compose. Install the package docker-compose-plugin, or podman-compose")


def account(engine: list[str]) -> str:
    """Who a container has to run as, so that it writes as whoever started it."""
    if os.geteuid() == 0:
        return "0:0"
    rootless = engine[0].endswith("podman")  # of which docker has a kind, too
    if not rootless:
        rootless = "rootless" in run([*engine, "info", "--format", "{{.SecurityOptions}}"], fails=True).stdout
    return "0:0" if rootless else f"{os.geteuid()}:{os.getegid()}"  # root inside is the account outside


def crashed(engine: list[str], container: str) -> str:
    """Return how a container that is to start has failed, or an empty string while it may still start.

    An engine restarts a container that ends. After MAX_RESTARTS of them the container does not start.
    """
    asked = [*engine, "inspect", "--format", "{{.State.Status}} {{.RestartCount}}", container]
    found = run(asked, fails=True).stdout.split()
    if len(found) != 2:
        return "does not exist"
    state, restarts = found[0].lower(), int(found[1])
    if restarts >= MAX_RESTARTS:
        return f"restarted {restarts} times"
    if state in ("exited", "stopped", "dead"):
        time.sleep(SECONDS_TO_RESTART)
        if run(asked, fails=True).stdout.split() == found:
            return "ended"
    return ""


def last_lines(engine: list[str], container: str, lines: int = 15) -> str:
    """Return the end of a container's log."""
    until, text = time.monotonic() + SECONDS_TO_LOG, ""
    # An engine that has just restarted a container may have nothing of the time before.
    while not text and time.monotonic() < until:
        done = run([*engine, "logs", "--tail", str(lines), container], fails=True)
        text = (done.stdout + done.stderr).strip()
        time.sleep(0 if text else 0.2)
    return text


# ------------------------------------------------------------------------------------------------------ Processes


def begin(
    folder: Path, name: str, words: list[str], environment: Mapping[str, str], place: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one, and write down which it is.

    Args:
        folder: Of its log and its number.
        name: By which it is known there.
        words: Its command.
        environment: All of it.
        place: Where it works, if not here.
    """
    file = (folder / f"{name}.pid").absolute()
    file.unlink(missing_ok=True)
    with (folder / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            ["/bin/sh", "-c", RECORD_AND_RUN, str(file), *words],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while not file.exists() and child.poll() is None:
        time.sleep(0.005)
    return child


def began(pid: int) -> str:
    """When a process was started, as ps says it; empty if there is none, or only its remains."""
    words = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    state, _, when = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else when.strip()


def running(folder: Path, name: str) -> int:
    """The process of that name if it runs, else 0; a number that went to another process is not taken for it."""
    try:
        pid, _, when = (folder / f"{name}.pid").read_text().strip().partition(" ")
    except FileNotFoundError:
        return 0
    return int(pid) if when and began(int(pid)) == when.strip() else 0


def end(folder: Path, name: str, seconds: float) -> None:
    """End a process and all that it started, kindly first; what has not ended after some seconds is killed."""
    pid, last = running(folder, name), time.monotonic() + seconds
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses to signal what has ended already
            os.killpg(pid, signal.SIGTERM)
        while running(folder, name) and time.monotonic() < last:
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # also what did not end with it
        while running(folder, name):
            time.sleep(0.05)
    (folder / f"{name}.pid").unlink(missing_ok=True)
