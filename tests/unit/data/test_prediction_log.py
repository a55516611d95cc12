"""What was answered is on disk soon, whole, and once; whatever dies meanwhile."""

import datetime as dt
import inspect
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from copier_mlops import _locks
from copier_mlops.data import log_compaction, log_reader, prediction_log
from copier_mlops.data.log_compaction import compact
from copier_mlops.data.log_reader import entries
from copier_mlops.data.prediction_log import LogError, PredictionLog, framed

TODAY = dt.datetime.now(dt.UTC)


def entry(number: int, days_ago: int = 0) -> dict[str, Any]:
    at = TODAY - dt.timedelta(days=days_ago)
    return {
        "prediction": f"p{number}", "id": number, "version": 3, "at": at.isoformat(), "way": "online",
        "inputs": {"x": number / 3, "name": "Ångström\nb", "gone": None}, "answer": {"score": 0.25},
    }  # fmt: skip


def numbers(folder: Path) -> list[int]:
    return sorted(one["id"] for one in entries(folder))


def written(folder: Path, *numbers: int, days_ago: int = 0) -> None:
    log = PredictionLog(folder, 60)
    log.add([entry(number, days_ago) for number in numbers])
    log.close()


def run(code: str, *words: object, wait: bool = True) -> "subprocess.Popen[str]":
    """Execute code in a process of its own, which knows the log and `entry`."""
    given = f"import datetime as dt, os, sys, time\nfrom pathlib import Path\nfrom typing import Any\nfrom {prediction_log.__name__} import *\n"
    given += f"TODAY = dt.datetime.now(dt.UTC)\n{inspect.getsource(entry)}\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", given + textwrap.dedent(code), *map(str, words)],
        stdout=subprocess.PIPE, env=environment, text=True,
    )  # fmt: skip
    if wait:
        assert process.wait(60) == 0
    return process


# ------------------------------------------------------------------------------------------------------ Writing


def test_all_that_was_added_is_there_after_closing(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log", 60)
    for number in range(0, 5000, 50):
        log.add([entry(one) for one in range(number, number + 50)])
    log.add([json.dumps(entry(5000), indent=1).encode()])  # written as JSON before, in lines
    log.close()
    log.close()
    assert list(entries(tmp_path / "log")) == [entry(number) for number in range(5001)]
    assert log.dropped == 0
    log.add([entry(1)])  # too late, and no error
    assert log.dropped == 1


def test_an_entry_is_on_disk_within_the_interval(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, 0.05)
    log.add([entry(1)])
    until = time.monotonic() + 10
    while numbers(tmp_path) != [1] and time.monotonic() < until:
        time.sleep(0.02)
    assert numbers(tmp_path) == [1]
    log.close()


def test_values_of_libraries_are_written_as_what_they_mean_and_others_are_counted(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, 60)
    moment = pd.Timestamp("2024-01-31 10:00", tz="UTC")
    values = {
        "a": np.float64(0.5),
        "b": np.int32(7),
        "c": pd.NA,
        "d": pd.NaT,
        "e": float("nan"),
        "f": np.nan,
        "g": moment,
    }
    log.add([{"id": 1, "inputs": values}])
    endless: list[Any] = []
    endless.append(endless)
    log.add([{"id": endless}])
    log.close()
    found = next(entries(tmp_path))["inputs"]
    assert pd.Timestamp(found.pop("g")) == moment
    assert found == {"a": 0.5, "b": 7, "c": None, "d": None, "e": None, "f": None}
    assert log.dropped == 1


def test_a_killed_writer_loses_no_more_than_an_interval(tmp_path: Path) -> None:
    code = """
        log = PredictionLog(Path(sys.argv[1]), 0.05)
        for number in range(10**9):
            log.add([entry(number)])
            time.sleep(0.002)
            print(number, flush=True)
    """
    writer = run(code, tmp_path, wait=False)
    assert writer.stdout
    said = next(number for number in map(int, writer.stdout) if number >= 50)
    deadline = time.monotonic() + 60  # twelve hundred intervals, for a busy machine
    while len(numbers(tmp_path)) <= said:
        assert time.monotonic() < deadline, "an entry is not written after its interval"
        time.sleep(0.02)
    writer.send_signal(signal.SIGKILL)
    writer.wait(10)
    writer.stdout.close()
    with next(tmp_path.glob("*.log")).open("ab") as file:
        file.write(framed(b'{"id": 5}')[:-4])  # and if it had been in the middle of a frame
    found = numbers(tmp_path)
    assert found == list(range(len(found)))
    assert len(found) > said
    assert entries(tmp_path).damaged == 0


def test_several_writers_share_a_folder(tmp_path: Path) -> None:
    code = """
        log = PredictionLog(Path(sys.argv[1]), 0.01)
        for number in range(int(sys.argv[2]), int(sys.argv[2]) + 500):
            log.add([entry(number)])
        log.close()
    """
    writers = [run(code, tmp_path, start, wait=False) for start in (0, 500)]
    written(tmp_path, *range(1000, 1500))
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert numbers(tmp_path) == list(range(1500))


def test_a_full_disk_costs_entries_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Callable[[int], None]
) -> None:
    size = len(json.dumps(entry(100)))
    monkeypatch.setattr(prediction_log, "MOST_BYTES", 40 * size)
    log = PredictionLog(tmp_path, 0.01)
    log.add([entry(100)])
    while not numbers(tmp_path):
        time.sleep(0.01)
    small_disk(3 * size)  # the second frame fits, the third is torn
    for number in range(101, 200):
        log.add([entry(number)])
        time.sleep(0.001)
    assert 40 < log.dropped < 99
    assert sum(map(len, log._waiting)) <= 40 * size
    small_disk(resource.RLIM_INFINITY)
    log.close()
    found = numbers(tmp_path)
    assert len(found) == 100 - log.dropped
    assert found == list(range(100, 100 + len(found)))  # those that waited are there, and no frame is torn
    assert entries(tmp_path).damaged == 0


