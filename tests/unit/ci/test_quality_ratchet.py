"""A change that lowers a test, a check, a setting or a limit is reported, and a reason in a commit allows it."""

import subprocess
import textwrap
from pathlib import Path

import pytest

from copier_mlops.ci import base as bases
from copier_mlops.ci import code_ratchet, quality_ratchet
from copier_mlops.updates import upstream as template

PYPROJECT = """\
[tool.ruff.lint]
select = ["A", "BLE", "S"]
ignore = ["ANN401"]

[tool.mypy]
strict = true

[tool.pytest.ini_options]
addopts = "--strict-config -q"

[tool.coverage.run]
branch = true
source = ["sample_project"]

[tool.coverage.report]
fail_under = 90
"""
PARAMS = "problem: classification\ngate: {metric: auc}\nvalidation:\n  max_bad_share: 0.02\n"
TEST = "def test_one():\n    assert len('a') == 1\n    assert len('b') == 1\n\n\ndef test_two():\n    assert ord('a') == 97\n"
CODE = "import contextlib\nimport os\n\nVALUE = os.environ.get('VALUE')\n"
FILES = {
    "tests/test_x.py": TEST,
    "tests/conftest.py": "",
    "src/code.py": CODE,
    "local.mk": "hello:\n\techo hello\n",
    "settings.yaml": "a: 1\n",
    "pyproject.toml": PYPROJECT,
    "params.yaml": PARAMS,
    "Makefile": "check:\n\t@$(BIN)/mypy\n",
    "make/environment.mk": "export PYTHONUTF8 := 1\n",
    "ci/gate.py": "def main():\n    return 1\n",
    ".dvc/config": "[core]\n    remote = a\n['remote \"a\"']\n    verify = true\n",
    "uv.lock": 'version = 1\n[[package]]\nname = "x"\nversion = "1"\nsource = { registry = "https://example.com/simple" }\n'
    'wheels = [{ url = "https://example.com/x/x-1-py3-none-any.whl" }]\n',
}


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit."""
    folder = tmp_path_factory.mktemp("origin") / "project"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".copier-answers.yml").write_text(
        "_commit: v1\n_src_path: https://example.com/a\nproject_name: Flights\n"
    )
    git(folder, "init", "--quiet")
    commit(folder, "first")
    return folder


@pytest.fixture
def project(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone to change, with BASE as in CI."""
    folder = tmp_path / "project"
    git(tmp_path, "clone", "--quiet", str(origin), str(folder))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BASE", git(folder, "rev-parse", "HEAD"))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return folder


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--no-verify", "--message", message)


def base() -> bases.Base:
    found, note = bases.find()
    assert found and not note
    return found


def names(project: Path) -> list[str]:
    return [one.name for one in quality_ratchet.compared(base()) if not one.reason]


def test_a_project_that_did_not_change_lowers_nothing(project: Path) -> None:
    assert quality_ratchet.compared(base()) == []
    (project / "src/more.py").write_text("VALUE = 1\n")
    (project / "tests/test_y.py").write_text(TEST.replace("test_", "test_more_"))
    assert quality_ratchet.main() == 0
    assert "No test, limit or check is lowered" in (project / quality_ratchet.REPORT).read_text()


