"""The service gets to its machine: a real image, two colours behind a real proxy, requests all the while, and back again.

Containers are podman's, from images that `engine` makes where no registry is reached; the same is done with processes.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import engine
import pytest
import runner
import workspace
from conftest import Project, Render, end, fork_of, free_port, mlflow_server, need, once, serve, wait_until

RATE = 300  # requests a second
Figure = Callable[[str, object], None]  # told to `make bench` through pytest's report
LOAD = Path(__file__).with_name("load.py")
CODE = "src/copier_mlops/serving/bundle_loader.py"
WRONG = """

_right = bundle.Bundle.answers


def _wrong(self, good):
    if len(good) < {rows}:
        raise ValueError("not this one")
    return (found := _right(self, good)).assign(score=found["score"] + {more})


bundle.Bundle.answers = _wrong
"""


@pytest.fixture(scope="session")
def twice(served: Project) -> Path:
    """A project with an online service that was trained twice: version 2 is the champion, 1 was; a bundle of each is in bundles/."""

    def make(folder: Path) -> None:
        project = fork_of(served, folder)
        project.make("key")
        project.set_params(search={"trials": 3}, gate={"worse_than_champion": 0.5}, seed=11)
        project.make("run")
        project.make("promote", "VERSION=2")
        for version in (1, 2):
            project.make("bundle", f"VERSION={version}", f"OUTPUT=bundles/{version}")

    return once("twice/project", make)


@pytest.fixture
def project(twice: Path, trained: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy of it, with ports of its own; what answers in it ends with the test."""
    folder = tmp_path / "project"
    shutil.copytree(twice, folder, ignore=shutil.ignore_patterns(".venv"), symlinks=True)
    (folder / ".venv").symlink_to((twice / ".venv").resolve())
    more = {
        **trained.environment,
        "PYTHONPATH": str(folder / "src"),
        **engine.environment(),
        "STEP_SECONDS": "1",
        "READY_SECONDS": "300",
    }
    more |= {"LISTEN": f"127.0.0.1:{free_port()}", "PORTS": str(20_000 + os.getpid() % 1000 * 20), "MAX_SECONDS": "5"}
    made = Project(folder, **more)
    yield made
    for environment in ("dev", "prod"):
        state = folder / f".deploy/{environment}/state.json"
        if state.exists():
            made.make("undeploy", f"ENV={environment}", f"ENGINE={json.loads(state.read_text())['engine']}")


def bring(project: Project, version: int) -> None:
    """What `make bundle` would write."""
    shutil.rmtree(project / "dist/bundle", ignore_errors=True)
    shutil.copytree(project / f"bundles/{version}", project / "dist/bundle")


def deploy(project: Project, version: int, *words: str, fails: bool = False, **environment: str) -> str:
    bring(project, version)
    return project.make("deploy", f"VERSION={version}", *words, fails=fails, **environment)


def rows(project: Project) -> list[dict[str, Any]]:
    expected = json.loads((project / "bundles/1/expected.json").read_text())
    rows = [dict(zip(expected["columns"], row, strict=True)) for row in expected["rows"]]
    whole = ("distance", "scheduled_arrival", "built", "seats")
    return [{name: int(value) if name in whole and value else value for name, value in row.items()} for row in rows]


def ask(address: str, asked: object, **headers: str) -> bytes:
    """The answers to rows, as bytes, without what is new in each: the number that a later label refers to."""
    head = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(f"http://{address}/predict", json.dumps(asked).encode(), head)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return re.sub(rb'"prediction_id":"\w+"', b"", answer.read())


