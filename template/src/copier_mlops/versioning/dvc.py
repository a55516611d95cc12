"""DVC: one child process that owns the order of the stages, their cache, and the versions of the data."""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import yaml

from copier_mlops import InProgressError, ProjectError, UnreachableError, _files, _locks
from copier_mlops._progress import Follower
from copier_mlops.settings import Paths, Settings

CACHE = Path(".cache")
SECONDS_TO_STOP = 10.0
SECONDS_TO_LOOK = 0.1


RESOLVED = {"RUN_RESOLVED": "1"}
"""Variables of a `dvc repro` whose caller has written run.yaml: the stage `resolve` has nothing to do."""

SILENT = "resolve"
"""The stage that DVC starts each time."""


class DvcError(ProjectError):
    """DVC could not do what it was asked; its own words stand before this."""


_held: list[Path] = []
_stages: list[str] = []  # that this process has seen begin; the last one is an empty text after all have ended


def kept() -> str:
    """Return what is kept if the run of this process is stopped at this moment, and how to resume."""
    if not _stages:
        return "stopped before a stage began; nothing has changed. Run the same command again to resume."
    if not _stages[-1]:
        return "stopped after the stages; their outputs are kept. Run the same command again to resume."
    search = " and the finished trials of the search" if _stages[-1] == "train" else ""
    return f"stopped during the stage {_stages[-1]}. Finished stages{search} are kept. Run the same command again to resume."


@contextlib.contextmanager
def only_run(again: bool = False) -> Iterator[None]:
    """Hold the folder for one run at a time. The kernel lets go when the process ends, however it ends.

    Args:
        again: Whether this process may hold it already.

    Raises:
        InProgressError: If another run holds it.
    """
    if again and Path.cwd() in _held:
        yield
        return
    with _locked(CACHE / "run.lock", wait=None):
        _held.append(Path.cwd())
        try:
            yield
        finally:
            _held.pop()


@contextlib.contextmanager
def only_stage() -> Iterator[None]:
    """Hold the stages' outputs: a stage whose parents were killed finishes before the next one begins."""
    with _locked(CACHE / "stage.lock", wait="a stage of an interrupted run"):
        yield


@contextlib.contextmanager
def _locked(path: Path, wait: str | None) -> Iterator[int]:
    """Lock a file; with `wait`, wait for whom that text describes, else give up at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = f"{os.getpid()} since {time.strftime('%H:%M:%S')}\n"
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(_locks.locked(path, wait=False, holder=holder))
        except _locks.HeldError as error:
            other = error.holder or "unknown"
            if wait is None:
                raise InProgressError(
                    f"another run is going on in this folder (process {other}). Wait for it, or stop it with "
                    f"`kill {other.split()[0]}`; what it has finished is kept."
                ) from None
            print(f"waiting for {wait} (process {other}) to finish", flush=True)
            descriptor = stack.enter_context(_locks.locked(path, holder=holder))
        yield descriptor


def repro(
    settings: Settings,
    arguments: tuple[str, ...] = ("--all-pipelines",),
    say: Callable[[str], None] = print,
    folder: Path = Path(),
    environment: dict[str, str] | None = None,
    early: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Bring all outputs up to date: `dvc repro` as one child process in a group of its own.

    Args:
        settings: The time limit, and the environment of the child.
        arguments: Words for `dvc repro`; by default our stages and those in pipelines/*/dvc.yaml.
        say: Is called with each line that a person wants to see.
        folder: The project to work in.
        environment: Replaces the child's environment.
        early: Is called with each line that was printed before this call, by a run that `ahead` began.

    Returns:
        Seconds by stage, of those that ran; a stage that had nothing to do is not in it.

    Raises:
        DvcError: If a stage fails or the time limit is over. Finished stages are kept, the next call goes on from there.
    """
    if _begun and folder == Path() and environment is None:
        return _begun.pop().result(say, early)
    return _repro(settings, arguments, say, folder, environment)


def _repro(
    settings: Settings,
    arguments: tuple[str, ...],
    say: Callable[[str], None],
    folder: Path = Path(),
    environment: dict[str, str] | None = None,
    cancelled: threading.Event | None = None,
) -> dict[str, float]:
    # The child inherits the lock and writes to a file, not to a pipe that breaks: if only the caller is killed, training
    # goes on, and the next run waits for it instead of training twice at once.
    log = CACHE.absolute() / "repro.log"
    with _locked(CACHE.absolute() / "repro.lock", wait="the training of an interrupted run") as lock:
        with log.open("w") as file:
            child = subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={
                    **(environment or {**settings.environment(), "PATH": _path(), **RESOLVED}),
                    "PYTHONUNBUFFERED": "1",
                },
                start_new_session=True,
                pass_fds=(lock,),
            )
        limit = settings.timeout_minutes * 60
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            stop(child, SECONDS_TO_STOP)

        timer = threading.Timer(limit, expire)
        timer.start()
        try:
            seconds, failed = _follow(child, log, folder, say, cancelled)
        except BaseException:  # also a cancelled flow and Ctrl-C: nothing may go on training behind our back
            stop(child, SECONDS_TO_STOP)
            raise
        finally:
            timer.cancel()
    if expired.is_set():
        raise DvcError(
            f"the stages were stopped after {settings.timeout_minutes:g} minutes. Finished stages are kept: "
            "run the same command again, with TIMEOUT_MINUTES set higher if it is the work that takes so long."
        )
    if child.returncode:
        raise DvcError(f"stage {failed} failed; what it said stands above. Stages before it are kept.")
    check_output(Paths.BUNDLE, folder)
    return seconds


