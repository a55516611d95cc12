"""What the tests share: an environment of their own, rows of the source, and a tiny project whose stages ran once."""

import contextlib
import itertools
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pytest
import yaml

from copier_mlops import params, settings
from copier_mlops.settings import Settings

from . import fixture_project
from .fixture_project import ROOT

sample = fixture_project.module("sample", ROOT / "tests/sample.py")
Loaded = TypeVar("Loaded")
CLOSE = {"rel": 1e-5, "abs": 1e-5}  # answers in other company: a model of single precision adds up in another order


def pytest_configure(config: pytest.Config) -> None:
    """What libraries warn each other of is theirs to mend."""
    for library in ("apprise", "mlflow", "pandas", "weakref"):
        config.addinivalue_line("filterwarnings", f"ignore::DeprecationWarning:{library}")


def mlops(*words: str) -> int:
    """Run a command in this process; return its exit code."""
    from copier_mlops import cli

    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    return int(ended.value.code or 0)


# ------------------------------------------------------------------------------------------------ The environment


@pytest.fixture(scope="session", autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test does reaches the registry, the store or the settings of whoever runs it."""
    from copier_mlops.bundle import isolated

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolated, "Process", isolated.Models)  # starting one takes seconds; io/test_isolated.py does
        for name in list(os.environ):
            if name.lower() in Settings.model_fields or name.startswith(("GIT_", "DVC_", "MLFLOW_", "PREFECT_")):
                patch.delenv(name)
        home = tmp_path_factory.mktemp("elsewhere")  # has no .env
        patch.chdir(home)
        for name, value in settings.QUIET.items():
            patch.setenv(name, value)
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("DVC_GLOBAL_CONFIG_DIR", str(home))
        patch.setenv("PREFECT_HOME", str(home / "prefect"))
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setenv("MASK_KEY", "of the tests")
        patch.setenv("ACTOR", "tester")
        yield


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """`Settings.apply` writes into the environment of this process; here it is taken back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """The size that a file of this process may reach, in place of a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --------------------------------------------------------------------------------------------------- The project


@pytest.fixture(scope="session")
def source_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the tests' data is."""
    return sample.write(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def rows(source_uri: str) -> pd.DataFrame:
    """Some hundred rows of the source that keep the contract, with an answer, in their order."""
    from sample_project import schema, source

    from copier_mlops.contract.validation import check_rows

    newest = source.extent(source_uri)[1]
    window = (None, None) if newest is None else (newest - pd.Timedelta(days=366), newest)
    found = pd.concat(source.read(source_uri, *window, schema.CONTRACT.names), ignore_index=True)
    good = check_rows(found, schema.CONTRACT).good
    return good.sort_values(schema.CONTRACT.order, kind="stable").tail(800).reset_index(drop=True)


def make_small(file: Path) -> None:
    """Change params.yaml so that training takes seconds, and that any model passes the gate."""
    from sample_project import schema

    content = yaml.safe_load(file.read_text())
    content["seed"] = 7
    content.pop("window", None)
    if schema.CONTRACT.time:
        content["window"] = {"days": 100, "until": "newest"}
        content["split"] = {"test_days": 20, "folds": 2}
        slices = ["month"]
    else:
        content["split"] = {"test_share": 0.2, "folds": 2}
        inputs = [schema.CONTRACT[name] for name in schema.CONTRACT.features("boolean", "string")]
        slices = [column.name for column in inputs if column.kind == "boolean" or column.allowed][:1]
    content["search"] = {"trials": 2}
    content["validation"] = {"max_bad_share": 0.05, "max_single_input_skill": 1.0}
    content["evaluation"] = {"slices": slices, "bootstrap": 20, "importance_rows": 100}
    content["gate"] = {"metric": content["gate"]["metric"], "better_than_baseline": -1e6, "worse_than_champion": 1e6}
    content["promotion"] = {"automatic": False}
    file.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="session")
def _stages_ran(tmp_path_factory: pytest.TempPathFactory, source_uri: str, _registry: Path) -> Path:
    """A tiny project after its stages, with an empty registry.

    The stages run in this process, where coverage sees them; DVC takes note of what they made.
    """
    from copier_mlops.pipeline import evaluate, features, ingest, run_config, train, validate
    from copier_mlops.registry.mlflow_registry import Registry

    folder = tmp_path_factory.mktemp("built") / "project"
    ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local")
    for name in ("src", ".dvc"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("params.yaml", "dvc.yaml", "pyproject.toml", "adoption.json", ".gitignore"):
        shutil.copyfile(ROOT / name, folder / name)
    make_small(folder / "params.yaml")
    store = folder / ".dvc" / "config"  # no test leaves the machine
    store.write_text(re.sub(r"^( *url = ).*$", r"\1../.data-store", store.read_text(), flags=re.M))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SOURCE_URI", source_uri)
        ours = Settings()
        run_config.resolve_run(ours)
        ingest.ingest(ours)
        validate.validate()
        features.features()
        train.train()
        evaluate.evaluate()
        subprocess.run([sys.executable, "-m", "dvc", "commit", "--force", "--quiet"], check=True)
        Registry(Settings(mlflow_tracking_uri=f"sqlite:///{_registry}"))
        _copy_database(_registry, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one database that all tests use in turn: MLflow needs a while for each that it has not seen."""
    return tmp_path_factory.mktemp("registry") / "mlflow.db"


def _copy_database(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(target)) as other:
        one.backup(other)


Enter = Callable[[Path, Path, pytest.MonkeyPatch], Path]


@pytest.fixture(scope="session")
def _enter(source_uri: str, _registry: Path) -> Enter:
    """Copy a project and go there, with its registry in the place of the one before."""

    def enter(built: Path, target: Path, patch: pytest.MonkeyPatch) -> Path:
        folder = Path(shutil.copytree(built, target / "project", symlinks=True))
        _copy_database(folder / "mlflow.db", _registry)
        patch.chdir(folder)
        patch.setenv("SOURCE_URI", source_uri)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{_registry}")
        return folder

    return enter


@pytest.fixture
def project(_stages_ran: Path, _enter: Enter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny project after its stages, with an empty registry; the test runs in it and may change it."""
    return _enter(_stages_ran, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def _registered(_stages_ran: Path, _enter: Enter, _registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with version 1, the champion; version 2, its challenger; and a run that missed the gate."""
    from copier_mlops.lifecycle import registration
    from copier_mlops.pipeline import evaluate, run_config, train

    with pytest.MonkeyPatch.context() as patch:
        folder = _enter(_stages_ran, tmp_path_factory.mktemp("registered"), patch)
        ours = Settings()
        registration.record(ours)

        change(folder, seed=8, search={"trials": 1})
        run_config.resolve_run(ours)
        train.train()
        evaluate.evaluate()
        registration.record(ours)

        change(folder, gate={"better_than_baseline": 1e6})
        run_config.resolve_run(ours)
        registration.record(ours)
        _copy_database(_registry, folder / "mlflow.db")
    return folder


def change(folder: Path, **values: object) -> None:
    """Change params.yaml: `change(project, seed=8, search={"trials": 1})`."""
    file = folder / params.PARAMS
    content = yaml.safe_load(file.read_text())
    for key, value in values.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    file.write_text(yaml.safe_dump(content))


def replaced_while_read(
    patch: pytest.MonkeyPatch, folder: Path, other: Path, load: Callable[[], Loaded]
) -> Iterator[Callable[[], Loaded]]:
    """Load from a folder in whose place another is for a while: from each read of a file until each of those that follow."""
    first, end, reads, opened = 0, 0, itertools.count(), Path.open

    def opening(path: Path, *more: Any, **named: Any) -> Any:
        if path.is_relative_to(folder) and first <= next(reads) < end:
            path = other / path.relative_to(folder)
        return opened(path, *more, **named)

    with patch.context() as context:
        context.setattr(Path, "open", opening)
        load()
        for first, end in itertools.combinations(range(next(reads) + 1), 2):  # noqa: B007 (`opening` looks at them)
            reads = itertools.count()
            yield load


def spoiled(rows: pd.DataFrame, places: list[int]) -> tuple[pd.DataFrame, str]:
    """Rows of which some break a rule of the contract, and the reason that they get."""
    from sample_project import schema

    columns = [column for column in schema.CONTRACT.columns if column.role not in ("id", "target")]
    column = min(columns, key=lambda one: (one.kind == "string", one.nullable, one.unseen))
    if column.kind == "string" and column.unseen == "pool":
        pytest.skip("each row of texts is answered")
    says = {"timestamp": "not a time", "boolean": "neither true nor false", "string": "missing"}
    broken = rows.astype({column.name: "object"})
    broken.loc[places, column.name] = None if column.kind == "string" else "noon"
    return broken, f"{column.name}: {says.get(column.kind, 'not a number')}"


def rewrite(folder: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Edit every file of a table."""
    for file in folder.rglob("*.parquet"):
        edit(pd.read_parquet(file, partitioning=None)).to_parquet(file, index=False)


@pytest.fixture
def registered(_registered: Path, _enter: Enter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny project with a champion, a challenger and a rejected run; the test runs in it and may change it."""
    return _enter(_registered, tmp_path, monkeypatch)


Poison = Callable[[int], Path]


@pytest.fixture
def poison() -> Iterator[Poison]:
    """Replace the model of a version in the artifact store by a pickle that runs a command, with matching checksums.

    Returns:
        The file that appears if the pickle is loaded.
    """
    import hashlib

    from copier_mlops.registry.mlflow_registry import Registry

    changed: dict[Path, bytes] = {}

    def make(number: int) -> Path:
        registry = Registry(Settings())
        uri = registry.run(registry.version(number).run_id).info.artifact_uri
        folder = Path(uri.removeprefix("file://")) / "bundle"
        for name in ("model.pkl", "checksums.txt"):
            changed[folder / name] = (folder / name).read_bytes()
        mark = Path("loaded").absolute()
        content = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
        sums = changed[folder / "checksums.txt"].decode()
        before = hashlib.sha256(changed[folder / "model.pkl"]).hexdigest()
        assert before in sums
        (folder / "model.pkl").write_bytes(content)
        (folder / "checksums.txt").write_text(sums.replace(before, hashlib.sha256(content).hexdigest()))
        shutil.rmtree(".cache/bundles", ignore_errors=True)
        return mark

    yield make
    for file, content in changed.items():
        file.write_bytes(content)