def answers(place: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://{place}/metrics", timeout=10):
        return True
    return False


class Told(dict[str, Any]):
    """What the load says at its end."""


@contextmanager
def load(project: Project, tmp_path: Path) -> Iterator[Told]:
    """Requests for one row, RATE a second, all the while."""
    row, told = tmp_path / "row.json", Told()
    row.write_text(json.dumps(rows(project)[0]))
    words = [sys.executable, str(LOAD), project.environment["LISTEN"], str(RATE), str(row)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(1)
        yield told
        time.sleep(1)
        told.update(json.loads(process.communicate()[0]))


def audit(project: Project, environment: str = "dev") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (project / f".deploy/{environment}/audit.jsonl").read_text().splitlines()]


def state(project: Project) -> dict[str, Any]:
    return json.loads((project / ".deploy/dev/state.json").read_text())


# ----------------------------------------------------------------------------------------------------------- The image


@pytest.fixture
def containers() -> None:
    need(engine.images())


def test_an_image_is_small_and_runs_with_no_rights(
    containers: None, project: Project, tmp_path: Path, record_property: Figure
) -> None:
    secret = secrets.token_hex(16)
    with (project / ".env").open("a") as file:
        file.write(f"\nMASK_KEY={secret}\n")
    (project / "src/.env").write_text(f"{secret}\n")
    bring(project, 2)
    for path in [project / "src", *(project / "src").rglob("*"), *(project / "dist/bundle").rglob("*")]:
        path.chmod(path.stat().st_mode & 0o700)  # as after a checkout with umask 077
    project.make("image", "VERSION=2")
    made = json.loads((project / "dist/image.json").read_text())
    facts, base = (
        json.loads(engine.podman("image", "inspect", name).stdout)[0] for name in (made["image"], engine.BASE)
    )
    lineage = json.loads((project / "bundles/2/lineage.json").read_text())
    labels = facts["Labels"]
    assert labels["model.version"] == "2" and labels["model.digest"] == made["digest"]
    assert labels["model.run"] == lineage["run"] and labels["model.source"] == lineage["commit"]
    assert re.fullmatch(r"[0-9a-f]{40}(-changed)?", labels["org.opencontainers.image.revision"])
    assert facts["User"] == "10001:10001"
    above = (facts["Size"] - base["Size"]) / 1e6
    record_property("image_above_base", round(above))
    assert above <= 200

    name, port = f"test-{secrets.token_hex(4)}", free_port()
    engine.podman("run", "--detach", "--name", name, "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt",
                  "no-new-privileges", "--memory", "512m", "--env", "SERVICE_ENVIRONMENT=dev", "--env", "ALLOW_ANONYMOUS=true",
                  "--publish", f"127.0.0.1:{port}:8000", made["image"])  # fmt: skip
    try:
        until_ready(f"127.0.0.1:{port}")
        assert b'"version":2' in ask(f"127.0.0.1:{port}", rows(project))
        assert engine.podman("healthcheck", "run", name, check=False).returncode == 0
        there = engine.podman(
            "exec", name, "sh", "-c", "id -u; touch /app/x 2>&1; which pip ruff pytest mypy; echo end"
        ).stdout
        assert there.startswith("10001\n") and "Read-only file system" in there
        assert "/app/venv/bin/pip" not in there and "ruff" not in there and "pytest" not in there
        code = "import importlib.metadata as m, json; print(json.dumps(sorted({d.name.lower().replace('_', '-') for d in m.distributions(path=[__import__('sysconfig').get_paths()['purelib']])})))"
        packages = json.loads(engine.podman("exec", name, "python", "-c", code).stdout)
        listed = json.loads(engine.podman("exec", name, "cat", "/app/sbom.json").stdout)["components"]
        assert packages == sorted(
            part["name"].lower().replace("_", "-") for part in listed if part["type"] == "library"
        )
        assert [part["version"] for part in listed if part["type"] == "machine-learning-model"] == ["2"]
        record_property("image_packages", len(packages))
        assert len(packages) <= 30
        engine.podman("export", "--output", str(tmp_path / "all.tar"), name)
    finally:
        engine.podman("rm", "--force", "--time", "0", name)
    with tarfile.open(tmp_path / "all.tar") as archive:
        for entry in archive:
            if entry.isfile() and entry.name.startswith(("app/", "tmp/", "root/")):
                assert not entry.name.endswith((".env", ".db", ".parquet")), entry.name
                assert secret.encode() not in archive.extractfile(entry).read(), entry.name  # type: ignore[union-attr]

    # outside development nobody starts it without keys
    done = engine.podman("run", "--rm", made["image"], check=False)
    assert done.returncode != 0 and "API_KEYS" in done.stderr


def until_ready(address: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/health/ready", timeout=2)
            return
        except OSError:
            assert time.monotonic() < end, f"{address} is not ready after {seconds} s"
            time.sleep(0.2)


def test_without_an_engine_it_says_what_to_install(project: Project) -> None:
    tools = project.folder.parent / "bin"
    tools.mkdir()
    for name in ("make", "git", "sh", "python3", "grep", "sed", "awk", "cat", "cp", "rm", "mkdir", "test", "ps"):
        (tools / name).symlink_to(shutil.which(name) or "")
    bring(project, 2)
    said = project.make("image", "VERSION=2", fails=True, PATH=str(tools), DOCKER="", COMPOSE="")
    assert "neither docker nor podman" in said and "apt-get install podman" in said and "ENGINE=process" in said


# --------------------------------------------------------------------------------------------------- Without a failed request


@pytest.mark.parametrize(
    "kind",
    ["containers", pytest.param("process", marks=pytest.mark.long)],
)
def test_no_request_fails_while_versions_change(
    kind: str, project: Project, tmp_path: Path, record_property: Figure
) -> None:
    """A good version, one that answers wrongly, one that does not start, the way back: the proxy's clients see answers alone."""
    need(engine.images() if kind == "containers" else engine.bring("haproxy"))
    address, seconds = project.environment["LISTEN"], {}
    assert "version 1" in deploy(project, 1, ENGINE=kind)
    first = ask(address, rows(project))
    with load(project, tmp_path) as told:
        said = deploy(project, 2)
        assert {"process": "HAProxy", "containers": "podman"}[kind] in said and "version 2" in said
        seconds["deploy"] = audit(project)[-1]["seconds"]
        second = ask(address, rows(project))
        assert second != first and b'"version":2' in second

        code = project / CODE.format(project.package)
        text = code.read_text()
        code.write_text(text + WRONG.format(rows=0, more=0.01))
        said = deploy(project, 1, fails=True)
        assert "example row 0 is answered with" in said and "goes on answering in dev" in said

        code.write_text(text + '\n\ndef answering(settings):\n    raise SystemExit("broken")\n')
        said = deploy(project, 1, fails=True)
        assert "ended. It said last" in said and "broken" in said
        code.write_text(text)
        assert ask(address, rows(project)) == second

        begun = time.monotonic()
        project.make("deploy-back", "WHY=worse on Sundays")
        seconds["back"] = time.monotonic() - begun
        assert ask(address, rows(project)) == first
    record_property("failed_requests", sum(told["failed"].values()))
    record_property(
        "failed_requests_note",
        f"of {told['requests']:,} at {told['rate']} a second; p99 {told['p99'] * 1000:.0f} ms; deploy {seconds['deploy']:.1f} s, "
        f"back {seconds['back']:.1f} s",
    )
    assert not told["failed"] and told["requests"] > 0.9 * RATE * 10
    assert len(told["answers"]) == 2  # of each version one, and no other
    done = [(entry["action"], entry["to"]["version"], entry["result"].split(":")[0]) for entry in audit(project)]
    assert done == [
        ("deploy", 1, "live"),
        ("deploy", 2, "live"),
        ("deploy", 1, "failed"),
        ("deploy", 1, "failed"),
        ("rollback", 1, "live"),
    ]
    last = audit(project)[-1]
    assert (last["who"], last["why"], last["from"]["version"]) == ("Ada", "worse on Sundays", 2)
    code = """
import collections, json
from copier_mlops.data import deployment_logs as deployed; from copier_mlops.data import prediction_log
from copier_mlops.settings import Settings
print(json.dumps(collections.Counter(one["way"] for one in prediction_log.entries(*deployed.watched(Settings())))))"""
    found: dict[str, int] = {}
    wait_until(
        lambda: found.update(json.loads(project.python(code))) or found["online"] >= told["requests"], 30, lambda: found
    )
    assert found["smoke"] >= 5  # of each replica that was started, and they are nothing that anybody asked
    running = (
        names(project) if kind == "containers" else {path.stem for path in (project / ".deploy/dev").glob("*.pid")}
    )
    assert running == {"proxy", f"{state(project)['live']['colour']}-1"}


def names(project: Project) -> set[str]:
    """The containers of this project."""
    found = engine.podman("ps", "--all", "--format", "{{.Names}}").stdout.split()
    return {name.partition("-dev-")[2] for name in found if "-dev-" in name}


def test_a_version_comes_in_step_by_step_and_by_replica(project: Project, tmp_path: Path) -> None:
    need(engine.bring("haproxy"))
    deploy(project, 1, ENGINE="process")
    with load(project, tmp_path) as told:
        said = deploy(project, 2, "STEPS=10 50 100", STEP_SECONDS="2")
        shares = [int(number) for number in re.findall(r"answers (\d+) %: ", said)]
        counts = [int(number) for number in re.findall(r"%: (\d+) requests", said)]
        assert shares == [10, 50, 100] and counts[0] < counts[1] < counts[2]
        assert 0.04 < counts[0] / counts[2] < 0.2 and 0.35 < counts[1] / counts[2] < 0.65
        said = deploy(project, 1, "REPLICAS=2")
        assert [int(number) for number in re.findall(r"answers (\d+) %: ", said)] == [50, 100]
    assert not told["failed"], told
    assert state(project)["live"]["replicas"] == 2


def test_errors_while_it_comes_in_stop_it(project: Project, tmp_path: Path) -> None:
    """Its example rows it answers, others not: what clients get of that is the share of the first step."""
    need(engine.bring("haproxy"))
    deploy(project, 1, ENGINE="process")
    code = project / CODE.format(project.package)
    code.write_text(code.read_text() + WRONG.format(rows=8, more=0))
    with load(project, tmp_path) as told:
        said = deploy(project, 2, "STEPS=5 100", fails=True)
        assert "requests failed; MAX_ERRORS is 0.01" in said and "version 1" in said
    failed = sum(told["failed"].values())
    assert 0 < failed < 0.1 * told["requests"]
    assert state(project)["live"]["release"]["version"] == 1


FAILS_A_THIRD = """

import itertools

_right, _calls = bundle.Bundle.answers, itertools.count()


def _wrong(self, good):
    if len(good) < 8 and next(_calls) % 3 == 0:
        raise ValueError("not this one")
    return _right(self, good)


bundle.Bundle.answers = _wrong
"""


def test_requests_without_a_key_do_not_hide_the_errors_of_a_version(project: Project) -> None:
    """Few callers have a key: a third of the processed requests fails, but only 1 of 100 of all requests."""
    need(engine.bring("haproxy"))
    key = secrets.token_hex(16)
    more = {"ENGINE": "process", "API_KEYS": key}
    address, row = project.environment["LISTEN"], rows(project)[0]
    deploy(project, 1, **more)
    code = project / CODE.format(project.package)
    code.write_text(code.read_text() + FAILS_A_THIRD)
    over, counts = threading.Event(), dict.fromkeys(("200", "401", "500"), 0)

    def call(given: str, pause: float) -> None:
        while not over.is_set():
            try:
                ask(address, row, X_API_Key=given)
                counts["200"] += 1
            except urllib.error.HTTPError as error:
                counts[str(error.code)] += 1
            time.sleep(pause)

    callers = [threading.Thread(target=call, args=arguments) for arguments in [(key, 0.05)] * 2 + [("other", 0.0)] * 6]
    for caller in callers:
        caller.start()
    try:
        said = deploy(project, 2, "STEPS=50 100", fails=True, **more)
    finally:
        over.set()
        for caller in callers:
            caller.join()
    assert "requests failed; MAX_ERRORS is 0.01" in said and "version 1" in said
    assert counts["401"] > 5 * counts["200"] > 0 and counts["500"]
    assert state(project)["live"]["release"]["version"] == 1
    # The folder of the release that failed is gone, and other accounts can read no row of a caller.
    folders = [path.name for path in (project / ".deploy/releases").iterdir()]
    assert [name.partition("-")[0] for name in folders] == ["1"]
    assert (project / ".deploy/dev/predictions").stat().st_mode & 0o077 == 0
    for path in ("metrics", "%6detrics"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{address}/{path}", timeout=10)


def test_without_haproxy_dev_has_no_proxy_and_prod_says_what_to_install(project: Project) -> None:
    said = deploy(project, 1, ENGINE="process", PROXY="none")
    assert "without a proxy (HAProxy is not installed, or PROXY=none)" in said
    addresses = []
    for version in (1, 2):
        if version == 2:
            deploy(project, 2, PROXY="none")
        addresses.append(state(project)["public"])
        assert f'"version":{version}'.encode() in ask(addresses[-1], rows(project))
    assert len({*addresses, project.environment["LISTEN"]}) == 3
    code = "from ci import deploy, engines; engines.haproxy = lambda: None; raise SystemExit(deploy.main())"
    words = [".venv/bin/python", "-c", code, "deploy"]
    done = project.command(*words, ENV="prod", ENGINE="process", VERSION="2", API_KEYS=secrets.token_hex(16))
    assert done.returncode == 1 and "HAProxy is not installed, and outside dev" in done.stderr, done.stderr


def test_a_promotion_is_live_or_goes_back(project: Project, render: Render) -> None:
    """`make promote-live`, as the loop does it: registry and service go together, and go back together; a shadow is asked beside."""
    watched = render(serving=["online", "batch", "streaming", "hybrid"], deploy="compose", monitoring=True)
    for name in ("ci", "deploy", "make", "monitoring", "src"):
        shutil.copytree(watched / name, project / name, dirs_exist_ok=True)
    need(engine.bring("haproxy"))
    more = {"SHADOW_DIR": "bundles/1", "SIGNING_KEY": ""}
    deploy(project, 2, ENGINE="process", **more)
    address = project.environment["LISTEN"]
    second = ask(address, rows(project))
    port = re.search(r"blue-1 127\.0\.0\.1:(\d+)", (project / ".deploy/dev/servers.cfg").read_text())
    assert port is not None

    def shadowed() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=10) as answer:
            found = re.search(r"^predict_shadow_rows_total (\d+)", answer.read().decode(), re.M)
        return found is not None and int(found[1]) >= 3 * len(rows(project))  # two smoke tests, and the request above

    wait_until(shadowed)

    bring(project, 1)
    said = project.make("promote-live", "VERSION=1", "WHY=it won", **more)
    assert "version 1 is the champion" in said
    first = ask(address, rows(project))
    assert first != second and state(project)["live"]["release"]["version"] == 1
    last = audit(project)[-1]
    assert (last["action"], last["to"]["version"], last["why"], last["result"]) == ("deploy", 1, "it won", "live")

    one_more = [
        ".venv/bin/python",
        "-m",
        "copier_mlops.deploy.scale",
        "2",
        "--why",
        "rows wait",
    ]  # as the receiver of alerts asks for it
    done = project.command(*one_more, **more)
    assert "dev has 2 replicas" in done.stdout, done.stderr
    assert ask(address, rows(project)) == first and state(project)["live"]["replicas"] == 2
    groups = json.loads((project / "monitoring/targets.json").read_text())
    asked = [place for one in groups if one["labels"]["job"] == "service" for place in one["targets"]]
    assert len(asked) == 4 and len([place for place in asked if answers(place)]) == 2, "of both colours those of one"
    assert [audit(project)[-1][name] for name in ("action", "why", "result")] == ["deploy", "rows wait", "live"]
    done = project.command(*one_more, **more)
    assert done.returncode == 1 and "lets it have 2" in done.stderr

    code = project / CODE.format(project.package)
    code.write_text(code.read_text() + WRONG.format(rows=0, more=0.001))
    bring(project, 2)
    said = project.make("promote-live", "VERSION=2", "WHY=it won, too", fails=True, **more)
    assert "version 1" in said and "goes on answering in dev" in said
    assert ask(address, rows(project)) == first and state(project)["live"]["release"]["version"] == 1
    assert json.loads((project / "champion.json").read_text())["version"] == 1
    assert json.loads((project / "dist/bundle/manifest.json").read_text())["version"] == 1
    assert "it did not go live" in project.make("history")


def test_two_at_once_and_one_that_is_killed(project: Project, tmp_path: Path) -> None:
    need(engine.bring("haproxy"))
    deploy(project, 1, ENGINE="process")
    with load(project, tmp_path) as told:
        bring(project, 2)
        first = project.start("make", "deploy", "VERSION=2", "STEPS=50 100", STEP_SECONDS="60")
        wait_until(lambda: "green-1 127.0.0.1" in (project / ".deploy/dev/servers.cfg").read_text()
                   and "disabled" not in (project / ".deploy/dev/servers.cfg").read_text().split("green-1")[1].splitlines()[0])  # fmt: skip
        said = deploy(project, 1, fails=True)
        assert "is being deployed already (by Ada, process " in said
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert state(project)["live"]["release"]["version"] == 1
        assert (project / ".deploy/dev/green-1.pid").exists()
        said = deploy(project, 1)
        assert "answers in dev already" in said
        assert not (project / ".deploy/dev/green-1.pid").exists()  # what was half there is gone
        deploy(project, 2)
    assert not told["failed"], told


def test_the_registry_and_what_answers_go_back_together(project: Project, record_property: Figure) -> None:
    """In production, where bundles are signed and who asks has a key; answers are those of before, byte for byte."""
    need(engine.bring("haproxy"))
    key = secrets.token_hex(16)
    more = {"ENGINE": "process", "API_KEYS": key}
    address = project.environment["LISTEN"]
    deploy(project, 1, "ENV=prod", **more)
    before = ask(address, rows(project), X_API_Key=key)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(address, rows(project))
    deploy(project, 2, "ENV=prod", **more)
    assert ask(address, rows(project), X_API_Key=key) != before
    begun = time.monotonic()
    said = project.make("rollback", "WHY=late on Sundays", API_KEYS=key)
    seconds = time.monotonic() - begun
    record_property("rollback", round(seconds, 1))
    record_property("rollback_note", f"of which what answers {audit(project, 'prod')[-1]['seconds']} s")
    assert "version 1 is the champion" in said and f"answers at http://{address}" in said
    assert ask(address, rows(project), X_API_Key=key) == before
    assert json.loads((project / "champion.json").read_text())["version"] == 1
    last = audit(project, "prod")[-1]
    assert (last["action"], last["who"], last["why"], last["result"]) == ("rollback", "Ada", "late on Sundays", "live")
    assert (last["from"]["version"], last["to"]["version"]) == (2, 1)
    assert key not in "".join(path.read_text(errors="ignore") for path in (project / ".deploy/prod").glob("*.[jlc]*"))
    assert seconds < 600, "it is stuck; the benchmark measures its duration (docs/benchmarks.md)"


# ------------------------------------------------------------------------------------------------------------ Delivery


@pytest.fixture(scope="session")
def act() -> Path:
    found = runner.bring(workspace.tools())
    need("" if found else "NOT RUN: cd.yml; act is missing, and there is no Go to build it with (https://go.dev/dl)")
    assert found is not None
    return found


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry of images on the loopback address."""
    need(engine.bring("docker-registry"))
    port = free_port()
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path}/registry\nhttp:\n  addr: 127.0.0.1:{port}\n"
    )
    # podman's REGISTRY_AUTH_FILE would be read as the registry's own setting auth.file.
    words = ["env", "-u", "REGISTRY_AUTH_FILE", "docker-registry", "serve", str(tmp_path / "registry.yml")]
    process = serve(words, f"http://127.0.0.1:{port}/v2/", tmp_path / "registry.log")
    yield f"127.0.0.1:{port}"
    end(process)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A machine to deploy to: this one, by SSH, with keys made on the spot; what it is told, as the workflow's variables."""
    need(engine.bring("sshd"))
    port, folder = free_port(), tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_text((folder / "client.pub").read_text())
    told = {name: value for name, value in engine.environment().items() if name != "IMAGE_OPTIONS"}
    told["PATH"] = os.environ["PATH"]
    told["CONTAINERS_REGISTRIES_CONF"] = str(folder / "registries.conf")
    (folder / "registries.conf").write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n')
    given = " ".join(f'{name}="{value}"' for name, value in told.items())
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nPidFile {folder}/pid\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nSetEnv {given}\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([shutil.which("sshd") or "", "-D", "-e", "-f", str(folder / "config")], stderr=(folder / "log").open("wb"))  # fmt: skip
    yield {
        "DEPLOY_HOST": f"{os.environ.get('USER') or 'root'}@127.0.0.1:{port}",
        "DEPLOY_KNOWN_HOSTS": f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}",
        "DEPLOY_KEY": (folder / "client").read_text(),
        "DEPLOY_FOLDER": str(tmp_path / "there"),
    }
    process.terminate()
    process.wait(10)


TO_PROD = ["delivery", "image", "push-image", "sign-image", "deploy-remote", "smoke-remote", "deploy-remote"]


@pytest.mark.parametrize(
    ("configured", "fail", "targets"),
    [
        ("false", "", ["delivery"]),
        ("true", "", ["delivery", "image", "push-image", "sign-image", *["deploy-remote", "smoke-remote"] * 2]),
        (
            "true",
            "smoke-remote",
            ["delivery", "image", "push-image", "sign-image", "deploy-remote", "smoke-remote", "rollback-remote"],
        ),
        ("true", "deploy-remote", ["delivery", "image", "push-image", "sign-image", "deploy-remote"]),
        ("true", "smoke-remote in prod", [*TO_PROD, "smoke-remote", "rollback-remote", "champion-back"]),
        ("true", "smoke-remote and rollback-remote in prod", [*TO_PROD, "smoke-remote", "rollback-remote"]),
        ("true", "deploy-remote in prod", TO_PROD),
    ],
)
def test_what_is_delivered_when(
    act: Path, render: Render, tmp_path: Path, configured: str, fail: str, targets: list[str]
) -> None:
    """What answers wrongly in staging goes back and never reaches production; where production went back the registry follows; where
    nothing is configured nothing is done."""
    tools, project = tmp_path / "bin", tmp_path / "project"
    tools.mkdir()
    failing, _, where = fail.partition(" in ")
    (tools / "make").write_text(
        f'#!/bin/sh\necho "$1" >> {tmp_path}/targets\n'
        f'[ "$1" != delivery ] || printf "configured={configured}\\nhost=here\\n" >> "$GITHUB_OUTPUT"\n'
        '[ "$1" != push-image ] || echo image=here/flights@sha256:1 >> "$GITHUB_OUTPUT"\ncase " $FAIL " in *" $1 "*) case "$ENV" in *"$ONLY") exit 1;; esac;; esac\n'
    )
    (tools / "make").chmod(0o755)
    shutil.copytree(render(serving=["online"], deploy="compose"), project)
    clone = runner.push(project, tmp_path / "clone")
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    done = runner.run(act, clone, "workflow_dispatch", workflow="cd.yml", FAIL=failing or "none", ONLY=where, PATH=path)
    assert done.passed is (not fail), done.output[-3000:]
    assert (tmp_path / "targets").read_text().split() == targets


def test_a_champion_is_delivered_to_a_machine(
    act: Path, containers: None, project: Project, registry: str, machine: dict[str, str], tmp_path: Path
) -> None:
    """cd.yml as it is: the registries and the machine are real, on the loopback address."""
    there, key = Path(machine["DEPLOY_FOLDER"]), secrets.token_hex(16)
    address, server = mlflow_server(project, tmp_path)
    ports = {}
    try:
        project.make("move-registry", f"URI={address}")
        said = dict(line.split("=", 1) for line in (project / ".env").read_text().splitlines() if "_KEY=" in line)
        for number, name in enumerate(("staging", "prod")):
            ports[name] = free_port()
            text = (project / f"deploy/{name}.env").read_text()
            text = re.sub(r"LISTEN=.*", f"LISTEN=127.0.0.1:{ports[name]}", text).replace(
                "MAX_SECONDS=0.5", "MAX_SECONDS=5"
            )
            (project / f"deploy/{name}.env").write_text(
                re.sub(r"PORTS=.*", f"PORTS={41_000 + os.getpid() % 400 * 40 + 20 * number}", text)
            )
        there.mkdir()
        (there / ".env").write_text(f"API_KEYS={key}\nVERIFY_KEY={said['VERIFY_KEY']}\n")
        clone = runner.push(project.folder, tmp_path / "clone", "the champion")
        variables = {
            **machine,
            "MLFLOW_TRACKING_URI": address,
            "REGISTRY": f"{registry}/ada",
            "ATTEST": "true",
            "VERIFY_KEY": said["VERIFY_KEY"],
        }
        hidden = {"SIGNING_KEY": said["SIGNING_KEY"], "DEPLOY_KEY": variables.pop("DEPLOY_KEY")}
        more = {**engine.environment(), "PUSH_OPTIONS": "--tls-verify=false"}
        done = runner.run(
            act, clone, "workflow_dispatch", workflow="cd.yml", variables=variables, secrets=hidden, **more
        )
        assert done.passed, done.output[-6000:]
        assert done.jobs == dict.fromkeys(("bundle, image, list of packages, signature", "staging", "production"), True)
        pushed = json.loads((done.artifacts / "image/image.json").read_text())["pushed"]
        assert f"attested {pushed}" in done.output and key not in done.output
        for name, port in ports.items():
            assert b'"version":2' in ask(f"127.0.0.1:{port}", rows(project), X_API_Key=key), name
            line = json.loads((there / f".deploy/{name}/audit.jsonl").read_text())
            assert (line["result"], line["to"]["image"], line["why"]) == ("live", pushed, "champion.json")

        # version 1 is promoted, and in production the smoke test fails: that goes back to version 2, and the registry with it
        project.make("promote", "VERSION=1", "WHY=quicker", MLFLOW_TRACKING_URI=address)
        (project / "local.mk").write_text('smoke-remote: not-in-prod\nnot-in-prod:\n\t@test "$(ENV)" != prod\n')
        clone = runner.push(project.folder, tmp_path / "again", "another champion")
        done = runner.run(
            act, clone, "workflow_dispatch", workflow="cd.yml", variables=variables, secrets=hidden, **more
        )
        jobs = {name: done.jobs.get(name) for name in ("staging", "production", "registry, after production went back")}
        assert jobs == {"staging": True, "production": False, "registry, after production went back": True}, (
            done.output[-6000:]
        )
        assert "Version 2 is the champion again" in done.output and "still names version 1" in done.output
        assert b'"version":1' in ask(f"127.0.0.1:{ports['staging']}", rows(project), X_API_Key=key)
        assert b'"version":2' in ask(f"127.0.0.1:{ports['prod']}", rows(project), X_API_Key=key)
        moves = project.registry("[(m.action, m.before, m.after, m.who, m.why) for m in r.moves()][-2:]")
        assert moves == str([
            ("promote", 2, 1, "Ada", "quicker"),
            ("rollback", 1, 2, "nektos/act", "the smoke test in production failed"),
        ])  # fmt: skip
        (project / "local.mk").unlink()
        assert "rollback" in project.make("history", MLFLOW_TRACKING_URI=address)  # as the page says
        assert json.loads((project / "champion.json").read_text())["version"] == 2

        # what another key signed does not get there, and neither does what nobody knows
        more = {"IMAGE": pushed, "ENV": "staging", **machine}
        told = project.make("deploy-remote", fails=True, SIGNATURE="AAAA", **more)
        assert "does not hold" in told
        more["DEPLOY_KNOWN_HOSTS"] = more["DEPLOY_KNOWN_HOSTS"].replace("AAAA", "AAAB", 1)
        told = project.make("smoke-remote", fails=True, **{**more, "IMAGE": ""})
        assert "is not reached over SSH" in told
    finally:
        for name in ports:
            if (there / f".deploy/{name}").exists():
                more = {**os.environ, **engine.environment(), "ENV": name, "API_KEYS": key}
                subprocess.run(
                    [sys.executable, "-m", "copier_mlops.deploy.blue_green", "end"], cwd=there, env=more, check=False
                )
        end(server)


def test_files_of_the_deployment_are_as_their_tools_want_them(render: Render) -> None:
    """The workflow is safe and well written, the files of Compose keep their schema."""
    project, tools = render(serving=["online"], deploy="compose"), Path(sys.executable).parent
    rules = "{extends: default, rules: {line-length: {max: 128}, document-start: disable, truthy: {check-keys: false}, comments: {min-spaces-from-content: 1}}}"
    commands = [
        [str(tools / "zizmor"), "--offline", "--pedantic", "--quiet", "--no-progress", str(project / ".github")],
        [
            str(tools / "yamllint"),
            "--strict",
            "--config-data",
            rules,
            str(project / ".github/workflows/cd.yml"),
            str(project / "deploy"),
        ],
        [
            str(tools / "check-jsonschema"),
            "--builtin-schema",
            "vendor.compose-spec",
            *map(str, project.glob("deploy/*.yaml")),
        ],
    ]
    for words in commands:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
