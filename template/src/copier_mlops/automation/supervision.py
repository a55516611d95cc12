"""The processes of `make up`, under a supervisor (supervisord.org) that restarts them when they end.

The supervisor reads `.monitoring/supervisor/supervisord.conf`, which has no secrets and no text that it could misread. Each
program is `python -m copier_mlops.automation.launch NAME DIGEST`, which becomes the command with its environment from `processes.json` in the same
folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from copier_mlops import ProjectError, _files

RESTARTS = 3  # of a process that ends within SECONDS_TO_LAST; then it stays down, and alerts report that
SECONDS_TO_LAST = 5
SECONDS_TO_STOP = 30
SECONDS_TO_ANSWER = 60.0
MAX_SOCKET_PATH = 90  # bytes: macOS allows 104, and the supervisor adds its process number
MARK = "SUPERVISOR_SERVER_URL"  # the supervisor gives it to each process
UP = ("STARTING", "RUNNING", "BACKOFF")


class SupervisionError(ProjectError):
    """The supervisor fails or does not respond; the text has the cause."""


@dataclass(frozen=True)
class Process:
    """A process of the stack.

    Attributes:
        name: name of the process, and of its log in .monitoring.
        words: its command.
        ready: text of its log that shows that it is ready, for a process that has no address.
        more: its environment, in addition to that of `make up`.
    """

    name: str
    words: list[str]
    ready: str = ""
    more: Mapping[str, str] = field(default_factory=dict)


class Supervisor:
    """The supervisor of one project.

    Args:
        folder: where logs are, relative to the project; its folder `supervisor` has the configuration, for this account only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._home = folder / "supervisor"
        self._config, self._processes = self._home / "supervisord.conf", self._home / "processes.json"
        self._socket = _socket(self._home)
        self._url = f"unix://{self._socket}"

    @property
    def _ask(self) -> Any:
        return ServerProxy("http://127.0.0.1", transport=SupervisorTransport(serverurl=self._url)).supervisor

    def runs(self) -> bool:
        """Return whether the supervisor runs."""
        try:
            return bool(self._ask.getState()["statename"] == "RUNNING")
        except OSError:
            return False

    def info(self, name: str) -> dict[str, Any]:
        """Return the supervisor's record of a process: `statename`, `pid`, `exitstatus`; empty if it has none."""
        try:
            return dict(self._ask.getProcessInfo(name))
        except (OSError, Fault):
            return {}

    def pid(self, name: str) -> int:
        """Return the number of a running process, else 0."""
        return int(self.info(name).get("pid", 0))

    def log(self, name: str) -> str:
        """Return the log of a process."""
        file = self.folder / f"{name}.log"
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    def configure(self, processes: list[Process], environment: Mapping[str, str]) -> list[str]:
        """Write the configuration, start the supervisor if it does not run, and let it read what changed.

        Args:
            processes: what shall run, in this order; what runs and is not among them stays.
            environment: environment of the supervisor, which its processes inherit.

        Returns:
            The names of those of `processes` that do not run, or stopped because their command or environment changed.
        """
        runs = self.runs()
        known = json.loads(self._processes.read_text(encoding="utf-8")) if runs else {}
        known |= {one.name: {"words": one.words, "environment": dict(one.more)} for one in processes}
        _files.private_folder(self._home)
        _files.write_text(self._processes, json.dumps(known, indent=2), mode=0o600)  # it has the token
        _files.write_text(self._config, self._text(known), sync=True)
        if runs:
            self._reload()
        else:
            self._begin(environment)
        return [one.name for one in processes if self.info(one.name).get("statename") not in UP]

    def start(self, name: str) -> None:
        """Start a process, with an empty log."""
        (self.folder / f"{name}.log").unlink(missing_ok=True)
        self._ask.startProcess(name, False)

    def stop(self, name: str) -> None:
        """Stop a process and all that it started, and wait for it."""
        if self.info(name).get("statename") in UP:
            self._ask.stopProcess(name)

    def signal(self, name: str, signal: str) -> None:
        """Send a signal such as HUP to a process."""
        self._ask.signalProcess(name, signal)

    def end(self) -> None:
        """End all processes, the last one first, then the supervisor; also what an ended supervisor left behind."""
        try:
            supervisor = psutil.Process(self._ask.getPID())
            self._ask.shutdown()
            supervisor.wait(SECONDS_TO_STOP * 8)
        except (OSError, Fault, psutil.Error):
            pass  # there is none, or it ended meanwhile; whatever is left has its mark
        self.end_leftovers()
        for file in (self._config, self._processes):
            file.unlink(missing_ok=True)

    def _text(self, processes: Mapping[str, Any]) -> str:
        common = {
            "autostart": "false",
            "autorestart": "true",
            "startsecs": SECONDS_TO_LAST,
            "startretries": RESTARTS,
            "stopwaitsecs": SECONDS_TO_STOP,
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": 1,
        }
        sections: dict[str, dict[str, object]] = {
            "unix_http_server": {"file": self._socket, "chmod": "0600"},
            "supervisorctl": {"serverurl": self._url},  # for people
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            "supervisord": {
                "nodaemon": "true",
                "logfile": self._home / "supervisord.log",
                "pidfile": self._home / "supervisord.pid",
                "minfds": 256,
                "minprocs": 64,
                **({"user": "root"} if os.geteuid() == 0 else {}),  # else it warns that it stays root
            },
        }
        for number, (name, process) in enumerate(processes.items()):
            digest = hashlib.sha256(json.dumps(process, sort_keys=True).encode()).hexdigest()[:16]
            sections[f"program:{name}"] = {
                "command": f"{_python()} -m copier_mlops.automation.launch {name} {digest}",
                "priority": number + 1,
                "stdout_logfile": self.folder / f"{name}.log",
                **common,
            }
        lines = [
            f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
            for name, values in sections.items()
        ]
        return "\n".join(lines)

    def _reload(self) -> None:
        [[added, changed, removed]] = self._ask.reloadConfig()
        for name in (*changed, *removed):
            self._ask.stopProcessGroup(name)
            self._ask.removeProcessGroup(name)
        for name in (*changed, *added):
            self._ask.addProcessGroup(name)

    def _begin(self, environment: Mapping[str, str]) -> None:
        words = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(self._config)]
        log = self._home / "supervisord.log"
        log.unlink(missing_ok=True)
        with log.open("ab") as output:
            child = subprocess.Popen(
                words,
                env={**environment, MARK: self._url},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            )
        end = time.monotonic() + SECONDS_TO_ANSWER
        while not self.runs():
            if child.poll() is not None or time.monotonic() > end:
                child.kill()
                last = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
                raise SupervisionError(f"the supervisor does not start:\n{last}")
            time.sleep(0.05)

    def end_leftovers(self) -> None:
        """End the processes with this supervisor's mark: those that outlive its kill, and itself if its socket is gone."""
        left = [process for process in psutil.process_iter() if _mark(process) == self._url]
        for kind in ("terminate", "kill"):
            for process in left:
                try:
                    getattr(process, kind)()
                except psutil.Error:
                    continue  # it ended meanwhile
            _, left = psutil.wait_procs(left, SECONDS_TO_STOP)
            if not left:
                return


def _mark(process: psutil.Process) -> str:
    try:
        return "" if process.pid == os.getpid() else str(process.environ().get(MARK, ""))
    except (psutil.Error, OSError):
        return ""  # another account's, or ended


def _python() -> str:
    """Return the interpreter as a word of the configuration, relative where the project's path could be misread there."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _socket(home: Path) -> Path:
    """Return where the supervisor listens: in its folder, or in a short one where that path is too long or has odd characters.

    Raises:
        SupervisionError: if the short folder belongs to another account.
    """
    path = home.absolute() / "socket"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH and re.fullmatch(r"[\w./+-]+", str(path), re.ASCII):
        return path
    short = Path(f"/tmp/supervisor-{os.geteuid()}")  # noqa: S108 (checked below: only this user may write there)
    short.mkdir(mode=0o700, exist_ok=True)
    state = short.lstat()
    if state.st_uid != os.geteuid() or state.st_mode & 0o077 or short.is_symlink():
        raise SupervisionError(
            f"{short} is not a folder of this account alone. Remove it, then run the same command again"
        )
    return short / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.sock"
