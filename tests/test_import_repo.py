"""make import-repo: the values that a repository has, each with its line; nothing in the repository is executed or changed."""

from __future__ import annotations

import ast
import contextlib
import csv
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Project, Render, borrowing, clean_environment
from pages import blocks

sys.path.insert(0, str(ROOT))
from import_repo import redaction
from import_repo.__main__ import ImportRepoError, import_repo, main
from import_repo.estimators import Estimator, model_text
from import_repo.reading import Source

TRAIN = '''"""Will a flight be late?"""
import argparse
import os

import joblib
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, train_test_split

API_KEY = "made-up-4242-for-the-test"
SEED = 42
TARGET = "late"
OUT = "/home/ada/models/flights.pkl"
open(os.environ.get("TRAP", "TRAP"), "a").write("train.py was executed")


def load(path):
    flights = pd.read_csv(path, parse_dates=["scheduled"])
    flights = flights.rename(columns={"is late": "late"})
    planes = pd.read_csv("data/planes.csv")
    return flights.merge(planes, on="plane", how="left")


def clean(df):
    df = df.drop_duplicates("flight_id")
    return df[df["distance"] > 0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="data/flights.csv")
    df = clean(load(parser.parse_args().data))
    y = df[TARGET]
    X = pd.get_dummies(df.drop(columns=["flight_id", "late", "scheduled"]))
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=SEED)
    model = RandomForestClassifier(n_estimators=60, max_depth=8, random_state=SEED)
    search = GridSearchCV(model, {"max_depth": [4, 8], "min_samples_leaf": [5, 20]}, cv=5, scoring="roc_auc")
    search.fit(X_train, y_train)
    print(roc_auc_score(y_test, search.predict_proba(X_test)[:, 1]))
    joblib.dump(search.best_estimator_, OUT)


if __name__ == "__main__":
    main()
'''
CELLS = [
    ("markdown", "# Flights"),
    ("code", "%matplotlib inline\nimport pandas as pd\nimport seaborn as sns"),
    ("code", "!pip install shap seaborn"),
    ("code", "df = pd.read_csv('../data/flights.csv')\ndf.head()"),
    ("code", "sns.histplot(df['distance'])"),
    ("code", ""),
    ("code", "print 'python 2'"),
]


