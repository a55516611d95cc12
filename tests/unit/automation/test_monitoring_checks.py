"""`mlops check-monitoring` runs the tools of Prometheus and Alertmanager, and checks the routes of alerts."""

import fcntl
from pathlib import Path

import pytest

from copier_mlops import _exit_codes

from ..conftest import mlops

TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >> asked
case "$*" in *"${BROKEN:-nothing}"*) exit 1;; esac
"""


@pytest.fixture(autouse=True)
def _tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rules", "tests"):
        folder = tmp_path / "monitoring/prometheus" / name
        folder.mkdir(parents=True)
        for file in ("a.yml", "b.yml"):
            (folder / file).touch()
    for name in ("promtool", "amtool"):
        (tmp_path / name).write_text(TOOL)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_all_of_it_is_checked() -> None:
    assert mlops("check-monitoring") == 0
    asked = Path("asked").read_text().splitlines()
    assert asked[0] == "promtool check rules monitoring/prometheus/rules/a.yml monitoring/prometheus/rules/b.yml"
    assert [line.split()[1] for line in asked] == ["check", "check", "test", "check-config", *["config"] * 5]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("check rules", "`promtool check rules "),
        ("check-config", "`amtool check-config "),
        ("severity=critical", "an alert without an action does not go to person"),
        ("action=roll_back", "an alert with the action roll_back does not go to loop and person"),
    ],
)
def test_what_is_not_valid_ends_the_command(
    broken: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BROKEN", broken)
    assert mlops("check-monitoring") == 1
    assert capsys.readouterr().err.startswith(f"error: {says}")


def test_a_policy_that_is_not_valid_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    Path("monitoring/policy.yaml").write_text("retrain: 3\n")
    assert mlops("check-monitoring") == 1
    assert "line 1" in capsys.readouterr().err
    assert not Path("asked").exists()


def test_a_tool_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert mlops("check-monitoring") == 1
    assert "promtool or amtool is not installed" in capsys.readouterr().err


def test_two_commands_do_not_change_the_stack_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".monitoring").mkdir()
    with Path(".monitoring/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert mlops("monitoring-down") == _exit_codes.TRY_LATER
    assert "is at it already" in capsys.readouterr().err
