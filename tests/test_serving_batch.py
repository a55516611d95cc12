"""Large tables: a run that is killed, a cluster whose worker is killed, an object store, a schedule."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project, end, free_port, once, serve, wait_until

PART_LOGGED = 10_000  # answers of a part that go into the prediction log
TIMES = 130  # times over the rows of the tests' flights are answered: more than two parts

# Rows of flights, repeated, in some files; argv: where the validated rows are, how often, files, the folder.
REPEAT = """
import sys
from pathlib import Path
import pandas as pd
source, times, files, target = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
rows = pd.concat([pd.read_parquet(file, partitioning=None) for file in sorted(source.rglob("*.parquet"))], ignore_index=True)
target.mkdir(parents=True)
for number in range(files):
    parts = [rows.assign(flight_id=rows["flight_id"] + f"-{number}-{time}") for time in range(times // files)]
    pd.concat(parts, ignore_index=True).to_parquet(target / f"{number}.parquet", index=False, row_group_size=100_000)
"""

# Whether there is an answer to each row, once, in order, and what the bundle says; argv: bundle, rows, answers.
COMPARE = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from copier_mlops.bundle import serving_bundle as exported
from copier_mlops.contract.contract import check_rows
bundle, rows, answers = map(Path, sys.argv[1:])
rows = pd.concat([pd.read_parquet(file) for file in sorted(rows.glob("*.parquet"))], ignore_index=True)
found = pd.read_csv(answers) if answers.suffix == ".csv" else pd.concat(
    [pd.read_parquet(file) for file in ([answers] if answers.suffix else sorted(answers.glob("part-*.parquet")))], ignore_index=True)
assert found["flight_id"].tolist() == rows["flight_id"].tolist()
some = np.random.default_rng(0).choice(len(rows), 20_000, replace=False)
loaded = exported.load(bundle)
good = check_rows(rows.iloc[some], loaded.contract, labelled=False).good
assert len(good) == len(some) and set(found["version"]) == {loaded.version}
assert np.abs(loaded.score(good) - found["score"].to_numpy()[some]).max() < 1e-6
print(len(found))
"""


# What is in the prediction log beside what the answers name, and what they name that is not in it; argv: log, answers.
LOGGED = """
import sys
from pathlib import Path
import pandas as pd
from copier_mlops.data import prediction_log
log, answers = map(Path, sys.argv[1:])
found = pd.concat([pd.read_parquet(file, columns=["prediction_id"]) for file in answers.glob("part-*.parquet")])["prediction_id"].dropna()
entries = prediction_log.entries(log)
logged = [entry["prediction"] for entry in entries if entry["way"] == "batch"]
assert len(set(logged)) == len(logged) and found.is_unique and not entries.damaged
assert set(logged) <= set(found)
print(len(found) - len(logged), len(found))
"""


@pytest.fixture(scope="session")
def batch(served: Project) -> Project:
    """A project with a champion, and a folder of two large files."""

    def make(folder: Path) -> None:
        done = served.command(".venv/bin/python", "-c", REPEAT, "data/validated", str(TIMES), "2", str(folder))
        assert done.returncode == 0, done.stderr

    once("served/project/rows", make)
    return Project(served.folder, OMP_NUM_THREADS="1", RETRY_DELAY_SECONDS="0.2")


def agree(project: Project, rows: Path | str, answers: Path | str) -> int:
    """Hold the answers against what the bundle says, row by row; returns how many there are."""
    code = COMPARE.replace("PACKAGE", project.package)
    done = project.command(".venv/bin/python", "-c", code, "dist/bundle", str(rows), str(answers))
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout)


def killed(process: subprocess.Popen[str]) -> None:
    """End a process and its children as a machine does that is switched off."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    if process.stdout:
        process.stdout.close()


def test_a_killed_run_goes_on_without_a_row_lost_or_doubled(batch: Project, tmp_path: Path) -> None:
    """In the prediction log none is doubled either; what the killed run just noted may be missing there."""
    answers, log = tmp_path / "answers", tmp_path / "log"
    run = batch.start("make", "score", "INPUT=rows", f"OUTPUT={answers}", PREDICTION_LOG=str(log))
    wait_until(lambda: any(answers.glob("part-*")))
    killed(run)
    said = batch.make("score", "INPUT=rows", f"OUTPUT={answers}", PREDICTION_LOG=str(log))
    assert "of them by the run before" in said
    assert agree(batch, "rows", answers) > 1_000_000
    assert "nothing to do" in batch.make("score", "INPUT=rows", f"OUTPUT={answers}", PREDICTION_LOG=str(log))
    code = LOGGED.replace("PACKAGE", batch.package)
    missing, named = map(int, batch.command(".venv/bin/python", "-c", code, str(log), str(answers)).stdout.split())
    assert missing <= 2 * PART_LOGGED < named


def test_another_version_or_bundle_and_what_cannot_be_done(batch: Project, tmp_path: Path) -> None:
    answers = tmp_path / "answers.csv"
    small = tmp_path / "small"
    done = batch.command(".venv/bin/python", "-c", REPEAT, "data/validated", "4", "2", str(small))
    assert done.returncode == 0, done.stderr
    said = batch.make("score", f"INPUT={small}", f"OUTPUT={answers}", "BUNDLE=dist/bundle")
    assert "version 1 answered" in said
    agree(batch, small, answers)
    assert "there is no version 7" in batch.make(
        "score", f"INPUT={small}", f"OUTPUT={answers}", "VERSION=7", fails=True
    )
    assert "is no bundle" in batch.make("score", f"INPUT={small}", f"OUTPUT={answers}", "BUNDLE=data", fails=True)
    assert "make score INPUT=" in batch.make("score", fails=True)
    assert "0 entries of 0 files" in batch.make("compact-log", PREDICTION_LOG=str(tmp_path / "none"))


@contextlib.contextmanager
def cluster(project: Project, folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler of Dask on loopback with its workers, each a process: the address, and the workers."""
    dask, port, page = str(project / ".venv/bin/dask"), free_port(), free_port()
    address = f"tcp://127.0.0.1:{port}"
    words = [dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", f"127.0.0.1:{page}"]
    processes = [serve(words, f"http://127.0.0.1:{page}/health", folder / "scheduler.log")]
    for number in range(workers):
        with (folder / f"worker-{number}.log").open("wb") as log:
            words = [dask, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
            environment = {**os.environ, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}
            words += ["--local-directory", str(folder / f"worker-{number}")]
            processes.append(
                subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True)
            )
    try:
        yield address, processes[1:]
    finally:
        for process in reversed(processes):
            end(process)


def test_a_cluster_that_loses_a_worker_answers_all_the_same(batch: Project, tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    with cluster(batch, tmp_path, 2) as (address, workers):
        run = batch.start("make", "score", "INPUT=rows", f"OUTPUT={answers}", SCHEDULER_ADDRESS=address)
        wait_until(lambda: any(answers.glob("part-*")))
        workers[0].kill()
        said = run.communicate(timeout=300)[0]
        assert run.returncode == 0, said
    agree(batch, "rows", answers)


def test_a_table_in_an_object_store_is_answered_there(batch: Project, s3: dict[str, str], tmp_path: Path) -> None:
    """Also when the run is killed; and a store that refuses is told."""
    there = {key: value for key, value in s3.items() if key.startswith("AWS_")} | {
        "AWS_ENDPOINT_URL": s3["DATA_REMOTE_ENDPOINT"]
    }
    store = tmp_path / "store/bucket"
    shutil.copytree(batch / "rows", store / "rows")
    run = batch.start("make", "score", "INPUT=s3://bucket/rows", "OUTPUT=s3://bucket/answers", **there)
    wait_until(lambda: any((store / "answers").glob("part-*")) and (store / "answers/_journal.json").exists())
    killed(run)

    def goes_on() -> bool:
        """What was on its way to the store when it was killed may arrive yet, and look like another run."""
        done = batch.command("make", "score", "INPUT=s3://bucket/rows", "OUTPUT=s3://bucket/answers", **there)
        assert done.returncode == 0 or "another run writes" in done.stderr, done.stderr
        return done.returncode == 0

    wait_until(goes_on)
    agree(batch, "rows", store / "answers")
    assert "nothing to do" in batch.make("score", "INPUT=s3://bucket/rows", "OUTPUT=s3://bucket/answers", **there)
    batch.make("score", "INPUT=s3://bucket/rows/*.parquet", "OUTPUT=s3://bucket/one/answers.parquet", **there)
    agree(batch, "rows", store / "one/answers.parquet")
    wrong = {**there, "AWS_SECRET_ACCESS_KEY": "wrong" * 8}
    said = batch.make("score", "INPUT=s3://bucket/rows", "OUTPUT=s3://bucket/answers", fails=True, **wrong)
    assert "s3://bucket" in said


def test_a_schedule_answers_a_table(batch: Project, prefect_server: str, tmp_path: Path) -> None:
    answers, there = tmp_path / "answers", {"PREFECT_API_URL": prefect_server}
    words = ("INPUT=rows", f"OUTPUT={answers}", "CRON=0 4 * * *")
    assert "a schedule needs a server" in batch.make("schedule-score", *words, fails=True, PREFECT_API_URL="")
    assert "is no schedule" in batch.make("schedule-score", *words[:2], "CRON=daily", fails=True, **there)
    serving = batch.start("make", "schedule-score", *words, **there)
    name = str(answers).strip("/").replace("/", "-")
    try:
        run = (".venv/bin/prefect", "deployment", "run", f"score/{name}")
        wait_until(lambda: batch.command(*run, **there).returncode == 0)
        wait_until(lambda: '"finished": true' in _text(answers / "_journal.json"), 240)
    finally:
        end(serving)
        if serving.stdout:
            serving.stdout.close()
    agree(batch, "rows", answers)


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def test_one_run_of_the_flow_needs_no_server(batch: Project, tmp_path: Path) -> None:
    """`make schedule-score` without CRON answers at once, on a temporary server; a table that is not there is no reason to wait."""
    answers = tmp_path / "answers.parquet"
    said = batch.make("schedule-score", "INPUT=rows", f"OUTPUT={answers}", PREFECT_API_URL="")
    assert "version 1 answered" in said
    agree(batch, "rows", answers)
    said = batch.make("schedule-score", "INPUT=nowhere", f"OUTPUT={answers}", fails=True, PREFECT_API_URL="")
    assert "there is no table at nowhere" in said
