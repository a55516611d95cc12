"""Stores and servers by address: S3, MLflow, Prefect with a worker and a schedule. Real ones, on loopback."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import engine
import pytest
from conftest import Project, Render, end, free_port, mlflow_server, need, processes_in, serve, wait_for


def test_push_and_pull_through_s3(render: Render, trained: Project, s3: dict[str, str], tmp_path: Path) -> None:
    """The scheme of the answer brings the plug-in; address and key come from the environment."""
    project = Project(tmp_path / "project", **{**trained.environment, "PYTHONPATH": str(tmp_path / "project/src")})
    shutil.copytree(render(data_remote="s3://elsewhere/flights"), project.folder)
    for name in ("params.yaml", "run.yaml", "dvc.lock", "data", "models", "reports", ".dvc/cache", "src"):
        source, target = trained / name, project / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
    project.make("setup")
    wrong = {**s3, "AWS_SECRET_ACCESS_KEY": "wrong" * 8}
    said = project.make("push", fails=True, **wrong)
    assert (
        "could not be pushed" in said and "s3://bucket/flights" in said and wrong["AWS_SECRET_ACCESS_KEY"] not in said
    )
    project.make("push", **s3)
    for name in ("data", "models", ".dvc/cache"):
        shutil.rmtree(project / name)
    project.make("pull", **s3)
    assert (project / "data/raw/month=2013-01").exists() and (project / "models/bundle/model.pkl").exists()
    written = (project / ".dvc/config.local").read_text()
    assert s3["AWS_SECRET_ACCESS_KEY"] not in written and s3["AWS_ACCESS_KEY_ID"] not in written


def test_push_and_pull_through_a_folder(fork: Project) -> None:
    """The default store is a folder; another machine gets from it what dvc.lock names."""
    shutil.rmtree(fork / ".data-store")
    fork.make("push")
    for name in ("data", "models", ".dvc/cache"):
        shutil.rmtree(fork / name)
    assert "holds no data" in fork.command(".venv/bin/mlops", "validate").stderr
    fork.make("pull")
    assert "nothing has changed" in fork.make("pipeline")


def test_an_mlflow_server(fork: Project, tmp_path: Path) -> None:
    """The same run on a server by address; the laptop's registry is not touched."""
    address, server = mlflow_server(fork, tmp_path)
    try:
        there = {"MLFLOW_TRACKING_URI": address}
        said = fork.make("run", **there)
        assert "1, champion" in said and "train ..." not in said
        assert "1" in fork.make("history", **there)
        shutil.rmtree(fork / ".cache/bundles", ignore_errors=True)
        fork.python(
            "import pandas as pd; from pathlib import Path\n"
            "pd.read_parquet(sorted(Path('data/raw').rglob('*.parquet'))[-1]).head(9).to_csv('rows.csv', index=False)"
        )
        assert "version 1 answered" in fork.make("predict", "INPUT=rows.csv", **there)
        assert (tmp_path / "files").exists()
        assert f"MLflow's page of this project: {address}/#/experiments/" in fork.make("ui", **there)
    finally:
        end(server)


def test_the_page_of_mlflow(fork: Project) -> None:
    port = free_port()
    process = fork.start("make", "ui", f"PORT={port}")
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as page:
            assert "<title>MLflow" in page.read().decode()
        page = re.compile(rf"MLflow on port {port}: http://127.0.0.1:{port}/#/experiments/\d+/runs\S+\n")
        lines = iter(process.stdout.readline, "")
        assert any(page.fullmatch(line) for line in lines), "the address of the experiment is not printed"
    finally:
        end(process)


def test_the_schedule_runs(fork: Project, prefect_server: str) -> None:
    """`make schedule` registers prefect.yaml and works it off: a run that is asked for is done, with its page."""
    assert "a schedule needs a server" in fork.make("schedule", fails=True, PREFECT_API_URL="")
    worker = fork.start("make", "schedule", PREFECT_WORKER_QUERY_SECONDS="1")
    name = fork.package.replace("_", "-")
    try:
        code = (
            "import sys\nfrom prefect.deployments import run_deployment\nfrom prefect.exceptions import ObjectNotFound\n"
            f"try:\n    run = run_deployment('train/{name}', timeout=150, poll_interval=1)\n"
            "except ObjectNotFound:\n    sys.exit(3)\nprint(run.state.name, run.state.message)"
        )
        done = fork.command(".venv/bin/python", "-c", code)
        for _ in range(60):
            if done.returncode != 3:  # 3: not registered yet
                break
            assert worker.poll() is None, worker.stdout.read() if worker.stdout else ""
            time.sleep(1)
            done = fork.command(".venv/bin/python", "-c", code)
        assert done.stdout.startswith("Completed"), done.stdout + done.stderr
    finally:
        end(worker)
    listed = fork.command(
        ".venv/bin/prefect", "deployment", "inspect", f"train/{name}", PREFECT_HOME=str(fork / ".prefect")
    )
    assert "0 5 * * 1" in listed.stdout and name in listed.stdout


