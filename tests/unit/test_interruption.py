"""Ctrl-C ends a command within seconds, with all that it started, and prints what is kept."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import copier_mlops as project
from copier_mlops import _interruption

STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "child = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)'\n"
    "one = subprocess.Popen([sys.executable, '-c', child], start_new_session=True, stdout=subprocess.PIPE)\n"
    "one.stdout.readline()\n"
)
WORK = "    pool.submit(time.sleep, 60)\n    print(one.pid, flush=True)\n    time.sleep(60)\n"
HANDLED = "from copier_mlops import _interruption\n_interruption.handle()\n"


def default_handler() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it


@contextmanager
def started(code: str, ignored: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(project.__file__).parent.parent)},
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else default_handler,  # noqa: PLW1509
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def runs(pid: int) -> bool:
    """Whether a process is there; one that has ended and was not yet collected is not."""
    with suppress(OSError):
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_a_command_that_ends_in_order_has_no_time_limit() -> None:
    code = (
        f"{HANDLED}_interruption.without_time_limit()\nimport time\nprint(1, flush=True)\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n"
        f"    time.sleep({_interruption.SECONDS_TO_END + 0.5})\n    print('in order', flush=True)\n"
    )
    with started(code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "in order\n"
        assert process.wait(20) == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_a_command_ends_with_its_processes(at_once: bool) -> None:
    """Also where a thread still works, and a process of another session does not end with SIGTERM."""
    wait = "from concurrent.futures import ThreadPoolExecutor\n" + (
        "with _interruption.at_once(lambda: 'the data is kept'), ThreadPoolExecutor() as pool:\n"
        if at_once
        else "with ThreadPoolExecutor() as pool:\n"
    )
    with started(HANDLED + STUBBORN + wait + WORK) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - begun < 10
    assert process.returncode == 130
    assert errors == f"error: {'the data is kept' if at_once else _interruption.STOPPED}\n"
    assert not runs(child)


def test_a_background_job_goes_on_ignoring_ctrl_c() -> None:
    with started(HANDLED + "import time\nprint(1, flush=True)\ntime.sleep(0.5)\nprint(2)\n", ignored=True) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "2\n"
    assert process.returncode == 0
