"""The workflows, executed: act runs them on this machine, from a fresh clone with an empty home, as GitHub's runner would.

Actions that would be downloaded are replaced by local ones (tests/runner/), and nothing else is.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import runner
import workspace
import yaml
from conftest import ROOT, GitHub, Project, Render, borrowing, end, mlflow_server, need, own_tests_passed
from test_render import pairs
from test_update import commit, start

sys.path.insert(0, str(ROOT / "template"))
from ci import propose as proposals
from ci import workflows as gates

KNOWN = {
    ("actions/checkout", "3d3c42e5aac5ba805825da76410c181273ba90b1", "v7.0.1"),
    ("actions/setup-python", "5fda3b95a4ea91299a34e894583c3862153e4b97", "v7.0.0"),
    ("actions/upload-artifact", "bbbca2ddaa5d8feaa63e36b76fdaad77386f024f", "v7.0.0"),
    ("actions/download-artifact", "3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c", "v8.0.1"),
    ("astral-sh/setup-uv", "20cfd1bf945f4377ade1205e4dbc17946fc9a30d", "v10.0.1"),
    ("docker/login-action", "4907a6ddec9925e35a0a9e82d7399ccc52663121", "v4.1.0"),
    ("actions/attest-build-provenance", "a2bbfa25375fe432b6a289bc6b6cd05ecd0c4c32", "v4.1.0"),
}
"""Read from the tags of these projects. A commit that nobody has makes every project red, and no linter sees it."""

JOBS = {
    "format, lint, types, lock",
    "tests with the coverage gate",
    "data, model, notebook",
    "secrets, workflows, packages",
    "pass",
}
TARGETS = ["audit", "check", "check-lock", "notebook", "pass", "review", "test", "test-model"]
IN_ORDER = re.findall(r"run: make (\S+)", (ROOT / "template/.github/workflows/ci.yml").read_text())


@pytest.fixture(scope="session")
def act() -> Path:
    found = runner.bring(workspace.tools())
    if found is None:
        need("NOT RUN: the workflows; act is missing, and there is no Go to build it with (https://go.dev/dl)")
    assert found is not None
    return found


def pull_request(clone: Path, head: str) -> dict[str, Any]:
    base = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout.strip()
    request = {"number": 7, "title": "$(touch injected)", "head": {"repo": {"full_name": head}}, "base": {"sha": base}}
    return {"number": 7, "pull_request": request, "repository": {"full_name": "ada/flights"}}


# ------------------------------------------------------------------------------------------------------ In full


def test_a_pull_request_is_green_and_shows_its_model(
    act: Path,
    render: Render,
    demo: Project,
    small_environment: Path,
    tmp_path: Path,
    github: GitHub,
) -> None:
    """All jobs of ci.yml on the default project, against the champion of a whole run; then the comment."""
    project = tmp_path / "project"
    shutil.copytree(render(), project)
    shutil.copy2(small_environment / "uv.lock", project / "uv.lock")
    shutil.copy2(demo / "champion.json", project / "champion.json")
    clone = runner.push(project, tmp_path / "clone")
    begun = time.monotonic()
    done = runner.run(act, clone, "pull_request", pull_request(clone, "ada/flights"), GITHUB_API_URL=github.address)
    print(f"ci.yml took {time.monotonic() - begun:.0f} s")
    assert done.passed, done.output[-6000:]
    assert done.jobs == dict.fromkeys(JOBS | {"the model on the pull request"}, True)
    own_tests_passed(done.output)
    page = (done.artifacts / "reports/review.md").read_text()
    assert "Model: passed" in page and "Champion: version 1" in page and "review.keeps" in page
    assert "xychart" in page and page.splitlines()[0] in done.output  # the job's summary
    assert [path for path, _ in github.written] == ["/repos/ada/flights/issues/7/comments"]
    assert page in github.written[0][1]["body"]
    assert json.loads((done.artifacts / "sbom/sbom.json").read_text())["components"]
    assert (done.artifacts / "reports/report.html").exists()
    assert not (done.artifacts / "uv.lock").exists()
    assert not (clone / "injected").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="trained"),
        pytest.param(
            {"serving": "[online, batch, streaming, hybrid]", "deploy": "compose", "monitoring": "true"}, id="asked"
        ),
    ],
)
def test_the_first_push_is_green(act: Path, render: Render, tmp_path: Path, more: dict[str, str]) -> None:
    """Without a lock, a table, a store or a champion: everything runs, and what is missing is said."""
    project = tmp_path / "project"
    answers = {"data_source": "own", "problem": "regression", "licence": "MIT", "data_remote": "s3://bucket/rows"}
    shutil.copytree(render(**answers, **more), project)
    clone = runner.push(project, tmp_path / "clone")
    done = runner.run(act, clone, "push", {"before": "0" * 40})
    assert done.passed, done.output[-6000:]
    assert done.jobs == dict.fromkeys(JOBS, True)
    assert "uv.lock is not committed" in done.output and "The source cannot be read from here" in done.output
    offered = (done.artifacts / "uv.lock/uv.lock").read_text()
    assert 'name = "mlflow"' in offered
    assert "make adopt" in (done.artifacts / "reports/review.md").read_text()


PAIRS = pairs(
    {
        "problem": ["classification", "regression"],
        "data_source": ["sample", "own"],
        "data_remote": [".data-store", "/srv/data", "s3://bucket/rows"],
        "licence": ["MIT", "BSD-3-Clause", "Proprietary"],
        "serving": ["[]", "[online]", "[batch, streaming]", "[online, batch, streaming, hybrid]"],
        "deploy": ["none", "compose"],
        "monitoring": ["false", "true"],
    }
)


SERVING = [
    f"[{', '.join(chosen)}]"
    for count in range(5)
    for chosen in itertools.combinations(("online", "batch", "streaming", "hybrid"), count)
    if "hybrid" not in chosen or {"online", "batch"} <= {*chosen}
]
SETS = pairs(
    {
        "serving": SERVING,
        "deploy": ["none", "compose"],
        "monitoring": ["false", "true"],
        "problem": ["classification", "regression"],
        "data_source": ["sample", "own"],
    }
)


@pytest.fixture(scope="module")
def everything(render: Render, small_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All files of all answer sets, each version of a file once, in a repository with the default environment."""
    folder = tmp_path_factory.mktemp("everything") / "project"
    shutil.copytree(render(), folder)
    for number, answers in enumerate(SETS):
        one = render(**answers)
        for path in sorted(path for path in one.rglob("*") if path.is_file()):
            name = path.relative_to(one)
            places = [folder / name, *folder.glob(f"set-*/{name}")]
            if all(not place.exists() or place.read_bytes() != path.read_bytes() for place in places):
                target = folder / name if not (folder / name).exists() else folder / f"set-{number}" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    return borrowing(folder, small_environment, "http://127.0.0.1:9/api", BASE="0" * 40)


