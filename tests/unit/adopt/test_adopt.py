"""A table becomes a project: its files are written, nobody's work is written over, and no secret is left lying about."""

import ast
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from copier_mlops import Contract, ProjectError, params
from copier_mlops.adopt import adopt as stage
from copier_mlops.adopt.adopt import ChangedFilesError, Options, adopt
from copier_mlops.adopt.decisions import AdoptionError
from copier_mlops.contract.validation import check_rows
from copier_mlops.data import readers
from copier_mlops.settings import Settings

ROWS = 400
RANDOM = np.random.default_rng(0)
SIGNAL = RANDOM.normal(size=ROWS)
TABLE = pd.DataFrame(
    {
        "mail": [f"u{number}@example.org" for number in range(ROWS)],
        "at": pd.date_range("2024-01-01", periods=ROWS, freq="12h").strftime("%d.%m.%Y %H:%M"),
        "price €": [f"{number:.2f}".replace(".", ",") for number in SIGNAL],
        "colour": RANDOM.choice(["red", "blue"], ROWS),
        "y": np.where(SIGNAL + RANDOM.normal(size=ROWS) > 0, "yes", "no"),
    }
)
CODE = "src/sample_project"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a project, where uv is not to be called."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[tool.copier-mlops]\npackage = "sample_project"\n')
    monkeypatch.setattr(stage, "_uv", lambda *words: pytest.fail("nothing is to be installed"))
    return folder


@pytest.fixture
def table(tmp_path: Path) -> str:
    TABLE.to_csv(tmp_path / "table.csv", sep=";", index=False)
    return str(tmp_path / "table.csv")


def contract_of(root: Path) -> Contract:
    names = evaluated(root / CODE / "schema.py")
    return names["CONTRACT"]


def evaluated(file: Path) -> dict[str, Any]:
    names: dict[str, Any] = {"__file__": str(file)}
    exec(file.read_text(encoding="utf-8"), names)
    return names


def test_what_the_user_says_of_columns_is_done_in_training_and_prediction(root: Path, tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=ROWS, freq="D").strftime("%y_%m_%d")
    rows = TABLE.assign(paid=days, casual=RANDOM.integers(0, 9, ROWS))[["paid", "casual", "colour", "y"]]
    file = tmp_path / "rows.csv"
    rows.to_csv(file, index=False, header=False)
    options = stage.Options({"column_1": "%y_%m_%d", "colunm_2": "seconds"}, header=False, drop=("column_3",))
    done = adopt(Settings(), str(file), "column_4", root=root, options=options)
    assert "STYLE_colunm_2 has no effect: the table has no such column. Is it STYLE_column_2?" in done.notes
    assert contract_of(root).names == ["row", "column_1", "column_2", "column_4"]
    source = evaluated(root / CODE / "source.py")
    [read] = source["read"]("", None, None, ["row", "column_1", "column_2", "column_4"])
    assert read["column_1"].tolist() == pd.to_datetime(days, format="%y_%m_%d", utc=True).tolist()
    assert len(read) == ROWS and read["column_4"].tolist() == rows["y"].tolist()
    [scored] = source["read_file"](file, ["row", "column_1", "column_2"])
    assert scored["column_1"].tolist() == read["column_1"].tolist()


def test_a_column_that_is_computed_is_there_in_training_and_prediction(root: Path, table: str) -> None:
    adopt(Settings(), table, "y", time="at", identifier="mail", root=root)
    file = root / CODE / "source.py"
    text = file.read_text(encoding="utf-8")
    assert text.count("    return rows\n") == 1
    file.write_text(
        text.replace("    return rows\n", '    return rows.assign(length=rows["colour"].str.len())\n'), encoding="utf-8"
    )
    source, columns = evaluated(file), ["mail", "at", "colour", "length"]
    [read] = source["read"]("", None, None, columns)
    [scored] = source["read_file"](Path(table), columns)
    assert read["length"].tolist() == scored["length"].tolist() == TABLE["colour"].str.len().tolist()