def complete_params(effective: Mapping[str, Any], file: Path = Path("params.yaml")) -> bool:
    """Add the keys to params.yaml that a stage depends on and that it leaves out, each with its default.

    DVC cannot record a stage whose parameter is not in the file.

    Args:
        effective: All settings, with defaults.
        file: The file. Its comments are kept.

    Returns:
        Whether the file was changed.
    """
    stages = _yaml(Path("dvc.yaml")).get("stages", {}).values()
    dependencies = [one for stage in stages for one in stage.get("params", ()) if isinstance(one, str)]
    given = _yaml(file)
    wanted = [key for key in dict.fromkeys(dependencies) if _value(effective, key) is not None]
    missing = [key for key in wanted if _value(given, key) is None]
    if not missing:
        return False
    from ruamel.yaml import YAML

    editor = YAML()
    editor.preserve_quotes, editor.width = True, 1000
    content = editor.load(file)
    for key in missing:
        *sections, name = key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = _value(effective, key)
    with _files.replacing(file, partial=CACHE / file.name) as partial, partial.open("w", encoding="utf-8") as text:
        editor.dump(content, text)
    print(f"note: {file} has {', '.join(missing)} now, with the default: dvc.yaml names each of them", flush=True)
    return True


def _yaml(file: Path) -> dict[str, Any]:
    return (yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file.exists() else {}


def _value(content: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key such as `gate.metric`; None without one."""
    found: Any = content
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def check_output(output: Path, folder: Path = Path()) -> None:
    """Compare the files of an output with its hash in dvc.lock, which git versions.

    DVC trusts its cache: it reports an output as up to date even if a remote store returned other bytes for it. An output
    that dvc.lock does not record, or that is not there, is accepted.

    Args:
        output: Path of a folder that a stage writes, as dvc.yaml names it.
        folder: The project.

    Raises:
        DvcError: If the files differ.
    """
    lock = folder / Paths.LOCK
    stages = _yaml(lock).get("stages", {})
    outs = [out for stage in stages.values() for out in stage.get("outs", ())]
    recorded = next((out["md5"] for out in outs if out["path"] == output.as_posix() and out.get("hash") == "md5"), "")
    if recorded and (folder / output).exists() and recorded != (actual := _hash(folder / output)):
        raise DvcError(
            f"{output} has the hash {actual}, but {Paths.LOCK} records {recorded}: its files were changed, or the remote "
            f"store returned other ones. Find out who can write there, remove {output} and .dvc/cache, then run: make pull"
        )


def _hash(folder: Path) -> str:
    """Return the hash that DVC gives to a folder."""
    files = sorted((path.relative_to(folder).parts, path) for path in folder.rglob("*") if path.is_file())
    entries = [
        {"md5": hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(), "relpath": "/".join(parts)}
        for parts, path in files
    ]
    listed = json.dumps(entries, sort_keys=True).encode()
    return f"{hashlib.md5(listed, usedforsecurity=False).hexdigest()}.dir"


class _Ahead(threading.Thread):
    """A `dvc repro` that was begun before anybody asked for its result."""

    def __init__(self, settings: Settings, arguments: tuple[str, ...]) -> None:
        super().__init__(daemon=True)
        self.settings, self.arguments = settings, arguments
        self.lines: list[str] = []
        self.say: Callable[[str], None] = lambda line: print(line, flush=True)
        self.lock = threading.Lock()
        self.cancelled = threading.Event()
        self.seconds: dict[str, float] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.seconds = _repro(self.settings, self.arguments, self._pass_on, cancelled=self.cancelled)
        except BaseException as error:  # for whoever asks
            self.error = error

    def _pass_on(self, line: str) -> None:
        with self.lock:
            self.lines.append(line)
            self.say(line)  # whoever that is by now

    def result(self, say: Callable[[str], None], early: Callable[[str], None]) -> dict[str, float]:
        """Wait for it; what it still has to say goes to `say`."""
        with self.lock:
            self.say = say
            lines = list(self.lines)
        for line in lines:
            early(line)
        try:
            while self.is_alive():
                self.join(SECONDS_TO_LOOK)
        except BaseException:
            self.cancel()
            raise
        if self.error:
            raise self.error
        return self.seconds

    def cancel(self) -> None:
        self.cancelled.set()
        self.join()


_begun: list[_Ahead] = []


@contextlib.contextmanager
def ahead(settings: Settings) -> Iterator[None]:
    """Begin to bring all outputs up to date while other things start; the next `repro` waits for that.

    What nobody has waited for when the block ends is stopped; finished stages are kept.
    """
    job = _Ahead(settings, ("--all-pipelines",))
    _begun.append(job)
    job.start()
    try:
        yield
    finally:
        _begun.clear()
        job.cancel()


def _path() -> str:
    """PATH with this environment's commands first, so that a stage's command is this project's."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


_RUNNING = re.compile(r"Running stage '([^']+)'")
_NOISE = re.compile(
    r"^(> |Stage '.*' (didn't change|is cached)|WARNING: '.*' is empty|Updating lock file|Generating lock file|Use `dvc push`|To track the changes"
    r"|\s*git add|To enable auto staging|\s*dvc config core.autostage|Verifying data sources|Data and pipelines are up"
    r"|ERROR: failed to reproduce '[^']*': failed to run: |'[\w/.-]+' didn't change|\s*$)"
)


def _follow(
    child: subprocess.Popen[bytes],
    log: Path,
    folder: Path,
    say: Callable[[str], None],
    cancelled: threading.Event | None,
) -> tuple[dict[str, float], str]:
    """Pass on what a person wants to see of DVC's output, and time the stages by it."""
    seconds: dict[str, float] = {}
    stage, begun = "", time.perf_counter()
    follower = Follower(folder)
    with contextlib.closing(follower), log.open(errors="replace") as file:
        for line in _lines(child, file):
            follower.look()
            if cancelled is not None and cancelled.is_set():
                raise DvcError("the stages were stopped before their end; finished ones are kept.")
            started = _RUNNING.search(line)
            if started:
                now = time.perf_counter()
                if stage:
                    seconds[stage] = now - begun
                stage, begun = started[1], now
                if stage != SILENT:
                    _stages.append(stage)
                    follower.say(f"{stage} ...", say)
            elif not _NOISE.match(line):
                follower.say("  " + line.rstrip(), say)
    if stage:
        seconds[stage] = time.perf_counter() - begun
    _stages.append("")
    seconds.pop(SILENT, None)
    return seconds, stage or "dvc"


def _lines(child: subprocess.Popen[bytes], file: TextIO) -> Iterator[str]:
    """The lines of a growing file, until the process that writes it has ended; an empty one where nothing was added."""
    rest = ""
    while True:
        ended = child.poll() is not None  # asked before reading: what it wrote last is read then
        rest += file.read()
        *whole, rest = rest.split("\n")
        yield from whole
        if ended:
            if rest:
                yield rest
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(SECONDS_TO_LOOK)
        yield ""


def stop(child: subprocess.Popen[bytes], seconds: float) -> None:
    """End a whole process group, kindly first; what has not ended after some seconds is killed."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
            return


def push(settings: Settings) -> None:
    """Copy the data's versions to the remote store.

    Raises:
        UnreachableError: If it cannot be reached or refuses.
    """
    _remote(settings, "push", "nothing is lost: the versions stay in .dvc/cache, and `make push` tries again")


def pull(settings: Settings) -> None:
    """Fetch the data that dvc.lock names.

    Raises:
        UnreachableError: If the store cannot be reached or lacks it.
    """
    _remote(settings, "pull", "`make pipeline` makes from the source what the store does not have")


def _remote(settings: Settings, verb: str, comfort: str) -> None:
    address = configure_remote(settings)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", verb, "--quiet"],
        capture_output=True,
        check=False,
        text=True,
        env={**settings.environment(), "PATH": _path()},
        start_new_session=True,
        timeout=settings.timeout_minutes * 60,
    )
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip() and "hint" not in line.lower()]
        said = "\n  ".join(words)
        plugin = (
            ""
            if "No module" not in done.stderr and "dvc-s3" not in done.stderr
            else " Install the plug-in: uv add dvc-s3."
        )
        raise UnreachableError(f"the data could not be {verb}ed, store {address}:\n  {said}\n{comfort}.{plugin}")


def configure_remote(settings: Settings, folder: Path = Path(".dvc")) -> str:
    """Point DVC to the store of the environment, where one is set, and return its address.

    DVC verifies the hashes of what it fetches, also in projects whose .dvc/config lacks that setting. The settings are in
    .dvc/config.local, which git ignores. It never contains a credential.
    """
    shared = configparser.ConfigParser(interpolation=None)
    shared.read(folder / "config")
    address = settings.data_remote or shared.get("'remote \"storage\"'", "url", fallback="unknown")
    local = configparser.ConfigParser(interpolation=None)
    local.read(folder / "config.local")
    section = "'remote \"storage\"'"
    local.remove_section(section)
    verified = shared.has_option(section, "verify") or not shared.has_section(section)
    if settings.data_remote or settings.data_remote_endpoint or not verified:
        local.add_section(section)
        if not verified:
            local.set(section, "verify", "true")
        if settings.data_remote:
            path = settings.data_remote
            local.set(section, "url", path if "://" in path else str(Path(path).absolute()))
        if settings.data_remote_endpoint:
            local.set(section, "endpointurl", settings.data_remote_endpoint)
    if local.sections() or (folder / "config.local").exists():
        with (folder / "config.local").open("w") as file:
            local.write(file)
    return address
