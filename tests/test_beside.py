"""A repository that was not made by the template: a project beside it, a proposal for every piece of its code, and nothing in
it run or changed; followed by its own commands to a champion."""

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
from beside.__main__ import BesideError, answers, beside
from beside.facts import Estimator
from beside.model import model_text
from beside.purposes import ROOMS
from beside.reading import Source

TRAIN = '''"""Will a flight be late? Trains on what the airline gave us."""
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
open(os.environ.get("TRAP", "TRAP"), "a").write("train.py was run")


def load(path):
    flights = pd.read_csv(path, parse_dates=["scheduled"])
    planes = pd.read_csv("data/planes.csv")
    return flights.merge(planes, on="plane", how="left")


def clean(df):
    df = df.drop_duplicates("flight_id")
    df["distance"] = pd.to_numeric(df["distance"], errors="coerce")
    return df[df["distance"] > 0]


def add_features(df):
    df["hour"] = df["scheduled"].dt.hour
    df["miles per seat"] = df["distance"] / df["seats"]
    return df


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="data/flights.csv")
    df = add_features(clean(load(parser.parse_args().data)))
    y = df[TARGET]
    X = pd.get_dummies(df.drop(columns=["flight_id", "late", "scheduled"]))
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=SEED, stratify=y)
    grid = {"max_depth": [4, 8], "min_samples_leaf": [5, 20]}
    model = RandomForestClassifier(n_estimators=60, max_depth=8, random_state=SEED)
    search = GridSearchCV(model, grid, cv=5, scoring="roc_auc")
    search.fit(X_train, y_train)
    print(roc_auc_score(y_test, search.predict_proba(X_test)[:, 1]))
    joblib.dump(search.best_estimator_, OUT)


if __name__ == "__main__":
    main()
'''
CELLS = [
    ("markdown", "# Flights"),
    ("code", "%matplotlib inline\nimport pandas as pd\nimport seaborn as sns"),
    ("code", "!pip install shap"),
    ("code", "df = pd.read_csv('../data/flights.csv')\ndf.head()"),
    ("code", "df.describe()"),
    ("code", "sns.histplot(df['distance'])"),
    (
        "code",
        "df['seats'] = df['seats'].fillna(df['seats'].mean())\ndf['is_far'] = (df['distance'] > 1000).astype(int)",
    ),
    ("code", ""),
    ("code", "print 'python 2'"),
]


