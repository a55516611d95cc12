"""An error in a file of yours shows the line first, then the cause, then where the whole traceback is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sample_project import features

from copier_mlops import ProjectError, _user_errors, project
from copier_mlops.pipeline import features as stage

from .conftest import mlops
from .fixture_project import ROOT

OWN = ROOT / "src/sample_project/features.py"
NAME = OWN.relative_to(ROOT)


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(_user_errors, "TRACEBACK", tmp_path / "cache/traceback.txt")


def failing(code: str) -> Callable[[], None]:
    """A function whose code claims to be in features.py."""
    names: dict[str, Callable[[], None]] = {}
    exec(compile(code, str(OWN), "exec"), names)
    return names["build_features"]


CODE = "\n\ndef build_features():\n    return {}['hour']\n"


def test_the_line_comes_first_and_the_traceback_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "features", failing(CODE))
    assert mlops("features") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{NAME}:4, in build_features"
    assert lines[1] == "    " + OWN.read_text().splitlines()[3].strip()  # the text of that line
    assert lines[2] == "error: KeyError: 'hour'"
    assert lines[3] == f"The whole traceback is in {_user_errors.TRACEBACK}."
    assert "Traceback (most recent call last)" in _user_errors.TRACEBACK.read_text()


@pytest.mark.parametrize(
    ("code", "line", "says"),
    [
        ("import pandas\n\nx = (1,\n", 3, "SyntaxError: '(' was never closed"),
        ("import pandas\nimport nowhere_to_be_found\n", 2, "uv add nowhere_to_be_found"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_its_line(
    code: str, line: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / f"src/broken_{line}"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "schema.py").write_text(code)
    (tmp_path / "pyproject.toml").write_text(f'[tool.copier-mlops]\npackage = "broken_{line}"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    monkeypatch.setattr(stage, "features", project.contract)
    assert mlops("features") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"src/broken_{line}/schema.py:{line}\n    {code.splitlines()[line - 1].strip()}\nerror: ")
    assert says in error


def test_the_cause_of_an_error_of_the_platform_is_shown() -> None:
    with pytest.raises(ProjectError) as raised:
        try:
            failing(CODE)()
        except KeyError as error:
            raise ProjectError("the source cannot be read") from error
    assert _user_errors.own_line(raised.value).startswith(f"{NAME}:4, in build_features")


def test_a_line_that_is_not_python_is_shown() -> None:
    with pytest.raises(SyntaxError) as raised:
        compile("\nx = (1,\n", str(OWN), "exec")
    assert _user_errors.own_line(raised.value).startswith(f"{NAME}:2")


def test_errors_of_the_platform_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 / 0
    assert _user_errors.own_line(raised.value) == ""
    assert Path(features.__file__) == OWN
