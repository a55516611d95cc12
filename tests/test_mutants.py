"""Changes that a careless colleague could push: each is stopped by the gate that is meant for it, which names it.

The project is the small trained one. A gate is a target of its Makefile, as the workflow calls it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Project, Render, borrowing, fork_of

Change = Callable[[Project], None]


@dataclass(frozen=True)
class Mutant:
    """A change, and who stops it.

    Attributes:
        name: What somebody did.
        change: Does it.
        gate: The words after `make`.
        says: What has to be in what the gate prints.
        long: Whether `make test` leaves it to `make test-all`; one mutant for each gate stays there.
    """

    name: str
    change: Change
    gate: str
    says: str
    long: bool = True


def edit(file: str, old: str, new: str) -> Change:
    return lambda project: project.replace(file, old, new)


def append(file: str, text: str) -> Change:
    def change(project: Project) -> None:
        path = project / file.replace("PACKAGE", project.package)
        path.write_text(path.read_text() + text)

    return change


def delivered(code: str) -> Change:
    """Change the rows, as `rows`, that the source delivers."""

    def change(project: Project) -> None:
        project.replace("src/PACKAGE/source.py", "def read(", "def _before(")
        append(
            "src/PACKAGE/source.py",
            "\n\ndef read(*arguments):\n    import numpy as np\n\n"
            "    random = np.random.default_rng(0)\n    for rows in _before(*arguments):\n"
            f"        {code}\n        yield rows\n",
        )(project)

    return change


def params(old: str, new: str) -> Change:
    return edit("params.yaml", old, new)


def remove_a_test(project: Project) -> None:
    file = project / "tests/core/test_gate.py"
    text = file.read_text()
    start = text.index("def test_as_json_has_every_check")
    rest = text[start:].partition("\n\n\n")[2]
    file.write_text((text[:start] + rest).rstrip() + "\n")


def notebook(old: str, new: str) -> Change:
    def change(project: Project) -> None:
        file = project / "notebooks/explore.ipynb"
        content = json.loads(file.read_text())
        changed = 0
        for cell in content["cells"]:
            source = "".join(cell["source"])
            if old in source:
                cell["source"], changed = source.replace(old, new), changed + 1
        assert changed, old
        file.write_text(json.dumps(content))

    return change


def output_in_notebook(project: Project) -> None:
    file = project / "notebooks/explore.ipynb"
    content = json.loads(file.read_text())
    cell = next(cell for cell in content["cells"] if cell["cell_type"] == "code")
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["Ada, 1815\n"]}]
    file.write_text(json.dumps(content))


def fake_secret(project: Project) -> None:
    token = "_".join(("ghp", "0123456789abcdefABCDEF0123456789abcd"))
    (project / "settings.local.py").write_text(f'TOKEN = "{token}"\n')
    commit(project, "settings")


def workflow(old: str, new: str) -> Change:
    return edit(".github/workflows/ci.yml", old, new)


def commit(project: Project, message: str) -> None:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")
    for words in (("add", "--all"), (*who, "commit", "--quiet", "--no-verify", "--message", message)):
        subprocess.run(["git", *words], cwd=project.folder, check=True, capture_output=True)


CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
FEATURES, MODEL = "src/PACKAGE/features.py", "src/PACKAGE/model.py"

MUTANTS = [
    # data
    Mutant("a column is dropped", delivered('rows = rows.drop(columns="seats")'), "review", "seats"),
    Mutant("the bad rows are twice as many", delivered('rows.loc[random.random(len(rows)) < 0.05, "distance"] = -1.0'), "review", "max_bad_share", long=False),
    Mutant("miles become metres", delivered('rows["distance"] = rows["distance"] * 1609.0'), "review", "distance"),
    Mutant("a time in another zone", edit(FEATURES, "America/New_York", "UTC"), "test ONLY=tests/io/test_source.py", "failed"),
    # learning
    Mutant("the label leaks", delivered('rows["seats"] = rows["late"].astype("float64") + 100'), "review", "seats"),
    Mutant("the labels are shuffled", delivered('rows["late"] = random.permutation(rows["late"])'), "review", "gate.", long=False),
    Mutant("the labels are turned around", delivered('rows["late"] = ~rows["late"].astype("boolean")'), "review", "contract.effect"),
    Mutant("training sees the test window", edit("src/copier_mlops/pipeline/split.py", '*_moments(run, "start", "test_start"), skip=skip', '*_moments(run, "start", "end"), skip=skip'), "test ONLY=tests/stages", "failed"),
    Mutant("miles become kilometres", delivered('rows["distance"] = rows["distance"] * 1.609'), "test ONLY=tests/io/test_source.py", "failed"),
    Mutant("a row looks at its neighbours", edit(FEATURES, "    of = {name", "    rows = rows.assign(distance=rows['distance'].rolling(3, min_periods=1).mean())\n    of = {name"), "test ONLY=tests/core/test_features.py", "failed"),
    Mutant("a fit is not repeatable", edit(MODEL, "random_state=seed", "random_state=None"), "test-model", "test_the_same_rows_teach_the_same", long=False),
    Mutant("answers take ten times as long", edit(FEATURES, "def build_features(rows: pd.DataFrame) -> pd.DataFrame:\n", "def build_features(rows: pd.DataFrame) -> pd.DataFrame:\n    for _ in range(60):\n        rows.copy().describe(include='all')\n"), "review", "review.slower"),
    # code
    Mutant("the formatting is broken", append(MODEL, "x=1\n"), "check", "make format", long=False),
    Mutant("a type is wrong", append("src/copier_mlops/evaluation/gate.py", '\n\ndef half(value: float) -> str:\n    """Half of it."""\n    return value / 2\n'), "check", "return-value"),
    Mutant("a name is not there", append("src/copier_mlops/evaluation/gate.py", '\n\ndef half(value: float) -> float:\n    """Half of it."""\n    return vlaue / 2\n'), "check", "F821"),
    Mutant("core talks to a disk", append("src/copier_mlops/evaluation/gate.py", "\n\nfrom ..io import tables  # noqa: E402, F401\n"), "test ONLY=tests/test_architecture.py", "failed"),
    Mutant("the coverage limit is lowered", edit("pyproject.toml", "fail_under = 90", "fail_under = 50"), "check", "fail_under is 50"),
    Mutant("a test is deleted", remove_a_test, "check", "test_as_json_has_every_check", long=False),
    Mutant("a rule of params.yaml has a typo", params("bootstrap", "bootsrap"), "review", "did you mean bootstrap"),
    # delivery
    Mutant("an action is not pinned", workflow(CHECKOUT, "actions/checkout@v7"), "audit ONLY=workflows", "unpinned-uses"),
    Mutant("permissions are widened", workflow("permissions: {}", "permissions: write-all"), "audit ONLY=workflows", "excessive-permissions", long=False),
    Mutant("a title reaches the shell", workflow("- run: make test-model", "- run: echo '${{ github.event.pull_request.title }}'"), "audit ONLY=workflows", "template-injection"),
    Mutant("a credential stays in the checkout", workflow("          persist-credentials: false\n", ""), "audit ONLY=workflows", "artipacked"),
    Mutant("a secret is committed", fake_secret, "audit ONLY=secrets", "settings.local.py"),
    Mutant("the lock is edited by hand", edit("uv.lock", 'name = "cloudpickle"\nversion = "', 'name = "cloudpickle"\nversion = "0.'), "check-lock", "uv.lock", long=False),
    # the notebook
    Mutant("the notebook's output is removed", notebook("plt.show()", "plt.close()"), "notebook", "shows nothing", long=False),
    Mutant("the notebook does not run", notebook("project.load_rows(", "project.read_rows("), "notebook", "explore.ipynb stops"),
    Mutant("the notebook shows people", output_in_notebook, "notebook", "holds outputs"),
]  # fmt: skip


@pytest.fixture(scope="session")
def committed(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The trained project as a colleague clones it, with the gates of real life and a champion that was measured on the same."""
    project = fork_of(
        trained, tmp_path_factory.mktemp("committed") / "project"
    )  # other tests go on with the gates of that one
    project.set_params(
        gate={
            "metric": "auc",
            "at_least": {"auc": 0.6},
            "at_most": {},
            "better_than_baseline": 0.05,
            "worse_than_champion": 0.5,
        }
    )
    project.make("review")
    commit(project, "as it is")
    return project


