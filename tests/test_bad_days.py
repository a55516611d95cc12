"""Bad input and bad days: each gets a clear message, a non-zero exit, and nothing lost or half-registered."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Project, free_port, processes_in

MORE = {"gate": {"at_least": {}}, "seed": 11}  # makes a new run of all from training on


def source_of(project: Project) -> Path:
    return Path(project.environment["SOURCE_URI"])


# ---------------------------------------------------------------------------------------------------- Data


def test_a_truncated_source(fork: Project) -> None:
    file = source_of(fork) / "flights-04.csv"
    lines = len(file.read_text().splitlines())
    file.write_bytes(file.read_bytes()[:-37])
    said = fork.make("pipeline", fails=True)
    assert f"line {lines} of a flights file has no time_hour" in said


def test_a_truncated_archive(fork: Project, tables: Path) -> None:
    whole = (tables / "flights.csv.zip").read_bytes()
    (source_of(fork) / "flights-05.csv.zip").write_bytes(whole[: len(whole) // 2])
    said = fork.make("pipeline", fails=True)
    assert "cannot be read" in said and "SOURCE_URI" in said


def test_a_source_that_is_no_table(fork: Project) -> None:
    (source_of(fork) / "flights-04.csv").write_bytes(os.urandom(2000))
    said = fork.make("pipeline", fails=True)
    assert "the source at" in said and "cannot be read" in said


def test_no_source(fork: Project) -> None:
    assert "has no flights*.csv" in fork.make("pipeline", fails=True, SOURCE_URI=str(fork / "nowhere"))


def test_a_truncated_table(fork: Project) -> None:
    """What a killed writer or a bad disk leaves behind is named, and made again."""
    file = next((fork / "data/raw/month=2013-02").glob("*.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    done = fork.command(".venv/bin/mlops", "validate")
    assert done.returncode == 1 and "cannot be read as Parquet" in done.stderr and "Traceback" not in done.stderr
    fork.make("pipeline")
    assert file.read_bytes() == whole


def test_a_missing_column(fork: Project) -> None:
    fork.replace("src/PACKAGE/source.py", '"visib": "visibility"', '"visib": "visibilty"')
    said = fork.make("pipeline", fails=True)
    assert "column visibility is missing" in said and "schema.py" in said


def test_an_unexpected_column(fork: Project) -> None:
    fork.replace(
        "src/PACKAGE/source.py",
        "yield rows.filter(items=columns)",
        "yield rows.filter(items=[*columns, 'dep_delay'])",
    )
    said = fork.make("pipeline", fails=True)
    assert "column dep_delay is unexpected" in said


def test_a_leaking_column(fork: Project) -> None:
    """What is known only after departure is refused, also when the contract was told of it."""
    fork.replace(
        "src/PACKAGE/schema.py",
        '        Column("carrier"',
        '        Column("dep_delay", "number", nullable=True),\n        Column("carrier"',
    )
    fork.replace("src/PACKAGE/features.py", "AS_THEY_ARE = [", 'AS_THEY_ARE = [\n    "dep_delay",')
    said = fork.make("run", fails=True)
    assert "one input alone nearly gives the answer: dep_delay" in said
    assert fork.registry("len(r.versions())") == "1"


def test_too_many_bad_rows(fork: Project) -> None:
    file = source_of(fork) / "flights-02.csv"
    lines = file.read_text().splitlines()
    distance = lines[0].split(",").index("distance")
    for number in range(1, len(lines), 3):
        cells = lines[number].split(",")
        cells[distance] = "-5"
        lines[number] = ",".join(cells)
    file.write_text("\n".join(lines) + "\n")
    said = fork.make("pipeline", fails=True)
    assert "validation.max_bad_share" in said and "distance: below 1" in said
    fork.set_params(validation={"max_bad_share": 0.5})
    fork.make("pipeline")
    aside = fork.python(
        "import pandas as pd; d = pd.read_parquet('data/set_aside'); print(len(d), d['reason'].iloc[0], d['distance'].max())"
    )
    assert aside.split()[1:] == ["distance:", "below", "1", "(-5.0)", "-5"], aside
    rows = json.loads((fork / "reports/validation.json").read_text())
    assert rows["set_aside"] == int(aside.split()[0]) == sum(rows["reasons"].values())
    assert rows["good"] + rows["set_aside"] + rows["unlabelled"] == rows["rows"]


def test_an_empty_input(fork: Project) -> None:
    for file in source_of(fork).glob("flights-*.csv"):
        file.write_text(file.read_text().splitlines()[0] + "\n")
    said = fork.make("pipeline", fails=True)
    assert "no rows" in said
    (fork / "empty.csv").write_text("")
    assert "cannot be read as CSV" in fork.make("predict", "INPUT=empty.csv", fails=True)
    assert "does not exist or is no file" in fork.make("predict", "INPUT=nowhere.csv", fails=True)
    (fork / "rows.txt").write_text("x")
    assert "neither .parquet nor .csv" in fork.make("predict", "INPUT=rows.txt", fails=True)


@pytest.fixture
def full_disk(fork: Project) -> Iterator[Path]:
    """A file system of its own with a few hundred KiB for data/features; without the right to mount, say so."""
    place = fork / "data/features"
    subprocess.run(["rm", "-rf", str(place)], check=True)
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.fail("a full disk is simulated by mounting a small one, which needs root: run the tests as root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(fork: Project, full_disk: Path) -> None:
    done = fork.command(
        ".venv/bin/python",
        "-c",
        "from copier_mlops.data import tables; import numpy as np, pandas as pd; from pathlib import Path\n"
        "from copier_mlops import cli, ProjectError\n"
        "try:\n    tables.write(pd.DataFrame({'x': np.random.default_rng(0).random(100_000)}), Path('data/features/part.parquet'))\n"
        "except ProjectError as error:\n    cli.fail(str(error))",
    )
    assert done.returncode == 1 and "the disk is full while writing" in done.stderr and "Traceback" not in done.stderr
    assert not list(full_disk.iterdir()), "something half-written is left"


# -------------------------------------------------------------------------------------------------- Params


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("trials:", "trails:", "search.trails is not known; did you mean trials?"),
        ("search:", "serach:", "serach is not known; did you mean search?"),
        ("test_days: 20", "test_days: -3", "split.test_days is -3"),
        ("test_days: 20", "test_days: many", "split.test_days is 'many'"),
        ("test_days: 20", "test_days: 400", "split.test_days must be fewer than window.days"),
        ("metric: auc", "metric: mae", "mae is no metric of a classification"),
        ("  metric: auc\n", "", "gate.metric is missing"),
        ("problem: classification", "problem: clustering", "problem is 'clustering'"),
        ("seed: 7", "seed: [7", "is no YAML"),
        ("until: newest", "until: 2001-01-01", 'put the date of window.until into quotes: "2001-01-01"'),
        ("until: newest", "until: '2001-01-01'", "the source has no rows from 2000-01-01 to 2001-01-01"),
        ("until: newest", "until: '2031-01-01'", "window.until leaves no rows"),
    ],
)
def test_params_with_a_mistake(fork: Project, old: str, new: str, says: str) -> None:
    fork.replace("params.yaml", old, new)
    said = fork.make("pipeline", fails=True)
    assert says in said and "params.yaml" in said, said


def test_a_missing_key_takes_its_default(fork: Project) -> None:
    """After an update that brings new keys, an old params.yaml goes on working."""
    params = yaml.safe_load((fork / "params.yaml").read_text())
    del params["evaluation"], params["validation"]
    (fork / "params.yaml").write_text(yaml.safe_dump(params))
    fork.make("pipeline")
    params = yaml.safe_load((fork / "params.yaml").read_text())  # dvc.yaml names them, so they are added
    assert (params["evaluation"]["bootstrap"], params["validation"]["max_bad_share"]) == (200, 0.02)


def test_a_slice_that_is_no_column(fork: Project) -> None:
    fork.set_params(evaluation={"slices": ["airline"]})
    said = fork.make("pipeline", fails=True)
    assert "evaluation.slices" in said and "carrier" in said


# ------------------------------------------------------------------------------------------------- Killed


def kill_when(project: Project, mark: Callable[[], bool], victim: Callable[[int], int], seconds: float = 90) -> int:
    """Start `make run`, kill a process of it when `mark` holds; returns the exit code of the command."""
    process = project.start(".venv/bin/mlops", "run")
    stop = time.monotonic() + seconds
    while not mark():
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < stop
        time.sleep(0.02)
    os.kill(victim(process.pid), signal.SIGKILL)
    return process.wait(60)


def child_running(project: Project, word: str) -> Callable[[], int]:
    """The process of a stage of this project, by its command line and its working folder; 0 while there is none."""

    def find() -> int:
        for pid, words in processes_in(project.folder):
            if word in words and any(project.package in part for part in words[:2]):
                return pid
        return 0

    return find


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("ingest", marks=LONG),
        pytest.param("validate", marks=LONG),
        pytest.param("features", marks=LONG),
        "train",
        pytest.param("evaluate", marks=LONG),
    ],
)
def test_kill_a_stage(fork: Project, stage: str, flights: Callable[[Path, list[int]], Path]) -> None:
    """The run ends with an error; the next one finishes, and registers one version, not two."""
    flights(source_of(fork), [5])
    find = child_running(fork, stage)
    assert kill_when(fork, lambda: find() > 0, lambda _: find()) != 0
    fork.make("run")
    assert fork.registry("[v.number for v in r.versions()]") == "[1, 2]"


def test_kill_the_search_and_take_it_up(fork: Project) -> None:
    """A search that was killed ends as an unbroken one."""
    fork.set_params(search={"trials": 5})
    fork.make("pipeline")
    unbroken = json.loads((fork / "reports/trials.json").read_text())
    for path in (fork / ".cache").glob("search.db*"):
        path.unlink()
    study = fork / ".cache/search.db"
    find = child_running(fork, "train")

    def two_trials() -> bool:
        if not study.exists():
            return False
        asked = fork.command(
            ".venv/bin/python", "-c",
            "import sqlite3; print(sqlite3.connect('file:.cache/search.db?mode=ro', uri=True)"
            ".execute(\"select count(*) from trials where state in ('COMPLETE', 'PRUNED')\").fetchone()[0])",
        )  # fmt: skip
        return asked.returncode == 0 and int(asked.stdout) >= 2

    process = fork.start(".venv/bin/dvc", "repro", "--force", "--single-item", "--no-run-cache", "train")
    while not two_trials():
        assert process.poll() is None
    os.kill(find(), signal.SIGKILL)
    process.wait(60)
    done = fork.command(".venv/bin/dvc", "repro", "--force", "--single-item", "--no-run-cache", "train")
    assert "taking up a search with" in done.stdout, done.stdout + done.stderr
    assert json.loads((fork / "reports/trials.json").read_text()) == unbroken


def test_kill_the_orchestrator_alone(fork: Project) -> None:
    """The stages go on without it; the next run waits for them instead of training twice at once."""
    fork.set_params(**MORE, search={"trials": 15})  # so that it still trains when the flow has begun
    find = child_running(fork, "train")
    begun = fork / ".cache/flow-run"  # the stages begin before the flow does
    assert kill_when(fork, lambda: find() > 0 and begun.exists(), lambda pid: pid) == -signal.SIGKILL
    assert find() > 0, "training was killed too"
    killed = begun.read_text()
    said = fork.make("run")
    assert "waiting for the training of an interrupted run" in said
    assert said.count("train ...") == 0, said
    assert fork.registry("[v.number for v in r.versions()]") == "[1, 2]"
    state = fork.python(  # by its id: other tests use the same server, and a schedule lists runs of the weeks to come
        "from prefect.client.orchestration import get_client\n"
        f"with get_client(sync_client=True) as c: print(c.read_flow_run({killed!r}).state.name)"
    )
    assert state == "Crashed"


def test_ctrl_c_in_a_terminal(fork: Project, flights: Callable[[Path, list[int]], Path]) -> None:
    """The run ends at once, leaves no process, and prints what is kept; the next run finishes. benchmarks/ measures the time."""
    place = importlib.util.spec_from_file_location("terminal", ROOT / "benchmarks/inside/terminal.py")
    assert place and place.loader
    terminal = importlib.util.module_from_spec(place)
    sys.modules["terminal"] = terminal
    place.loader.exec_module(terminal)
    flights(source_of(fork), [5])
    fork.set_params(search={"trials": 12})
    environment = {**fork.environment_of({}), "PREFECT_API_URL": ""}  # with the temporary server
    command = ["make", "--no-print-directory", "run"]
    for moment, kept in (
        ("reading the source", "error: stopped"),
        (
            "train ...",
            "stopped during the stage train. Finished stages and the finished trials of the search are kept.",
        ),
        ("trial 2 of", "Run the same command again to resume."),
    ):
        ended = terminal.interrupted(
            command, fork.folder, environment, lambda passed, shown, moment=moment: moment in shown
        )
        assert ended.interrupted and kept in ended.output, ended.output
        assert ended.left == [] and ended.seconds < 15, ended.output
        assert "Traceback" not in ended.output, ended.output
    assert "2, challenger" in fork.make("run")


@pytest.mark.parametrize(
    "step", ["promote", *(pytest.param(step, marks=LONG) for step in ("log", "register", "settle"))]
)
def test_kill_between_two_steps_of_the_registry(fork: Project, step: str) -> None:
    """Each step is done once, wherever the run was cut off."""
    fork.set_params(promotion={"automatic": True}, **MORE)
    fork.make("pipeline")
    killed = fork.command(
        ".venv/bin/python", "-c",
        f"import os\nfrom copier_mlops.settings import Settings; s = Settings(); s.apply()\n"
        f"from copier_mlops.registry.mlflow_registry import Registry\nfrom copier_mlops.lifecycle import registration as release\n"
        f"whole = Registry.{step}\n"
        + (
            # a run that is begun and half logged
            "Registry._log_model = lambda *a: os._exit(9)\n" if step == "log" else
            "def cut(self, *a, **k):\n    whole(self, *a, **k); os._exit(9)\nRegistry.register = cut\n" if step == "register" else
            "Registry.settle = lambda self: os._exit(9) if len(self.moves()) > 1 else whole_settle(self)\n"
            if step == "promote" else "Registry._point = lambda *a: os._exit(9) if len(a[0].moves()) > 1 else None\n"
        ).replace("whole_settle", "settle").replace("Registry.settle = lambda", "settle = Registry.settle\nRegistry.settle = lambda")
        + "release.record(s)",
    )  # fmt: skip
    assert killed.returncode == 9, killed.stdout + killed.stderr
    assert "2, champion" in fork.make("run")
    assert fork.registry("[(v.number, v.status) for v in r.versions()]") == "[(1, 'archived'), (2, 'champion')]"
    assert fork.registry("[run.data.tags['verdict'] for run in r.runs()]") == "['passed', 'passed']"
    assert fork.registry("[(m.before, m.after) for m in r.moves()]") == "[(None, 1), (1, 2)]"
    assert json.loads((fork / "champion.json").read_text())["version"] == 2


def test_two_runs_at_once(fork: Project) -> None:
    fork.set_params(**MORE)
    find = child_running(fork, "train")
    first = fork.start(".venv/bin/mlops", "run")
    while not find():
        assert first.poll() is None
    said = fork.make("pipeline", fails=True)
    assert "another run is going on in this folder" in said and "kill" in said
    out, _ = first.communicate(timeout=120)
    assert first.returncode == 0, out
    assert fork.registry("len(r.versions())") == "2"


def test_too_slow(fork: Project) -> None:
    """The time limit ends all of it, not only the orchestrator."""
    fork.replace(
        "src/PACKAGE/model.py",
        "    codes = OrdinalEncoder",
        "    __import__('time').sleep(600)\n    codes = OrdinalEncoder",
    )
    said = fork.make("run", fails=True, TIMEOUT_MINUTES="0.15")
    assert "TIMEOUT_MINUTES" in said and "Finished stages are kept" in said
    assert not child_running(fork, "train")()


# ------------------------------------------------------------------------------------------------ Outside


def test_mlflow_unreachable(fork: Project) -> None:
    """Retried, then resumable: what was trained is there when MLflow is back."""
    fork.set_params(**MORE)
    said = fork.make("run", fails=True, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}", RETRIES="1")
    assert "MLflow at http://127.0.0.1" in said and "What was trained is kept" in said
    said = fork.make("run")
    assert "train ..." not in said and "2, challenger" in said


def test_the_remote_unreachable(fork: Project) -> None:
    fork.set_params(**MORE)
    (fork / "a-file").write_text("")
    said = fork.make("run", fails=True, DATA_REMOTE="a-file/store", RETRIES="1")
    assert "the data could not be pushed" in said and "nothing is lost" in said
    assert fork.registry("len(r.versions())") == "2"
    (fork / ".dvc/config.local").unlink()
    fork.make("push")


def test_a_corrupted_cache_entry(fork: Project) -> None:
    """DVC tells by the hash; what it cannot trust is made again."""
    lock = yaml.safe_load((fork / "dvc.lock").read_text())
    outs = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
    months = {path.name for path in (fork / "data/features").iterdir()}
    name = outs["data/features"].removesuffix(".dir")
    entry = fork / f".dvc/cache/files/md5/{name[:2]}/{name[2:]}.dir"
    files = json.loads(entry.read_text())
    one = fork / ".dvc/cache/files/md5" / files[0]["md5"][:2] / files[0]["md5"][2:]
    one.chmod(0o644)
    one.write_bytes(b"not what it was")
    subprocess.run(["rm", "-rf", str(fork / "data/features")], check=True)
    fork.make("pipeline")
    assert {path.name for path in (fork / "data/features").iterdir()} == months
    again = yaml.safe_load((fork / "dvc.lock").read_text())
    assert again["stages"]["features"]["outs"] == lock["stages"]["features"]["outs"]


def test_a_tampered_bundle(fork: Project) -> None:
    """It is not loaded, and the file is named; a rollback to it moves nothing."""
    fork.set_params(promotion={"automatic": True}, **MORE)
    fork.make("run")
    fork.registry("r.bundle(r.version(1))")
    file = next((fork / ".cache/bundles").glob("1-*/code/features.py"))
    file.write_text(file.read_text() + "# one more line\n")
    said = fork.make("rollback", fails=True)
    assert "code/features.py was changed" in said
    assert fork.registry("r.holder('champion').number, len(r.moves())") == "(2, 2)"


def test_a_damaged_memory_of_the_last_run(fork: Project) -> None:
    """Files that only remember are never a reason to stop."""
    (fork / "run.yaml").write_text("half a li")
    (fork / ".cache/done.json").write_text("{")
    (fork / ".cache/flow-run").write_text("no id")
    fork.make("run")
    assert fork.registry("len(r.versions())") == "1"


def test_settings_that_make_no_sense(fork: Project) -> None:
    said = fork.make("run", fails=True, RETRIES="often")
    assert "RETRIES" in said and "settings" in said