def test_prefect_unreachable(fork: Project) -> None:
    said = fork.make("run", fails=True, PREFECT_API_URL=f"http://127.0.0.1:{free_port()}/api")
    assert "does not answer" in said and "PREFECT_API_URL" in said and "make pipeline" in said


def test_the_page_of_a_run(trained: Project) -> None:
    """Metrics and verdict stand on the flow run's page as Markdown."""
    run = trained.python("from copier_mlops.pipeline.run_config import lineage; print(lineage())")
    text = trained.python(  # the server is shared with other projects: the page of this one's run names it
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as c:\n"
        f"    print([a.data for a in c.read_artifacts() if a.key == 'verdict' and {run!r} in a.data][0])"
    )
    assert "| auc |" in text and "passed the gate" in text and "gate.better_than_baseline" in text


def test_notices(fork: Project, tmp_path: Path) -> None:
    """Apprise tells the people behind NOTIFY_URLS of a run that passed and of one that failed."""
    port = free_port()
    heard = tmp_path / "heard"
    code = (
        "import http.server, sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers()\n"
        "    def do_POST(self):\n"
        f"        open({str(heard)!r}, 'ab').write(self.rfile.read(int(self.headers['Content-Length'])) + b'\\n')\n"
        "        self.send_response(200); self.end_headers()\n"
        "    def log_message(self, *a): pass\n"
        f"http.server.HTTPServer(('127.0.0.1', {port}), H).serve_forever()"
    )
    server = serve([sys.executable, "-c", code], f"http://127.0.0.1:{port}/", tmp_path / "listener.log")
    try:
        where = {"NOTIFY_URLS": f"json://127.0.0.1:{port}"}
        fork.set_params(seed=12)
        said = fork.make("run", NOTIFY_URLS=f"{where['NOTIFY_URLS']} json://127.0.0.1:{free_port()}")
        assert "a notice could not be sent" in said, "one of the two is not there"
        fork.set_params(evaluation={"slices": ["airline"]})
        fork.make("run", fails=True, **where)
        titles = [json.loads(line)["title"] for line in heard.read_text().splitlines()]
        assert titles == ["training passed the gate", "training failed"]
    finally:
        end(server)


def test_a_temporary_server(fork: Project) -> None:
    """Without an address the flow runs on a server of its own, which ends with it."""
    said = fork.make("run", PREFECT_API_URL="")
    assert "Prefect server: a temporary one" in said and "1, champion" in said and "train ..." not in said
    assert "ERROR" not in said, said
    left = [pid for pid, words in processes_in(fork.folder) if "prefect.server.api.server:create_app" in words]
    assert not left, "the temporary server is still there"


def test_a_temporary_server_of_a_killed_run(fork: Project) -> None:
    """Nothing is left behind by `kill -9`: the server goes with the run that it was started for."""
    fork.set_params(seed=14)

    def servers() -> list[int]:
        return [pid for pid, words in processes_in(fork.folder) if "prefect.server.api.server:create_app" in words]

    run = fork.start(".venv/bin/mlops", "run", PREFECT_API_URL="")
    said = ""
    while "train ..." not in said:  # the server is there, and the stages have begun
        line = run.stdout.readline() if run.stdout else ""
        assert line, said
        said += line
    for _ in range(600):
        if servers():
            break
        time.sleep(0.1)
    assert servers(), said
    time.sleep(0.5)  # it has only just begun to start
    os.kill(run.pid, signal.SIGKILL)
    run.wait(10)
    for _ in range(100):
        if not servers():
            break
        time.sleep(0.1)
    assert not servers(), "the temporary server is still there"
    end(run)


# ------------------------------------------------------------------------------------------- Tables of one's own


def customers(folder: Path, rows: int = 600) -> Path:
    """A small table that can be learnt."""
    lines = [f"{number},{number % 7},{(number * 37) % 100},{int((number * 37) % 100 > 40)}" for number in range(rows)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "customers.csv").write_text("id,visits,charge,again\n" + "\n".join(lines) + "\n")
    return folder / "customers.csv"


@pytest.fixture
def empty(render: Render, tmp_path: Path) -> Project:
    """A project without the sample and with an environment of its own, since a driver may be installed into it."""
    project = Project(tmp_path / "own")
    shutil.copytree(render(data_source="own"), project.folder)
    project.make("setup")
    return project