def test_the_files_are_those_of_the_table(root: Path, table: str) -> None:
    done = adopt(Settings(), table, "y", time="at", identifier="mail", root=root)
    assert set(done.written) == {
        *(f"{CODE}/{name}.py" for name in ("schema", "features", "model")),
        f"{CODE}/source.py",
        "params.yaml",
        "tests/sample.py",
    }
    for name in done.written:
        if name.endswith(".py"):
            ast.parse((root / name).read_text(encoding="utf-8"))
    contract, source = contract_of(root), evaluated(root / CODE / "source.py")
    assert contract == done.plan.contract
    assert source["TIME"] == "at"
    assert source["TABLE"].separator == ";"
    assert source["extent"]("") == (ROWS, pd.Timestamp("2024-07-18T12:00:00Z"))
    found = pd.concat(source["read"]("", None, None, contract.names))
    assert len(check_rows(found, contract).good) == ROWS
    assert found["price €"].astype("float64").to_numpy() == pytest.approx(SIGNAL, abs=0.006)
    assert len(pd.concat(source["read_file"](Path(table), ["colour"]))) == ROWS
    assert params.load_params(root / "params.yaml").problem == "classification"
    said = json.loads((root / "adoption.json").read_text(encoding="utf-8"))
    assert (said["table"], said["target"], len(said["columns"])) == (table, "y", 5)
    assert set(said["files"]) == set(done.written)


def test_another_table_may_follow_as_long_as_nobody_wrote_there(root: Path, table: str) -> None:
    adopt(Settings(), table, "y", root=root)
    assert contract_of(root).id == "row"
    adopt(Settings(), table, "y", root=root)
    adopt(Settings(), table, "colour", time="at", root=root)
    assert contract_of(root).target == "colour"


def test_what_somebody_wrote_is_not_written_over(root: Path, table: str) -> None:
    adopt(Settings(), table, "y", root=root)
    features = root / CODE / "features.py"
    features.write_text(features.read_text() + "MINE = 1\n")
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    with pytest.raises(ChangedFilesError, match=r"(?s)-MINE = 1.*nothing was written.*FORCE=1") as error:
        adopt(Settings(), table, "colour", root=root)
    assert "features.py (yours)" in str(error.value)
    assert "model.py" not in str(error.value)
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before
    adopt(Settings(), table, "colour", force=True, root=root)
    assert "MINE" not in features.read_text()
    assert contract_of(root).target == "colour"


@pytest.mark.parametrize("files", [0, 1, 4])
def test_what_an_interrupted_adoption_wrote_is_no_edit(root: Path, table: str, monkeypatch: Any, files: int) -> None:
    adopt(Settings(), table, "y", root=root)
    written: list[Path] = []
    write_text = stage.tables.write_text

    def until_killed(text: str, path: Path) -> None:
        if path.name != "adoption.json" and len(written) == files:
            raise KeyboardInterrupt
        written.append(path) if path.name != "adoption.json" else None
        write_text(text, path)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(stage.tables, "write_text", until_killed)
        adopt(Settings(), table, "colour", time="at", root=root)
    assert len(written) == files
    adopt(Settings(), table, "y", identifier="mail", root=root)
    assert (contract_of(root).target, contract_of(root).id) == ("y", "mail")
    assert "interrupted" not in json.loads((root / "adoption.json").read_text(encoding="utf-8"))


def test_a_table_inside_the_project_stays_out_of_git(root: Path, table: str) -> None:
    """Every run keeps a snapshot of the work tree, and a row in git is there for good."""
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    (root / ".gitignore").write_text("/data/")
    (root / "in").mkdir()
    for place in ("in/customers.csv", "data/customers.csv"):
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).write_bytes(Path(table).read_bytes())
    said = adopt(Settings(), str(root / "in/*.csv"), "y", root=root).notes
    assert any("in/*.csv was added to .gitignore" in note for note in said)
    kept = (root / ".gitignore").read_text()
    for again in (str(root / "in/*.csv"), str(root / "data/customers.csv"), table):
        assert not any(".gitignore" in note for note in adopt(Settings(), again, "y", root=root).notes)
    assert (root / ".gitignore").read_text() == kept
    words = ["git", "status", "--porcelain", "--untracked-files=all"]
    seen = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    assert "params.yaml" in seen.stdout and ".csv" not in seen.stdout


