"""End every process and container of a test run, then remove its folder.

    python reaper.py FOLDER             do it now
    python reaper.py --after PID        read the folder from standard input, and do it when the parent process has ended

The folder's name is unique, and the environment of every process of the run contains it. So processes are found by
the folder's name in their environment, arguments or current folder. The script needs only Python, because it also runs
where the run's packages are not installed yet.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

KEEP = "keep"
"""File that keeps a session's folder, so that a developer can look for the cause of a failure."""
NAME = re.compile(r"(ci|mlops|s)-[A-Za-z0-9_]{6,8}")
"""Names of the folders that `.ci/run` and `workspace.begin` make."""
SECONDS_TO_END = 3.0
PROC = Path("/proc")


def wait_for_parent(pid: int) -> None:
    """Wait until the parent process has ended, however it ends."""
    with contextlib.suppress(OSError):
        os.setsid()  # signals for the parent's group are not for this process
    with contextlib.suppress(AttributeError, OSError):  # only Linux has it
        descriptor = os.pidfd_open(pid)
        if os.getppid() == pid:
            select.select([descriptor], [], [])
    while os.getppid() == pid:
        time.sleep(0.2)


def processes(folder: Path) -> dict[int, bool]:
    """Return the processes that belong to a folder, and whether each is in a container or monitors one.

    The variables of the current folder do not count. The current folder of a process that has a terminal does not count
    either, because a developer may look at the files.
    """
    if not PROC.is_dir():
        return {}
    name = os.fsencode(folder)
    spared, children, found = set(_ancestors(os.getpid())), {}, {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) in spared:
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid, command = int(entry.name), (entry / "cmdline").read_bytes()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] == "Z":
                continue
            children.setdefault(int(fields[1]), []).append(pid)
            variables = (entry / "environ").read_bytes().split(b"\0")
            inside = any(name in one for one in variables if not one.startswith((b"PWD=", b"OLDPWD=", b"_=")))
            if not inside and fields[4] == "0":  # no terminal
                inside = name in command or os.fsencode((entry / "cwd").readlink()).startswith(name)
            if inside:
                found[pid] = command.split(b"\0")[0].endswith(b"conmon")
    waiting = list(found)
    while waiting:
        parent = waiting.pop()
        for pid in children.get(parent, ()):
            if pid not in found:
                found[pid] = found[parent]
                waiting.append(pid)
    return found


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        pid = int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


def end(folder: Path, containers: bool) -> None:
    """End the processes of a folder, first with SIGTERM; end containers only on request."""
    begun = time.monotonic()
    while left := [pid for pid, contained in processes(folder).items() if containers or not contained]:
        hard = containers or time.monotonic() - begun > SECONDS_TO_END
        assert time.monotonic() - begun < 60, f"processes {left} of {folder} do not end"
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if hard else signal.SIGTERM)
        time.sleep(0.1 if hard else 0.3)


def remove_containers(podman: Path) -> None:
    """Remove the containers and networks of a storage, and what is mounted there."""
    settings = {"CONTAINERS_CONF": podman / "containers.conf", "CONTAINERS_STORAGE_CONF": podman / "storage.conf"}
    environment = {**os.environ, **{name: str(file) for name, file in settings.items()}}
    commands = [["rm", "--all", "--force", "--time", "0"], ["network", "prune", "--force"]]
    if os.geteuid():  # files of other accounts of a user namespace
        commands.append(["unshare", "rm", "-rf", str(podman / "storage")])
    for words in commands if (podman / "storage").exists() else ():
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["podman", *words], env=environment, capture_output=True, check=False, timeout=120)


def unmount(folder: Path) -> None:
    """Unmount everything below a folder."""
    with contextlib.suppress(FileNotFoundError):
        for line in reversed((PROC / "self/mounts").read_text().splitlines()):
            place = line.split()[1].encode().decode("unicode_escape")
            if place.startswith(f"{folder}/"):
                subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)


def sweep(folder: Path) -> None:
    """End what belongs to a folder, and remove the folder.

    Raises:
        ValueError: If the folder is not one of a run, since everything in it would be lost.
    """
    if not (folder.is_absolute() and NAME.fullmatch(folder.name)):
        raise ValueError(f"{folder} is not the folder of a test run")
    folder = folder.resolve()
    end(folder, containers=False)
    storages = [file.parent for file in (*folder.glob("podman/storage.conf"), *folder.glob("*/podman/storage.conf"))]
    for podman in storages:
        remove_containers(podman)
    end(folder, containers=True)
    unmount(folder)
    for place in storages if (folder / KEEP).exists() else [folder]:
        for _ in range(5):  # another sweep may remove the same files
            shutil.rmtree(place, ignore_errors=True)
            if not place.exists():
                break
            time.sleep(0.2)


def main() -> None:
    if sys.argv[1] == "--after":
        folder = Path(sys.stdin.readline().rstrip("\n"))
        wait_for_parent(int(sys.argv[2]))
    else:
        folder = Path(sys.argv[1])
    sweep(folder)


if __name__ == "__main__":
    main()