@pytest.mark.parametrize("check", ["secrets", "files"])
def test_no_answer_set_has_files_that_the_audit_refuses(everything: Project, check: str) -> None:
    """The first push of a project with streaming was red: a docstring looked like a password."""
    assert f"{check}: nothing found" in everything.make("audit", f"ONLY={check}")


@pytest.mark.parametrize("answers", SETS, ids=lambda answers: ", ".join(answers.values()))
def test_the_workflows_of_every_answer_set_are_safe(render: Render, answers: dict[str, str]) -> None:
    """The check that `make audit` runs, and the rules for workflows that `make check` compares with a base."""
    folder = render(**answers) / ".github"
    zizmor = [str(Path(sys.executable).with_name("zizmor")), "--offline", "--pedantic", "--quiet", "--no-progress", "."]
    done = subprocess.run(zizmor, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (folder / "workflows").glob("*.yml"):
        assert gates.weak(gates.load(path.read_text())) == set(), path.name


@pytest.mark.long
@pytest.mark.parametrize("answers", PAIRS, ids=lambda answers: ", ".join(answers.values()))
def test_every_pair_of_answers_passes_the_gates(render: Render, tmp_path: Path, answers: dict[str, str]) -> None:
    """Each pair of values of two questions, gate by gate as ci.yml calls them."""
    project = Project(tmp_path / "project")
    shutil.copytree(render(**answers), project.folder)
    clone = Project(runner.push(project.folder, tmp_path / "clone"))
    clone.environment["BASE"] = "0" * 40  # as GitHub gives it at a first push
    said = {target: clone.make(target) for target in IN_ORDER if target in TARGETS and target != "pass"}
    assert {*said, "pass"} == set(TARGETS)
    assert "reports/review.md: passed" in said["review"]
    assert "FAILED" not in said["audit"]


# ----------------------------------------------------------------------------------------------------- The graph


@pytest.fixture
def noting(tmp_path: Path) -> Path:
    """A folder with a make that notes its target, and VERSION; the target that FAIL names fails."""
    tools, real = tmp_path / "bin", shutil.which("make")
    tools.mkdir()
    (tools / "make").write_text(
        f'#!/bin/sh\necho "$1$VERSION" >> {tmp_path}/targets\n'
        '[ "$1" != "$FAIL" ] || exit 1\nmkdir -p reports; echo x > reports/review.md; echo {} > reports/sbom.json\n'
        "mkdir -p .venv/bin; ln -sf /bin/true .venv/bin/python\n"
        f'[ "$1" != pass ] || exec {real} --no-print-directory pass\n'
    )
    (tools / "make").chmod(0o755)
    return tools


def test_standards_are_compared_without_make() -> None:
    """A line of local.mk can let every target of make pass: the comparison runs once more, after its environment is there."""
    steps = gates.load((ROOT / "template/.github/workflows/ci.yml").read_text())["jobs"]["check"]["steps"]
    run = [step.get("run") for step in steps]
    direct = run.index("GITHUB_STEP_SUMMARY='' .venv/bin/python -m copier_mlops.ci.quality_ratchet")
    assert direct > run.index("make check")
    assert steps[direct]["env"] == steps[run.index("make check")]["env"]
    assert "if" not in steps[direct] and "continue-on-error" not in steps[direct]


@pytest.fixture
def graph(render: Render, noting: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A clone of a project, and the folder with that make."""
    project = tmp_path / "project"
    shutil.copytree(render(), project)
    return runner.push(project, tmp_path / "clone"), noting


@pytest.mark.parametrize(
    ("event", "head", "targets"),
    [
        ("push", "", TARGETS),
        ("pull_request", "ada/flights", sorted([*TARGETS, "comment"])),
        ("pull_request", "eve/flights", TARGETS),
    ],
)
def test_what_runs_when(act: Path, graph: tuple[Path, Path], event: str, head: str, targets: list[str]) -> None:
    """A fork's pull request runs everything but the comment, whose right it must not have."""
    clone, tools = graph
    payload = pull_request(clone, head) if head else {"before": "0" * 40}
    done = runner.run(act, clone, event, payload, PATH=f"{tools}{os.pathsep}{os.environ['PATH']}")
    assert done.passed, done.output[-3000:]
    assert sorted((tools.parent / "targets").read_text().split()) == targets


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "pass"])
def test_a_step_that_fails_is_not_passed(act: Path, graph: tuple[Path, Path], target: str) -> None:
    clone, tools = graph
    done = runner.run(
        act, clone, "push", {"before": "0" * 40}, FAIL=target, PATH=f"{tools}{os.pathsep}{os.environ['PATH']}"
    )
    assert not done.passed
    assert done.jobs["pass"] is False