def test_a_wide_table_has_its_contract_beside_the_code(root: Path, tmp_path: Path, table: str) -> None:
    wide = TABLE.assign(**{f"n {number}": RANDOM.random(ROWS).round(3) for number in range(50)})
    wide.to_csv(tmp_path / "wide.csv", index=False)
    done = adopt(Settings(), str(tmp_path / "wide.csv"), "y", root=root)
    assert contract_of(root) == done.plan.contract
    assert (root / CODE / "contract.csv").exists()
    adopt(Settings(), table, "y", root=root)
    assert not (root / CODE / "contract.csv").exists()
    assert "colour" in contract_of(root).names


def test_tests_of_a_source_that_is_gone_go_with_it(root: Path, table: str) -> None:
    old = root / "tests" / "test_flights.py"
    old.parent.mkdir(parents=True)
    old.write_text("def test() -> None: ...\n")
    with pytest.raises(ChangedFilesError, match=r"test_flights.py \(yours\)"):
        adopt(Settings(), table, "y", root=root)
    adopt(Settings(), table, "y", force=True, root=root)
    assert not old.exists()


# ------------------------------------------------------------------------------------------------------- Secrets


def test_a_key_is_made_for_ids_that_name_people(root: Path, table: str) -> None:
    done = adopt(Settings(mask_key=""), table, "y", identifier="mail", root=root)
    file = root / ".env"
    assert re.fullmatch(r"MASK_KEY=[0-9a-f]{64}\n", file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    assert contract_of(root)["mail"].personal
    assert any("MASK_KEY in .env" in note for note in done.notes)
    assert file.read_text().split("=")[1].strip() not in " ".join(done.notes)


def test_a_key_joins_the_settings_that_are_there_and_none_is_made_twice(root: Path, table: str) -> None:
    (root / ".env").write_text("RETRIES=1")
    adopt(Settings(mask_key=""), table, "y", identifier="mail", root=root)
    assert (root / ".env").read_text().startswith("RETRIES=1\nMASK_KEY=")
    before = (root / ".env").read_text()
    assert adopt(Settings(mask_key="there"), table, "y", identifier="mail", root=root).notes == ()
    assert (root / ".env").read_text() == before


def test_nothing_personal_needs_no_key(root: Path, table: str) -> None:
    adopt(Settings(mask_key=""), table, "y", root=root)
    assert not (root / ".env").exists()


# ------------------------------------------------------------------------------------------------------ Profiles


def test_a_column_that_is_not_what_its_first_rows_promised(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(readers, "BLOCK", 2000)
    monkeypatch.setattr(stage, "LOOK", 20)
    late = [str(number % 5) if number < 200 else f"size {number % 3}" for number in range(ROWS)]
    TABLE.assign(size=late).to_csv(tmp_path / "late.csv", index=False)
    adopt(Settings(), str(tmp_path / "late.csv"), "y", root=root)
    assert contract_of(root)["size"].kind == "string"


def test_bytes_of_western_europe_further_on_are_read_again(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(readers, "HEAD", 500)
    TABLE.rename(columns={"price €": "price"}).replace({"colour": {"red": "röd"}}).iloc[::-1].sort_values(
        "colour"
    ).to_csv(tmp_path / "table.csv", index=False, encoding="cp1252")
    done = adopt(Settings(), str(tmp_path / "table.csv"), "y", root=root)
    assert any("it is read as cp1252" in note for note in done.notes)
    assert contract_of(root)["colour"].allowed == ("blue", "röd")
    assert evaluated(root / CODE / "source.py")["TABLE"].encoding == "cp1252"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"target": "z"}, "TARGET=z: the table has no such column"),
        ({"target": "y", "problem": "ranking"}, "PROBLEM=ranking: there are classification and regression"),
        ({"target": "y", "query": "SELECT 1"}, "QUERY goes with a database only"),
        ({"target": "y", "identifier": "colour"}, "ID=colour repeats"),
    ],
)
def test_what_cannot_be_adopted_leaves_no_trace(root: Path, table: str, arguments: dict[str, str], says: str) -> None:
    with pytest.raises(ProjectError, match=says):
        adopt(Settings(), table, root=root, **arguments)
    assert [file.name for file in root.iterdir()] == ["pyproject.toml"]


