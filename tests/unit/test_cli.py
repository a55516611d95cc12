"""What a person types and reads: a result or one sentence, and an exit code that scripts can trust."""

import dataclasses
import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
import typer
import yaml
from sample_project.schema import CONTRACT

from copier_mlops import ProjectError, UnreachableError, _command_line, _environment, _exit_codes, _interruption, cli
from copier_mlops.adopt import adopt
from copier_mlops.data import tables
from copier_mlops.lifecycle import commands as lifecycle_commands
from copier_mlops.lifecycle import erase, history, model_check, registration, reproduce
from copier_mlops.params import RUN
from copier_mlops.pipeline import evaluate, features, ingest, run_config, train, validate
from copier_mlops.registry import store_migration
from copier_mlops.settings import Paths, Settings
from copier_mlops.versioning import dvc, snapshot

from .conftest import ROOT, mlops

RUNTIME = Path(cli.__file__).parent
STAGES = {"ingest": ingest, "validate": validate, "features": features, "train": train, "evaluate": evaluate}
Call = Callable[..., tuple[int, str, str]]
RESTARTED: list[Any] = []
"""The environments that commands would have started again with."""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command; what it prints, and its exit code."""
    RESTARTED.clear()

    monkeypatch.setattr(_environment, "restart_for_model", RESTARTED.append)

    def calls(*words: str) -> tuple[int, str, str]:
        code = mlops(*words)
        return (code, *capsys.readouterr())

    return calls


def test_every_stage_of_dvc_yaml_is_a_command() -> None:
    order = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert {stage["cmd"].split()[1] for stage in order.values()} <= set(cli.COMMANDS["pipeline"])
    assert list(STAGES) == [name for name in order if name in STAGES]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_runs_alone(name: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def stage(*arguments: object) -> None:
        assert (dvc.CACHE / "stage.lock").read_text().startswith(str(os.getpid()))
        raise ProjectError(f"{name} was called")

    monkeypatch.setattr(STAGES[name], name, stage)
    assert call(name) == (1, "", f"error: {name} was called\n")
    assert bool(RESTARTED) is (name in ("train", "evaluate"))  # they load a model, and start again without secrets


def test_each_command_module_has_the_commands_that_the_table_names() -> None:
    for folder, names in cli.COMMANDS.items():
        app = importlib.import_module(f"copier_mlops.{folder}.commands").app
        registered = [one.name or one.callback.__name__ for one in app.registered_commands]
        assert sorted(registered) == sorted(names), folder
    assert {folder.parent.name for folder in RUNTIME.glob("*/commands.py")} == set(cli.COMMANDS)


def test_the_help_lists_the_commands_in_groups(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    titles = [line.removesuffix(":") for line in out.splitlines() if re.fullmatch(r"[A-Z][A-Za-z. ]+:", line)]
    assert titles == ["Options", *_command_line.GROUPS]
    assert re.search(r"^  promote-deploy +Promote the challenger", out, re.M)
    assert "add-replica" not in out  # of the alert webhook


def test_the_help_has_every_exit_code(call: Call) -> None:
    codes = {value for name, value in vars(_exit_codes).items() if name.isupper()}
    assert {int(code) for code in re.findall(r"^    (\d+) ", call("--help")[1], re.M)} == codes


@pytest.mark.parametrize("name", [name for names in cli.COMMANDS.values() for name in names])
def test_each_command_explains_itself(name: str, call: Call) -> None:
    code, out, _ = call(name, "--help")
    assert code == 0
    assert out.startswith(f"Usage: mlops {name}")
    summary = next(line for line in out.splitlines()[1:] if line.strip())
    assert len(summary) > 10


def test_the_command_line_imports_only_what_it_needs() -> None:
    """Numpy, MLflow, Prefect and the settings take seconds; the help and a mistake need none of them."""
    heavy = ("numpy", "pandas", "pydantic_settings", "mlflow", "prefect", "sklearn", "rich", "yaml", "httpx")
    code = (
        "import sys\nfrom copier_mlops import cli\n"
        "try: cli.main(sys.argv[1:])\nexcept SystemExit: pass\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)\n"
        "print([name for name in sys.modules if name.endswith('.commands')], file=sys.stderr)"
    )

    def imported(*words: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        return done.stderr.splitlines()[-2:]

    assert imported("--help")[0] == "[]"
    assert imported("compare", "--help") == ["[]", "['copier_mlops.lifecycle.commands']"]
    assert imported("--version") == ["[]", "[]"]


def test_the_package_alone_imports_next_to_nothing() -> None:
    code = "import sys; before = set(sys.modules); import copier_mlops; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if name.startswith("copier_mlops")] == [
        "copier_mlops",
        "copier_mlops._exit_codes",
    ]
    assert len(done.stdout.split()) < 40


def test_the_runtime_of_another_project_is_refused(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "src/copier_mlops"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text('[tool.copier-mlops]\npackage = "flights"\n')
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    code, _, error = call("history")
    assert code == 1
    assert str(other) in error and str(RUNTIME) in error and f"`make setup` in {tmp_path}" in error
    shutil.rmtree(other)
    other.symlink_to(RUNTIME)  # the same folder under another name
    monkeypatch.setattr(history, "history", lambda settings: ([], []))
    assert call("history")[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "No such command 'trian'"),
        (["predict"], "Missing argument"),
        (["compare", "1", "x"], "valid integer"),
        (["ui", "--prot", "1"], "No such option"),
    ],
)
def test_a_mistake_on_the_command_line_is_told(call: Call, words: list[str], says: str) -> None:
    code, _, error = call(*words)
    assert code == 2
    assert error.startswith("error: ")
    assert says in error


def test_a_command_that_is_stopped_says_so_to_scripts(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(settings: Settings) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(history, "history", stopped)
    assert call("history") == (130, "", f"error: {_interruption.STOPPED}\n")


def test_a_mistake_in_the_settings_is_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIES", "many")
    code, _, error = call("history")
    assert code == 2
    assert "retries" in error.lower()


def test_what_nobody_can_mend_shows_where_it_happened(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(settings: Settings) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(history, "history", bug)
    with pytest.raises(ZeroDivisionError):
        call("history")


def test_adopt_shows_what_became_of_each_column(
    call: Call, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "table.csv"
    lines = [f"{number % 17},{'red' if number % 3 else 'blue'},same,{number % 2}" for number in range(300)]
    table.write_text("\n".join(["size,colour,shop,sold", *lines]) + "\n")
    monkeypatch.setattr(adopt, "_uv", lambda *words: "")
    code, out, error = call("adopt", str(table), "--target", "sold")
    assert (code, out) == (3, "")  # the files of this project would be written over
    assert "nothing was written" in error
    code, out, _ = call("adopt", str(table), "--target", "sold", "--force")
    assert code == 0
    assert "a constant, same" in out
    assert "the target boolean" in out
    assert "note: no ID was named" in out
    assert "300 rows, a classification. Written: " in out
    assert call("adopt", str(table), "--target", "sold")[0] == 0
    assert call("adopt", str(table), "--target", "nothing")[0] == 1


@pytest.mark.parametrize("words", [["table.csv"], ["", "--target", "y"]])
def test_adopt_without_a_table_or_a_target_says_how_it_is_called(call: Call, words: list[str]) -> None:
    code, _, error = call("adopt", *words)
    assert code == 2
    assert "make adopt DATA=../customers.csv TARGET=churned" in error


@pytest.mark.parametrize("versions", [(), (1, 2)])
def test_forget_says_what_is_left_to_do(call: Call, monkeypatch: pytest.MonkeyPatch, versions: tuple[int, ...]) -> None:
    asked = []

    def somebody(settings: Settings, subject: str) -> erase.Forgotten:
        asked.append(subject)
        return erase.Forgotten(rows=1234, files=5, versions=versions)

    monkeypatch.setattr(erase, "forget", somebody)
    code, out, _ = call("forget", "0815")
    assert (code, asked) == (0, ["0815"])
    assert "removed: 1,234 rows from the tables here, 5 files" in out
    assert ("versions 1, 2 learnt from these rows" in out) == bool(versions)
    assert "the source itself still holds" in out and "no row here" not in out


def test_forget_says_that_no_row_had_the_id(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the note names the id of the contract
    monkeypatch.setattr(erase, "forget", lambda settings, subject: erase.Forgotten(rows=0, files=0, versions=()))
    assert f"note: no row here has this {CONTRACT.id}. Is it written as in the source?" in call("forget", "0815")[1]


@pytest.mark.parametrize(("seconds", "says"), [({}, "nothing has changed"), ({"train": 1.25}, "done: train 1.2 s")])
def test_pipeline(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_config, "resolve_run", lambda settings: None)
    monkeypatch.setattr(dvc, "repro", lambda settings: seconds)
    code, out, _ = call("pipeline")
    assert code == 0
    assert says in out
    with dvc.only_run():
        code, _, error = call("pipeline")
    assert code == _exit_codes.TRY_LATER
    assert "another run is going on in this folder" in error


def test_run_shows_what_it_came_to(call: Call, registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    from copier_mlops.lifecycle import flow_steps as flow

    report = flow.Report(registration.record(Settings()), tables.read_json(Paths.FACTS), {"resolve": 0.1}, fresh=False)
    monkeypatch.setattr("sample_project.flow.train", lambda: report)
    code, out, _ = call("run")
    assert code == 4
    facts = report.facts
    assert f"{facts['data']['rows']:,}" in out
    assert f"baseline {cli_number(facts['baseline'][facts['metric']])}" in out
    assert "did not pass the gate" in out
    assert "(gate.better_than_baseline)" in out
    assert "kept in MLflow, not registered" in out
    assert "nothing has changed" in out
    assert "To keep one: `prefect server start`, then PREFECT_API_URL=" in out
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api/")
    monkeypatch.setattr("sample_project.flow.train", lambda: dataclasses.replace(report, flow_run="1-2-3"))
    assert "http://127.0.0.1:4200/runs/flow-run/1-2-3" in call("run")[1]


def test_run_shows_a_gain_without_an_interval(call: Call, registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from copier_mlops.lifecycle import flow_steps

    report = flow_steps.Report(
        registration.record(Settings()), tables.read_json(Paths.FACTS), {"resolve": 0.1}, fresh=False
    )
    over = {"value": 0.25, "low": None, "high": None}  # too few rows of a class
    outcome = dataclasses.replace(report.outcome, over_champion=over)
    monkeypatch.setattr("sample_project.flow.train", lambda: dataclasses.replace(report, outcome=outcome))
    assert "+0.2500 (n/a to n/a), same rows" in call("run")[1]


def test_the_stage_resolve(call: Call, project: Path) -> None:
    """DVC runs it each time; after a command that has resolved it does nothing."""
    before = RUN.read_text()
    RUN.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUN_RESOLVED", "1")
        assert call("resolve")[0] == 0
    assert not RUN.exists()
    assert call("resolve")[0] == 0
    assert RUN.read_text() == before


@pytest.mark.parametrize(
    ("version", "status", "says"),
    [
        (2, "challenger", "`make promote` puts the challenger in its place"),
        (2, "archived", "`make promote VERSION=2 WHY=...` puts version 2 in its place"),
        (None, "rejected", None),
    ],
)
def test_run_names_the_command_that_works(
    call: Call, registered: Path, monkeypatch: pytest.MonkeyPatch, version: int | None, status: str, says: str | None
) -> None:

    from copier_mlops.lifecycle import flow_steps as flow

    report = flow.Report(registration.record(Settings()), tables.read_json(Paths.FACTS), {"resolve": 0.1}, fresh=False)
    outcome = dataclasses.replace(report.outcome, version=version, status=status, champion=1)
    monkeypatch.setattr("sample_project.flow.train", lambda: dataclasses.replace(report, outcome=outcome))
    _, out, _ = call("run")
    assert says in out if says else "make promote" not in out


@pytest.mark.parametrize("raised", [httpx.ConnectError("refused"), RuntimeError("Failed to reach API at http://")])
def test_a_prefect_server_that_does_not_answer_is_named(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:

    def train() -> None:
        raise raised

    monkeypatch.setattr("sample_project.flow.train", train)
    code, _, error = call("run")
    assert code == 1
    assert error.startswith("error: Prefect's server (a temporary one) does not answer")


def test_an_error_of_our_own_is_not_put_down_to_prefect(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def train() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("sample_project.flow.train", train)
    with pytest.raises(RuntimeError, match="a bug"):
        call("run")


def test_what_can_be_told_without_a_server_is_told_at_once(call: Call, project: Path) -> None:
    with dvc.only_run():
        code, out, error = call("run")
    assert (code, out) == (_exit_codes.TRY_LATER, "")
    assert "another run is going on in this folder" in error
    Path("params.yaml").write_text("problem: [")
    code, out, error = call("run")
    assert (code, out) == (1, "")
    assert "params.yaml is no YAML" in error


@pytest.mark.parametrize("kind", [ProjectError, UnreachableError])
def test_a_missing_table_ends_the_command_before_a_server_starts(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch, kind: type[ProjectError]
) -> None:
    """A source that does not respond is left to the flow, which tries again."""

    from copier_mlops.lifecycle import flow_steps as flow

    def missing(settings: Settings) -> None:
        raise kind("there is no table")

    told: list[str] = []
    monkeypatch.setenv("NOTIFY_URLS", "json://127.0.0.1:9")
    monkeypatch.setattr(flow, "notify", lambda settings, title, body: told.append(title))
    monkeypatch.setattr(run_config, "resolve_run", missing)
    monkeypatch.setattr("sample_project.flow.train", lambda: missing(Settings()))
    code, out, error = call("run")
    assert (code, error) == (1, "error: there is no table\n")
    assert ("Prefect server" in out) is (kind is UnreachableError)
    assert bool(told) is (kind is ProjectError)  # the flow notifies itself


def cli_number(value: float) -> str:
    from copier_mlops.evaluation.formatting import number

    return number(value)


def test_predict(call: Call, registered: Path, rows: pd.DataFrame) -> None:
    tables.write_any(rows.head(7), Path("rows.parquet"))
    code, out, _ = call("predict", "rows.parquet", "--output", "answers.csv", "--version", "2")
    assert code == 0
    assert "version 2 answered 7 rows, set 0 aside" in out
    assert len(tables.read_any(Path("answers.csv"))) == 7
    told = json.loads(call("predict", "rows.parquet", "--output", "answers.csv", "--json")[1])
    assert told == {"version": 1, "predicted": 7, "quarantined": 0, "output": "answers.csv"}
    code, _, error = call("predict", "no-such-file.csv")
    assert code == 1
    assert error.startswith("error: no-such-file.csv does not exist")


def test_a_quiet_command_prints_errors_and_json_only(registered: Path) -> None:
    def output(*words: str, **environment: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "copier_mlops", *words],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout, done.stderr

    assert output("--quiet", "history") == ("", "")
    assert output("history", QUIET="1") == ("", "")
    assert "Runs" in output("history", QUIET="")[0]
    assert json.loads(output("--quiet", "history", "--json")[0])["runs"]
    assert output("--quiet", "compare", "1", "9")[1] == "error: there is no version 9; there are 1, 2.\n"


def test_versions_come_and_go(call: Call, registered: Path) -> None:
    assert "version 2 is the champion" in call("promote", "--reason", "it is better")[1]
    assert "version 1 is the champion" in call("rollback")[1]
    assert call("rollback")[0] == 1
    assert call("verify-champion")[1] == "version 1 answers as it did\n"
    out = call("history")[1]
    assert "it is better" in out
    assert "gate.better_than_baseline" in out
    out = call("compare", "1", "2")[1]
    assert "version 1" in out
    assert "search.trials" in out
    assert json.loads(call("compare", "1", "2", "--json")[1])["same test rows"][0]["rows"] > 0
    assert json.loads(call("history", "--json")[1])["moves"][1]["why"] == "it is better"
    code, _, error = call("compare", "1", "9")
    assert (code, error) == (1, "error: there is no version 9; there are 1, 2.\n")


def test_moving_the_registry_says_what_became_of_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def move(settings: Settings, uri: str) -> store_migration.Moved:
        asked.append(uri)
        return store_migration.Moved(3, 5, 2, 1, 1234, holds=False, left=("experiment mine",))

    monkeypatch.setattr(store_migration, "move", move)
    code, out, _ = call("move-registry", "http://127.0.0.1:5000")
    assert (code, asked) == (0, ["http://127.0.0.1:5000"])
    assert "3 runs, 5 trials, 2 models, 1 versions, 1,234 files" in out
    assert "the environment, which wins over .env" in out
    assert "not copied: experiment mine" in out
    assert "To go back" in out
    code, _, error = call("move-registry", "")
    assert code == 2
    assert "make move-registry URI=" in error


def test_a_table_has_the_columns_of_all_its_rows(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [{"version": 1, "auc": 0.75}, {"version": 2, "brier": 0.125}]
    monkeypatch.setattr(history, "history", lambda settings: (runs, []))
    cells = [line.split() for line in call("history")[1].splitlines()]
    assert cells[1:4] == [["version", "auc", "brier"], ["1", "0.75", "-"], ["2", "-", "0.125"]]


def test_json_has_null_for_a_number_that_is_none(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [{"version": 1, "auc": float("nan"), "more": [{"low": float("-inf")}]}]
    monkeypatch.setattr(history, "history", lambda settings: (runs, []))
    found = json.loads(call("history", "--json")[1], parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["runs"] == [{"version": 1, "auc": None, "more": [{"low": None}]}]


def test_history_of_nothing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "history", lambda settings: ([], []))
    assert "nothing was recorded yet" in call("history")[1]


@pytest.mark.parametrize("agrees", [True, False])
def test_reproduce(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agrees: bool) -> None:
    monkeypatch.chdir(tmp_path)
    line = {"metric": "auc", "recorded": 0.75, "rebuilt": None, "difference": float("nan")}
    monkeypatch.setattr(reproduce, "reproduce", lambda settings, number: (agrees, [line]))
    monkeypatch.setattr(reproduce, "differing_outputs", lambda settings, number: ["data/features"])
    code, out, _ = call("reproduce", "3")
    assert code == (0 if agrees else 5)
    assert "0.75" in out
    says = "version 3 is reproduced" if agrees else "not reproduced; other content in: data/features"
    assert says in out


def test_pull_and_push(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr(dvc, "pull", lambda settings: done.append("pull"))
    monkeypatch.setattr(dvc, "push", lambda settings: done.append("push"))
    monkeypatch.setattr(snapshot, "push_versions", lambda: done.append("versions"))
    assert call("pull")[1] == "data is here\n"
    assert call("push")[1] == "data is there\n"
    assert done == ["pull", "push", "versions"]


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project that has a name and nothing else."""
    (tmp_path / "pyproject.toml").write_text('[tool.copier-mlops]\npackage = "sample_project"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The programs that a command starts, or turns into."""
    programs: list[list[str]] = []

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        programs.append(words)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(os, "execv", lambda program, words: programs.append([program, *words[1:]]))
    return programs


def test_ui(call: Call, started: list[list[str]], named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without runs there is no page of an experiment yet."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    port = free_port()
    assert f"MLflow on port {port}: http://127.0.0.1:{port}\n" in call("ui", "--port", str(port))[1]
    assert started[0][started[0].index("--port") + 1] == str(port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, out, _ = call("ui")
    assert code == 0
    assert "is not responding" in out and out.endswith("MLflow's page of this project: http://127.0.0.1:9\n")
    assert len(started) == 1


def test_ui_names_the_page_of_the_runs(call: Call, started: list[list[str]], registered: Path) -> None:
    from copier_mlops.registry.mlflow_registry import Registry

    page = f"/#/experiments/{Registry(Settings()).experiment}/runs?workflowType=machine_learning\n"
    assert call("ui", "--port", str(free_port()))[1].endswith(page)


def test_ui_ends_where_the_port_is_taken(call: Call, started: list[list[str]], named: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, out, error = call("ui", "--port", str(port))
    assert (code, out, started) == (1, "", [])
    assert f"on port {port} (Address already in use)" in error and f"make ui PORT={port + 1}" in error
    assert "on port 70000" in call("ui", "--port", "70000")[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_schedule(call: Call, started: list[list[str]], named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, error = call("schedule")
    assert code == 1
    assert error.startswith("error: a schedule needs a server")
    assert started == []
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert call("schedule")[0] == 0
    assert [Path(words[0]).name for words in started] == ["prefect"] * 3
    assert [words[1] for words in started] == ["work-pool", "--no-prompt", "worker"]


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 4)])
def test_a_review_that_misses_a_limit_ends_with_4(
    passed: bool, code: int, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = model_check.Review(passed, "", () if passed else ("auc is too small",), "rows are made up")
    monkeypatch.setattr(model_check, "review", lambda settings: done)
    found, out, err = call("model-check")
    assert found == code
    assert "note: rows are made up" in out
    assert ("auc is too small" in err) is not passed
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    assert "::warning::rows are made up" in call("model-check")[1]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, ["MLFLOW_TRACKING_URI", "DATA_REMOTE"]),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}, ["DATA_REMOTE"]),
        ({"DATA_REMOTE": "s3://bucket/rows"}, ["MLFLOW_TRACKING_URI"]),
    ],
)
def test_training_without_a_shared_store_says_what_is_missing(
    given: dict[str, str], missing: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner's own files are gone when it ends; and nobody's workflow is red for what was never set up."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    code, out, _ = call("ci-train")
    assert code == 0
    assert "not configured" in out
    assert [name for name in ("MLFLOW_TRACKING_URI", "DATA_REMOTE") if f"{name} names" in out] == missing


def test_training_anew_fetches_runs_and_tells(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("DATA_REMOTE", "s3://bucket/rows")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    Paths.LOCK.write_text("schema: '2.0'\n")
    done: list[str] = []

    def away(settings: Settings) -> None:
        raise UnreachableError("the store is away")

    def ran() -> None:
        done.append("run")
        raise typer.Exit(4)

    monkeypatch.setattr(dvc, "pull", away)
    monkeypatch.setattr(lifecycle_commands, "run", ran)
    monkeypatch.setattr(run_config, "recall", lambda settings: types.SimpleNamespace(markdown="## verdict"))
    code, out, _ = call("ci-train")
    assert (code, done) == (4, ["run"])
    assert "the store is away" in out
    assert (tmp_path / "summary").read_text() == "## verdict\n"