@pytest.mark.parametrize(
    ("workflow", "event", "fail", "targets"),
    [
        ("ci.yml", "push", "", ["check", "test", "pass"]),
        ("ci.yml", "pull_request", "check", ["check", "pass"]),
        ("canary.yml", "workflow_dispatch", "", ["canary"]),
        ("canary.yml", "workflow_dispatch", "canary", ["canary", "canary-issue"]),
        ("release.yml", "workflow_dispatch", "", ["refresh", "test-all", "release1.4.0"]),
        ("release.yml", "workflow_dispatch", "test-all", ["refresh", "test-all"]),
    ],
)
def test_our_own(
    act: Path, template: Path, noting: Path, tmp_path: Path, workflow: str, event: str, fail: str, targets: list[str]
) -> None:
    """The template's workflows: what a push needs, who hears of a canary that fell, what a release waits for."""
    project = tmp_path / "project"
    shutil.copytree(template, project)
    clone = runner.push(project, tmp_path / "clone")
    path = f"{noting}{os.pathsep}{os.environ['PATH']}"
    payload = {"inputs": {"version": "1.4.0"}}
    done = runner.run(act, clone, event, payload, workflow=workflow, FAIL=fail, PATH=path)
    assert done.passed is (not fail), done.output[-3000:]
    assert (tmp_path / "targets").read_text().split() == targets