@pytest.mark.parametrize(
    ("file", "old", "new", "name"),
    [
        ("tests/test_x.py", "def test_one", "import pytest\n\npytestmark = pytest.mark.skip\n\n\ndef test_one", "skip"),
        ("tests/test_x.py", "def test_one", "import pytest\n\n\n@pytest.mark.skipif(True, reason='')\ndef test_one", "skip"),
        ("tests/test_x.py", "def test_one", "from pytest import mark\n\n\n@mark.xfail\ndef test_one", "skip"),
        ("tests/test_x.py", "    assert ord('a') == 97", "    import pytest\n\n    pytest.skip('later')\n    assert ord('a')", "skip"),
        ("tests/test_x.py", "    assert ord('a') == 97", "    return\n    assert ord('a') == 97", "early-return"),
        ("tests/test_x.py", "    assert ord", "    if not ord('a'):\n        return\n    assert ord", "early-return"),
        ("tests/test_x.py", "    assert ord", "    for _ in 'a':\n        if ord('a'):\n            return\n    assert ord", "early-return"),
        ("tests/test_x.py", "    assert ord", "    import contextlib\n\n    with contextlib.suppress(AssertionError):\n        assert ord", "caught-assertion"),
        ("tests/test_x.py", "assert ord('a') == 97", "try:\n        assert ord('a') == 97\n    except AssertionError:\n        pass", "caught-assertion"),
        ("tests/test_x.py", "assert ord('a') == 97", "try:\n        assert ord('a') == 97\n    except (ValueError, AssertionError):\n        pass", "caught-assertion"),
        ("tests/test_x.py", "assert ord('a') == 97", "try:\n        assert ord('a') == 97\n    except Exception:\n        pass", "caught-assertion"),
        ("tests/test_x.py", "assert ord('a') == 97", "try:\n        assert ord('a') == 97\n    except:\n        pass", "caught-assertion"),
        ("tests/conftest.py", "", "import os\n\n\nos._exit(0)\n", "uncollected"),
        ("tests/conftest.py", "", "import pytest\n\npytest.exit('done', 0)\n", "uncollected"),
        ("tests/conftest.py", "", "def pytest_unconfigure(config): ...\n", "uncollected"),
        ("tests/conftest.py", "", "def pytest_runtest_logreport(report):\n    report.outcome = 'passed'\n", "uncollected"),
        ("tests/conftest.py", "", "from helpers import pytest_report_teststatus\n", "uncollected"),
        ("tests/conftest.py", "", "pytest_sessionfinish = print\n", "uncollected"),
        ("tests/conftest.py", "", "@pytest.hookimpl(specname='pytest_unconfigure')\ndef later(): ...\n", "uncollected"),
        ("tests/test_x.py", "assert ord('a') == 97", "ord('a')", "test_two"),
        ("tests/test_x.py", "assert ord('a') == 97", "assert ord('a') == 97 or True", "test_two"),
        ("tests/test_x.py", "def test_two", "def check_two", "test_two"),
        ("tests/test_x.py", "def test_two", "def test_two_of_them", "test_two"),
        ("tests/test_x.py", "def test_two():", "if False:\n  def test_two():", "test_two"),
        ("tests/conftest.py", "", "collect_ignore = ['test_x.py']\n", "uncollected"),
        ("tests/conftest.py", "", "def pytest_collection_modifyitems(items):\n    items.clear()\n", "uncollected"),
        ("tests/test_x.py", "def test_one():", "import pytest\n\n\n@pytest.mark.parametrize('x', [])\ndef test_one(x):", "skip"),
        ("tests/test_x.py", "def test_one():", "import pytest\n\n\n@pytest.mark.parametrize('x', argvalues=())\ndef test_one(x):", "skip"),
        ("tests/test_x.py", "def test_one", "import pytest\n\npytestmark = getattr(pytest.mark, 'sk' 'ip')\n\n\ndef test_one", "skip"),
        ("tests/test_x.py", "def test_one", "globals().pop('test_' 'two', None)\n\n\ndef test_one", "uncollected"),
        ("src/code.pyi", "", "VALUE: str\n", "src/code.pyi"),
        ("yaml.py", "", "VALUE = 1\n", "yaml.py"),
        ("json/__init__.py", "", "VALUE = 1\n", "json/__init__.py"),
        ("ci/tomllib.py", "", "VALUE = 1\n", "ci/tomllib.py"),
        ("src/sitecustomize.py", "", "VALUE = 1\n", "src/sitecustomize.py"),
        ("dvc.yaml", "", "stages:\n  train:\n    cmd: x\n    frozen: true\n", "frozen"),
        (".dvc/config", "verify = true", "verify = false", "verify"),
        (".copier-answers.yml", "https://example.com/a", "https://example.com/b", ".copier-answers.yml"),
        ("uv.lock", "https://example.com/x", "https://example.org/x", "uv.lock"),
        ("src/code.py", "VALUE =", "OTHER = 1  # pragma: no cover\nVALUE =", "no-cover"),
        ("src/code.py", "VALUE =", "# ruff: noqa\nVALUE =", "noqa"),
        ("src/code.py", "VALUE =", "OTHER: str = 1  # type: ignore[assignment]\nVALUE =", "type-ignore"),
        ("src/code.py", "VALUE =", "with contextlib.suppress(Exception):\n    OTHER = 1\nVALUE =", "broad-suppress"),
        ("src/code.py", "VALUE =", "print(f'{dict(os.environ)}')\nVALUE =", "prints-environment"),
        ("src/code.py", "VALUE =", "print(sorted(os.environ.items()))\nVALUE =", "prints-environment"),
        ("src/code.py", "VALUE =", "OTHER = 'hunter'  # pragma: allowlist secret\nVALUE =", "allowlist"),
        ("settings.yaml", "a: 1", "a: 1 # pragma: allowlist secret", "allowlist"),
        ("pyproject.toml", "strict = true", 'strict = true\ndisable_error_code = ["arg-type"]', "tool.mypy.disable_error_code"),
        ("pyproject.toml", '"BLE", ', "", "tool.ruff.lint.select"),
        ("pyproject.toml", '"ANN401"', '"ANN401", "F841"', "tool.ruff.lint.ignore"),
        ("pyproject.toml", "strict-config -q", "strict-config -q -m fast", "tool.pytest.ini_options.addopts"),
        ("pyproject.toml", "fail_under = 90", "fail_under = 80", "tool.coverage.report.fail_under"),
        ("pyproject.toml", "[tool.pytest", '[[tool.mypy.overrides]]\nmodule = "*"\nignore_errors = true\n\n[tool.pytest', "tool.mypy.overrides"),
        ("Makefile", "@$(BIN)/mypy", "-@$(BIN)/mypy", "Makefile"),
        ("ci/gate.py", "return 1", "return 0", "ci/gate.py"),
        ("local.mk", "hello:", "test:\n\ttrue\n\nhello:", "local.mk"),
        ("local.mk", "hello:", "MAKEFLAGS += --ignore-errors\n\nhello:", "local.mk"),
        ("local.mk", "hello:", "include more.txt\n\nhello:", "local.mk"),
        ("local.mk", "hello:", "  test: hello\n\nhello:", "local.mk"),
        ("local.mk", "hello:", "hello \\\n  test:\n\ttrue\n\nhello:", "local.mk"),
        ("local.mk", "hello:", "export PYTHONOPTIMIZE := 1\n\nhello:", "local.mk"),
        ("local.mk", "hello:", "$(eval BIN := /bin)\n\nhello:", "local.mk"),
        ("local.mk", "hello:", "T = te\n$(T)st: ; @true\nhello:", "local.mk"),
        ("local.mk", "hello:", "all ${T}: hello\nhello:", "local.mk"),
        ("make/mine.mk", "", "test:\n\t@true\n", "make/mine.mk"),
        ("make/mine.mk", "", "BIN := tools\n", "make/mine.mk"),
        ("tools/deep.mk", "", "check: ; @true\n", "tools/deep.mk"),
        ("make/environment.mk", "PYTHONUTF8 := 1", "PYTHONUTF8 := 0", "make/environment.mk"),
        ("local.mk", "echo hello", "@env | sort", "local.mk"),
        ("params.yaml", "max_bad_share: 0.02", "max_bad_share: 0.5", "validation.max_bad_share"),
    ],
)  # fmt: skip
def test_what_is_lowered_is_named(project: Path, file: str, old: str, new: str, name: str) -> None:
    text = (project / file).read_text() if (project / file).exists() else ""
    assert old in text or not text
    (project / file).parent.mkdir(exist_ok=True)
    (project / file).write_text(text.replace(old, new, 1) if old else new)
    assert names(project) == [name]