@pytest.fixture
def colleague(committed: Project, tmp_path: Path) -> Project:
    project = fork_of(committed, tmp_path / "project")
    project.environment["BASE"] = project.command("git", "rev-parse", "HEAD").stdout.strip()
    return project


def test_nothing_stops_the_project_as_it_is(colleague: Project) -> None:
    """All gates; that of the model passed where `committed` is made, and each in test_workflows.py."""
    gates = dict.fromkeys(mutant.gate for mutant in MUTANTS if not mutant.gate.startswith("test "))
    said = {gate: colleague.make(*gate.split()) for gate in gates}
    assert "reports/review.md: passed" in said["review"]
    assert "secrets: nothing found" in said["audit ONLY=secrets"]


@pytest.mark.parametrize(
    "mutant", [pytest.param(one, id=one.name, marks=[pytest.mark.long] if one.long else []) for one in MUTANTS]
)
def test_a_mutant_is_stopped(colleague: Project, mutant: Mutant) -> None:
    mutant.change(colleague)
    said = colleague.command("make", *mutant.gate.split())
    assert said.returncode != 0, said.stdout + said.stderr
    assert mutant.says in said.stdout + said.stderr


def test_there_are_mutants_for_every_gate() -> None:
    gates = {mutant.gate.split()[0] for mutant in MUTANTS}
    assert gates >= {"check", "check-lock", "test", "test-model", "review", "notebook", "audit"}
    assert len(MUTANTS) >= 20