# ------------------------------------------------------------------------------------------------------ Training


def test_training_without_a_store_says_so_and_is_green(
    act: Path, render: Render, small_environment: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(render(), project)
    shutil.copy2(small_environment / "uv.lock", project / "uv.lock")
    clone = runner.push(project, tmp_path / "clone")
    done = runner.run(act, clone, "workflow_dispatch", workflow="train.yml")
    assert done.passed, done.output[-3000:]
    assert "not configured" in done.output and "MLFLOW_TRACKING_URI" in done.output and "DATA_REMOTE" in done.output
    assert "train ..." not in done.output


def test_training_registers_and_pushes(act: Path, trained: Project, s3: dict[str, str], tmp_path: Path) -> None:
    """From a clone, with a registry and a store that others see: fetched, trained, registered, pushed."""
    registry, server = mlflow_server(trained, tmp_path)
    project = tmp_path / "project"
    shutil.copytree(
        trained.folder, project, ignore=shutil.ignore_patterns(".venv", ".git", ".cache", "data", "models", "mlflow.db")
    )
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(re.sub(r'"dvc>', '"dvc[s3]>', text))
    subprocess.run(["uv", "lock", "--quiet"], cwd=project, check=True)
    there = {"MLFLOW_TRACKING_URI": registry, "SOURCE_URI": trained.environment["SOURCE_URI"],
             "DATA_REMOTE": s3["DATA_REMOTE"], "DATA_REMOTE_ENDPOINT": s3["DATA_REMOTE_ENDPOINT"]}  # fmt: skip
    secret = {key: s3[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    try:
        for name, trains in (("clone", True), ("again", False)):  # with nothing new it fetches what the store has
            clone = runner.push(project, tmp_path / name, "what the run before wrote")
            done = runner.run(act, clone, "workflow_dispatch", workflow="train.yml", variables=there, secrets=secret)
            assert done.passed, done.output[-6000:]
            assert "1, champion" in done.output and ("train ..." in done.output) is trains
            for file in ("dvc.lock", "run.yaml", "champion.json"):
                shutil.copy2(done.artifacts / "training" / file, project / file)
        assert secret["AWS_SECRET_ACCESS_KEY"] not in done.output
        assert list((tmp_path / "store/bucket/flights").rglob("*.dir"))
    finally:
        end(server)


# ------------------------------------------------------------------------------------------------------ Updating


@pytest.mark.parametrize("only", ["tests/core/test_values.py", pytest.param("", marks=pytest.mark.long)])
def test_a_newer_release_is_proposed_once(
    act: Path, two: tuple[Path, str, str], small_environment: Path, github: GitHub, tmp_path: Path, only: str
) -> None:
    """From a clone: one pull request, with the changelog as its text, written anew as long as it is open."""
    template, before, after = two
    project = start(template, before, tmp_path / "project", {}).folder
    shutil.copy2(small_environment / "uv.lock", project / "uv.lock")
    # Code in the checks looks for the token in the environment of every process that it may read.
    spy = f"check: spy\nspy:\n\t@touch {tmp_path}/spied; ! grep -lsa made-here-too /proc/[0-9]*/environ\n"
    (project / "local.mk").write_text(spy)
    clone = runner.push(project, tmp_path / "clone")
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(project), str(bare)], check=True)
    subprocess.run(["git", "remote", "set-url", "origin", str(bare)], cwd=clone, check=True)
    there = {"GITHUB_API_URL": github.address, "GITHUB_REPOSITORY": "ada/flights", "ONLY": only}

    def propose(**secrets: str) -> runner.Ran:
        event = {"repository": {"default_branch": "main"}}
        return runner.run(act, clone, "workflow_dispatch", event, workflow="update.yml", secrets=secrets, **there)

    done = propose()  # the release changes a workflow, and nobody gave a token for that
    assert done.passed and "not configured" in done.output and "UPDATE_TOKEN" in done.output, done.output[-3000:]
    assert not github.written

    done = propose(UPDATE_TOKEN="made-here-too")
    assert done.passed, done.output[-6000:]
    ((path, body),) = github.written
    assert path == "/repos/ada/flights/pulls"
    assert (body["title"], body["head"], body["base"]) == (f"Template {after}", "update/template", "main")
    assert "Training is cut off earlier." in body["body"] and "`make test` passed" in body["body"]
    assert "made-here-too" not in done.output
    assert (tmp_path / "spied").exists()
    shown = subprocess.run(
        ["git", "show", "update/template:Makefile"], cwd=bare, check=True, capture_output=True, text=True
    )
    assert "all tests" in shown.stdout


def test_a_proposal_that_another_job_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only a lock and a verdict are taken from the job that ran the release's code."""
    project = tmp_path / "project"
    project.mkdir()
    lock = '[[package]]\nname = "numpy"\nversion = "1"\nsource = { registry = "https://packages.example/simple" }\n'
    (project / "uv.lock").write_text(lock)
    runner.push(project, tmp_path / "clone")
    monkeypatch.chdir(project)
    for name in proposals.NEEDED:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("COUNT", "KEY_0", "VALUE_0"):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", "0")  # so that it goes when the test does
    monkeypatch.setenv("GITHUB_TOKEN", "made-here")
    monkeypatch.setattr(sys, "argv", ["propose", "open"])
    assert proposals.main() == 1 and "`make propose-merge` writes it" in capfd.readouterr().out

    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@localhost"]
    tip = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run([*git, "checkout", "--quiet", "-B", proposals.BRANCH], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "merged"], check=True)
    proposals.MERGED.mkdir(parents=True)
    subprocess.run(
        [*git, "bundle", "create", "--quiet", f"{proposals.MERGED}/commits.bundle", f"{tip}..{proposals.BRANCH}"],
        check=True,
    )
    subprocess.run([*git, "checkout", "--quiet", "main"], check=True)
    commit = subprocess.run(
        ["git", "rev-parse", proposals.BRANCH], check=True, capture_output=True, text=True
    ).stdout.strip()
    about = {"old": "v1", "new": "v2", "commit": commit, "changelog": "", "stat": "", "notes": []}
    (proposals.MERGED / "proposal.json").write_text(json.dumps(about))
    monkeypatch.setenv("MERGED_COMMIT", tip)
    assert proposals.main() == 1 and "other commits than the step before made" in capfd.readouterr().out
    monkeypatch.setenv("MERGED_COMMIT", commit)
    proposals.CHECKED.mkdir(parents=True)
    (proposals.CHECKED / "uv.lock").write_text("not = a = lock")
    assert proposals.main() == 1 and "uv.lock of the checks is not valid" in capfd.readouterr().out
    other = '[[package]]\nname = "numpy"\nversion = "1"\nsource = { registry = "https://evil.example/simple" }\n'
    (proposals.CHECKED / "uv.lock").write_text(other)
    assert proposals.main() == 1 and "numpy comes from" in capfd.readouterr().out
    monkeypatch.setattr(sys, "argv", ["propose", "everything"])
    assert proposals.main() == 2


