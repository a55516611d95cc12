"""Tests leave nothing on a machine and read nothing that another run left there, however they end."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import engine
import pytest
import reaper
import workspace
from conftest import PLACE, ROOT, clean_environment, end, need, once, wait_until

TESTS = Path(__file__).parent
INNER = """
import os, subprocess, tempfile, time
from pathlib import Path

def test_that_is_interrupted(tmp_path):
    assert tempfile.gettempdir().startswith(os.environ["COPIER_MLOPS_TESTS"])
    bare = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    children = [
        subprocess.Popen(["sleep", "1000"], **silent),
        subprocess.Popen(["sleep", "1000"], env=bare, **silent),  # as the replicas of a service are started
        subprocess.Popen(["sleep", "1000"], env={}, cwd=tmp_path, **silent),
        subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 0.2; done"], **silent),
    ]
    subprocess.run(["git", "config", "--list"], check=True)
    words = os.environ.get("PODMAN")
    if words:
        subprocess.run(words, shell=True, check=True)
        children += [subprocess.Popen(["true"])]
    text = "\\n".join([os.environ["COPIER_MLOPS_TESTS"], str(os.getpid()), *(str(child.pid) for child in children)])
    Path(os.environ["READY"] + ".partial").write_text(text)
    os.rename(os.environ["READY"] + ".partial", os.environ["READY"])
    time.sleep(100 if os.environ["HANG"] else 0)
"""


class Inner:
    """A test session in another process.

    Attributes:
        process: pytest's first process.
        folder: folder of the session.
        worker: number of the process that runs the test.
        children: numbers of the processes that the test started.
    """

    def __init__(self, process: subprocess.Popen[str], ready: list[str]) -> None:
        self.process = process
        self.folder = Path(ready[0])
        self.worker, *self.children = map(int, ready[1:])

    def left(self) -> list[object]:
        """What is left of the session."""
        left: list[object] = [pid for pid in self.children if alive(pid)]
        return left + ([self.folder] if self.folder.exists() else []) + list(reaper.processes(self.folder))


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def inner(tmp_path: Path, *words: str, hang: bool = True, **environment: str) -> Iterator[Inner]:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/test_inner.py").write_text(INNER)
    ready = tmp_path / "ready"
    more = {
        "PYTHONPATH": str(TESTS),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "READY": str(ready),
        "HANG": "1" if hang else "",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "conftest",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
        *words,
        "inner",
    ]
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=clean_environment(**more, **environment),
        stdout=log,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: ready.exists() or process.poll() is not None, 60)
        assert ready.exists(), (tmp_path / "log").read_text()
        yield Inner(process, ready.read_text().splitlines())
    finally:
        end(process)


def test_an_interrupted_session_leaves_nothing(tmp_path: Path) -> None:
    with inner(tmp_path) as session:
        assert all(map(alive, session.children)) and session.folder.exists()
        session.process.send_signal(signal.SIGINT)
        wait_until(lambda: not session.left(), 60, session.left)


def test_a_killed_worker_leaves_nothing(tmp_path: Path) -> None:
    with inner(tmp_path, "-p", "xdist", "-n", "1", "--max-worker-restart", "0", CI="true") as session:
        os.kill(session.worker, signal.SIGKILL)
        wait_until(lambda: session.process.poll() is not None, 60)
        wait_until(lambda: not session.left(), 60, session.left)


@pytest.mark.parametrize("folder", ["", "/", "/home", "mlops-abcdefgh"])
def test_only_the_folder_of_a_run_is_removed(folder: str) -> None:
    with pytest.raises(ValueError, match="is not the folder of a test run"):
        reaper.sweep(Path(folder))


def test_a_session_that_passes_leaves_nothing(tmp_path: Path) -> None:
    """A session does not read the settings of the account, which git would refuse here."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.gitconfig").write_text("[not valid\n")
    with inner(tmp_path, hang=False, HOME=str(tmp_path / "home")) as session:
        assert session.process.wait(60) == 0, (tmp_path / "log").read_text()
        assert not session.left()  # without waiting for the process that cleans up after a kill
    assert [path.name for path in (tmp_path / "home").iterdir()] == [".gitconfig"]


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """Shell commands that start containers in the storage of a session, from an image with one program."""
    need(engine.bring("podman", "runc"))
    root = tmp_path / "root"
    for name in ("sh", "sleep"):
        program = shutil.which(name) or ""
        libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.split()
        for file in (program, *(word for word in libraries if word.startswith("/"))):
            target = root / file.removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(file).resolve(), target)
    subprocess.run(["tar", "-C", str(root), "-cf", str(tmp_path / "tiny.tar"), "."], check=True)
    image = "podman import -q --change 'ENV PATH=/usr/bin:/bin' tiny.tar localhost/tiny:1 >/dev/null"
    start = "podman run -q -d --restart always --volume data:/data --name"
    return f"cd {tmp_path} && {image} && {start} one localhost/tiny:1 sleep 1000 && {start} two localhost/tiny:1 sh -c 'sleep 1; exit 1'"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_killed_session_leaves_no_process_and_no_container(tmp_path: Path, tiny: str, number: signal.Signals) -> None:
    with inner(tmp_path, PODMAN=tiny) as session:
        found = {**os.environ, **{name: f"{session.folder}/podman/{file}" for name, file in
                 (("CONTAINERS_CONF", "containers.conf"), ("CONTAINERS_STORAGE_CONF", "storage.conf"))}}  # fmt: skip
        listed = subprocess.run(
            ["podman", "ps", "-aq", "--no-trunc"], env=found, capture_output=True, text=True, check=True
        )
        containers = listed.stdout.split()
        assert len(containers) == 2
        session.process.send_signal(number)
        wait_until(lambda: not session.left(), 60, session.left)
    commands = b"".join(file.read_bytes() for file in _readable(Path("/proc").glob("[0-9]*/cmdline")))
    assert not any(name.encode() in commands for name in containers)
    assert str(session.folder) not in Path("/proc/mounts").read_text()