def test_a_log_that_cannot_be_written_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "log"
    folder.write_text("a file")
    log = prediction_log.PredictionLog(folder, 0.01)
    log.add([{"prediction": "1"}])
    time.sleep(0.3)
    folder.unlink()
    last = time.monotonic() + 20
    while "is written again" not in caplog.text and time.monotonic() < last:
        time.sleep(0.01)
    log.close()
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(f"the prediction log in {folder} cannot be written (") and "Make room" in said[0]
    assert said[1:] == [f"the prediction log in {folder} is written again"] and log.dropped == 0


def test_what_a_full_disk_does_not_take_until_the_end_is_counted(
    tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    log = PredictionLog(tmp_path, 60)
    small_disk(500)
    log.add([entry(number) for number in range(20)])
    log.close()
    small_disk(resource.RLIM_INFINITY)
    assert len(numbers(tmp_path)) + log.dropped == 20
    assert log.dropped > 10


def test_a_folder_that_cannot_be_made_is_no_error_until_it_can(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file is in the way")
    log = PredictionLog(tmp_path / "log", 0.01)
    log.add([entry(1)])
    time.sleep(0.1)
    (tmp_path / "log").unlink()
    log.close()
    assert numbers(tmp_path / "log") == [1]


def test_a_log_that_somebody_removes_is_begun_anew(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, 0.01)
    log.add([entry(1)])
    while not numbers(tmp_path):
        time.sleep(0.01)
    for file in tmp_path.glob("*.log"):
        file.unlink()
    log.add([entry(2)])
    log.close()
    assert numbers(tmp_path) == [2]


# ------------------------------------------------------------------------------------------------------ Reading


def test_a_damaged_frame_is_passed_over_and_counted(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 3)
    file = next(tmp_path.glob("*.log"))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1].replace(b"online", b"Online") + b"nonsense\n" + framed(b"no JSON") + lines[2])
    found = entries(tmp_path)
    assert [one["id"] for one in found] == [1, 3]
    assert found.damaged == 3
    assert compact(tmp_path, 90).damaged == 3
    assert numbers(tmp_path) == [1, 3]


def test_there_are_no_entries_where_nothing_was_written(tmp_path: Path) -> None:
    assert numbers(tmp_path) == numbers(tmp_path / "nowhere") == []
    assert compact(tmp_path / "nowhere", 1).logs == 0


