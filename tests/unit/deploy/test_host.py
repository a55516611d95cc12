"""What this machine is asked for: settings, an engine of containers, and processes that outlive whoever starts them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from copier_mlops.deploy import host

from ..fixture_project import ROOT


def test_settings_come_from_the_environment_then_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("# one\nexport SERVICE_PORT='8001'\nGRAFANA_PORT=1\n")
    monkeypatch.delenv("SERVICE_PORT", raising=False)
    monkeypatch.setenv("GRAFANA_PORT", "3001")
    found = host.settings()
    assert (found["SERVICE_PORT"], found["GRAFANA_PORT"]) == ("8001", "3001")


def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DOCKER", raising=False)
    with pytest.raises(host.EngineError, match="neither docker nor podman"):
        host.docker()


def test_an_engine_that_does_not_answer_is_to_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DOCKER", raising=False)
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(host.EngineError, match=r"docker is installed but does not answer\. Start it \(`docker info`"):
        host.docker()


@pytest.mark.parametrize(
    ("name", "says", "whose"),
    [
        ("docker", "[name=seccomp,profile=builtin name=cgroupns]", "1234:5678"),
        ("docker", "[name=seccomp,profile=builtin name=rootless name=cgroupns]", "0:0"),
        ("podman", "", "0:0"),
    ],
)
def test_a_container_writes_as_whoever_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str, whose: str
) -> None:
    """Where an engine has no rights, root in its containers is the account that it runs under."""
    (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(host.os, "getegid", lambda: 5678)
    for number, expected in ((1234, whose), (0, "0:0")):
        monkeypatch.setattr(host.os, "geteuid", lambda number=number: number)
        assert host.account([str(tmp_path / name)]) == expected


STUB = """#!/bin/sh
case "$1" in
  inspect) head -n 1 states; [ "$(wc -l < states)" -eq 1 ] || sed -i.old 1d states; [ -s states ];;
  logs) echo "$*"; echo "no such flag" >&2;;
esac
"""


@pytest.mark.parametrize(
    ("states", "why"),
    [
        (["running 0"], ""),
        (["restarting 2"], ""),
        (["exited 1", "running 2"], ""),  # it is restarted meanwhile
        (["exited 1", "exited 1"], "ended"),
        (["restarting 3"], "restarted 3 times"),
        (["running 21"], "restarted 21 times"),
        ([], "does not exist"),
    ],
)
def test_a_container_that_restarts_again_and_again_has_crashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(host, "SECONDS_TO_RESTART", 0)
    (tmp_path / "engine").write_text(STUB)
    (tmp_path / "engine").chmod(0o755)
    (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
    assert host.crashed([str(tmp_path / "engine")], "flights-proxy") == why
    assert (
        host.last_lines([str(tmp_path / "engine")], "flights-proxy", 4) == "logs --tail 4 flights-proxy\nno such flag"
    )


def test_settings_that_are_not_utf_8_are_refused_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes("ACTOR=Ada\n".encode("utf-8-sig"))
    assert host.variables(file) == {"ACTOR": "Ada"}
    file.write_bytes("# x\nACTOR=Jürgen\n".encode("latin-1"))
    with pytest.raises(host.EngineError, match=r"\.env is not UTF-8 \(line 2: "):
        host.variables(file)


@pytest.mark.parametrize("kindly", [True, False])
def test_a_process_ends_with_all_that_it_started(tmp_path: Path, kindly: bool) -> None:
    refuses = "" if kindly else "trap '' TERM; "
    words = ["/bin/sh", "-c", f"{refuses}sleep 60 & echo $!; wait"]
    child = host.begin(tmp_path, "one", words, {"PATH": os.environ["PATH"]})
    while not (said := (tmp_path / "one.log").read_text()).endswith("\n"):
        time.sleep(0.01)
    assert host.running(tmp_path, "one") == child.pid and host.began(int(said))
    host.end(tmp_path, "one", 20 if kindly else 0.2)
    assert child.wait(10) == (-15 if kindly else -9)
    while host.began(int(said)):
        time.sleep(0.01)
    assert not host.running(tmp_path, "one") and not (tmp_path / "one.pid").exists()


KILLED_ONCE_IT_STARTED = """
import os, signal, subprocess, sys
from pathlib import Path
from ci import machine

start = subprocess.Popen


def start_and_die(*words, **options):
    start(*words, **options)
    os.kill(os.getpid(), signal.SIGKILL)


subprocess.Popen = start_and_die
machine.begin(Path(sys.argv[1]), "one", ["/bin/sleep", "60"], {"PATH": os.environ["PATH"]})
"""


def test_a_process_is_on_record_if_whoever_starts_it_is_killed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_ONCE_IT_STARTED, str(tmp_path)], check=False, cwd=ROOT)
    last = time.monotonic() + 20
    while not (pid := host.running(tmp_path, "one")) and time.monotonic() < last:
        time.sleep(0.01)
    assert done.returncode == -signal.SIGKILL and pid
    host.end(tmp_path, "one", 20)
    assert not host.began(pid)


def test_a_process_whose_record_cannot_be_written_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "one.pid.partial").mkdir()
    child = host.begin(tmp_path, "one", ["/bin/sleep", "60"], {"PATH": os.environ["PATH"]})
    assert child.wait(10) and not host.running(tmp_path, "one")


def test_a_number_that_went_to_another_process_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "one.pid").write_text(f"{os.getpid()} Mon Jan  1 00:00:00 2024\n")
    assert not host.running(tmp_path, "one")
    host.end(tmp_path, "one", 1)  # and is left alone
    assert not (tmp_path / "one.pid").exists()