def _readable(files: Iterator[Path]) -> Iterator[Path]:
    for file in files:
        try:
            file.read_bytes()
        except OSError:
            continue
        yield file


def test_nothing_is_read_from_outside_the_session(tmp_path: Path) -> None:
    """Home, temporary files, podman and Go lie in its folder; only package managers share their caches and settings."""
    session = workspace.session()
    assert tmp_path.is_relative_to(session) and Path(tempfile.gettempdir()).is_relative_to(session)
    told = clean_environment()
    assert {Path(told[name]).is_relative_to(session) for name in ("HOME", "TMPDIR", "MYPY_CACHE_DIR")} == {True}
    assert not [name for name in workspace.OUTSIDE if name in told]
    shared = {path.relative_to(told["HOME"]).as_posix() for path in Path(told["HOME"]).rglob("*") if path.is_symlink()}
    assert shared <= {".cache/uv", *workspace.SETTINGS}
    if shutil.which("go"):
        caches = subprocess.run(["go", "env", "GOCACHE", "GOENV"], env=told, capture_output=True, text=True, check=True)
        assert all(Path(line).is_relative_to(session) for line in caches.stdout.split())
    words = ["make", "-s", "-C", str(ROOT), "--eval", "tools: ; @echo $(TOOLS)", "tools"]
    found = subprocess.run(words, env={**told, workspace.WORKSPACE: "/new"}, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "/new/tools"
    need(engine.bring("podman", "runc"))
    info = json.loads(engine.podman("info", "--format", "json").stdout)["store"]
    for name in ("configFile", "graphRoot", "runRoot", "volumePath", "imageCopyTmpDir"):
        assert Path(info[name]).is_relative_to(session), name
    same = subprocess.run(
        ["podman", "info", "--format", "{{.Store.GraphRoot}}"], env=told, capture_output=True, text=True, check=True
    )
    assert same.stdout.strip() == info["graphRoot"]


def test_a_changed_recipe_is_another_image() -> None:
    recipe = engine.MONITORING["alertmanager"]
    assert recipe.parent is not None
    changed = [
        dataclasses.replace(recipe, entrypoint=("/bin/true",)),
        dataclasses.replace(recipe, files=(("a", "b"),)),
        dataclasses.replace(recipe, parent=dataclasses.replace(recipe.parent, packages=("prometheus-alertmanager",))),
    ]
    assert len({recipe.reference, *(other.reference for other in changed)}) == 4
    assert "prometheus-alertmanager" in recipe.parent.packages


def test_the_ci_run_has_a_new_folder_and_leaves_nothing(tmp_path: Path) -> None:
    """With a `make` that starts a process and then hangs, like a test that is interrupted."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/make").write_text(
        '#!/bin/sh\necho "$1 $COPIER_MLOPS_WORKSPACE" >> "$CALLS"\n[ "$1" != test ] || { sleep 1000 & sleep $HANG; }\n'
    )
    (tmp_path / "bin/make").chmod(0o755)
    calls = tmp_path / "calls"
    more = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "CALLS": str(calls)}
    folders = set()
    for hang, number in (("0", 0), ("1000", signal.SIGTERM), ("1000", signal.SIGKILL)):
        calls.unlink(missing_ok=True)
        process = subprocess.Popen(
            [ROOT / ".ci/run"],
            env=clean_environment(**more, HANG=hang, COPIER_MLOPS_WORKSPACE="/nowhere"),
            start_new_session=True,
        )
        wait_until(lambda: calls.exists() and "test " in calls.read_text(), 30)
        if number:
            process.send_signal(number)
        assert process.wait(30) == -number or number == signal.SIGTERM
        (folder,) = {Path(line.split()[1]) for line in calls.read_text().splitlines()}
        folders.add(folder)
        wait_until(lambda folder=folder: not folder.exists() and not reaper.processes(folder), 30)
        end(process)
    assert len(folders) == 3


def test_a_shared_folder_has_one_maker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path))

    def make(folder: Path) -> None:
        folder.mkdir()

    def other(folder: Path) -> None:
        folder.mkdir()

    assert once("shared/project", make) == once("shared/project", make)
    with pytest.raises(AssertionError, match="another name"):
        once("shared/project", other)