# --------------------------------------------------------------------------------------------------- Compaction


def test_days_become_a_parquet_file_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "ROWS", 2)
    written(tmp_path, 1, 2, 3)
    written(tmp_path, 4, days_ago=1)
    before = sorted(entries(tmp_path), key=lambda one: one["id"])
    assert compact(tmp_path, 90) == log_compaction.Compacted(2, 4, 0)
    assert sorted(entries(tmp_path), key=lambda one: one["id"]) == before
    written(tmp_path, 5)
    assert compact(tmp_path, 90).entries == 1
    assert compact(tmp_path, 90).logs == 0
    files = sorted(tmp_path.glob("*.parquet"))
    assert [file.name[:10] for file in files] == [str(TODAY.date() - dt.timedelta(days=1)), str(TODAY.date())]
    table = pq.read_table(files[1])
    assert table["prediction"].to_pylist() == ["p1", "p2", "p3", "p5"]
    assert set(table["version"].to_pylist()) == {"3"}
    assert not list(tmp_path.glob("*.log"))


def test_what_is_older_than_is_kept_goes(tmp_path: Path) -> None:
    written(tmp_path, 1, days_ago=10)
    written(tmp_path, 2, days_ago=3)
    compact(tmp_path, 30)
    written(tmp_path, 3, days_ago=9)
    written(tmp_path, 4)
    done = compact(tmp_path, 5)
    assert done.removed == (str(TODAY.date() - dt.timedelta(days=10)),)
    assert numbers(tmp_path) == [2, 4]
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_an_entry_without_a_time_is_of_the_day_it_was_written_on(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, 60)
    log.add([{"id": 1, "at": "noon"}, {"id": 2}])
    log.close()
    compact(tmp_path, 1)
    assert numbers(tmp_path) == [1, 2]


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    written(tmp_path, 1)
    log = PredictionLog(tmp_path, 0.01)
    log.add([entry(2)])
    while numbers(tmp_path) != [1, 2]:
        time.sleep(0.01)
    assert compact(tmp_path, 90).logs == 1
    log.add([entry(3)])
    log.close()
    assert numbers(tmp_path) == [1, 2, 3]
    assert compact(tmp_path, 90).logs == 1
    assert numbers(tmp_path) == [1, 2, 3]


def test_who_is_forgotten_is_in_no_file_that_nobody_writes(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 2, 3)
    written(tmp_path, 2, 4, days_ago=1)
    compact(tmp_path, 90)
    written(tmp_path, 2, 5)
    log = PredictionLog(tmp_path, 0.01)
    log.add([entry(2), entry(6)])
    while len(numbers(tmp_path)) != 10:
        time.sleep(0.01)
    assert log_compaction.forget(tmp_path, "2") == log_compaction.Forgotten(4, 1)
    assert numbers(tmp_path) == [1, 2, 3, 4, 5, 6]
    log.close()
    assert log_compaction.forget(tmp_path, "2") == log_compaction.Forgotten(1, 0)
    assert numbers(tmp_path) == [1, 3, 4, 5, 6]
    assert log_compaction.forget(tmp_path, "2") == log_compaction.forget(tmp_path / "nowhere", "1")
    assert log_compaction.forget(tmp_path, "nobody") == log_compaction.Forgotten()


def test_what_was_answered_in_the_shadow_is_forgotten_too_and_counted_once(tmp_path: Path) -> None:
    log, shadows = PredictionLog(tmp_path, 60), PredictionLog(tmp_path, 60)
    shadows.add([{**entry(2), "version": 4, "way": "shadow"}])
    shadows.close()  # before it: what is found is the answer all the same
    log.add([entry(1), entry(2)])
    log.close()
    found = log_reader.find(tmp_path, "p2")
    assert found is not None and (found["version"], found["way"]) == (3, "online")
    compact(tmp_path, 10)
    found = log_reader.find(tmp_path, "p2")
    assert found is not None and found["way"] == "online"
    assert log_compaction.forget(tmp_path, "2") == log_compaction.Forgotten(1, 0)
    assert numbers(tmp_path) == [1]
    assert log_reader.find(tmp_path, "p2") is None
    written(tmp_path, 3)
    log, shadows = PredictionLog(tmp_path, 0.01), PredictionLog(tmp_path, 0.01)
    log.add([entry(2)])
    shadows.add([{**entry(2), "way": "shadow"}])
    deadline = time.monotonic() + 10
    while numbers(tmp_path).count(2) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert log_compaction.forget(tmp_path, "2") == log_compaction.Forgotten(0, 1)
    log.close()
    shadows.close()