# ------------------------------------------------------------------------------------- Changes of the gates themselves

CI = ".github/workflows/ci.yml"
NEEDS = "needs: [check, test, model, security]"
STEP = "      - run: make test\n"


def create(file: str, text: str) -> Change:
    def change(project: Project) -> None:
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_text(text)

    return change


def table_of_people(file: str, rows: int) -> Change:
    return create(file, "".join(f"{row},ada{row}@customer-{row % 97}.org,{row / 7}\n" for row in range(rows)))


def weaker_champion(project: Project) -> None:
    file = project / "champion.json"
    content = json.loads(file.read_text())
    content["metrics"]["auc"] = 0.55
    file.write_text(json.dumps(content, indent=2) + "\n")


def declared_secret(project: Project) -> None:
    fake_secret(project)
    project.replace("settings.local.py", '"\n', '"  # pragma: allowlist secret\n')


TEST = "tests/core/test_gate.py"
ASSERTION = "def test_as_json_has_every_check"
BROAD = (
    "\n\ndef quietly(text: str) -> int:\n    try:\n        return int(text)\n    except Exception:\n        return 0\n"
)

CARELESS = [
    Mutant("a module of tests is skipped", append(TEST, "\n\npytestmark = pytest.mark.skip\n"), "standards", "tests are skipped"),
    Mutant("a test is expected to fail", edit(TEST, ASSERTION, f"@pytest.mark.xfail\n{ASSERTION}"), "standards", "tests are skipped"),
    Mutant("a test is skipped by a call", append(TEST, "\n\npytest.skip('later', allow_module_level=True)\n"), "standards", "tests are skipped"),
    Mutant("a test returns before it asserts", edit(TEST, ASSERTION, f"def test_late() -> None:\n    return\n    assert TEST\n\n\n{ASSERTION}"), "standards", "return before"),
    Mutant("tests are not collected", append("tests/conftest.py", "\ncollect_ignore = ['core']\n"), "standards", "not collected"),
    Mutant("pytest gets other settings", create("pytest.ini", "[pytest]\naddopts = -k core\n"), "standards", "pytest.ini takes precedence"),
    Mutant("code is left out of the coverage", append("src/copier_mlops/evaluation/gate.py", "\n\nHALF = 0.5  # pragma: no cover\n"), "standards", "left out of the coverage"),
    Mutant("the type checker leaves a module out", edit("pyproject.toml", "[tool.pytest", '[[tool.mypy.overrides]]\nmodule = "*.core.*"\nignore_errors = true\n\n[tool.pytest'), "standards", "tool.mypy.overrides"),
    Mutant("a rule of the linter is ignored", edit("pyproject.toml", '"ANN401",', '"ANN401", "BLE001",'), "standards", "tool.ruff.lint.ignore"),
    Mutant("a broad except hides errors of the source", append("src/PACKAGE/source.py", BROAD), "check", "BLE001"),
    Mutant("a job may fail", edit(CI, "  test:\n", "  test:\n    continue-on-error: true\n"), "standards", "continue-on-error"),
    Mutant("the result of the tests is ignored", edit(CI, STEP, "      - run: make test || true\n"), "standards", "ignores a failure"),
    Mutant("the result of the tests is lost in a pipe", edit(CI, STEP, "      - run: make test | tail\n"), "standards", "in a pipe"),
    Mutant("only some of the tests run", edit(CI, STEP, f"{STEP}        env:\n          ONLY: tests/core\n"), "standards", "ONLY changes what a gate checks"),
    Mutant("a job never runs", edit(CI, "  security:\n", "  security:\n    if: false\n"), "standards", "the job security"),
    Mutant("a job is not required", edit(CI, NEEDS, "needs: [check, test, model]"), "standards", "job pass needs security"),
    Mutant("some pull requests are not checked", edit(CI, "  pull_request:\n", "  pull_request:\n    paths-ignore: ['src/**']\n"), "standards", "the trigger pull_request"),
    Mutant("nothing to compare with is fetched", edit(CI, "          fetch-depth: 0\n", ""), "standards", "fetches the history"),
    Mutant("a log shows the environment", edit(CI, STEP, f"      - run: env | sort\n{STEP}"), "standards", "prints the environment"),
    Mutant("a program prints the environment", append("src/PACKAGE/source.py", "\n\nimport os\n\nprint(dict(os.environ))\n"), "standards", "environment, with its secrets"),
    Mutant("a recipe ignores failures", edit("Makefile", "\t@$(BIN)/pytest ", "\t-@$(BIN)/pytest "), "standards", "Makefile changed"),
    Mutant("a makefile of one's own replaces a gate", create("local.mk", "test:\n\t@true\n"), "standards", "local.mk changes a gate"),
    Mutant("the job that is required passes always", edit("src/copier_mlops/ci/required_jobs.py", "return 1", "return 0"), "standards", "src/copier_mlops/ci/required_jobs.py changed"),
    Mutant("a limit of the model is lowered", edit("params.yaml", "at_least: {auc: 0.6}", "at_least: {auc: 0.5}"), "standards", "gate.at_least.auc is 0.5; it was 0.6"),
    Mutant("more bad rows are allowed", edit("params.yaml", "max_bad_share: 0.02", "max_bad_share: 0.5"), "check", "validation.max_bad_share is 0.5", long=True),
    Mutant("the champion is made weaker", weaker_champion, "standards", "auc 0.71 -> 0.55"),
    Mutant("a table of 30 MB with people is committed", table_of_people("exports/customers.csv", 750_000), "audit ONLY=files", "1000+ e-mail addresses"),
    Mutant("a few people are committed", table_of_people("tests/people.json", 4), "audit ONLY=files", "4 e-mail addresses"),
    Mutant("a model is committed", create("model.pkl", "x"), "audit ONLY=files", "a format for data or models"),
    Mutant("a secret is declared to be none", declared_secret, "standards", "declared not to be a secret"),
]  # fmt: skip


