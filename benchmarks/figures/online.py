"""What the online service makes of a processor: rows a second, beside other servers with the same model, by turns in one run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from lab import INSIDE, PACKAGE, Lab, Project, call, environment, free_port, stop, wait_for
from rows import Row, limited, repeated

CONNECTIONS = 32
SECONDS = 6
REPETITIONS = 5
STARTS = 5
TIMES = ("scheduled_departure",)
ALIKE = 1e-5  # ours answers by ONNX, the others by the estimator; as the bundle is allowed to
OVER = {"mlflow": 60.0, "bentoml": 10.0, "noop": 1.0}
MEANING = {
    "online_over_mlflow": f"requests for one row a second over {CONNECTIONS} connections, one worker, with contract, metrics and "
    "prediction log, against `mlflow models serve` with the same model",
    "online_over_bentoml": "the same against BentoML",
    "online_over_noop": "the same against a route of FastAPI that does nothing",
    "online_p99": "of these requests all but the slowest hundredth took so long",
    "online_start": "from the command to the first answer",
    "online_memory": "resident memory of the service after that load",
}
# What wrk sends, and the one line that it ends with: requests, microseconds, failures, the 99th percentile in microseconds.
SCRIPT = """\
wrk.method = "POST"
wrk.body = [==[BODY]==]
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("%d %d %d %d\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Server:
    """One that is measured: its name, the words that start it, what says that it is ready, what it is asked, its folder and
    environment, and which part of its answer is the score."""

    name: str
    words: list[str]
    ready: str
    path: str
    body: str
    folder: Path
    more: Mapping[str, str] = field(default_factory=dict)
    score: Callable[[Any], float] | None = None

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
        """Started and ready; gives its address and its process."""
        port = free_port()
        words = [word.replace("PORT", str(port)) for word in self.words]
        env = environment(**{**self.more, "SERVICE_PORT": str(port)})
        with log.open("w") as file:
            process = subprocess.Popen(
                words, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True, start_new_session=True
            )  # fmt: skip
        try:
            wait_for(f"http://127.0.0.1:{port}{self.ready}", process)
            yield f"http://127.0.0.1:{port}{self.path}", process
        finally:
            stop(process)

    def ask(self, address: str) -> Any:
        """What it answers.

        Raises:
            RuntimeError: If it says no; the text has what it said.
            OSError: If nothing listens there.
        """
        request = urllib.request.Request(address, self.body.encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read(1000).decode(errors="replace").strip()
            raise RuntimeError(f"{self.name} answers {error.code} at {address}: {said}") from error


def same_answers(there: Mapping[str, Server], folder: Path) -> None:
    """Make sure that all answer the row, and those with a model give it the same score: else nothing is compared.

    Raises:
        RuntimeError: If one does not; the text has what it said, and the end of its log.
    """
    scores: dict[str, float] = {}
    for name, server in there.items():
        log = folder / f"{name}.log"
        try:
            with server.running(log) as (address, _):
                answer = server.ask(address)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\nits log ends:\n{log.read_text()[-2000:]}") from error
        if server.score is not None:
            scores[name] = server.score(answer)
            if abs(scores[name] - scores["ours"]) > ALIKE:
                raise RuntimeError(
                    f"{name} gives the row {scores[name]!r} and ours {scores['ours']!r}: not the same model"
                )


def load(server: Server, address: str, folder: Path, seconds: float) -> tuple[float, float]:
    """Requests a second, and the milliseconds that all but the slowest hundredth took.

    Raises:
        RuntimeError: If wrk is not installed, or a request failed.
    """
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    script = folder / "post.lua"
    script.write_text(SCRIPT.replace("BODY", server.body))
    words = [
        "wrk",
        "--threads",
        "1",
        "--connections",
        str(CONNECTIONS),
        "--duration",
        f"{seconds:g}s",
        "--timeout",
        "30s",  # it calls slow what it calls failed after two seconds
        "--script",
        str(script),
    ]
    requests, micros, failed, slow = map(int, call([*words, address], folder).output.splitlines()[-1].split())
    if failed:
        raise RuntimeError(f"{failed} of {requests} requests to {address} failed")
    return requests / micros * 1e6, slow / 1e3


def servers(lab: Lab, project: Project) -> dict[str, Server]:
    """Ours and the others; each answers one row of the bundle."""
    expected = json.loads((project.folder / "dist/bundle/expected.json").read_text())
    row = dict(zip(expected["columns"], expected["rows"][0], strict=True))
    alone = lab.folder / "service"
    uv = shutil.which("uv") or str(project.folder / ".tools/bin/uv")
    call([uv, "sync", "--quiet", "--no-default-groups", "--group", "service", "--no-install-project"], project.folder,
         environment(UV_PROJECT_ENVIRONMENT=str(alone)))  # fmt: skip
    python = str(alone / "bin/python")
    source = {"PYTHONPATH": str(project.folder / "src"), "OMP_NUM_THREADS": "1"}
    bento = lab.folder / "bento"
    same = project.script("versions.py", "cloudpickle", "numpy", "pandas", "scikit-learn").output.split()
    call([uv, "venv", "--quiet", str(bento)], lab.folder)
    call(
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            str(bento / "bin/python"),
            "bentoml>=1.4",
            "pydantic-settings",
            *same,
        ],
        lab.folder,
    )
    naive = [str(value).removesuffix("Z") if name in TIMES else value for name, value in row.items()]
    asked = json.dumps({"dataframe_split": {"columns": list(row), "data": [naive]}})  # MLflow's schema has no zones
    model = f"models:/{PACKAGE.replace('_', '-')}@champion"
    quiet = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{project.folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "PATH": f"{project.folder}/.venv/bin{os.pathsep}{os.environ['PATH']}",  # it starts uvicorn by its name
    }
    return {
        "ours": Server("ours", [python, "-m", f"{PACKAGE}.serving.online"], "/health/ready", "/predict", json.dumps(row), project.folder, source,
                       lambda answer: float(answer["score"])),
        "noop": Server("noop", [python, str(INSIDE / "noop.py"), "PORT"], "/openapi.json", "/predict", json.dumps(row), lab.folder),
        "bentoml": Server(
            "bentoml",
            [str(bento / "bin/python"), "-m", "bentoml", "serve", "bento_service:Model", "--host", "127.0.0.1", "--port", "PORT"],
            "/readyz", "/predict", json.dumps({"row": row}), INSIDE,
            {**source, "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(lab.folder / "bentos"), "PACKAGE": PACKAGE,
             "BUNDLE": str(project.folder / "models/bundle")},
            float,
        ),
        "mlflow": Server(
            "mlflow",
            [project.python, str(project.folder / ".venv/bin/mlflow"), "models", "serve", "--model-uri", model, "--env-manager", "local",
             "--host", "127.0.0.1", "--port", "PORT", "--workers", "1"],
            "/ping", "/invocations", asked, project.folder, {**source, **quiet},
            lambda answer: float(answer["predictions"][0]["score"]),
        ),
    }  # fmt: skip


def first_answer(server: Server, folder: Path) -> float:
    """Seconds from the command to the first answer."""
    port, begun = free_port(), time.perf_counter()
    env = environment(**{**server.more, "SERVICE_PORT": str(port)})
    process = subprocess.Popen(server.words, cwd=server.folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, text=True, start_new_session=True)  # fmt: skip
    try:
        while True:
            with contextlib.suppress(OSError):
                server.ask(f"http://127.0.0.1:{port}{server.path}")
                return time.perf_counter() - begun
            if process.poll() is not None or time.perf_counter() - begun > 60:
                raise RuntimeError("the service does not start")
            time.sleep(0.01)
    finally:
        stop(process)


def resident(process: subprocess.Popen[str]) -> float:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1000


def measure(lab: Lab) -> list[Row]:
    project = lab.serving("online")
    there = servers(lab, project)
    same_answers(there, lab.folder)
    rates: dict[str, list[float]] = {name: [] for name in there}
    slow, memory = [], []
    for _ in range(REPETITIONS):
        for name, server in there.items():
            with server.running(lab.folder / f"{name}.log") as (address, process):
                load(server, address, lab.folder, 1)
                rate, p99 = load(server, address, lab.folder, SECONDS)
                rates[name].append(rate)
                if name == "ours":
                    slow.append(p99)
                    memory.append(resident(process))
        shutil.rmtree(project.folder / "predictions", ignore_errors=True)
    rows = []
    for name, bar in OVER.items():
        shares = [ours / other for ours, other in zip(rates["ours"], rates[name], strict=True)]
        share, spread = median(shares), (round(min(shares), 3), round(max(shares), 3))
        note = f"{median(rates['ours']):,.0f} a second, and {median(rates[name]):,.0f}"
        rows.append(
            Row(f"online_over_{name}", round(share, 3), "times", spread, f"{bar:g} or more", share >= bar, note)
        )
    rows.append(
        repeated("online_p99", slow, "ms", 10, f"the load is at its limit; {os.cpu_count()} cores serve it and ask")
    )
    rows.append(repeated("online_start", [first_answer(there["ours"], lab.folder) for _ in range(STARTS)], "s", 2))
    rows.append(limited("online_memory", median(memory), "MB", 160))
    lab.drop("online")
    return rows
