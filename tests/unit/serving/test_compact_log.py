"""`make compact-log` compacts the log that the settings name."""

import datetime as dt
from pathlib import Path

import pytest

from copier_mlops.data.log_reader import entries
from copier_mlops.data.prediction_log import PredictionLog

from ..conftest import mlops


def test_the_log_of_the_settings_is_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREDICTION_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("LOG_KEEP_DAYS", "5")
    for days in (0, 9):
        log = PredictionLog(tmp_path / "log", 60)
        log.add([{"id": days, "at": str(dt.datetime.now(dt.UTC) - dt.timedelta(days=days))}])
        log.close()
    next((tmp_path / "log").glob("*.log")).open("ab").write(b"nonsense\n")
    assert mlops("compact-log") == 0
    assert "2 entries of 2 files" in (said := capsys.readouterr().out) and "1 damaged ones passed over" in said
    assert [one["id"] for one in entries(tmp_path / "log")] == [0]
    monkeypatch.chdir(tmp_path)
    log = PredictionLog(Path(".deploy/dev/predictions"), 60)  # of what was deployed here
    log.add([{"id": 1, "at": str(dt.datetime.now(dt.UTC))}])
    log.close()
    (tmp_path / "log/compacted.json").write_text("{")
    assert mlops("compact-log") == 1
    said = capsys.readouterr()
    assert "error: " in said.err and "1 entries of 1 files in .deploy/dev/predictions" in said.out