@pytest.mark.parametrize("file", ["pytest.ini", ".coveragerc", "src/ruff.toml", "mypy.ini"])
def test_a_file_that_the_tools_prefer_is_named(project: Path, file: str) -> None:
    (project / file).write_text("# nothing\n")
    assert names(project) == [file]


def test_more_than_before_is_no_finding(project: Path) -> None:
    (project / "pyproject.toml").write_text(
        PYPROJECT.replace("fail_under = 90", "fail_under = 95").replace('select = ["A", ', 'select = ["A", "PT", ')
    )
    (project / "src/code.py").write_text(f"{CODE}\n\nprint(os.environ['HOME'], os.environ.get('VALUE'))\n")
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("max_bad_share: 0.02", "max_bad_share: 0.01"))
    test = """
def test_three():
    def inner():
        return 1

    try:
        assert inner() == 1
    except AssertionError:
        raise ValueError from None
    try:
        int("x")
    except ValueError:
        assert inner()
    return


def pytest_addoption(parser): ...
"""
    (project / "tests/test_x.py").write_text(f"{TEST}{test}")
    mine = "hello:\n\techo hello\n\nFOLDER := bench\n\nbench: test\n\tenv A=1 ./bench\n\ntests-long:\n\t@$(MAKE) test\n"
    (project / "local.mk").write_text(mine)
    (project / "make/mine.mk").write_text(mine.replace("bench:", "more:"))
    (project / "tests/test_z.py").write_text(
        "import pytest\n\n\n@pytest.mark.parametrize('x', [1])\ndef test_four(x):\n    assert x\n"
    )
    (project / "src/json.py").write_text("VALUE = 1\n")
    (project / "mine.py").write_text("VALUE = 1\n")
    (project / "more.mk").write_text("$(FOLDER)/x.csv: $(FILES)\n\ttouch $@\nmine: $(A)\nA := $(B):$(C)\n")
    assert names(project) == []


