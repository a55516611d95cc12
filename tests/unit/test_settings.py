"""The environment wins over .env, .env over the defaults, and a secret does not show."""

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

from copier_mlops import ProjectError, _exit_codes
from copier_mlops.settings import Settings, SettingsError

from .conftest import mlops


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_where_a_value_comes_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("SOURCE_URI=from the file\nDATA_REMOTE=from the file\nRETRIES=\nUNKNOWN=1\n")
    monkeypatch.setenv("DATA_REMOTE", "from the environment")
    settings = Settings()
    assert settings.source_uri == "from the file"
    assert settings.data_remote == "from the environment"
    assert settings.retries == 2  # an empty line sets nothing


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false", ""])
def test_stages_do_not_depend_on_the_login_shell(folder: Path, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("SHELL", shell)
    shell_of_stages = Settings().environment()["SHELL"]
    assert Path(shell_of_stages).name in ("bash", "sh")
    assert subprocess.run([shell_of_stages, "-c", "exit 7"], check=False).returncode == 7


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASK_KEY", "hunter2")
    monkeypatch.setenv("NOTIFY_URLS", "json://user:hunter2@localhost")  # pragma: allowlist secret
    settings = Settings()
    assert "hunter2" not in repr(settings) + str(settings.model_dump())
    assert settings.mask_key.get_secret_value() == "hunter2"


def test_who_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().who == "tester"
    monkeypatch.setenv("ACTOR", "")
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert Settings().who == "ada"

    def nobody() -> str:
        raise OSError("this account has no name")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert Settings().who == "unknown"


def test_the_tools_are_quiet_unless_told_otherwise(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "PREFECT_SERVER_ANALYTICS_ENABLED", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    lines = ["DO_NOT_TRACK=0", "MLFLOW_DISABLE_TELEMETRY=true", "AWS_ACCESS_KEY_ID=mine", ""]
    (folder / ".env").write_text("\n".join(lines))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    Settings().apply()
    assert os.environ["DO_NOT_TRACK"] == "0"  # .env
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"  # the environment
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"  # the default
    assert os.environ["PREFECT_HOME"] == str(folder / ".prefect")  # and nothing in the home directory
    assert os.environ["AWS_ACCESS_KEY_ID"] == "mine"  # for DVC and MLflow


def test_dvc_keeps_its_pickled_index_in_the_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "shared"))
    (folder / ".env").write_text(f"DVC_SITE_CACHE_DIR={folder / 'shared'}\n")
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    code = "from dvc.repo import Repo; repo = Repo(); repo.state; print(repo.site_cache_dir)"
    words, site = [sys.executable, "-c", code], folder / ".dvc/tmp/site"
    child = Settings().environment()
    printed = subprocess.run(
        words, cwd=folder, env=child, umask=0o022, capture_output=True, text=True, check=True
    ).stdout
    assert Path(printed.strip()).parent == site / "repo"
    assert not (folder / "shared").exists()
    for place in (site, site / "repo", Path(printed.strip())):
        assert not place.stat().st_mode & 0o002, f"{place} is writable for every user"


def test_a_setting_is_kept_in_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / ".env"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert Settings().keep("MLFLOW_TRACKING_URI", "sqlite:///some place/mlflow.db")
    assert Settings().mlflow_tracking_uri == "sqlite:///some place/mlflow.db"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("ACTOR=Ada\n# MLFLOW_TRACKING_URI=\n export MLFLOW_TRACKING_URI=sqlite:///a.db\nRETRIES=1")
    assert Settings().keep("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert file.read_text() == "ACTOR=Ada\n# MLFLOW_TRACKING_URI=\nMLFLOW_TRACKING_URI=http://127.0.0.1:5000\nRETRIES=1"
    assert Settings().keep("SOURCE_URI", "data")
    assert file.read_text().endswith("\nRETRIES=1\nSOURCE_URI=data\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:6000")
    assert not Settings().keep("MLFLOW_TRACKING_URI", "http://127.0.0.1:7000")  # the environment wins over it
    assert not (folder / ".cache/env").exists()


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(folder: Path) -> None:
    (folder / ".env").write_bytes("RETRIES=3\nACTOR=Jürgen\n".encode("latin-1"))
    with pytest.raises(ProjectError, match=r"\.env is not UTF-8 .*line 2.*iconv -f latin1"):
        Settings()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("RETRIES", "many", "RETRIES is 'many': input should be a valid integer"),
        ("RETRIES", "-1", "RETRIES is '-1': input should be greater than or equal to 0"),
        ("SERVICE_PORT", "99999", "SERVICE_PORT is '99999': input should be less than or equal to 65535"),
        ("SERVICE_ENVIRONMENT", "live", "SERVICE_ENVIRONMENT is 'live': input should be 'dev', 'staging' or 'prod'"),
        ("ANSWER_SECONDS", "nan", "ANSWER_SECONDS is 'nan': input should be a finite number"),
        ("TIMEOUT_MINUTES", "inf", "TIMEOUT_MINUTES is 'inf': input should be a finite number"),
        ("LOG_FLUSH_SECONDS", "1e300", "LOG_FLUSH_SECONDS is '1e300': input should be less than or equal to 3600"),
    ],
)
def test_a_setting_that_is_not_valid_is_named_with_its_value(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as told:
        Settings()
    assert str(told.value).startswith(f"the settings in .env or the environment cannot be used: {says}")


COMMANDS = (
    ["run"],
    ["history"],
    ["compact-log"],
    ["serve-stream"],
    ["precompute", "rows.csv"],
    ["batch-predict", "rows.csv", "answers", "--bundle", "dist/bundle"],
    ["schedule-batch", "rows.csv", "answers"],
    ["explain", "1"],
    ["bundle"],
    ["import-labels", "labels.csv"],
    ["monitor"],
    ["alert-webhook"],
    ["notify"],
    ["backtest"],
)


@pytest.mark.parametrize("broken", ["RETRIES=many\n", "ACTOR=J\xfcrgen\n"])
def test_each_command_reports_settings_that_cannot_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    monkeypatch.delenv("RETRIES", raising=False)
    (folder / ".env").write_text(broken, encoding="latin-1")
    said = "RETRIES is 'many'" if "RETRIES" in broken else ".env is not UTF-8"
    code = _exit_codes.USAGE if "RETRIES" in broken else _exit_codes.ERROR
    for words in COMMANDS:
        assert mlops(*words) == code, words
        error = capsys.readouterr().err
        assert error.startswith("error: ") and said in error, words


def test_a_mark_before_the_first_name_is_not_part_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_bytes("ACTOR=Ada\nAWS_ACCESS_KEY_ID=mine\n".encode("utf-8-sig"))
    monkeypatch.delenv("ACTOR")
    assert Settings().who == "Ada"
    assert Settings().keep("ACTOR", "Grace")
    assert (folder / ".env").read_text() == "ACTOR=Grace\nAWS_ACCESS_KEY_ID=mine\n"