def test_a_table_in_an_object_store(empty: Project, s3: dict[str, str], tmp_path: Path) -> None:
    """Address and keys come from the environment; a newer file is noticed."""
    file = customers(tmp_path / "store/bucket/in")
    there = {key: value for key, value in s3.items() if key.startswith("AWS_")} | {
        "AWS_ENDPOINT_URL": s3["DATA_REMOTE_ENDPOINT"]
    }
    wrong = {**there, "AWS_SECRET_ACCESS_KEY": "wrong" * 8}
    assert "cannot be reached" in empty.make("adopt", "DATA=s3://bucket/in/", "TARGET=again", fails=True, **wrong)
    empty.make("adopt", "DATA=s3://bucket/in/*.csv", "TARGET=again", "ID=id", **there)
    assert there["AWS_SECRET_ACCESS_KEY"] not in (empty / f"src/{empty.package}/source.py").read_text()
    empty.set_params(search={"trials": 2}, validation={"max_single_input_skill": 1.0, "max_model_skill": 1.0})
    assert "600 rows" in empty.make("pipeline", **there)
    assert "nothing has changed" in empty.make("pipeline", **there)
    file.write_text(file.read_text() + "9999,1,50,1\n")
    assert "601 rows" in empty.make("pipeline", **there)


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A PostgreSQL server on loopback with a password made on the spot; installed from the system's packages if missing."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")):
        need(engine.apt("postgresql"))
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    port, secret, home = free_port(), secrets.token_hex(12), Path(tempfile.mkdtemp(prefix="pg-"))
    (home / "secret").write_text(secret)
    shutil.chown(home, "postgres")
    shutil.chown(home / "secret", "postgres")

    def as_postgres(*words: str) -> None:
        subprocess.run(["runuser", "-u", "postgres", "--", *words], check=True, cwd="/", stdout=subprocess.DEVNULL)

    as_postgres(
        str(binaries / "initdb"), "-D", str(home / "data"), "--auth=scram-sha-256", f"--pwfile={home / 'secret'}"
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home}"
    as_postgres(
        str(binaries / "pg_ctl"), "-D", str(home / "data"), "-w", "-l", str(home / "log"), "-o", options, "start"
    )
    yield port, secret
    as_postgres(str(binaries / "pg_ctl"), "-D", str(home / "data"), "-m", "immediate", "stop")
    shutil.rmtree(home)


def test_tables_in_databases(empty: Project, postgresql: tuple[int, str], tmp_path: Path) -> None:
    """The driver is installed with the table; the password comes from the environment, and a changed row is noticed."""
    port, secret = postgresql
    place, there = f"postgresql://postgres@127.0.0.1:{port}/postgres", {"PGPASSWORD": secret}
    file = customers(tmp_path)
    words = (f"DATA={place}", "QUERY=SELECT id, visits, charge, again FROM customers", "TARGET=again", "ID=id")
    assert "does not open" in empty.make("adopt", *words, fails=True, PGPASSWORD="wrong")
    assert "psycopg" in (empty / "pyproject.toml").read_text()
    change = "import sys, psycopg\nwith psycopg.connect(sys.argv[1]) as c: c.execute(sys.argv[2])"
    load = f"import psycopg\nwith psycopg.connect({place!r}) as c:\n    c.execute('CREATE TABLE customers (id int, visits int, charge int, again int)')\n    with c.cursor().copy('COPY customers FROM STDIN (FORMAT csv, HEADER)') as w: w.write(open({str(file)!r}).read())"
    empty.python(load, **there)
    assert "600 rows" in empty.make("adopt", *words, **there)
    empty.set_params(search={"trials": 2}, validation={"max_single_input_skill": 1.0, "max_model_skill": 1.0})
    empty.make("pipeline", **there)
    assert "nothing has changed" in empty.make("pipeline", **there)
    done = empty.command(
        ".venv/bin/python", "-c", change, place, "UPDATE customers SET charge = 99 WHERE id = 5", **there
    )
    assert done.returncode == 0, done.stderr
    assert "ingest ..." in empty.make("pipeline", **there)
    assert secret not in "".join(path.read_text(errors="ignore") for path in empty.folder.glob("*.*") if path.is_file())
    # and in a file of DuckDB
    assert empty.command("uv", "add", "--quiet", "duckdb>=1.4").returncode == 0
    empty.python(
        f"import duckdb; duckdb.connect({str(tmp_path / 'shop.duckdb')!r}).execute(\"CREATE TABLE c AS SELECT * FROM read_csv('{file}')\")"
    )
    said = empty.make(
        "adopt",
        f"DATA=duckdb:///{tmp_path / 'shop.duckdb'}",
        "QUERY=SELECT * FROM c",
        "TARGET=again",
        "ID=id",
        "FORCE=1",
    )
    assert "600 rows" in said
    empty.set_params(search={"trials": 2}, validation={"max_single_input_skill": 1.0, "max_model_skill": 1.0})
    empty.make("pipeline")