def test_an_hour_that_is_over_is_no_longer_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = PredictionLog(tmp_path, 0.01)
    monkeypatch.setattr(prediction_log, "_hour", lambda: "20240131T10")
    log.add([entry(1)])
    while not numbers(tmp_path):
        time.sleep(0.01)
    monkeypatch.setattr(prediction_log, "_hour", lambda: "20240131T11")
    until = time.monotonic() + 10
    while compact(tmp_path, 90).logs == 0 and time.monotonic() < until:
        time.sleep(0.01)
    log.add([entry(2)])
    log.close()
    assert [path.name[:11] for path in tmp_path.glob("*.log")] == ["20240131T11"]
    assert numbers(tmp_path) == [1, 2]


def test_reading_goes_on_while_files_are_compacted(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    compact(tmp_path, 90)
    written(tmp_path, 3, 4)
    reading = entries(tmp_path)
    found = [next(reading)["id"]]
    compact(tmp_path, 90)
    assert [*found, *(one["id"] for one in reading)] == [1, 2, 3, 4]


def test_two_compactions_at_once_are_one(tmp_path: Path) -> None:
    written(tmp_path, 1)
    with _locks.locked(tmp_path / ".compacting"), pytest.raises(LogError, match="just being compacted"):
        compact(tmp_path, 90)
    assert compact(tmp_path, 90).entries == 1


def test_a_full_disk_stops_a_compaction_and_loses_nothing(tmp_path: Path, small_disk: Callable[[int], None]) -> None:
    written(tmp_path, *range(50))
    small_disk(100)
    with pytest.raises(LogError, match=r"was not compacted .* Nothing is lost"):
        compact(tmp_path, 90)
    small_disk(resource.RLIM_INFINITY)
    assert numbers(tmp_path) == list(range(50))
    compact(tmp_path, 90)
    assert numbers(tmp_path) == list(range(50))
    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_a_compaction_that_is_killed_anywhere_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """It ends, as kill -9 does it, just before and just after each file that it makes, replaces or removes."""
    folder = tmp_path / "log"
    written(folder, 1, 2, days_ago=1)
    written(folder, 3, days_ago=40)
    compact(folder, 90)
    for number in (4, 5):
        written(folder, number, number + 2, days_ago=5 - number)
    code = """
        import shutil
        import pandas, pyarrow.parquet  # no thread of theirs yet

        def killed(step, folder):
            steps = iter(range(10**9))
            def counted(act):
                def acts(*words, **names):
                    if next(steps) == step: os._exit(9)
                    done = act(*words, **names)
                    if next(steps) == step: os._exit(9)
                    return done
                return acts
            for owner, name in ((Path, "unlink"), (Path, "replace"), (os, "fsync"), (pyarrow.parquet.ParquetWriter, "close")):
                setattr(owner, name, counted(getattr(owner, name)))
            compact(folder, 30)
            os._exit(0)

        for step in range(1000):
            folder = Path(sys.argv[1]).with_name(f"killed-{step}")
            shutil.copytree(sys.argv[1], folder)
            child = os.fork()
            if child == 0:
                killed(step, folder)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code == 0: break
            assert code == 9, code
        print(step)
    """
    process = run(code, folder)
    assert process.stdout
    steps = int(process.stdout.read())
    process.stdout.close()
    assert steps > 15
    for step in range(steps):
        killed = tmp_path / f"killed-{step}"
        assert [one for one in numbers(killed) if one != 3] == [1, 2, 4, 5, 6, 7], step
        compact(killed, 30)
        assert numbers(killed) == [1, 2, 4, 5, 6, 7], step
        assert len(list(killed.glob("*.parquet"))) == 2, step
        assert not list(killed.glob("*.log")), step