@pytest.mark.parametrize("role", ["target", "time", "identifier", "group"])
def test_a_role_of_a_column_that_cannot_be_read_is_refused_with_its_type(root: Path, tmp_path: Path, role: str) -> None:
    keys = pd.Series([number.to_bytes(16, "big") for number in range(ROWS)])
    TABLE.assign(key=keys).to_parquet(tmp_path / "table.parquet")
    more: dict[str, Any] = {"options": Options(group="key")} if role == "group" else {role: "key"}
    with pytest.raises(ProjectError, match="key is of type binary"):
        adopt(Settings(), str(tmp_path / "table.parquet"), **{"target": "y", **more}, root=root)


def test_a_table_without_rows_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("x,y\n")
    with pytest.raises(AdoptionError, match="a header and no rows"):
        adopt(Settings(), str(tmp_path / "empty.csv"), "y", root=root)


# ------------------------------------------------------------------------------------------------------ Packages


@pytest.mark.parametrize(
    ("failed", "says"), [("", "was removed from pyproject.toml"), ("no uv", r"could not be removed .*\(no uv\)")]
)
def test_the_package_of_the_sample_goes(
    root: Path, table: str, monkeypatch: pytest.MonkeyPatch, failed: str, says: str
) -> None:
    asked = []
    monkeypatch.setattr(stage, "_uv", lambda settings, *words: asked.append(words) or failed)
    with (root / "pyproject.toml").open("a") as file:
        file.write(f'[dependency-groups]\nsample = ["{stage.SAMPLE_PACKAGE}>=0.0.3"]\n')
    done = adopt(Settings(), table, "y", root=root)
    assert asked == [("remove", "--quiet", "--group", "sample", stage.SAMPLE_PACKAGE)]
    assert re.search(says, done.notes[-1])


def test_a_driver_that_is_missing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, int("duckdb" in words[-1]))  # psycopg is there

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(stage, "_uv", lambda settings, *words: asked.append(words) or "")
    assert stage._driver("rows.csv", Settings()) == stage._driver("sqlite:///a.db", Settings()) == []
    assert stage._driver("postgresql+psycopg://host/shop", Settings()) == []
    assert asked == []
    assert "was added to the dependencies" in stage._driver("duckdb:///a.db", Settings())[0]
    assert asked == [("add", "--quiet", readers.DRIVERS["duckdb"])]
    monkeypatch.setattr(stage, "_uv", lambda settings, *words: "no network")
    with pytest.raises(ProjectError, match=r"reading duckdb needs .*could not be installed: no network"):
        adopt(Settings(), "duckdb:///a.db", "y", query="SELECT 1")


def test_uv_is_the_projects_own_or_that_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VIRTUAL_ENV", "/of/somebody/else")
    assert stage._uv(Settings(), "add", "x") == "uv is not found"
    uv = tmp_path / ".tools" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text('#!/bin/sh\necho "$@" "$VIRTUAL_ENV" > asked\n')
    uv.chmod(0o755)
    assert stage._uv(Settings(), "add", "x") == ""
    assert (tmp_path / "asked").read_text() == "add x \n"
    uv.write_text("#!/bin/sh\necho 'no such package' >&2; exit 1\n")
    assert stage._uv(Settings(), "add", "x") == "no such package"
