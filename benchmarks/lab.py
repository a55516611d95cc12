"""The place where figures are measured: a snapshot of the template, projects made from it, and commands with a clock.

Everything happens in `.cache/bench/` of this repository, which git ignores. A figure asks for what it needs; what two
figures need (an installed project) is made once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSIDE = Path(__file__).resolve().parent / "inside"
PACKAGE = "flight_delays"  # what the default answers call the project's package

# What a project reads from its environment, what would lead git, uv or DVC elsewhere, and what changes how Python
# starts: without byte code (PYTHONDONTWRITEBYTECODE) every command would compile thousands of files again.
LEADS_ELSEWHERE = (
    "ACTOR", "DATA_REMOTE", "DVC_", "GIT_", "MASK_KEY", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MLFLOW_", "NOTIFY_URLS",
    "PREFECT_", "PUSH_DATA", "PYTHON", "RETRIES", "RETRY_DELAY_SECONDS", "SOURCE_URI", "TIMEOUT_MINUTES",
    "UV_PROJECT", "VIRTUAL_ENV",
)  # fmt: skip
NOBODY = {
    "GIT_AUTHOR_NAME": "nobody",
    "GIT_AUTHOR_EMAIL": "nobody@localhost",
    "GIT_COMMITTER_NAME": "nobody",
    "GIT_COMMITTER_EMAIL": "nobody@localhost",
}


@dataclass(frozen=True)
class Done:
    """A command that ended well: how long it took and what it said."""

    seconds: float
    output: str


@dataclass(frozen=True)
class Watched(Done):
    """A command whose whole tree of processes was watched; see `inside/tree.py`."""

    peak_bytes: int
    largest_bytes: int
    by_command: Mapping[str, int]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would lead a project elsewhere.

    Half of the cores are given to each fit, as a project does by default: the threads of a boosted tree wait, spinning, for
    the one whose core was taken, up to twenty times as long, and a figure would say how busy the machine was. It holds
    for whatever is compared alike.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(LEADS_ELSEWHERE)}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2)), **kept, **more}


def call(command: list[str], cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 900) -> Done:
    """Run a command to its end.

    Args:
        command: The words.
        cwd: Where.
        env: Its whole environment; `environment()` by default.
        timeout: Seconds after which it is stopped.

    Raises:
        RuntimeError: If it ends with another code or the time is over; the text has the end of what it said.
    """
    begun = time.perf_counter()
    child = subprocess.Popen(
        command, cwd=cwd, env=dict(env or environment()), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = child.communicate(timeout=timeout)
    except BaseException as error:
        stop(child)
        if isinstance(error, subprocess.TimeoutExpired):
            raise RuntimeError(f"{' '.join(command)} was stopped after {timeout:g} s") from error
        raise
    seconds = time.perf_counter() - begun
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} in {cwd} ended with {child.returncode}:\n{output[-3000:]}")
    return Done(seconds, output)


def stop(child: subprocess.Popen[str]) -> None:
    """End a command that was started in a session of its own, kindly first, so that it can end its own children."""
    for kind, patience in ((signal.SIGINT, 20.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            return


def copier(template: Path, target: Path) -> Done:
    """`copier copy` with the default answers, as a whole process of the interpreter that runs this."""
    command = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD"]
    return call([*command, str(template), str(target)], cwd=target.parent)


def git(folder: Path, *words: str) -> str:
    """Run git in a folder."""
    return call(["git", *words], cwd=folder, env=environment(**NOBODY)).output


class Project:
    """A generated project on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def python(self) -> str:
        return str(self.folder / ".venv" / "bin" / "python")

    def make(self, target: str, **env: str) -> Done:
        """`make target`. A model that does not pass the gate (exit code 4, which make calls 2) is a failure here."""
        return call(["make", "--no-print-directory", target], self.folder, self._environment(env))

    def script(self, name: str, *words: str, timeout: float = 3600) -> Done:
        """Run a script of `inside/` with the project's interpreter, in its folder."""
        return call([self.python, str(INSIDE / name), *words], self.folder, self._environment({}), timeout)

    def watched(self, target: str, timeout: float = 900, **env: str) -> Watched:
        """`make target`, with the memory of all its processes."""
        report = self.folder / ".cache" / "tree.json"
        report.parent.mkdir(exist_ok=True)
        command = [self.python, str(INSIDE / "tree.py"), str(report), "make", "--no-print-directory", target]
        done = call(command, self.folder, self._environment({"TIMEOUT_MINUTES": str(timeout / 60), **env}), timeout)
        seen = json.loads(report.read_text())
        return Watched(seen["seconds"], done.output, seen["peak_bytes"], seen["largest_bytes"], seen["by_command"])

    def forget(self) -> None:
        """Make the folder as it was after `make setup`: no data, runs, registry, cache, server's database."""
        git(self.folder, "reset", "--quiet", "--hard")
        git(self.folder, "clean", "-ffdxq", "--exclude=/.venv/", "--exclude=/.tools/")
        for ref in git(self.folder, "for-each-ref", "--format=%(refname)", "refs/versions").split():
            git(self.folder, "update-ref", "-d", ref)
        shutil.rmtree(self._site_cache, ignore_errors=True)

    @property
    def _site_cache(self) -> Path:
        return self.folder.with_name(self.folder.name + ".dvc-site-cache")

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        # DVC keeps what it knows of a folder's files outside that folder; here it has to be forgotten with it.
        return environment(DVC_SITE_CACHE_DIR=str(self._site_cache), **more)