def test_a_test_that_moved_is_not_gone(project: Path) -> None:
    (project / "tests/deep").mkdir()
    git(project, "mv", "tests/test_x.py", "tests/deep/test_x.py")
    assert names(project) == []
    (project / "tests/deep/test_x.py").rename(project / "tests/deep/x.py")
    assert names(project) == ["test_one", "test_two"]


def test_a_reason_allows_it_and_is_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "tests/test_x.py").write_text(TEST.replace("def test_two", "def two"))
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("0.02", "0.03"))
    (project / "Makefile").write_text(f"{FILES['Makefile']}\n# more\n")
    assert quality_ratchet.main() == 1
    said = capsys.readouterr().err
    assert "Removes-test: test_two, because" in said and "Lowers: validation.max_bad_share, because" in said
    page = (project / quality_ratchet.REPORT).read_text()
    assert "| validation.max_bad_share is 0.03; it was 0.02 | **no reason given** |" in page
    commit(
        project,
        "Less\n\nRemoves-test: test_two, because nothing is left to test\nLowers: Makefile, because it is a comment",
    )
    assert names(project) == ["validation.max_bad_share"]
    commit_empty = "Explain\n\nLowers: params.yaml, because the new source has more gaps"
    git(project, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", commit_empty)
    assert quality_ratchet.main() == 0
    assert "it was 0.02 | the new source has more gaps |" in (project / quality_ratchet.REPORT).read_text()


def test_a_line_without_a_reason_allows_nothing(project: Path) -> None:
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("0.02", "0.03"))
    commit(project, "Less\n\nLowers: params.yaml")
    assert names(project) == ["validation.max_bad_share"]


def release(project: Path, old: str = "v1", new: str = "v2") -> None:
    answers = project / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(old, new))


def update(project: Path) -> None:
    """Commit what an update brings: fewer tests and other gates."""
    (project / "tests/test_x.py").unlink()
    (project / "ci/gate.py").write_text("def main():\n    return 2\n")
    (project / "Makefile").write_text(FILES["Makefile"].replace("check", "check-all"))
    (project / "make/environment.mk").unlink()
    (project / "pyproject.toml").write_text(PYPROJECT.replace('"ANN401"', '"ANN401", "F841"'))
    (project / ".github/workflows").mkdir(parents=True)
    (project / ".github/workflows/ci.yml").write_text("jobs: {a: {steps: [{run: make test || true}]}}\n")
    release(project)
    commit(project, "Update to v2\n\nTemplate-release: v2")
    (project / "uv.lock").write_text("version = 1\n")
    commit(project, "Known-good packages of v2\n\nTemplate-release: v2")