def notebook(path: Path, cells: list[tuple[str, str]], **metadata: object) -> None:
    held = [
        {"cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)}
        | ({"outputs": [], "execution_count": None} if kind == "code" else {})
        for kind, text in cells
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": held}))


def write(folder: Path, **files: str) -> Path:
    """Files by name, `__` for a slash and `_dot_` for a dot."""
    for name, text in files.items():
        path = folder / name.replace("_dot_", ".").replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """What a data scientist has: a notebook, a script, data, a test, packages, a history; and traps for whoever runs it."""
    random.seed(4)
    folder = tmp_path / "flight-delays"
    write(folder, train_dot_py=TRAIN, README_dot_md="# Flights\n\nWhich are late?\n", requirements_dot_txt="pandas==1.3.5\nscikit-learn==1.0\nseaborn\nblack\n",
          tests__test_train_dot_py="from train import clean\n\n\ndef test_clean():\n    assert clean\n",
          conftest_dot_py='open("TRAP", "w").write("imported")\n', setup_dot_py='open("TRAP", "w").write("set up")\n',
          sitecustomize_dot_py='open("TRAP", "w").write("started")\n')  # fmt: skip
    notebook(folder / "notebooks/explore.ipynb", CELLS)
    (folder / "data").mkdir()
    with (folder / "data/flights.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["flight_id", "scheduled", "plane", "distance", "late"])
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
    """Every entry of a tree, git's own too: its kind, the time of its last change, its content."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        about = path.lstat()
        plain = path.is_file() and not path.is_symlink() and about.st_size < 10_000_000
        content = hashlib.sha256(path.read_bytes()).hexdigest() if plain and os.access(path, os.R_OK) else ""
        found[str(path.relative_to(folder))] = (about.st_mode, about.st_mtime_ns, content)
    return found


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Nothing in a repository is written, run or imported meanwhile."""
    before = state(folder)
    yield
    assert state(folder) == before
    assert not (folder / "TRAP").exists()


def status(folder: Path) -> str:
    """What git thinks of a repository; its own settings, which may run things, are left out."""
    words = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "status", "--porcelain"]
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout


Propose = Callable[..., str]


@pytest.fixture
def propose(render: Render, monkeypatch: pytest.MonkeyPatch) -> Propose:
    """The proposal for a repository, without waiting for another rendering."""

    born = render(data_source="own")

    def copied(source: str, target: Path, **settings: object) -> None:
        shutil.copytree(born, target)

    def proposed(repository: Path, into: Path | None = None) -> str:
        with untouched(repository):
            project, _ = beside(repository, into)
        return (project / "PROPOSAL.md").read_text()

    monkeypatch.setattr("copier.run_copy", copied)
    return proposed


def command(text: str, start: str) -> str:
    """The line of the first block that starts so."""
    found = [line.strip() for line in text.splitlines() if line.startswith(f"    {start}")]
    return found[0] if found else ""


# ------------------------------------------------------------------------------------------------- To a champion


def test_from_a_notebook_and_a_script_to_a_champion(
    template: Path, old: Path, small_environment: Path, prefect_server: str, tmp_path: Path
) -> None:
    """`make beside`, then the commands that its proposal names, and the model that it says to paste."""
    clone = tmp_path / "copier-mlops"
    shutil.copytree(template, clone)
    (clone / ".venv").symlink_to(Path(sys.executable).parent.parent)
    (clone / ".git/info/exclude").write_text("/.venv\n")
    os.utime(clone / "pyproject.toml", (0, 0))  # nothing is to be installed
    before = status(old)
    with untouched(old):
        said = Project(clone, TRAP=str(old / "TRAP")).make("beside", "REPOSITORY=../flight-delays")
    assert status(old) == before
    assert "6 files of code were read" in said and "flight-delays-mlops" in said
    project = borrowing(tmp_path / "flight-delays-mlops", small_environment, prefect_server)
    text = (project / "PROPOSAL.md").read_text()
    answered = (project / ".copier-answers.yml").read_text()
    for answer in ("author: Ada Lovelace", "owner: air-line", "project_name: Flight delays", "problem: classification", "licence: Proprietary"):  # fmt: skip
        assert answer in answered
    assert command(text, "make adopt") == (
        "make adopt DATA=../flight-delays/data/flights.csv TARGET=late TIME=scheduled ID=flight_id"
    )
    assert command(text, "uv add") == "uv add seaborn"
    done = project.command("sh", "-c", command(text, "make adopt"))
    assert done.returncode == 0, done.stdout + done.stderr
    model = re.search(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert model
    (project / f"src/{project.package}/core/model.py").write_text(model[1])
    project.make("check")
    project.make("audit", "ONLY=secrets")
    done = project.command(".venv/bin/pytest", "-q", "tests/core/test_model.py", "tests/test_architecture.py")
    assert done.returncode == 0, done.stdout[-4000:]
    project.set_params(search={"trials": 2}, evaluation={"bootstrap": 20})
    assert "1, champion" in project.make("run")
    inputs = json.loads((project / "models/bundle/manifest.json").read_text())["inputs"]
    assert {"plane", "distance"} <= set(inputs)


def test_rooms_and_lines(old: Path, propose: Propose) -> None:
    """Each line of the script and each cell is proposed for the room that a colleague would name."""
    text = propose(old)
    for line in (
        "- [ ] **lines 2-9** imports → not needed; `import argparse`",
        "  - lines 18-20: reads data → `io/source.py`; `flights = pd.read_csv(path, parse_dates=[\"scheduled\"])`",
        "  - line 21: joins tables → `io/source.py`, `read`; `return flights.merge(planes, on=\"plane\", how=\"left\")`",
        "  - lines 24-26: cleans → `core/schema.py`; `df = df.drop_duplicates(\"flight_id\")`",
        "  - line 27: chooses rows → `io/source.py`, `read`; `return df[df[\"distance\"] > 0]`",
        "- [ ] **lines 30-33** `add_features` builds features → `core/features.py`, `build_features`; `df[\"hour\"] = df[\"scheduled\"].dt.hour`",
        "  - line 40: names the target and the inputs → `core/schema.py`; `y = df[TARGET]`",
        "  - line 41: learns inputs from many rows → `core/model.py`, `build_model`;",
        "  - line 42: splits rows → not needed: `stages/split.py`;",
        "  - line 44: defines the model → `core/model.py`, `build_model`;",
        "  - line 45: searches hyperparameters → `core/model.py`, `search_space`;",
        "  - line 46: fits the model → not needed: `stages/train.py`; `search.fit(X_train, y_train)`",
        "  - line 47: evaluates → not needed: `stages/evaluate.py`;",
        "  - line 48: saves the model → not needed: `io/bundle.py`;",
        "- [ ] **lines 51-52** calls `main` → not needed: `dvc.yaml`; `main()`",
        "- [ ] **cell 2** look yourself: a line is for the notebook, not for Python; `%matplotlib inline`",
        "- [ ] **cell 4** reads data → `io/source.py`; `df = pd.read_csv('../data/flights.csv')`",
        "- [ ] **cell 5** shows → `notebooks/`; `df.describe()`",
        "- [ ] **cell 6** plots → `notebooks/`; `sns.histplot(df['distance'])`",
        "  - line 1: learns inputs from many rows → `core/model.py`, `build_model`;",
        "  - line 2: builds features → `core/features.py`, `build_features`;",
        "- [ ] **cell 8** is empty: not needed",
        "- [ ] **cell 9** look yourself: does not parse: it is Python 2",
        "- [ ] **lines 4-5** `test_clean` tests → `tests/`;",
        "- `seed: 42`", "- `split.test_share: 0.25`", "- `gate.metric: auc`",
    ):  # fmt: skip
        assert line in text, line
    assert "No longer needed, since the platform does what it was used for: `joblib`." in text
    assert "Listed and imported nowhere: `black`, `shap`." in text


def test_every_module_that_is_named_is_there(render: Render) -> None:
    project = Project(render(data_source="own"))
    names = {
        name
        for _, room, how in ROOMS.values()
        for name in re.findall(r"`([\w/]+(?:/|\.(?:py|yaml|md)))`", f"{room} {how}")
    }
    assert len(names) > 15
    for name in names - {"local.mk"}:
        assert (project / name).exists() or (project / f"src/{project.package}/{name}").exists(), name


# --------------------------------------------------------------------------------------------- Nothing gets lost

STRANGE = {
    "semicolons": "x = 1; y = 2\nimport os; print(os.name); import sys\ndef f(): return 1\nclass A: pass\n",
    "blocks": "for i in range(3):\n    a = i\n    with open('x') as f:\n        b = f.read()\nelse:\n    c = 1\ntry:\n    d = 1\nexcept (OSError, ValueError):\n    e = 1\nfinally:\n    g = 1\n",
    "decorated": "import functools\n\n\n@functools.cache\ndef f(\n    a,\n    b=2,\n):\n    '''Doc.'''\n    return a\n\n\n@functools.wraps(f)\nclass B:\n    x: int = 1\n\n    def m(self):\n        return 1\n",
    "strings": '"""Doc\n\ndef not_code():\n"""\nTEXT = """\nx = 1\n"""\nprint(TEXT)\n',
    "match": "import pandas as pd\nmatch 1:\n    case 1:\n        df = pd.read_csv('a.csv')\n    case _:\n        df = df.dropna()\nwhile df is None:\n    df.plot()\n    model.fit(df)\n",
    "async": "import asyncio\n\n\nasync def main():\n    async with a() as b:\n        await b\n    return 1\n\n\nasyncio.run(main())\n",
    "main": "import pandas as pd\nif __name__ == '__main__':\n    df = pd.read_csv('a.csv')\n    df['x'] = df['a'] / df['b']\n    df.plot()\n",
    "empty": "",
    "comment": "# nothing\n",
    "unknown": "import os\nvalue = mystery(1)\nother = os.urandom(3)\n",
    "broken": "def f(:\n    pass\n",
    "two": "import os\nprint 'x'\n",
}  # fmt: skip


def boxes(text: str, file: str) -> list[str]:
    section = text.split(f"### {file}\n", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]
    return re.findall(r"^- \[ \] \*\*(.+?)\*\*", section, re.M)


@pytest.mark.parametrize("name", STRANGE)
def test_every_block_of_a_script_is_there_once(propose: Propose, tmp_path: Path, name: str) -> None:
    """The lines of the boxes hold every statement, and no line is in two of them."""
    repository = write(tmp_path / "old", a_dot_py=STRANGE[name], b_dot_py="x = 1\n")
    text = propose(repository)
    lines: list[int] = []
    found = boxes(text, "a.py") if "### a.py" in text else []
    for box in found:
        numbers = [int(one) for one in re.findall(r"\d+", box)]
        lines += range(numbers[0], numbers[-1] + 1)
    assert len(lines) == len(set(lines))
    try:
        body = ast.parse(STRANGE[name]).body
    except SyntaxError:
        assert len(found) == 1 and text.count("look yourself: does not parse") == 1
        return
    wanted = {line for node in body for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    assert wanted <= set(lines)
    named = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    for one in named if name != "semicolons" else []:
        assert len(re.findall(rf"^- \[ \] \*\*.*\*\* `{one}` ", text, re.M)) == 1


def test_every_cell_is_there_once(propose: Propose, tmp_path: Path) -> None:
    cells = [("code", text) for text in STRANGE.values()] + [
        ("markdown", "text"), ("code", "%%bash\nls"), ("code", "%%time\nx = df.plot()"), ("code", "df?"), ("code", "files = !ls\nx = 1"),
        ("raw", "x"), ("code", "await f()"), ("code", "  %time model.fit(X)"), ("code", "for i in x:\n    !echo {i}\n    print(i)"),
    ]  # fmt: skip
    notebook(tmp_path / "old/n.ipynb", cells)
    notebook(tmp_path / "old/deep/r.ipynb", [("code", "library(dplyr)")], kernelspec={"language": "R"})
    text = propose(tmp_path / "old")
    code = [f"cell {place}" for place, (kind, _) in enumerate(cells, start=1) if kind == "code"]
    assert boxes(text, "n.ipynb") == code
    assert boxes(text, "deep/r.ipynb") == ["cell 1"] and "look yourself: is not Python; `library(dplyr)`" in text
    assert "2 cells are text" in text


def test_what_nobody_understands_is_not_hidden(propose: Propose, tmp_path: Path) -> None:
    """A line without a sign is to be looked at, and not put with the neighbour that is not needed."""
    text = propose(write(tmp_path / "old", a_dot_py=STRANGE["unknown"]))
    assert "- [ ] **lines 2-3** look yourself → no line says what it is for; `value = mystery(1)`" in text


def test_what_cannot_be_read_is_named(propose: Propose, tmp_path: Path) -> None:
    """Links, pipes, other repositories, broken notebooks, odd encodings: named; the rest goes on."""
    outside = write(tmp_path / "elsewhere", secret_dot_py="x = 'from elsewhere'\n")
    repository = write(tmp_path / "old", a_dot_py="import os\n", vendor__lib__b_dot_py="x = 1\n", _dot_hidden__c_dot_py="x = 1\n",
                       env__pyvenv_dot_cfg="", env__lib__d_dot_py="x = 1\n")  # fmt: skip
    subprocess.run(["git", "init", "--quiet", str(repository / "vendor/lib")], check=True)
    (repository / "broken.ipynb").write_text('{"cells": [')
    (repository / "other.ipynb").write_text("[]")
    (repository / "latin.py").write_bytes('größe = 1  # "\xe9"\n'.encode("latin-1"))
    (repository / "null.py").write_bytes(b"x = 1\0\n")
    (repository / "deep.py").write_text("x = " + "(" * 5000 + ")" * 5000)
    (repository / "data").symlink_to(outside)
    (repository / "link.py").symlink_to(outside / "secret.py")
    (repository / "self").symlink_to(repository)
    (repository / "gone.py").symlink_to("nowhere.py")
    os.mkfifo(repository / "pipe.py")
    text = propose(repository)
    for line in (
        "`broken.ipynb` cannot be read as a notebook: it is no JSON, line 1", "`other.ipynb` cannot be read as a notebook: it has no cells",
        "`data/` is a link that leads out", "`link.py` is a link that leads out", "`self/` is a link within", "`gone.py` is a link that leads nowhere",
        "`pipe.py` is no regular file", "`vendor/lib/` is a repository of its own", "`.hidden/` is hidden",
        "latin.py is not UTF-8",
    ):  # fmt: skip
        assert line in text, line
    assert text.count("look yourself: does not parse") == 2  # null.py and deep.py
    assert "from elsewhere" not in text and "env/" not in text
    assert boxes(text, "a.py") == ["line 1"] and boxes(text, "latin.py") == ["line 1"]


def test_data_is_not_read(propose: Propose, tmp_path: Path) -> None:
    """Of a table of 200 GB the header alone; of one behind a link nothing."""
    repository = write(
        tmp_path / "old", a_dot_py='import pandas as pd\ndf = pd.read_csv("big.csv")\ny = df["answer"]\n'
    )
    with (repository / "big.csv").open("w") as file:
        file.write("id,answer\n1,2\n")
        file.truncate(200 << 30)
    begin = time.monotonic()
    text = propose(repository)
    assert time.monotonic() - begin < 20
    assert "its header has 2 columns" in text and "the table has that column" in text


# ---------------------------------------------------------------------------------------------- What is proposed

FACTS = {
    "drop": ('df = pd.read_csv("t.csv")\nX = df.drop("answer", axis=1)\n', "DATA=../old/t.csv TARGET=answer"),
    "pop": ('df = pd.read_csv("t.csv")\ny = df.pop("answer")\n', "DATA=../old/t.csv TARGET=answer"),
    "attribute": ('df = pd.read_csv("t.csv")\ny = df.answer\n', "DATA=../old/t.csv TARGET=answer"),
    "last": ('df = pd.read_csv("t.csv")\nX, y = df.iloc[:, :-1], df.iloc[:, -1]\n', "DATA=../old/t.csv TARGET=answer"),
    "pair": ('df = pd.read_csv("t.csv")\nX, y = df[["size"]], (df["answer"] == "yes").astype(int)\n', "DATA=../old/t.csv TARGET=answer"),
    "split": ('df = pd.read_csv("t.csv")\nX_train, X_test, y_train, y_test = train_test_split(df[["size"]], df["answer"])\n', "DATA=../old/t.csv TARGET=answer"),
    "class": ('from pathlib import Path\nclass C:\n    target = "answer"\n    path = Path("..") / "old" / "t.csv"\ndf = pd.read_csv(C.path)\ny = df[C.target]\n', "DATA=../old/t.csv TARGET=answer"),
    "dict": ('CFG = {"data": {"path": "t.csv"}, "target": "answer"}\ndf = pd.read_csv(CFG["data"]["path"])\ny = df[CFG["target"]]\n', "DATA=../old/t.csv TARGET=answer"),
    "file": ('import os\nHERE = os.path.dirname(os.path.abspath(__file__))\ndf = pd.read_csv(os.path.join(HERE, "t.csv"))\ny = df["answer"]\n', "DATA=../old/t.csv TARGET=answer"),
    "function": ('def load(name="t.csv"):\n    return pd.read_csv(name)\ndef go():\n    other = pd.read_csv("u.csv")\n    df = load()\n    y = df["answer"]\n', "DATA=../old/t.csv TARGET=answer"),
    "train and test": ('test = pd.read_csv("u.csv")\ntrain = pd.read_csv("t.csv")\ny = train["answer"]\n', "DATA=../old/t.csv TARGET=answer"),
    "other letters": ('df = pd.read_csv("t.csv")\ndf.columns = df.columns.str.upper()\ny = df["ANSWER"]\n', "DATA=../old/t.csv TARGET=answer"),
    "time": ('df = pd.read_csv("t.csv")\ndf["when"] = pd.to_datetime(df["when"])\ny = df["answer"]\n', "DATA=../old/t.csv TARGET=answer TIME=when"),
    "two times": ('df = pd.read_csv("t.csv")\ndf["when"] = pd.to_datetime(df["when"])\ndf["key id"] = pd.to_datetime(df["key id"])\ny = df["answer"]\n', "DATA=../old/t.csv TARGET=answer"),
    "sorted": ('df = pd.read_csv("t.csv").sort_values("when")\ny = df["answer"]\n', "DATA=../old/t.csv TARGET=answer TIME=when"),
    "id": ('df = pd.read_csv("t.csv", index_col="key id")\ny = df["answer"]\n', "DATA=../old/t.csv TARGET=answer ID='key id'"),
    "no such id": ('df = pd.read_csv("t.csv").drop_duplicates("customer")\ny = df["answer"]\n', "DATA=../old/t.csv TARGET=answer"),
    "regression": ('from sklearn.linear_model import Ridge\ndf = pd.read_csv("t.csv")\ny = df["answer"]\nRidge().fit(df, y)\n', "DATA=../old/t.csv TARGET=answer PROBLEM=regression"),
    "by its metric": ('from sklearn.metrics import mean_absolute_error\ndf = pd.read_csv("t.csv")\ny = df["answer"]\nprint(mean_absolute_error(y, y))\n', "DATA=../old/t.csv TARGET=answer PROBLEM=regression"),
    "computed": ('df = pd.read_csv("t.csv")\ndf["big"] = df["size"] > 3\ny = df["big"]\n', "DATA=table.parquet TARGET=big"),
    "spreadsheet": ('df = pd.read_excel("t.xlsx")\ny = df["answer"]\n', "DATA=table.parquet TARGET=answer"),
    "a list": ('import sys\ndf = pd.read_csv(sys.argv[1])\ny = df["answer"]\n', "DATA=table.parquet TARGET=answer"),
    "s3": ('df = pd.read_parquet("s3://bucket/a b.parquet")\ny = df["answer"]\n', "DATA='s3://bucket/a b.parquet' TARGET=answer"),
    "sqlite": ('import sqlite3\ncon = sqlite3.connect("shop.db")\ndf = pd.read_sql("select *\\nfrom orders", con)\ny = df["answer"]\n', "DATA=sqlite:///../old/shop.db QUERY='select * from orders' TARGET=answer"),
    "postgresql": ('from sqlalchemy import create_engine\nengine = create_engine("postgresql+psycopg2://ada:hunter2@db/shop")\ndf = pd.read_sql("select 1", engine)\ny = df["answer"]\n', "DATA=postgresql://ada@db/shop QUERY='select 1' TARGET=answer"),
    "dollar": ('df = pd.read_csv("a $x.csv")\ny = df["answer"]\n', "DATA='../old/a $$x.csv' TARGET=answer"),
    "nothing": ("print(1)\n", "DATA=table.parquet TARGET=..."),
}  # fmt: skip


@pytest.mark.parametrize("name", FACTS)
def test_what_is_typed_next(propose: Propose, tmp_path: Path, name: str) -> None:
    code, wanted = FACTS[name]
    repository = write(tmp_path / "old", main_dot_py="import pandas as pd\n" + code, t_dot_csv="key id;when;size;answer\n1;2020-01-01;2;yes\n",
                       u_dot_csv="key id;size\n", shop_dot_db="", t_dot_xlsx="")  # fmt: skip
    (repository / "a $x.csv").write_text("size,answer\n")
    text = propose(repository, tmp_path / "new")
    assert command(text, "make adopt") == f"make adopt {wanted}"
    assert ("The second line waits for you" in text) is ("table.parquet" in wanted)
    if "table.parquet" in wanted:
        assert "main.py, line" in text or "no line reads a table" in text


LINES = {
    "cross_val_score(model, X, y)": "evaluates", "sns.heatmap(df.corr())": "plots", "plt.plot(x)": "plots", "df.plot.bar()": "plots",
    "kf = StratifiedKFold(5)": "splits", "X = StandardScaler().fit_transform(X)": "learns inputs", "df['c'] = LabelEncoder().fit_transform(df['c'])": "learns inputs",
    "pre = ColumnTransformer([])": "defines", "model = Pipeline([])": "defines", "m = xgb.XGBClassifier().fit(X, z)": "defines",
    "mlflow.log_metric('a', 1)": "tracks", "study.optimize(f)": "searches", "joblib.dump(m, 'x')": "saves a model", "m = pickle.load(f)": "loads a model",
    "df = df.merge(other)": "joins", "p = os.path.join('a', b)": "", "df['m'] = df.groupby('a')['b'].transform('mean')": "gathers",
    "df['l'] = df['b'].shift(1)": "gathers", "df = df.dropna()": "cleans", "df['a'] = df['a'].fillna(0)": "cleans",
    "df['a'] = df['a'].fillna(df['a'].median())": "learns inputs", "df['b'] = df['a'] * 2": "features", "df['b'] = np.log1p(df['a'])": "features",
    "df['d'] = df['t'].dt.hour": "features", "df = df[df.a > 0]": "chooses rows", "r = requests.get(u)": "downloads", "app = Flask(__name__)": "serves",
    "k = os.environ['X']": "reads the environment", "warnings.filterwarnings('ignore')": "sets up", "np.random.seed(1)": "sets up", "plt.style.use('x')": "sets up",
    "s = shap.TreeExplainer(m)": "explains", "p = model.predict(X)": "predicts", "sub.to_csv('submission.csv')": "predicts", "df.to_csv('clean.csv')": "saves",
    "print(confusion_matrix(a, b))": "shows quality", "df.info()": "shows", "LIMIT = 3": "configures", "df.groupby('a').size()": "shows",
}  # fmt: skip
HEAD = (
    "import os, pickle, warnings, joblib, mlflow, optuna, requests, shap\nimport numpy as np\nimport pandas as pd\nimport seaborn as sns\n"
    "import xgboost as xgb\nimport matplotlib.pyplot as plt\nfrom flask import Flask\nfrom sklearn.metrics import confusion_matrix\n"
    "from sklearn.model_selection import StratifiedKFold, cross_val_score\nfrom sklearn.pipeline import Pipeline\nstudy = optuna.create_study()\n"
)


def test_what_a_line_does(propose: Propose, tmp_path: Path) -> None:
    notebook(tmp_path / "old/n.ipynb", [("code", HEAD), *(("code", line) for line in LINES)])
    text = propose(tmp_path / "old")
    wrong = []
    for place, (line, purpose) in enumerate(LINES.items(), start=2):
        said = re.search(rf"^- \[ \] \*\*cell {place}\*\* (.*?) → (.*?); `", text, re.M)
        if not said or said[1] != ROOMS[purpose][0]:
            wrong.append((line, purpose, said and said[1]))
    assert wrong == []


def test_packages(propose: Propose, tmp_path: Path) -> None:
    """By the names that an index has; what the platform brings, or makes needless, or what nobody knows is not added."""
    code = """import pandas, sklearn, yaml, cv2, os, helpers, unheardof, named_in_list, polars, joblib
from PIL import Image
from . import sibling
from streamlit import write
d = polars.read_csv("x.csv")
d["a"] = cv2.imread(d["b"]) + Image.open("x") + unheardof.f() + named_in_list.g()
joblib.dump(d, "x")
write("hello")
"""
    repository = write(
        tmp_path / "old",
        a_dot_py=code,
        helpers_dot_py="x = 1\n",
        environment_dot_yml="dependencies:\n  - named-in-list=1.0\n  - polars\n",
    )
    text = propose(repository)
    assert command(text, "uv add") == "uv add named-in-list opencv-python pillow polars"
    assert "Only for what answers requests: `streamlit`." in text
    assert "not needed" not in text.split("## Packages")[1].split("##")[0] and "was used for: `joblib`." in text
    assert "in no list of packages: `unheardof`." in text


def test_secrets_and_paths_are_not_repeated(propose: Propose, tmp_path: Path) -> None:
    secrets = ["hunter2hunter2", "AKIA" + "ABCDEFGHIJKLMNOP", "ghp_" + "a1" * 18, "s3cr3tpw", "tok-en-value-1", "pa55word!", "/home/ada/churn", "C:/Users/ada/x", "envsecret9"]  # fmt: skip
    code = f"""import os
password = "{secrets[0]}"
client = connect(key="{secrets[1]}", token="{secrets[4]}")
HEADERS = {{"Authorization": "{secrets[2]}"}}
engine = create_engine("mysql://ada:{secrets[3]}@db/shop")
df = pd.read_csv("{secrets[6]}/data.csv")
OUT = "{secrets[7]}.csv"
model = CatBoostClassifier(depth=3, train_dir="{secrets[6]}")
os.environ["DB_PASSWORD"] = "{secrets[8]}"
"""
    repository = write(tmp_path / "old", a_dot_py=code, config_dot_yaml=f"db:\n  password: {secrets[5]}\n")
    notebook(
        repository / "n.ipynb",
        [("code", f"%env API_TOKEN={secrets[4]}"), ("code", f"!export DB_PASSWORD={secrets[0]}")],
    )
    text = propose(repository)
    assert [value for value in secrets if value in text] == []
    for place in ("a.py, line 2:", "a.py, line 3:", "a.py, line 4:", "a.py, line 5:", "a.py, line 9:", "config.yaml, line 2:", "n.ipynb, cell 1, line 1:", "n.ipynb, cell 2, line 1:"):  # fmt: skip
        assert f"  - {place}" in text, place
    assert "  - a.py, line 6\n  - a.py, line 7\n" in text


def test_models_that_are_pasted(small_environment: Path) -> None:
    """What is proposed for core/model.py fits, answers, and its first guess lies in its own search space."""
    calls: list[tuple[str, dict[str, object], dict[str, list[object]]]] = [
        ("RandomForestClassifier", {"n_estimators": 40, "max_depth": 8, "max_features": "auto", "criterion": "gini"}, {}),
        ("LogisticRegression", {"C": 0.5, "max_iter": 500, "penalty": "l2"}, {"C": [0.1, 1, 10]}),
        ("HistGradientBoostingClassifier", {"learning_rate": 0.3, "max_iter": 30, "l2_regularization": 0.0}, {}),
        ("KNeighborsClassifier", {}, {"n_neighbors": [3, 5], "weights": ["uniform", "distance"]}),
        ("GradientBoostingRegressor", {"n_estimators": 20, "loss": "ls", "subsample": 0.8}, {"max_depth": [2, None]}),
        ("ElasticNet", {"alpha": 0.1, "l1_ratio": 1.0}, {}), ("LinearRegression", {"normalize": True}, {}), ("SVR", {"C": 3}, {}),
        ("SVC", {"C": 2.0, "probability": True, "kernel": "rbf"}, {}), ("RidgeClassifier", {"alpha": 1.0}, {}), ("SGDClassifier", {"loss": "log"}, {}),
        ("GaussianNB", {}, {}), ("DecisionTreeRegressor", {"criterion": "mse", "min_samples_leaf": 1}, {}), ("MLPClassifier", {"alpha": 0.001, "max_iter": 50}, {}),
    ]  # fmt: skip
    given = [
        (name, model_text(Estimator(name, "", Source("a.py", 0, ""), 1, params), grid)) for name, params, grid in calls
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
    held = {}
    exec(compile(text, name, "exec"), held)
    classes = name.endswith(("Classifier", "NB", "SVC")) or name == "LogisticRegression"
    y = (X["b"] > 0).astype(int) if classes else X["b"]
    study = optuna.create_study()
    study.enqueue_trial(held["FIRST_GUESS"])
    trial = study.ask()
    assert held["search_space"](trial) == held["FIRST_GUESS"], (name, trial.params, held["FIRST_GUESS"])
    model = held["build_model"]("classification" if classes else "regression", held["FIRST_GUESS"], 7).fit(X, y)
    answers = model.predict_proba(X)[:, 1] if classes else model.predict(X)
    assert np.isfinite(answers).all() and answers.std() > 0, name
print("all")
"""
    done = subprocess.run(
        [small_environment / ".venv/bin/python", "-c", code],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "all\n", done.stderr[-3000:]


# ------------------------------------------------------------------------------------------------------- Answers


@pytest.mark.parametrize(
    ("url", "owner"),
    [("git@github.com:ada/x.git", "ada"), ("https://me:token@git.example/team/sub/x", "team"), ("/srv/git/x.git", ""), ("../x", ""), ("https://git.example/a_b/x", "")],
)  # fmt: skip
def test_the_owner_comes_from_the_remote(propose: Propose, tmp_path: Path, url: str, owner: str) -> None:
    repository = write(tmp_path / "old", a_dot_py="x = 1\n", _dot_git__config=f'[core]\n\tbare = false\n[remote "origin"]\n\turl = {url}\n',
                       _dot_git__logs__HEAD="0 1 Grace Hopper <g@localhost> 1 +0000\tcommit\n")  # fmt: skip
    given = given_for(repository)
    assert given.get("owner", "") == owner and given["author"] == "Grace Hopper"


def given_for(repository: Path) -> dict[str, str]:
    from beside import facts, purposes, reading

    found = reading.read(repository)
    reader = purposes.Reader()
    reader.learn_names(found)
    return answers(found, facts.Looker(found, reader.names).look())[0]


@pytest.mark.parametrize(
    ("text", "licence"),
    [("MIT License\n\nPermission is hereby granted, free\nof charge, to any", "MIT"),
     ("Redistribution and use in source and binary forms ...\nNeither the name of", "BSD-3-Clause"), ("GNU GENERAL PUBLIC LICENSE", "Proprietary")],
)  # fmt: skip
def test_the_licence_is_kept(tmp_path: Path, text: str, licence: str) -> None:
    assert given_for(write(tmp_path / "old", a_dot_py="x = 1\n", LICENSE=text))["licence"] == licence


@pytest.mark.parametrize(
    ("folder", "pyproject", "name"),
    [("churn-model", "", "Churn model"), ("x", '[project]\nname = "house-prices"\n', "House prices"), ("日本", "", "Adopted project"), ("x", "broken [", "X"), ("y" * 120, "", "Y" + "y" * 79)],
)  # fmt: skip
def test_names(tmp_path: Path, folder: str, pyproject: str, name: str) -> None:
    assert given_for(write(tmp_path / folder, a_dot_py="x = 1\n", pyproject_dot_toml=pyproject))["project_name"] == name


# ------------------------------------------------------------------------------------------------------ Bad days


def test_refusals(propose: Propose, tmp_path: Path) -> None:
    """What cannot work is refused in one sentence with the remedy; nothing is left behind."""
    code = write(tmp_path / "code", a_dot_py="x = 1\n")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "inside").symlink_to(code)
    made = write(tmp_path / "made", a_dot_py="x = 1\n", _dot_copier_dash_answers="")
    (made / ".copier-answers.yml").write_text(
        "project_name: X\nproblem: classification\ndata_source: own\ndata_remote: x\n"
    )
    prose = write(tmp_path / "prose", README_dot_md="x\n", data_dot_csv="a,b\n")
    notebook(tmp_path / "words/n.ipynb", [("markdown", "only text")])
    notebook(tmp_path / "r/n.ipynb", [("code", "library(dplyr)")], kernelspec={"language": "R"})
    (write(tmp_path / "bad", x_dot_txt="x") / "n.ipynb").write_text("{")
    before = sorted(tmp_path.iterdir())
    cases = [
        (tmp_path / "missing", None, "is not there; say which repository: make beside REPOSITORY="),
        (tmp_path / "nothing", None, "is empty"),
        (code / "a.py", None, "is a file; name the folder"),
        (code, tmp_path / "prose", "is there already"),
        (code, code / "new", "which is not written to; name a folder beside it"),
        (code, tmp_path / "inside/new", "which is not written to"),
        (code, tmp_path / "no/such/new", "is not there; make it"),
        (made, None, "was made by this template: 'cd"),
        (prose, None, "has no Python"),
        (tmp_path / "words", None, "has no Python"),
        (tmp_path / "r", None, "has no Python"),
        (tmp_path / "bad", None, "n.ipynb cannot be read as a notebook"),
    ]
    for repository, into, remedy in cases:
        with pytest.raises(BesideError, match=re.escape(remedy)):
            beside(repository, into)
    assert sorted(tmp_path.iterdir()) == before
    (made / "Makefile").write_text("update:\n")
    with pytest.raises(BesideError, match="make update"):
        beside(made)


def test_a_failure_leaves_nothing(propose: Propose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = write(tmp_path / "code", a_dot_py="x = 1\n")

    def full(*given: object, **named: object) -> None:
        (tmp_path / f".new.{os.getpid()}.part").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("copier.run_copy", full)
    with pytest.raises(OSError, match="No space left"):
        beside(code, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code"]


def test_a_kill_leaves_no_half_project(template: Path, tmp_path: Path) -> None:
    """kill -9 in the middle: no project, a hidden folder; the same command again makes the project and takes that away."""
    code = write(tmp_path / "code", a_dot_py="x = 1\n")
    words = [sys.executable, "-m", "beside", str(code), str(tmp_path / "new")]
    with untouched(code):
        process = subprocess.Popen(words, cwd=template, env=clean_environment(), start_new_session=True)
        while not list(tmp_path.glob(".new.*.part")):
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "new").exists() and list(tmp_path.glob(".new.*.part"))
        done = subprocess.run(words, cwd=template, env=clean_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob(".new.*")) and (tmp_path / "new/PROPOSAL.md").exists()
    again = subprocess.run(words, cwd=template, env=clean_environment(), capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "is there already" in again.stderr and "Traceback" not in again.stderr


# --------------------------------------------------------------------------------------------------------- Guide

GUIDE = (ROOT / "docs/adopting-a-repository.md").read_text()


def test_the_old_history_is_taken_along(propose: Propose, old: Path) -> None:
    """As the guide says: no file changes, both histories are there, and the old branch could be pushed to without force."""
    propose(old)
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


def test_the_guide_names_what_there_is(render: Render) -> None:
    project = Project(render(data_source="own"))
    targets = set(
        re.findall(r"^([a-z-]+):", (project / "Makefile").read_text() + (ROOT / "Makefile").read_text(), re.M)
    )
    named = set(re.findall(r"(?:`|^\$ )make ([a-z-]+)", GUIDE, re.M))
    assert len(named) > 5 and named - {"prepare"} <= targets  # which the reader writes
    for said in ("look yourself: does not parse", "a line is for the notebook", "no line says what it is for", "the room of what calls it", "a module of your own", "DATA=table.parquet"):  # fmt: skip
        assert said in GUIDE