def test_what_is_proposed_is_renewed_and_what_cannot_be_is_said(
    two: tuple[Path, str, str],
    github: GitHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    template, before, after = two
    project = start(template, before, tmp_path / "project", {}).folder
    subprocess.run(["git", "clone", "--quiet", "--bare", str(project), str(tmp_path / "bare.git")], check=True)
    subprocess.run(["git", "remote", "add", "origin", str(tmp_path / "bare.git")], cwd=project, check=True)
    monkeypatch.chdir(project)
    monkeypatch.setattr(proposals.update, "finish", lambda *some: "")  # the checks ran in the test above

    def propose() -> int:
        """Run the steps of update.yml; run those after `merge` only if it merged."""
        shutil.rmtree(Path.cwd() / ".cache/proposal", ignore_errors=True)
        code = 0
        for step in ("merge", "check", "open"):
            monkeypatch.setattr(sys, "argv", ["propose", step])
            code = code or proposals.main()
            if not proposals.MERGED.exists():
                break
        return code

    assert propose() == 1 and "needs GITHUB_API_URL" in capfd.readouterr().err
    for name, value in {
        "API_URL": github.address,
        "REPOSITORY": "ada/flights",
        "SERVER_URL": "http://127.0.0.1",
        "TOKEN": "made-here",
    }.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    for name in ("COUNT", "KEY_0", "VALUE_0"):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", "0")  # so that it goes when the test does
    monkeypatch.setenv("UPDATE_TOKEN", "made-here-too")
    github.open = [{"number": 3, "head": {"ref": "another"}}, {"number": 7, "head": {"ref": "update/template"}}]
    assert propose() == 0
    assert [path for path, _ in github.written] == ["/repos/ada/flights/pulls/7"]
    told = proposals.update.tools(project)  # what the checks of another release's code see
    assert not [
        name for name, value in told.items() if "TOKEN" in name or "made-here" in value or name == "GIT_CONFIG_VALUE_0"
    ]

    # a person went on with the branch
    subprocess.run(
        [
            "git",
            "clone",
            "--quiet",
            "--branch",
            "update/template",
            str(tmp_path / "bare.git"),
            str(tmp_path / "person"),
        ],
        check=True,
    )
    (tmp_path / "person/README.md").write_text("mine\n")
    commit(tmp_path / "person")
    subprocess.run(["git", "push", "--quiet"], cwd=tmp_path / "person", check=True)
    assert propose() == 1 and "commits that no update made" in capfd.readouterr().out
    assert len(github.written) == 1

    # a conflict is for a person
    Project(project).replace("Makefile", "## run the tests with", "## run our tests with")
    commit(project)
    assert propose() == 1 and "Makefile: lines" in capfd.readouterr().out

    # a template on somebody's machine
    monkeypatch.setenv("TEMPLATE", "/somebody/else")
    assert propose() == 0 and "not configured" in capfd.readouterr().out
    monkeypatch.delenv("TEMPLATE")
    newest = start(template, after, tmp_path / "newest", {}).folder
    monkeypatch.chdir(newest)
    assert propose() == 0 and "nothing to do" in capfd.readouterr().out


# ----------------------------------------------------------------------------------------------------- Their form


def workflows(folder: str) -> list[Path]:
    """Those of the template, whatever option brings them, or our own."""
    return sorted((ROOT / folder / ".github/workflows").glob("*.yml*"))


@pytest.mark.parametrize("folder", ["template", "."])
def test_actions_are_known_ones(folder: str) -> None:
    used = runner.uses(ROOT / folder)
    assert used and used <= KNOWN
    for path in workflows(folder):
        assert len(re.findall(r"uses: ", path.read_text())) == len(runner.USES.findall(path.read_text())), path


@pytest.mark.parametrize("folder", ["template", "."])
def test_every_step_is_a_target(folder: str) -> None:
    makefile = (ROOT / folder / ("Makefile.jinja" if folder == "template" else "Makefile")).read_text()
    makefile += "".join(path.read_text() for path in (ROOT / folder / "make").glob("*.mk*"))
    jobs = [job for path in workflows(folder) for job in yaml.safe_load(path.read_text())["jobs"].values()]
    runs = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    # A line of the Makefile can let every target pass, so the standards are compared once more without make.
    without_make = [run for run in runs if run.endswith(" .venv/bin/python -m copier_mlops.ci.quality_ratchet")]
    assert len(without_make) == (folder == "template")
    for run in runs:
        target = re.fullmatch(r"make ([a-z-]+)", run)
        assert run in without_make or (target and re.search(rf"^{target[1]}:", makefile, re.M)), run


@pytest.mark.parametrize("folder", ["template", "."])
def test_linters_find_nothing(act: Path, folder: str) -> None:
    """actionlint, zizmor in its pedantic mode, yamllint; the schema of Dependabot's file."""
    place = ROOT / folder / ".github"
    tools = Path(sys.executable).parent
    lint = runner.bring(workspace.tools(), "actionlint")
    assert lint is not None
    commands = [
        [str(lint), *map(str, workflows(folder))],
        [str(tools / "zizmor"), "--offline", "--pedantic", "--quiet", "--no-progress", str(place)],
        [str(tools / "yamllint"), "--strict", "--config-data", "{extends: default, rules: {line-length: {max: 128}, document-start: disable, truthy: {check-keys: false}, comments: {min-spaces-from-content: 1}}}", str(place)],
        *([[str(tools / "check-jsonschema"), "--builtin-schema", "vendor.dependabot", str(place / "dependabot.yml")]] if (place / "dependabot.yml").exists() else []),
    ]  # fmt: skip
    for words in commands:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("shellcheck")), str(ROOT / ".ci/run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