def test_an_update_of_the_template_brings_its_own_files(project: Path) -> None:
    assert (bases.ANSWERS, bases.TRAILER) == (template.ANSWERS, template.TRAILER)
    start, updated = git(project, "branch", "--show-current"), "update/v2"
    git(project, "switch", "--quiet", "--create", updated)
    update(project)
    assert names(project) == []
    git(project, "switch", "--quiet", start)
    (project / "src/more.py").write_text("VALUE = 1\n")
    commit(project, "more")
    git(project, "merge", "--quiet", "--no-ff", "--message", "Merge the update", updated)
    assert names(project) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "name"),
    [
        ("Makefile", "@$(BIN)/mypy", "-@$(BIN)/mypy", "Makefile"),
        ("ci/gate.py", "return 2", "return 1", "ci/gate.py"),  # as before the update
        ("make/environment.mk", "", FILES["make/environment.mk"], "make/environment.mk"),
        ("tests/test_y.py", "", "import pytest\n\npytestmark = pytest.mark.skip\n", "skip"),
        ("pyproject.toml", '"F841"', '"F841", "S101"', "tool.ruff.lint.ignore"),
        (".github/workflows/ci.yml", "make test", "make check", "ci.yml"),
        ("params.yaml", "max_bad_share: 0.02", "max_bad_share: 0.03", "validation.max_bad_share"),
    ],
)
@pytest.mark.parametrize("committed", [False, True])
def test_a_change_after_an_update_is_compared_with_the_update(
    project: Path, file: str, old: str, new: str, name: str, committed: bool
) -> None:
    update(project)
    text = (project / file).read_text() if (project / file).exists() else ""
    (project / file).write_text(text.replace(old, new) if old else new)
    if committed:
        commit(project, "mine")
    assert {*names(project)} == {name}


def test_a_change_before_an_update_is_found(project: Path) -> None:
    (project / "ci/gate.py").write_text("def main():\n    return 0\n")
    commit(project, "mine")
    update(project)
    assert names(project) == ["ci/gate.py"]


def test_another_release_without_an_update_hides_nothing(project: Path) -> None:
    answers = project / ".copier-answers.yml"
    (project / "Makefile").write_text("")
    answers.write_text(answers.read_text().replace("Flights", "Trains"))
    assert names(project) == ["Makefile"]
    release(project)
    commit(project, "Other release\n\nTemplate-releases are new")
    assert names(project) == [".copier-answers.yml", "Makefile"]
    answers.unlink()
    assert names(project) == [".copier-answers.yml", "Makefile"]


def test_a_base_that_is_missing_is_reported(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BASE", "0" * 40)
    assert bases.find() == (None, "")
    monkeypatch.setenv("BASE", "1" * 40)
    assert quality_ratchet.main() == 0
    assert "is not here, so nothing was compared" in capsys.readouterr().out
    (project / "tests/test_x.py").unlink()
    commit(project, "less")
    assert quality_ratchet.main() == 1  # compared with the commit before
    assert "compared with HEAD^" in capsys.readouterr().out


def test_a_project_below_the_root_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "outer/services/flights"
    (folder / "tests").mkdir(parents=True)
    (folder / "tests/test_x.py").write_text(TEST)
    git(tmp_path / "outer", "init", "--quiet")
    commit(tmp_path / "outer", "first")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BASE", "HEAD")
    (folder / "tests/test_x.py").write_text(TEST.replace("test_two", "two"))
    assert [one.name for one in code_ratchet.compared(base())] == ["test_two"]


@pytest.mark.parametrize("text", ["def (", "x = 'unfinished"])
def test_a_file_that_does_not_parse_is_for_the_linter(text: str) -> None:
    assert not code_ratchet.tests(code_ratchet.parsed(text))
    assert code_ratchet.suppressed("src/x.py", f"{text}\n# pragma: no cover\n")["no-cover"] == 1


def test_classes_and_helpers_count() -> None:
    tree = code_ratchet.parsed(
        textwrap.dedent("""
        class TestOne:
            async def test_a(self):
                with pytest.raises(ValueError):
                    int("x")
        class Other:
            def test_b(self): ...
        def test_c():
            check_all()
            assert True
    """)
    )
    assert {test.name: code_ratchet.assertions(test) for test in code_ratchet.tests(tree)} == {"test_a": 1, "test_c": 1}