class Lab:
    """What the figures share.

    Args:
        folder: Where projects are made; emptied first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    @cached_property
    def template(self) -> Path:
        """The template as it is now, edits that are not committed included: it must not change between two figures."""
        copy = self.folder / "template"
        git(ROOT, "clone", "--quiet", "--no-hardlinks", str(ROOT), str(copy))
        names = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        for name in filter(None, names):
            here, there = ROOT / name, copy / name
            there.unlink(missing_ok=True)
            if here.exists():
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(here, there, follow_symlinks=False)
        git(copy, "add", "--all")
        if git(copy, "status", "--porcelain"):
            git(copy, "commit", "--quiet", "--no-verify", "--message", "As it is now")
        return copy

    def render(self, name: str) -> tuple[Project, float]:
        """A new project with the default answers, and the seconds that it took."""
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        return Project(target), copier(self.template, target).seconds

    def project(self, name: str) -> Project:
        """A project that is rendered and installed, fresh as after `make setup`."""
        target = self.folder / name
        if not target.exists():
            project, _ = self.render(name)
            project.make("setup")
        project = Project(target)
        project.forget()
        return project

    def serving(self, way: str, **answers: str) -> Project:
        """A project with one way to serve and perhaps other answers than the default ones, trained on the sample, and its bundle."""
        target = self.folder / way
        words = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD"]
        data = [f"--data={name}={value}" for name, value in {"serving": f"[{way}]", **answers}.items()]
        call([*words, *data, str(self.template), str(target)], cwd=self.folder)
        project = Project(target)
        for name in ("setup", "run", "bundle"):
            project.make(name)
        return project

    def drop(self, name: str) -> None:
        """Remove a project: ten million rows take room."""
        for folder in self.folder.glob(f"{name}*"):
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def prefect_server(self, project: Project) -> Iterator[str]:
        """A Prefect server of the project's own environment on loopback; gives its address, and ends with the block."""
        port = free_port()
        url = f"http://127.0.0.1:{port}/api"
        home = self.folder / "prefect"
        env = environment(PREFECT_HOME=str(home), PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1")
        command = [project.python, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        with (self.folder / "prefect.log").open("w") as log:
            server = subprocess.Popen(
                command, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        try:
            wait_for(f"{url}/health", server)
            yield url
        finally:
            stop(server)
            shutil.rmtree(home, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(url: str, server: subprocess.Popen[str], patience: float = 90) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    raise RuntimeError(f"nothing answers at {url}; a log in .cache/bench says why")
