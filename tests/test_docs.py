"""The documentation is executed: each block of each page, in its order, and its output compared with what the page shows."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import MADE, ROOT, Project, Render, borrowing, free_port, wait_until
from pages import Walk, all_pages, blocks, module_of, targets

WALKED = ("docs/tutorial.md", "docs/how-to.md", "docs/serving.md", "docs/streaming.md", "docs/monitoring.md")
CODE = ("console", "python", "yaml", "json", "sql")


def test_every_block_is_executed() -> None:
    """By a walk through its page, or by a test that the page names and that calls the same targets."""
    for page in all_pages():
        for block in blocks(page):
            assert block.language in (*CODE, "text"), f"{block}: {block.language!r} is no language of a block"
            if block.executors:
                modules = "".join(module_of(test) for test in block.executors)
                for target in targets(block):
                    assert re.search(rf"\b{target}\b", modules), f"{block}: no test of these calls `make {target}`"
            elif block.language in CODE:
                assert block.page in WALKED, f"{block}: no test executes it"


def test_blocks_are_fenced() -> None:
    for page in all_pages():
        text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)
        found = re.findall(r"(?<=\n\n) {4,}\S.*", text)
        assert not found, f"{page.name}: a block without a fence is not executed: {found[0].strip()}"


def test_how_to(render: Render, small_environment: Path, prefect_server: str, tmp_path: Path) -> None:
    """One project, from a table of customers to a registry on a server."""
    home, folder = tmp_path / "home", tmp_path / "home/a/project"
    shutil.copytree(render(data_source="own"), folder)
    project = borrowing(folder, small_environment, prefect_server, HOME=str(home))
    random.seed(8)
    with (home / "a/customers.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["customer_id", "signup_date", "plan", "monthly charge", "visits", "churned"])
        for number in range(1_500):
            charge, visits = random.uniform(5, 90), random.randrange(1, 40)
            chance = 1 / (1 + math.exp(-(charge / (visits + 1) - 3)))
            day = f"{2022 + number // 750}-{1 + number % 750 // 63:02d}-{1 + number % 28:02d}"
            plan = random.choice(("basic", "family", "student"))
            write.writerow([f"C{number:06d}", day, plan, round(charge, 2), visits, int(random.random() < chance)])

    def smaller(walk: Walk) -> None:
        project = walk.project
        params = (project / "params.yaml").read_text()
        for name, value in (("trials", 2), ("bootstrap", 20)):
            params = re.sub(rf"{name}: \d+", f"{name}: {value}", params, count=1)
        (project / "params.yaml").write_text(params)

    def elsewhere(walk: Walk) -> None:
        (home / "b").mkdir()
        (home / "b/customers.csv").write_bytes((home / "a/customers.csv").read_bytes())

    port = str(free_port())
    names = {
        "~": str(home),
        "<package>": project.package,
        "127.0.0.1:5000": f"127.0.0.1:{port}",
        "mlflow server": f"mlflow server --port {port}",
    }
    before = {"make run": smaller, "mv ~/a/project ~/b/project && cd ~/b/project": elsewhere}
    servers = {
        "mlflow server --backend-store-uri sqlite:///server.db --artifacts-destination ./files": "startup complete"
    }
    (tmp_path / "walk").mkdir()
    with Walk(project, tmp_path / "walk", names, before, servers) as walk:
        walk.page("docs/how-to.md")
    moved = walk.project
    assert moved.folder == home / "b/project"
    manifest = json.loads((moved / "models/bundle/manifest.json").read_text())
    assert "charge per visit" in manifest["inputs"] and "RandomForest" in json.dumps(manifest)
    assert f"MLFLOW_TRACKING_URI=http://127.0.0.1:{port}" in (moved / ".env").read_text()
    assert (moved / "forgotten.txt").read_text().strip()


@pytest.fixture
def answering(render: Render, served: Project, watched_environment: Path, tmp_path: Path) -> Project:
    """A project with every option, a champion, and its bundle."""
    folder = tmp_path / "project"
    answers = {"serving": ["online", "batch", "streaming", "hybrid"], "deploy": "compose", "monitoring": True}
    shutil.copytree(render(**answers), folder)
    for name in (*MADE, "dist/bundle"):
        there, here = served / name, folder / name
        here.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(there, here, dirs_exist_ok=True) if there.is_dir() else shutil.copy2(there, here)
    return borrowing(folder, watched_environment, "", SOURCE_URI=served.environment["SOURCE_URI"])


def test_serving_streaming_and_monitoring(answering: Project, tmp_path: Path) -> None:
    """One project answers over HTTP, in batch and ahead of time; then its labels come, and it is looked at."""
    example = json.loads((answering / "dist/bundle/expected.json").read_text())
    rows = [dict(zip(example["columns"], row, strict=True)) for row in example["rows"]]
    rows = [{**row, "flight_id": f"F{number}"} for number, row in enumerate(rows)]
    (answering / "row.json").write_text(json.dumps(rows[0]))
    answering.python(
        "import pandas as pd; from pathlib import Path\n"
        "rows = pd.concat(map(pd.read_parquet, sorted(Path('data/raw').rglob('*.parquet')))).tail(900)\n"
        "rows = rows.drop(columns='late')\nPath('rows').mkdir()\nrows.to_parquet('rows/1.parquet')\n"
        "rows.head(100).to_csv('rows.csv.gz', index=False)\nrows.to_parquet('tomorrow.parquet')\n"
        "rows.assign(late=False)[['flight_id', 'late']].to_csv('outcomes.csv', index=False)"
    )
    port = str(free_port())
    answering.environment["SERVICE_PORT"] = port

    def logged(walk: Walk) -> None:
        answered = walk.printed["curl -d @row.json http://127.0.0.1:8000/predict"]
        (found,) = re.findall(r'"prediction_id": ?"([^"]+)"', answered)
        walk.names["<prediction_id>"] = found
        wait_until(lambda: any(found in file.read_text() for file in (answering / "predictions").glob("*.log")), 20)

    def challenged(walk: Walk) -> None:
        answering.set_params(seed=8, gate={"worse_than_champion": 1.0})
        assert "2, challenger" in answering.make("run")

    serve = '"message":"ready"'
    (tmp_path / "walk").mkdir()
    with Walk(
        answering,
        tmp_path / "walk",
        {"127.0.0.1:8000": f"127.0.0.1:{port}"},
        {"make explain ID=<prediction_id>": logged, "make shadow": challenged},
        {"make serve": serve, "SHADOW_DIR=dist/shadow make serve": serve},
    ) as walk:
        for page in ("docs/serving.md", "docs/streaming.md", "docs/monitoring.md"):
            walk.page(page)
            walk.stop()
    documented = yaml.safe_load((answering / "params.yaml").read_text())["monitoring"]
    defaults = answering.python("from copier_mlops.params import Monitoring; print(Monitoring().model_dump_json())")
    assert documented == {**json.loads(defaults), "promote_metric": "brier"}


def test_tutorial(demo: Project, template: Path, tmp_path: Path) -> None:
    """On all flights: what the tutorial adds helps, and all of the interval of its gain is above zero."""
    git = {f"GIT_{who}_{what}": "ada" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    start = Project(tmp_path, ACTOR="Ada", **git)
    copier = f"{ROOT / '.venv/bin/copier'} copy --defaults --quiet --vcs-ref HEAD {template}"

    def trained_once(walk: Walk) -> None:
        """The first training has run already, in the project of `make demo`."""
        project = walk.project
        if (project / "champion.json").exists():
            return
        for name in MADE:
            there, here = (
                demo / name.replace("flight_delays", demo.package),
                project / name.replace("flight_delays", project.package),
            )
            here.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(there, here, dirs_exist_ok=True) if there.is_dir() else shutil.copy2(there, here)
        (project / ".venv").symlink_to(demo / ".venv")
        shutil.copy2(demo / "uv.lock", project / "uv.lock")
        for name in ("pyproject.toml", "uv.lock"):
            os.utime(project / name, (0, 0))
        project.command("git", "init", "--quiet")
        project.environment["PYTHONPATH"] = str(project / "src")

    (tmp_path / "walk").mkdir()
    names = {"uvx copier copy <repository>": copier, "<package>": demo.package}
    with Walk(start, tmp_path / "walk", names, {"make run": trained_once}) as walk:
        walk.page("docs/tutorial.md")
    project = walk.project
    (gain,) = re.findall(r"over champion +\S+ \(\+(\S+) to", walk.printed["make run"])
    assert float(gain) > 0
    assert len((project / "predictions.csv").read_text().splitlines()) == 101
    assert json.loads((project / "champion.json").read_text())["version"] == 1
    assert "complaints on Sundays" in walk.printed["make history"]
