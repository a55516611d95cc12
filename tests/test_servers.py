"""Stores and servers by address: S3, MLflow, Prefect with a worker and a schedule. Real ones, on loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project, Render, end, free_port, processes_in, serve, wait_for


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An S3-compatible store with a key made on the spot."""
    port, key, secret = free_port(), secrets.token_hex(8), secrets.token_hex(16)
    (tmp_path / "store/bucket").mkdir(parents=True)
    rclone = str(Path(sys.executable).with_name("rclone"))
    process = serve(
        [
            rclone,
            "serve",
            "s3",
            "--auth-key",
            f"{key},{secret}",
            "--addr",
            f"127.0.0.1:{port}",
            str(tmp_path / "store"),
        ],
        f"http://127.0.0.1:{port}/",
        tmp_path / "s3.log",
    )
    yield {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "DATA_REMOTE": "s3://bucket/flights",
        "DATA_REMOTE_ENDPOINT": f"http://127.0.0.1:{port}",
    }
    end(process)


def test_push_and_pull_through_s3(render: Render, trained: Project, s3: dict[str, str], tmp_path: Path) -> None:
    """The scheme of the answer brings the plug-in; address and key come from the environment."""
    project = Project(tmp_path / "project", **trained.environment)
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
    assert "holds no data" in fork.command(f".venv/bin/{fork.package}", "validate").stderr
    fork.make("pull")
    assert "nothing has changed" in fork.make("pipeline")


def test_an_mlflow_server(fork: Project, tmp_path: Path) -> None:
    """The same run on a server by address; the laptop's registry is not touched."""
    port = free_port()
    server = serve(
        [
            str(fork / ".venv/bin/mlflow"), "server", "--host", "127.0.0.1", "--port", str(port),
            "--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path / "files"),
        ],
        f"http://127.0.0.1:{port}/health",
        tmp_path / "mlflow.log",
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="1",
    )  # fmt: skip
    try:
        there = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
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
        assert f"MLflow's page is http://127.0.0.1:{port}" in fork.make("ui", **there)
    finally:
        end(server)


def test_the_page_of_mlflow(fork: Project) -> None:
    port = free_port()
    process = fork.start("make", "ui", f"PORT={port}")
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
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
            "try:\n    run = run_deployment('train/weekly', timeout=150, poll_interval=1)\n"
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
        ".venv/bin/prefect", "deployment", "inspect", "train/weekly", PREFECT_HOME=str(fork / ".prefect")
    )
    assert "0 5 * * 1" in listed.stdout and name in listed.stdout


def test_prefect_unreachable(fork: Project) -> None:
    said = fork.make("run", fails=True, PREFECT_API_URL=f"http://127.0.0.1:{free_port()}/api")
    assert "does not answer" in said and "PREFECT_API_URL" in said and "make pipeline" in said


def test_the_page_of_a_run(trained: Project) -> None:
    """Metrics and verdict stand on the flow run's page as Markdown."""
    text = trained.python(
        "import json\nfrom prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as c: print([a.data for a in c.read_artifacts() if a.key == 'verdict'][0])"
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
        fork.make("run", **where)
        fork.set_params(evaluation={"slices": ["airline"]})
        fork.make("run", fails=True, **where)
        titles = [json.loads(line)["title"] for line in heard.read_text().splitlines()]
        assert titles == ["training passed the gate", "training failed"]
    finally:
        end(server)
    fork.set_params(evaluation={"slices": ["carrier"]}, seed=13)
    said = fork.make("run", NOTIFY_URLS=f"json://127.0.0.1:{port}")
    assert "a notice could not be sent" in said


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

    run = fork.start(f".venv/bin/{fork.package}", "run", PREFECT_API_URL="")
    said = ""
    while "train ..." not in said:  # the server is there, and the stages have begun
        line = run.stdout.readline() if run.stdout else ""
        assert line, said
        said += line
    assert servers(), said
    os.kill(run.pid, signal.SIGKILL)
    run.wait(10)
    for _ in range(100):
        if not servers():
            break
        time.sleep(0.1)
    assert not servers(), "the temporary server is still there"
    end(run)