def notebook(path: Path, cells: list[tuple[str, str]], **metadata: object) -> None:
    contents = [
        {"cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)}
        | ({"outputs": [], "execution_count": None} if kind == "code" else {})
        for kind, text in cells
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": contents}))


def write(folder: Path, **files: str) -> Path:
    """Write files by name, with `__` for a slash and `_dot_` for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("_dot_", ".").replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A repository with a notebook, a script, data, a history, and files that leave a trace if they are executed."""
    random.seed(4)
    folder = tmp_path / "flight-delays"
    write(folder, train_dot_py=TRAIN, README_dot_md="# Flights\n", requirements_dot_txt="pandas==1.3.5\nscikit-learn==1.0\nseaborn\nblack\n",
          conftest_dot_py='open("TRAP", "w").write("imported")\n', sitecustomize_dot_py='open("TRAP", "w").write("started")\n')  # fmt: skip
    notebook(folder / "notebooks/explore.ipynb", CELLS)
    (folder / "data").mkdir()
    with (folder / "data/flights.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["flight_id", "scheduled", "plane", "distance", "is late"])
        for number in range(3_000):
            distance, hour = random.randint(100, 2500), random.randint(5, 23)
            late = int(hour / 6 - 2.5 + random.gauss(0, 1) > 0)
            day = f"2023-{1 + number // 28 % 12:02d}-{1 + number % 28:02d}"
            lines.writerow([f"F{number:05d}", f"{day} {hour:02d}:{number % 60:02d}", f"N{number % 9}", distance, late])
    (folder / "data/planes.csv").write_text("plane,seats\n" + "".join(f"N{n},{100 + n}\n" for n in range(9)))
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "First"],
                  ["remote", "add", "origin", "git@git.example:air-line/flight-delays.git"],
                  ["config", "core.fsmonitor", "echo started > TRAP; false"]):  # fmt: skip
        who = ("-c", "user.name=Ada Lovelace", "-c", "user.email=ada@localhost")
        subprocess.run(["git", *who, *words], cwd=folder, check=True)
    return folder


def state(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return mode, time of change and digest of every entry of a folder, including git's."""
    entries = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        about = path.lstat()
        plain = path.is_file() and not path.is_symlink() and about.st_size < 10_000_000
        content = hashlib.sha256(path.read_bytes()).hexdigest() if plain and os.access(path, os.R_OK) else ""
        entries[str(path.relative_to(folder))] = (about.st_mode, about.st_mtime_ns, content)
    return entries


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Compare a repository before and after."""
    before = state(folder)
    yield
    assert state(folder) == before
    assert not (folder / "TRAP").exists()


Import = Callable[..., str]


@pytest.fixture
def imported(render: Render, monkeypatch: pytest.MonkeyPatch) -> Import:
    """Import a repository into a copy of a rendered project, and return the text of IMPORT.md."""
    rendered = render(data_source="own")

    def copied(source: str, target: Path, **settings: object) -> None:
        shutil.copytree(rendered, target)

    def run(repository: Path, into: Path | None = None) -> str:
        with untouched(repository):
            project, _ = import_repo(repository, into)
        return (project / "IMPORT.md").read_text()

    monkeypatch.setattr("copier.run_copy", copied)
    return run


def command(text: str, start: str) -> str:
    """Return the first line of IMPORT.md that starts with a command."""
    return next((line for line in text.splitlines() if line.startswith(start)), "")


def row(text: str, start: str) -> str:
    return next((line for line in text.splitlines() if line.startswith(f"| {start} |")), "")


# ------------------------------------------------------------------------------------------------- To a champion


def test_from_a_notebook_and_a_script_to_a_champion(
    template: Path, old: Path, small_environment: Path, prefect_server: str, tmp_path: Path
) -> None:
    """`make import-repo`, the commands of its IMPORT.md, and the model in it."""
    clone = tmp_path / "copier-mlops"
    shutil.copytree(template, clone)
    (clone / ".venv").symlink_to(Path(sys.executable).parent.parent)
    (clone / ".git/info/exclude").write_text("/.venv\n")
    os.utime(clone / "pyproject.toml", (0, 0))  # nothing is to be installed
    with untouched(old):
        said = Project(clone, TRAP=str(old / "TRAP")).make("import-repo", "REPOSITORY=../flight-delays")
    assert "read 4 files of code" in said and "flight-delays-mlops: its IMPORT.md" in said
    project = borrowing(tmp_path / "flight-delays-mlops", small_environment, prefect_server)
    text = (project / "IMPORT.md").read_text()
    answers = (project / ".copier-answers.yml").read_text()
    for answer in ("author: Ada Lovelace", "owner: air-line", "project_name: Flight delays", "problem: classification", "licence: Proprietary"):  # fmt: skip
        assert answer in answers
    assert command(text, "make adopt") == (
        "make adopt DATA=../flight-delays/data/flights.csv TARGET='is late' TIME=scheduled ID=flight_id"
    )
    assert not command(text, "uv add")
    done = project.command("sh", "-c", command(text, "make adopt"))
    assert done.returncode == 0, done.stdout + done.stderr
    model = re.search(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert model
    (project / f"src/{project.package}/model.py").write_text(model[1])
    project.make("check")
    project.make("audit", "ONLY=secrets")
    done = project.command(".venv/bin/pytest", "-q", "tests/test_model.py")
    assert done.returncode == 0, done.stdout[-4000:]
    project.set_params(search={"trials": 2}, evaluation={"bootstrap": 20})
    assert "1, champion" in project.make("run")
    inputs = json.loads((project / "models/bundle/manifest.json").read_text())["inputs"]
    assert {"plane", "distance"} <= set(inputs)


def test_every_value_has_its_line(old: Path, imported: Import) -> None:
    text = imported(old)
    for argument, evidence in {
        "DATA": 'train.py, line 19: `flights = pd.read_csv(path, parse_dates=["scheduled"])`; 5 columns in the header',
        "TARGET": "train.py, line 34: `y = df[TARGET]` The table calls it `is late`.",
        "TIME": 'train.py, line 19: `flights = pd.read_csv(path, parse_dates=["scheduled"])` (parse_dates).',
        "ID": 'train.py, line 26: `df = df.drop_duplicates("flight_id")` (drop_duplicates).',
        "PROBLEM": "classification: train.py, line 37: `model = RandomForestClassifier(n_estimators=60, max_depth=8",
        "`n_estimators`": "`60`",
        "`max_depth`": "`8`",
        "`is late`": "`late` | train.py, line 20",
        "train.py, line 11": "a password or a key",
        "train.py, line 14": "a path of one machine",
        "notebooks/explore.ipynb, cell 7, line 1": "not analyzed: is Python 2",
        "license": "There is none: all rights reserved.",
    }.items():
        assert evidence in row(text, argument), (argument, row(text, argument))
    assert "made-up-4242" not in text and "/home/ada" not in text
    assert "| `min_samples_leaf` | tried: 5, 20 |" in text


# ------------------------------------------------------------------------------------------- The three shapes


def test_messy_notebooks(imported: Import, tmp_path: Path) -> None:
    """Notebooks that read one table by several paths, out of order, with cells that cannot be parsed."""
    repository = write(
        tmp_path / "old", data__raw__t_dot_csv="customer,joined_on,size,churned\n", other_dot_csv="a,b\n"
    )
    head = [
        ("code", "import pandas as pd\nimport xgboost as xgb\n%matplotlib inline\n!pip install xgboost==1.2 seaborn")
    ]
    notebook(
        repository / "1 load.ipynb",
        [*head, ("code", "df = pd.read_csv('data/raw/t.csv')\ndf.info()"), ("code", "df.plot(\n")],
    )
    notebook(repository / "nb/Untitled2.ipynb", [
        *head, ("code", "model.fit(X, y)"), ("code", "%%bash\nls"), ("code", "print 'x'"), ("code", "other = pd.read_csv('../other.csv')"),
        ("code", "df = pd.read_csv('../data/raw/t.csv')\ndf = df.sort_values('joined_on')"), ("code", "%%time\nX = df.drop(columns=['customer', 'churned'])"),
        ("code", "y = df['churned'].values"), ("code", "model = xgb.XGBClassifier(max_depth=3, n_estimators=n)"), ("code", "??df"), ("code", "files = !ls"),
    ])  # fmt: skip
    notebook(
        repository / "nb/Copy of Untitled2.ipynb", [*head, ("code", "y = other['b']"), ("code", "y = df['churned']")]
    )
    notebook(repository / "r.ipynb", [("code", "library(dplyr)")], kernelspec={"language": "R"})
    text = imported(repository)
    assert command(text, "make adopt") == "make adopt DATA=../old/data/raw/t.csv TARGET=churned TIME=joined_on"
    assert command(text, "uv add") == "uv add xgboost"
    assert row(text, "`max_depth`").endswith("| `3` |") and "computed" in row(text, "`n_estimators`")
    assert "is a cell of IPython" in row(text, "nb/Untitled2.ipynb, cell 3, line 1")
    assert "is Python 2" in row(text, "nb/Untitled2.ipynb, cell 4, line 1")
    assert "has a syntax error in line" in row(text, "1 load.ipynb, cell 3, line 1")
    assert "is not Python" in row(text, "r.ipynb, cell 1, line 1")
    assert text.count("`xgboost`") == 1


@pytest.mark.parametrize(
    "path", ["data/train.csv", "/home/ada/data/train.csv", "../input/train.csv", "https://host/train.csv", "~/x.csv"]
)
def test_a_table_that_is_not_in_the_repository(imported: Import, tmp_path: Path, path: str) -> None:
    code = f'import pandas as pd\nPATH = "{path}"\ndf = pd.read_csv(PATH).rename(columns={{"Churn?": "churned"}})\ny = df.pop("churned")\n'
    text = imported(write(tmp_path / "old", train_dot_py=code, data__README_dot_txt="ask Ada\n"))
    assert command(text, "make adopt") == "make adopt DATA=... TARGET='Churn?'"
    assert "train.py, line 3" in row(text, "DATA") and "The table is not in the repository." in row(text, "DATA")
    assert "/home/ada" not in text and "Replace each `...`" in text


RENAMES = {
    "chained": 'df = pd.read_csv("t.csv").rename(columns={"Churn?": "answer"}).dropna()\n',
    "in place": 'df = pd.read_csv("t.csv")\ndf.rename(columns={"Churn?": "answer"}, inplace=True)\n',
    "a name": 'NAMES = {"Churn?": "answer", "Size": "s"}\ndf = pd.read_csv("t.csv")\ndf = df.rename(columns=NAMES)\n',
    "dict call": 'df = pd.read_csv("t.csv").rename(columns=dict(zip(["Id", "Churn?"], ["i", "answer"])))\n',
    "positional": 'df = pd.read_csv("t.csv")\ndf = df.rename({"Churn?": "answer"}, axis=1)\n',
    "twice": 'df = pd.read_csv("t.csv").rename(columns={"Churn?": "churn"})\ndf = df.rename(columns={"churn": "answer"})\n',
    "columns": 'df = pd.read_csv("t.csv")\ndf.columns = ["a", "b", "answer"]\n',
    "set_axis": 'df = pd.read_csv("t.csv").set_axis(["a", "b", "answer"], axis=1)\n',
    "columns, then rename": 'df = pd.read_csv("t.csv")\ndf.columns = ["a", "b", "c"]\ndf.rename(columns={"c": "answer"}, inplace=True)\n',
    "swap": 'df = pd.read_csv("t.csv").rename(columns={"Churn?": "answer", "answer": "Churn?"})\n',
    "names": 'df = pd.read_csv("t.csv", header=0, names=["a", "b", "answer"])\n',
    "letters": 'df = pd.read_csv("t.csv")\ndf.columns = df.columns.str.lower().str.replace("?", "")\ndf = df.rename(columns={"churn": "answer"})\n',
    "function": 'def tidy(d):\n    return d.rename(columns={"Churn?": "answer"})\ndf = tidy(pd.read_csv("t.csv"))\n',
    "copy": 'df = pd.read_csv("t.csv")\ndf["answer"] = df["Churn?"]\n',
    "polars": 'import polars as pl\ndf = pl.read_csv("t.csv").rename({"Churn?": "answer"})\n',
}  # fmt: skip


@pytest.mark.parametrize("name", RENAMES)
def test_renames_are_followed(imported: Import, tmp_path: Path, name: str) -> None:
    """The target has its name of the table, and the rename its row."""
    code = f'import pandas as pd\n{RENAMES[name]}y = df["answer"]\n'
    text = imported(write(tmp_path / "old", main_dot_py=code, t_dot_csv="Id,Size,Churn?\n1,2,yes\n"))
    assert command(text, "make adopt") == "make adopt DATA=../old/t.csv TARGET='Churn?'"
    assert "The table calls it `Churn?`." in row(text, "TARGET")
    assert "## Renamed columns" in text
    assert "`answer`" in text.split("## Renamed columns")[1]


def test_renames_of_time_and_id(imported: Import, tmp_path: Path) -> None:
    code = 'import pandas as pd\ndf = pd.read_csv("t.csv")\ndf.columns = ["key_id", "at", "answer"]\ndf = df.sort_values("at").drop_duplicates("key_id")\n' \
           'df["at"] = pd.to_datetime(df["at"])\nX, y = df.drop(columns=["answer"]), df["answer"]\n'  # fmt: skip
    code = code.replace('"at"', '"created_at"')
    text = imported(write(tmp_path / "old", main_dot_py=code, t_dot_csv="No.,When,Y\n1,2,yes\n"))
    assert command(text, "make adopt") == "make adopt DATA=../old/t.csv TARGET=Y TIME=When ID=No."


def test_a_rename_counts_from_its_line_and_for_its_table(imported: Import, tmp_path: Path) -> None:
    code = 'import pandas as pd\ndf = pd.read_csv("t.csv")\nother = pd.read_csv("u.csv").rename(columns={"x": "Size"})\ny = df["Size"]\n' \
           'df = df.rename(columns={"Churn?": "Size", "Size": "old"})\n'  # fmt: skip
    files = {"t_dot_csv": "Id,Size,Churn?\n", "u_dot_csv": "x,k\n"}
    assert "TARGET=Size" in command(imported(write(tmp_path / "old", main_dot_py=code, **files)), "make adopt")


# ---------------------------------------------------------------------------------------------- Commands

FACTS = {
    "drop": ('df = pd.read_csv("t.csv")\nX = df.drop("answer", axis=1)\n', "DATA=../old/t.csv TARGET=answer"),
    "attribute": ('df = pd.read_csv("t.csv")\ny = df.answer\n', "DATA=../old/t.csv TARGET=answer"),
    "last": ('df = pd.read_csv("t.csv")\nX, y = df.iloc[:, :-1], df.iloc[:, -1]\n', "DATA=../old/t.csv TARGET=answer"),
    "place": ('df = pd.read_csv("t.csv").values\ny = df[:, 3]\n', "DATA=../old/t.csv TARGET=answer"),
    "pair": ('df = pd.read_csv("t.csv")\nX, y = df[["size"]], (df["answer"] == "yes").astype(int)\n', "DATA=../old/t.csv TARGET=answer"),
    "split": ('df = pd.read_csv("t.csv")\na, b, c, d = train_test_split(df[["size"]], df["answer"])\n', "DATA=../old/t.csv TARGET=answer"),
    "fit": ('df = pd.read_csv("t.csv")\nmodel.fit(df[["size"]], df["answer"])\n', "DATA=../old/t.csv TARGET=answer"),
    "class": ('from pathlib import Path\nclass C:\n    target = "answer"\n    path = Path("..") / "old" / "t.csv"\ndf = pd.read_csv(C.path)\ny = df[C.target]\n', "DATA=../old/t.csv TARGET=answer"),
    "dict": ('CFG = {"data": {"path": "t.csv"}, "target": "answer"}\ndf = pd.read_csv(CFG["data"]["path"])\ny = df[CFG.get("target", "size")]\n', "DATA=../old/t.csv TARGET=answer"),
    "file": ('import os\nHERE = os.path.dirname(os.path.abspath(__file__))\ndf = pd.read_csv(os.path.join(HERE, "t.csv"))\ny = df["answer"]\n', "DATA=../old/t.csv TARGET=answer"),
    "parameter": ('def load(name):\n    return pd.read_csv(name)\ndef go():\n    other = pd.read_csv("u.csv")\n    df = load("t.csv")\n    y = df["answer"]\n', "DATA=../old/t.csv TARGET=answer"),
    "other calls": ('def load(name):\n    return pd.read_csv(name)\nload("a.csv")\ndf = load("b.csv")\ny = df["answer"]\n', "DATA=... TARGET=answer"),
    "last value": ('p = "u.csv"\np = "t.csv"\ndf = pd.read_csv(p)\ny = df["answer"]\np = "u.csv"\n', "DATA=../old/t.csv TARGET=answer"),
    "loop": ('for p in paths:\n    df = pd.read_csv(p)\ny = df["answer"]\n', "DATA=... TARGET=answer"),
    "comprehension": ('p = "t.csv"\nparts = [pd.read_csv(p) for p in paths]\ndf = pd.concat(parts)\ny = df["answer"]\n', "DATA=... TARGET=answer"),
    "train and test": ('test = pd.read_csv("u.csv")\ntrain = pd.read_csv("t.csv")\ny = train["answer"]\n', "DATA=../old/t.csv TARGET=answer"),
    "two times": ('df = pd.read_csv("t.csv")\ndf["when"] = pd.to_datetime(df["when"])\ndf["key id"] = pd.to_datetime(df["key id"])\ny = df["answer"]\n', "DATA=../old/t.csv TARGET=answer"),
    "id": ('df = pd.read_csv("t.csv", index_col="key id")\ny = df["answer"]\n', "DATA=../old/t.csv TARGET=answer ID='key id'"),
    "no such id": ('df = pd.read_csv("t.csv").drop_duplicates("customer")\ny = df["answer"]\n', "DATA=../old/t.csv TARGET=answer"),
    "no header": ('df = pd.read_csv("t.csv", header=None)\ny = df.iloc[:, 3]\n', "DATA=../old/t.csv HEADER=no TARGET=column_4"),
    "names": ('df = pd.read_csv("t.csv", names=["a", "b", "c", "d"])\ny = df["c"]\n', "DATA=../old/t.csv HEADER=no TARGET=column_3"),
    "regression": ('from sklearn.linear_model import Ridge\ndf = pd.read_csv("t.csv")\ny = df["answer"]\nRidge().fit(df, y)\n', "DATA=../old/t.csv TARGET=answer PROBLEM=regression"),
    "computed": ('df = pd.read_csv("t.csv")\ndf["big"] = df["size"] > 3\ny = df["big"]\n', "DATA=... TARGET=big"),
    "spreadsheet": ('df = pd.read_excel("t.xlsx")\ny = df["answer"]\n', "DATA=... TARGET=answer"),
    "argument": ('import sys\ndf = pd.read_csv(sys.argv[1])\ny = df["answer"]\n', "DATA=... TARGET=answer"),
    "s3": ('df = pd.read_parquet("s3://bucket/a b.parquet")\ny = df["answer"]\n', "DATA='s3://bucket/a b.parquet' TARGET=answer"),
    "database": ('from sqlalchemy import create_engine\nengine = create_engine("postgresql://ada:hunter2@db/shop")\ndf = pd.read_sql("select 1", engine)\ny = df["answer"]\n', "DATA=... QUERY=... TARGET=answer"),
    "dollar": ('df = pd.read_csv("a $x.csv")\ny = df["answer"]\n', "DATA='../old/a $$x.csv' TARGET=answer"),
    "nothing": ("print(1)\n", "DATA=... TARGET=..."),
}  # fmt: skip


@pytest.mark.parametrize("name", FACTS)
def test_the_arguments_of_adopt(imported: Import, tmp_path: Path, name: str) -> None:
    code, wanted = FACTS[name]
    repository = write(tmp_path / "old", main_dot_py="import pandas as pd\n" + code, t_dot_csv="key id;when;size;answer\n1;2020-01-01;2;yes\n",
                       u_dot_csv="key id;size\n", t_dot_xlsx="")  # fmt: skip
    (repository / "a $x.csv").write_text("size,answer\n")
    text = imported(repository, tmp_path / "new")
    assert command(text, "make adopt") == f"make adopt {wanted}"
    assert ("Replace each `...`" in text) is ("..." in wanted)
    if "DATA=..." in wanted:
        assert "main.py, line" in row(text, "DATA") or "No line reads a table" in text


# ------------------------------------------------------------------------------------------- Estimator, packages


def test_no_value_stands_nowhere_in_the_old_code(imported: Import, tmp_path: Path) -> None:
    """Hyperparameters, tried values and answers; where the code has none there is none."""
    code = 'import pandas as pd\nfrom sklearn.ensemble import RandomForestClassifier as RF\nfrom sklearn.linear_model import LogisticRegression\n' \
           'from sklearn.model_selection import GridSearchCV\ny = pd.read_csv("t.csv")["answer"]\ndepth = 9\ndepth += 1\nkw = dict(max_samples=0.7)\n' \
           'first = LogisticRegression(C=0.37)\nGridSearchCV(first, {"C": [11.5]})\nmodel = RF(n_estimators=77, max_depth=depth, max_features=share(), **kw)\n' \
           'search = GridSearchCV(model, {"min_samples_leaf": [13, 17], "max_leaf_nodes": range(2, 9)})\n'  # fmt: skip
    text = imported(write(tmp_path / "old", main_dot_py=code, t_dot_csv="size,answer\n"))
    model = re.search(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert model
    tree = ast.parse(model[1])
    parts = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.Call) and (
        getattr(getattr(node, "func", None), "id", "") == "RandomForestClassifier" or getattr(getattr(node, "func", None), "attr", "") == "suggest_categorical"
        or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "FIRST_GUESS"))]  # fmt: skip
    assert len(parts) == 4
    numbers = {
        node.value
        for part in parts
        for node in ast.walk(part)
        if isinstance(node, ast.Constant) and not isinstance(node.value, str)
    }
    assert numbers == {77, 0.7, 13, 17}
    assert "computed" in row(text, "`max_depth`") and "computed" in row(text, "`max_features`")
    answers = imported_answers(tmp_path, "x = 1\n")
    assert answers == {"data_source": "own", "licence": "Proprietary", "project_name": "Plain"}


def imported_answers(tmp_path: Path, code: str, name: str = "plain", **files: str) -> dict[str, str]:
    """Return the answers that a repository gives to the questions of the template."""
    given: dict[str, str] = {}

    def copied(source: str, target: Path, data: dict[str, str], **settings: object) -> None:
        given.update(data)
        write(target, pyproject_dot_toml="")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("copier.run_copy", copied)
        import_repo(write(tmp_path / name, a_dot_py=code, **files), tmp_path / f"of {len(list(tmp_path.iterdir()))}")
    return given


def test_models_that_are_pasted(small_environment: Path) -> None:
    """model.py fits and predicts with current scikit-learn, and its first guess is in its own search space."""
    calls: list[tuple[str, str, dict[str, object], dict[str, list[object]]]] = [
        ("RandomForestClassifier", "ensemble", {"n_estimators": 40, "max_depth": 8, "max_features": "auto", "criterion": "gini"}, {}),
        ("LogisticRegression", "linear_model", {"C": 0.5, "max_iter": 500, "penalty": "l2"}, {"C": [0.1, 1, 10]}),
        ("HistGradientBoostingClassifier", "ensemble", {"learning_rate": 0.3, "max_iter": 30}, {}),
        ("KNeighborsClassifier", "neighbors", {}, {"n_neighbors": [3, 5], "weights": ["uniform", "distance"]}),
        ("GradientBoostingRegressor", "ensemble", {"n_estimators": 20, "loss": "ls", "subsample": 0.8}, {"max_depth": [2, None]}),
        ("ElasticNet", "linear_model", {"alpha": 0.1, "l1_ratio": 1.0}, {}), ("LinearRegression", "linear_model", {"normalize": True}, {}),
        ("SVR", "svm", {"C": 3}, {}), ("SVC", "svm", {"C": 2.0, "probability": True, "kernel": "rbf"}, {}), ("RidgeClassifier", "linear_model", {"alpha": 1.0}, {}),
        ("SGDClassifier", "linear_model", {"loss": "log"}, {}), ("GaussianNB", "naive_bayes", {}, {}), ("DecisionTreeRegressor", "tree", {"criterion": "mse"}, {}),
        ("MLPClassifier", "neural_network", {"alpha": 0.001, "max_iter": 50}, {}),
    ]  # fmt: skip
    given = [
        (name, model_text(Estimator(name, f"sklearn.{module}", Source("a.py", 0, ""), 1, params, (), grid, 0)))
        for name, module, params, grid in calls
    ]
    code = """
import sys, json, optuna, warnings
import numpy as np, pandas as pd
warnings.simplefilter("error", FutureWarning)
warnings.simplefilter("error", DeprecationWarning)
optuna.logging.set_verbosity(optuna.logging.ERROR)
rows = np.random.default_rng(1)
X = pd.DataFrame({"a": rows.normal(size=300), "b": rows.normal(size=300), "c": rows.choice(["x", "y"], 300)})
X.loc[::7, "a"] = np.nan
for name, text in json.loads(sys.stdin.read()):
    module = {}
    exec(compile(text, name, "exec"), module)
    classes = name.endswith(("Classifier", "NB", "SVC")) or name == "LogisticRegression"
    y = (X["b"] > 0).astype(int) if classes else X["b"]
    study = optuna.create_study()
    study.enqueue_trial(module["FIRST_GUESS"])
    assert module["search_space"](study.ask()) == module["FIRST_GUESS"], name
    model = module["build_model"]("classification" if classes else "regression", module["FIRST_GUESS"], 7).fit(X, y)
    predictions = model.predict_proba(X)[:, 1] if classes else model.predict(X)
    assert np.isfinite(predictions).all() and predictions.std() > 0, name
print("all")
"""
    python = small_environment / ".venv/bin/python"
    done = subprocess.run([python, "-c", code], input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.stdout == "all\n", done.stderr[-3000:]


def test_each_package_is_reported_once(imported: Import, tmp_path: Path) -> None:
    """Under the name of the index, whatever its spelling; only the estimator's library is added for the first champion."""
    code = """import pandas, sklearn, yaml, cv2, os, helpers, unheardof, polars, joblib, lightgbm, PIL.Image
from PIL import Image
from sklearn.svm import SVC
from . import sibling
from streamlit import write
model = lightgbm.LGBMClassifier(num_leaves=7)
model.fit(polars.read_csv("x.csv"), y)
"""
    repository = write(tmp_path / "old", a_dot_py=code, helpers_dot_py="import cv2\n", requirements_dot_txt="Pillow==9\nopencv_python_headless\nscikit_learn\nblack\nPyYAML\n",
                       environment_dot_yml="dependencies:\n  - polars=1.0\n  - pip:\n    - pillow>=8\n", pyproject_dot_toml='[project]\nname = "x"\ndependencies = ["POLARS>=1", "black"]\n')  # fmt: skip
    notebook(
        repository / "n.ipynb",
        [("code", "!pip install -q pillow opencv-python-headless lightgbm"), ("code", "import PIL")],
    )
    text = imported(repository)
    assert re.findall(r"^uv add .*", text, re.M) == ["uv add lightgbm"]
    rows = dict(
        line.strip("| ").split(" | ")
        for line in text.split("## Packages")[1].split("##")[0].splitlines()
        if line.startswith("| ")
    )
    assert rows.pop("use") == "packages" and rows.pop("---") == "---"
    assert rows == {
        "`uv add` for the first champion": "`lightgbm`", "part of the project": "`pandas`, `pyyaml`, `scikit-learn`",
        "imported: `uv add` with the code that needs it": "`opencv-python-headless`, `pillow`, `polars`",
        "imported, in no list of the old code: check the publisher before `uv add`": "`joblib`, `streamlit`, `unheardof`",
        "listed and not imported: not needed": "`black`",
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------ Secrets

SECRETS = ["hunter2hunter2", "AKIA" + "ABCDEFGHIJKLMNOP", "ghp_" + "a1" * 18, "s3cr3tpw", "tok-en-value-1", "pa55word!", "/home/ada/churn", "C:/Users/ada/x",
           "envsecret9", "two words; one secret", "annotated-9", "84736251", "default-77", "positional-5", "queried-token-3", "in-description-8"]  # fmt: skip


def test_no_secret_is_copied(
    render: Render, imported: Import, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither into a file of the project nor into the output; each line is named."""
    s = SECRETS
    code = f"""import os
password = "{s[0]}"
client = connect(key="{s[1]}", token="{s[4]}")
HEADERS = {{"Authorization": "{s[2]}"}}
engine = create_engine("mysql://ada:{s[3]}@db/shop")
df = pd.read_csv("{s[6]}/data.csv", storage_options={{"key": "k", "secret": "{s[4]}"}})
OUT = "{s[7]}.csv"
model = CatBoostClassifier(depth=3, train_dir="{s[6]}")
os.environ["DB_PASSWORD"] = "{s[8]}"
passwd = '{s[9]}'
api_key: str = "{s[10]}"
pwd = {s[11]}
def f(secret="{s[12]}"): ...
df = pd.read_sql("select * from t where x = '{s[13]}'", connect("db", "ada", "{s[13]}"))  # token = {s[14]}
y = df["answer"] if token == "{s[14]}" else df["{s[4]}"]
"""
    repository = write(tmp_path / "old", a_dot_py="import pandas as pd\nfrom catboost import CatBoostClassifier\n" + code,
                       config_dot_yaml=f"db:\n  password: {s[5]}\n", pyproject_dot_toml=f'[project]\nname = "x"\ndescription = "token={s[15]}"\n')  # fmt: skip
    notebook(repository / "n.ipynb", [("code", f"%env API_TOKEN={s[4]}"), ("code", f"!export DB_PASSWORD={s[0]}")])
    (repository / f"dump-{s[4]}.bin").write_bytes(b"\0\1")
    imported(repository, tmp_path / "new")
    assert main([str(repository), str(tmp_path / "again")]) == 0
    output = "".join(capsys.readouterr())
    for path in [*(tmp_path / "new").rglob("*"), *(tmp_path / "again").rglob("*")]:
        content = path.read_text(errors="replace") if path.is_file() and not path.is_symlink() else ""
        assert [value for value in s if value in content or value in output or value in path.name] == [], path
    text = (tmp_path / "new/IMPORT.md").read_text()
    lines = (4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 17)
    for location in (*(f"a.py, line {line}" for line in lines), "config.yaml, line 2", "pyproject.toml, line 3", "n.ipynb, cell 1, line 1", "n.ipynb, cell 2, line 1"):  # fmt: skip
        assert "put the new one into `.env`" in text.split(f"| {location} | ", 1)[1].split("\n")[0], location
    assert "| a.py, line 9 | a path of one machine" in text and "| a.py, line 8 | a path of one machine" in text


@pytest.mark.parametrize("line", ['password = os.environ["X"]', "password = getpass()", "token = config.token", 'token = ""', 'secret = "your-secret"', "tokens = tokenize(x)",
                                  "password=None"])  # fmt: skip
def test_what_is_not_a_secret(line: str) -> None:
    result = redaction.Redaction()
    result.scan(line, "a.py, line 1", is_code=True)
    assert not result.secrets


# -------------------------------------------------------------------------------------------------- Bad input

STRANGE = {
    "syntax": "def f(:\n    pass\n", "python2": "print 'x'\nexcept ValueError, e:\n", "null": "x = 1\0\n", "parentheses": "x = " + "(" * 5000 + ")" * 5000,
    "unary": "x = " + "-" * 20_000 + "1\n", "sum": "x = " + "+".join(["a"] * 20_000) + "\n", "attributes": "x = a" + ".b" * 3_000 + "\n",
    "calls": "x = a" + "()" * 2_000 + "\n", "integer": "x = 0x" + "f" * 20_000 + "\nRidge(alpha=x)\n", "digits": "x = " + "9" * 20_000 + "\n", "infinite": "Ridge(alpha=1e999)\n",
    "cycle": "a = b\nb = a\ndf = pd.read_csv(a)\ny = df[b]\n", "self": "a = a + a\ndf = pd.read_csv(a)\n", "nested": "\n".join(f"a{n + 1} = [a{n}, a{n}]" for n in range(60)) + "\na0 = ['x']\ny = df[a60]\n",
    "doubled": "a0 = 'x' * 9\n" + "\n".join(f"a{n + 1} = a{n} + a{n}" for n in range(60)) + "\npd.read_csv(a60)\n", "backticks": "y = df['``` | ` \\n']\n",
    "lambda": "x = " + "lambda: " * 900 + "1\n", "empty": "", "comment": "# nothing\n", "long": "x = '" + "a" * 1_000_000 + "'\n", "calls itself": "def f(p):\n    return f(p)\nf(f)\npd.read_csv(f(1))\n",
    "star": "from os import *\nfrom . import *\nimport a.b.c as d\npd.read_csv(*args, **kw)\nRidge(**kw, **{1: 2})\nGridSearchCV(**kw)\ndf.rename(columns={None: 1, **x})\n",
    "match": "match x:\n    case {'a': 1, **rest}:\n        y = df[rest]\n", "walrus": "if (y := df['answer']) is not None: pass\n", "surrogate": "y = df['\\ud800']\nTARGET = '\\udfff'\n",
    "key": "x = {0x" + "f" * 20_000 + ": 'password', 'password': 0x" + "f" * 20_000 + "}\n",
}  # fmt: skip


def test_code_that_is_hard_to_read(imported: Import, tmp_path: Path) -> None:
    """Each file is analyzed or named with a reason, alone and together with the others, and none raises."""
    imports = "import pandas as pd\nfrom sklearn.linear_model import Ridge\n"
    repository = write(tmp_path / "old", **{f"{name.replace(' ', '-')}_dot_py": code for name, code in STRANGE.items()})
    notebook(repository / "n.ipynb", [("code", code) for code in STRANGE.values()])
    (repository / "latin.py").write_bytes('größe = 1  # "\xe9"\n'.encode("latin-1"))
    (repository / "codec.py").write_bytes(b"# -*- coding: klingon -*-\nx = 1\n")
    (repository / "binary.py").write_bytes(bytes(range(256)) * 40)
    (repository / "bom.py").write_bytes(b"\xef\xbb\xbfx = 1\r\ny = 2\r")
    text = imported(repository)
    for name, reason in {
        "syntax": "has a syntax error in line 1",
        "python2": "is Python 2",
        "null": "not analyzed",
        "parentheses": "not analyzed",
    }.items():
        assert reason in row(text, f"{name}.py, line 1"), name
    for name, code in STRANGE.items():
        single = write(tmp_path / f"of {name}", a_dot_py=imports + code, t_dot_csv="a,answer\n")
        assert command(imported(single), "make adopt").startswith("make adopt DATA="), name
    assert "`1e999`" not in text and "inf" not in row(text, "`alpha`")


def test_what_cannot_be_read_is_named(imported: Import, tmp_path: Path) -> None:
    """Links, pipes, other repositories, broken notebooks; the rest is read."""
    outside = write(
        tmp_path / "elsewhere", secret_dot_py="x = 'from elsewhere'\n", t_dot_csv="column from elsewhere,answer\n"
    )
    code = 'import pandas as pd\ndf = pd.read_csv("data/t.csv")\ny = df["answer"]\n'
    repository = write(tmp_path / "old", a_dot_py=code, vendor__lib__b_dot_py="x = 1\n", _dot_hidden__c_dot_py="x = 1\n",
                       env__pyvenv_dot_cfg="", env__lib__d_dot_py="x = 1\n", plot_dot_R="library(dplyr)\n")  # fmt: skip
    subprocess.run(["git", "init", "--quiet", str(repository / "vendor/lib")], check=True)
    for name, content in {
        "broken": '{"cells": [',
        "list": "[]",
        "none": '{"cells": null}',
        "number": "1" * 5_000,
        "deep": "[" * 100_000,
    }.items():
        (repository / f"{name}.ipynb").write_text(content)
    (repository / "cells.ipynb").write_text(
        '{"cells": [1, null, {"cell_type": "code", "source": {"a": 1}}, {"cell_type": "code", "source": [1, null]}], "metadata": [1]}'
    )
    (repository / "odd.ipynb").write_text(
        '{"cells": [{"cell_type": "code"}, {"cell_type": "code", "source": "\\ud800"}], "metadata": {"kernelspec": 3}}'
    )
    (repository / "utf16.ipynb").write_bytes('{"cells": []}'.encode("utf-16"))
    (repository / "data").symlink_to(outside)
    (repository / "link.py").symlink_to(outside / "secret.py")
    (repository / "self").symlink_to(repository)
    (repository / "gone.py").symlink_to("nowhere.py")
    (repository / "loop").symlink_to("loop")
    os.mkfifo(repository / "pipe.py")
    os.mkfifo(repository / "LICENSE")
    (repository / os.fsdecode(b"name-\xff.csv")).write_text("a,b\n")
    (repository / "bad.csv.gz").write_bytes(b"\x1f\x8b" + os.urandom(100))
    (repository / "quote.csv").write_text('"' + "x" * 300_000)
    (repository / "more.py").write_text(
        'pd.read_csv("bad.csv.gz")\npd.read_csv("quote.csv")\npd.read_csv("name-\\udcff.csv")\n'
    )
    text = imported(repository)
    for name, reason in {
        "`broken.ipynb`": "it is not JSON", "`list.ipynb`": "it has no cells", "`none.ipynb`": "it has no cells", "`number.ipynb`": "notebook", "`deep.ipynb`": "it is not JSON",
        "`utf16.ipynb`": "it is not JSON", "`data/`": "is a link out of the repository", "`link.py`": "is a link out of the repository", "`self/`": "is a link within",
        "`gone.py`": "is a link to nothing", "`loop`": "is a link to nothing", "`pipe.py`": "is not a regular file", "`vendor/lib/`": "is another repository", "`.hidden/`": "is hidden",
        "`LICENSE`": "is not a regular file",
    }.items():  # fmt: skip
        assert reason in row(text, name), (name, row(text, name))
    assert command(text, "make adopt") == "make adopt DATA=../old/data/t.csv TARGET=answer"
    assert "from elsewhere" not in text and "env/" not in text.split("## Files")[1]
    assert "another language" in row(text, "`plot.R`") or "another language" in text


def test_data_is_not_read(imported: Import, tmp_path: Path) -> None:
    """Of a table of 200 GB the header is read; a notebook of more than 100 MB is named; one of 40 MB is read."""
    repository = write(
        tmp_path / "old", a_dot_py='import pandas as pd\ndf = pd.read_csv("big.csv")\ny = df["answer"]\n'
    )
    with (repository / "big.csv").open("w") as file:
        file.write("id,answer\n1,2\n")
        file.truncate(200 << 30)
    with (repository / "huge.ipynb").open("w") as file:
        file.truncate(101 << 20)
    with (repository / "huge.py").open("w") as file:
        file.truncate(3 << 20)
    cells = [{"cell_type": "code", "source": 'from xgboost import XGBClassifier\nXGBClassifier(max_depth=4)', "outputs": [{"data": "i" * (40 << 20)}]},
             {"cell_type": "code", "source": "x = '" + "b" * (3 << 20) + "'", "outputs": []}]  # fmt: skip
    (repository / "large.ipynb").write_text(json.dumps({"cells": cells}))
    begin = time.monotonic()
    text = imported(repository)
    assert time.monotonic() - begin < 60
    assert "2 columns in the header" in row(text, "DATA")
    assert "clear its outputs" in row(text, "`huge.ipynb`") and "which is data" in row(text, "`huge.py`")
    assert "more than 2 MB" in row(text, "large.ipynb, cell 2, line 1") and row(text, "`max_depth`").endswith("| `4` |")


def test_ten_thousand_files(imported: Import, tmp_path: Path) -> None:
    """The time is bounded, and IMPORT.md stays readable."""
    repository = tmp_path / "old"
    code = 'import pandas as pd\ndf = pd.read_csv("{0}.csv").rename(columns={{"c": "answer{0}"}})\ny = df["answer{0}"]\npassword = "value-{0}-x"\n'
    for number in range(10_000):
        folder = repository / f"{number // 1_000}"
        folder.mkdir(parents=True, exist_ok=True)
        kind = number % 4
        (folder / f"{number}{('.py', '.csv', '.json', '.txt')[kind]}").write_text(
            code.format(number) if kind == 0 else "a,b\n"
        )
    begin = time.monotonic()
    text = imported(repository)
    assert time.monotonic() - begin < 240
    assert len(text) < 100_000 and "more rows are not shown" in text
    assert "250 files" in text.split("## Files")[1]
    assert "value-0-x" not in text


# ---------------------------------------------------------------------------------------------- Answers, refusals


@pytest.mark.parametrize(
    ("url", "owner"),
    [("git@github.com:ada/x.git", "ada"), ("https://me:token@git.example/team/sub/x", "team"), ("/srv/git/x.git", ""), ("../x", ""), ("https://git.example/a_b/x", "")],
)  # fmt: skip
def test_the_owner_is_that_of_the_remote(tmp_path: Path, url: str, owner: str) -> None:
    given = imported_answers(tmp_path, "x = 1\n", _dot_git__config=f'[core]\n\tbare = false\n[remote "origin"]\n\turl = {url}\n',
                             _dot_git__logs__HEAD="0 1 Alan Turing <t@localhost> 1 +0000\tfirst\n1 2 Grace Hopper <g@localhost> 2 +0000\tcommit\n")  # fmt: skip
    assert given.get("owner", "") == owner and given["author"] == "Grace Hopper"


@pytest.mark.parametrize(
    ("text", "license_name"),
    [("MIT License\n\nPermission is hereby granted, free\nof charge, to any", "MIT"),
     ("Redistribution and use in source and binary forms ...\nNeither the name of", "BSD-3-Clause"), ("GNU GENERAL PUBLIC LICENSE", "Proprietary")],
)  # fmt: skip
def test_the_license_is_kept(tmp_path: Path, text: str, license_name: str) -> None:
    assert imported_answers(tmp_path, "x = 1\n", LICENSE=text)["licence"] == license_name


def test_another_license_is_reported(imported: Import, tmp_path: Path) -> None:
    text = imported(write(tmp_path / "old", a_dot_py="x = 1\n", COPYING="GNU GENERAL PUBLIC LICENSE"))
    assert "has no text for COPYING: copy it." in row(text, "license")


@pytest.mark.parametrize(
    ("folder", "name"), [("churn-model", "Churn model"), ("日本", "Imported project"), ("y" * 120, "Y" + "y" * 79), ("a\nb'{{ 1 }}", "A b 1")]
)  # fmt: skip
def test_names(tmp_path: Path, folder: str, name: str) -> None:
    given = imported_answers(tmp_path, "x = 1\n", folder)["project_name"]
    assert re.sub(" +", " ", given) == name


def test_refusals(imported: Import, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error says what failed and the fix; nothing is written."""
    code = write(tmp_path / "code", a_dot_py="x = 1\n")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "inside").symlink_to(code)
    made = write(tmp_path / "made", a_dot_py="x = 1\n")
    (made / ".copier-answers.yml").write_text("project_name: X\ndata_source: own\ndata_remote: x\n")
    prose = write(tmp_path / "prose", README_dot_md="x\n", data_dot_csv="a,b\n", script_dot_R="x <- 1\n")
    notebook(tmp_path / "words/n.ipynb", [("markdown", "only text")])
    notebook(tmp_path / "r/n.ipynb", [("code", "library(dplyr)")], kernelspec={"language": "R"})
    (write(tmp_path / "bad", x_dot_txt="x") / "n.ipynb").write_text("{")
    before = sorted(tmp_path.iterdir())
    cases = [
        (tmp_path / "missing", None, "does not exist. Name a folder: make import-repo REPOSITORY="), (tmp_path / "nothing", None, "is empty"),
        (code / "a.py", None, "is a file. Name a folder"), (code, tmp_path / "prose", "exists. Move it away"),
        (code, code / "new", "which is not written to. Name a folder next to it"), (code, tmp_path / "inside/new", "which is not written to"),
        (code, tmp_path / "no/such/new", "is not a folder that can be written to"), (made, None, "was made by this template. Update it"),
        (prose, None, "has no Python"), (tmp_path / "words", None, "has no Python"), (tmp_path / "r", None, "has no Python"), (tmp_path / "bad", None, "has no Python"),
    ]  # fmt: skip
    for repository, into, fix in cases:
        with pytest.raises(ImportRepoError, match=re.escape(fix)):
            import_repo(repository, into)
    assert main([]) == 1 and "REPOSITORY is not set: make import-repo" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_failure_leaves_nothing(imported: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = write(tmp_path / "code", a_dot_py="x = 1\n")

    def full(source: str, target: Path, **named: object) -> None:
        target.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("copier.run_copy", full)
    assert main([str(code), str(tmp_path / "new")]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code"]


def test_a_kill_leaves_no_half_project(template: Path, tmp_path: Path) -> None:
    """After kill -9 there is a hidden folder and no project; the same command makes the project."""
    code = write(tmp_path / "code", a_dot_py="x = 1\n")
    words = [sys.executable, "-m", "import_repo", str(code), str(tmp_path / "new")]
    with untouched(code):
        process = subprocess.Popen(words, cwd=template, env=clean_environment(), start_new_session=True)
        while not list(tmp_path.glob(".new.*.part")):
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "new").exists()
        done = subprocess.run(words, cwd=template, env=clean_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "new/IMPORT.md").exists()
    again = subprocess.run(words, cwd=template, env=clean_environment(), capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "exists. Move it away" in again.stderr and "Traceback" not in again.stderr


# --------------------------------------------------------------------------------------------------------- Guide

GUIDE = (ROOT / "docs/adopting-a-repository.md").read_text()


def test_the_old_history_is_kept(imported: Import, old: Path) -> None:
    """As the guide says: no file changes, both histories are there, and the old branch can be pushed to without force."""
    imported(old)
    project = Project(old.with_name("flight-delays-mlops"))
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@localhost")
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "Start")):
        assert project.command("git", *who, *words).returncode == 0
    files = state(project / "src")
    branch = subprocess.run(
        ["git", "symbolic-ref", "--short", "HEAD"], cwd=old, check=True, capture_output=True, text=True
    ).stdout.strip()
    page = blocks(ROOT / "docs/adopting-a-repository.md")
    lines = [step.command for block in page for step in block.steps if step.command.startswith("git ")]
    assert len(lines) == 3
    with untouched(old):
        for line in lines:
            typed = line.replace("../churn", f"../{old.name}").replace("old/main", f"old/{branch}")
            done = project.command("sh", "-c", typed, GIT_AUTHOR_NAME="Ada", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="Ada", GIT_COMMITTER_EMAIL="a@b")  # fmt: skip
            assert done.returncode == 0, done.stderr
    assert state(project / "src") == files and not (project / "train.py").exists()
    assert not project.command("git", "status", "--porcelain").stdout
    log = project.command("git", "log", "--format=%s").stdout.splitlines()
    assert {"First", "Start"} <= set(log) and len(log) == 3
    assert "load(path)" in project.command("git", "show", f"old/{branch}:train.py").stdout
    assert project.command("git", "merge-base", "--is-ancestor", f"old/{branch}", "HEAD").returncode == 0


def test_the_guide_has_the_tables_of_the_import(old: Path, imported: Import, render: Render) -> None:
    """IMPORT.md repeats the first table, follows the second for each file, and both name what a project has."""
    text = imported(old)
    code, files = (re.findall(rf"^\| {head} \|.*?(?=\n\n)", GUIDE, re.M | re.S)[0] for head in ("code", "file"))
    assert code in text and len(files.splitlines()) > 15
    for name, destination in {
        "`train.py`": "48 lines of code | as above", "`data/flights.csv`": "stays: `make adopt` reads a table where it is", "`README.md`": "`README.md`",
        "`requirements.txt`": "not needed: `uv add` writes", "`notebooks/explore.ipynb`": "`notebooks/`", "`conftest.py`": "`tests/`",
    }.items():  # fmt: skip
        assert destination in text.split(f"| {name} | ", 1)[1].split("\n")[0], name
    project = Project(render(data_source="own"))
    targets = set(
        re.findall(r"^([a-z-]+):", (project / "Makefile").read_text() + (ROOT / "Makefile").read_text(), re.M)
    )
    assert set(re.findall(r"(?:`|^\$ )make ([a-z-]+)", GUIDE, re.M)) <= targets
    names = set(re.findall(r"`((?:core|io|stages)/[\w/]+\.py|params\.yaml|notebooks/|tests/)`", GUIDE))
    assert len(names) > 5
    for name in names:
        assert (project / name).exists() or (project / f"src/{project.package}/{name}").exists(), name
    for said in ("is Python 2", "has a syntax error", "is a link out of the repository", "is another repository"):
        assert said in GUIDE and said in (ROOT / "import_repo/reading.py").read_text().replace(
            "{'within' if is_inside else 'out of'}", "out of"
        )


def test_the_package_is_small() -> None:
    """The limit of decision 23."""
    lines = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "import_repo").glob("*.py")}
    assert sum(lines.values()) <= 1_500 and max(lines.values()) < 400, lines