@pytest.fixture(scope="module")
def guarded(render: Render, small_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a champion, as a colleague clones it; nothing is trained for it."""
    folder = tmp_path_factory.mktemp("guarded") / "project"
    shutil.copytree(render(), folder)
    project = borrowing(folder, small_environment, "http://127.0.0.1:9/api")
    champion = {"version": 1, "run_id": "a", "bundle": "b", "target": "late", "metrics": {"auc": 0.71, "brier": 0.2}}
    (folder / "champion.json").write_text(json.dumps(champion, indent=2) + "\n")
    commit(project, "as it is")
    project.environment["BASE"] = project.command("git", "rev-parse", "HEAD").stdout.strip()
    return project


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(one, id=one.name, marks=[pytest.mark.long] if one.gate == "check" and one.says != "BLE001" else [])
        for one in CARELESS
    ],
)
def test_a_weaker_gate_is_stopped(guarded: Project, mutant: Mutant) -> None:
    try:
        mutant.change(guarded)
        said = guarded.command("make", *mutant.gate.split())
        assert said.returncode != 0, said.stdout + said.stderr
        assert mutant.says in said.stdout + said.stderr
    finally:
        for words in (("reset", "--quiet", "--hard", guarded.environment["BASE"]), ("clean", "--quiet", "-fd")):
            assert guarded.command("git", *words).returncode == 0


def test_a_large_table_does_not_delay_the_secret_scan(guarded: Project) -> None:
    """The detectors took 400 s on such a table. The limit is generous: a busy machine takes a few seconds."""
    table_of_people("exports/customers.csv", 750_000)(guarded)
    try:
        begun = time.monotonic()
        assert "secrets: nothing found" in guarded.make("audit", "ONLY=secrets")
        assert time.monotonic() - begun < 120
    finally:
        shutil.rmtree(guarded / "exports")


def test_a_reason_lets_a_lower_limit_pass_and_the_report_shows_it(guarded: Project) -> None:
    guarded.replace("params.yaml", "at_least: {auc: 0.6}", "at_least: {auc: 0.5}")
    commit(guarded, "Lower the limit\n\nLowers: gate.at_least.auc, because the new market is harder")
    try:
        assert "gate.at_least.auc is 0.5" in guarded.make("standards")
        page = (guarded / "reports/standards.md").read_text()
        assert "| gate.at_least.auc is 0.5; it was 0.6 | the new market is harder |" in page
    finally:
        guarded.command("git", "reset", "--quiet", "--hard", guarded.environment["BASE"])


def test_there_are_weaker_gates_of_every_kind() -> None:
    assert len(CARELESS) >= 14
    assert len({one.name for one in [*MUTANTS, *CARELESS]}) == len(MUTANTS) + len(CARELESS)
