"""Who is forgotten is in no table, no cache and no store, and does not come back with the next run."""

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from sample_project import schema

from copier_mlops import ProjectError
from copier_mlops.contract.contract import as_text, pseudonym
from copier_mlops.data import log_reader, prediction_log, readers, tables
from copier_mlops.lifecycle import erase as stage
from copier_mlops.lifecycle.erase import forget
from copier_mlops.pipeline import ingest, run_config
from copier_mlops.settings import Paths, Settings

CONTRACT = schema.CONTRACT
CACHE, STORE = Path(".dvc/cache"), Path(".data-store")


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows have names here, also where those of this project's table are only counted."""
    monkeypatch.setattr(stage.project, "source", SimpleNamespace)


@pytest.fixture
def somebody(rows: pd.DataFrame) -> str:
    """The newest row's id, as the source has it."""
    return str(as_text(rows[CONTRACT.id]).iloc[-1])


def kept_as(subject: str) -> str:
    return pseudonym(subject, "of the tests") if CONTRACT[CONTRACT.id].personal else subject


def count(file: Path | io.BytesIO, name: str) -> int:
    frame = pd.read_parquet(file, partitioning=None)
    return int((as_text(frame[CONTRACT.id]) == name).sum()) if CONTRACT.id in frame else 0


def in_tables(name: str) -> int:
    return sum(count(file, name) for file in Path("data").rglob("*.parquet"))


def objects_with(name: str, folder: Path) -> int:
    found = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    return sum(count(io.BytesIO(content), name) > 0 for content in found if content.startswith(b"PAR1"))


def test_the_rows_are_gone_from_every_place(project: Path, rows: pd.DataFrame, somebody: str) -> None:
    name, others = kept_as(somebody), kept_as(str(as_text(rows[CONTRACT.id]).iloc[-2]))
    shutil.copytree(CACHE, STORE)
    for folder in stage.COPIES:
        (folder / "of somebody").mkdir(parents=True)
    scored = tables.read(Paths.SCORED)
    tables.write_any(scored.assign(**{CONTRACT.id: name}), Path("predictions.csv"))
    tables.write_any(pd.concat([scored, scored.assign(**{CONTRACT.id: name})]), Path("predictions.parquet"))
    predicted = len(scored) + count(Path("predictions.parquet"), name)
    before, others_before, raw = in_tables(name), in_tables(others), len(ingested())
    assert before >= 3  # raw, validated, features
    assert objects_with(name, CACHE) == objects_with(name, STORE) >= 3

    tables.write_text("answers", Settings().precomputed)

    done = forget(Settings(), f" {somebody} ")
    assert not Settings().precomputed.exists()
    assert in_tables(name) == objects_with(name, CACHE) == objects_with(name, STORE) == 0
    assert (in_tables(others), len(ingested())) == (others_before, raw - 1)
    assert not Path("predictions.csv").exists()
    assert count(Path("predictions.parquet"), name) == 0
    assert done.rows == before + predicted
    assert done.files >= 3
    assert not any(folder.exists() for folder in stage.COPIES)
    assert any(CACHE.rglob("*"))  # what holds others alone stays


def ingested() -> pd.DataFrame:
    return pd.concat(tables.read(file) for _, files in tables.parts(Paths.RAW) for file in files)


def test_the_note_keeps_the_rows_out_and_says_nothing(project: Path, somebody: str) -> None:
    before = len(ingested())
    forget(Settings(), somebody)
    note = Paths.FORGOTTEN.read_text()
    assert len(note.split()) == 1
    assert somebody not in note
    assert kept_as(somebody) not in note
    run_config.resolve_run(Settings())
    assert ingest.ingest(Settings()) == before - 1
    assert kept_as(somebody) not in set(as_text(ingested()[CONTRACT.id]))
    with pytest.raises(ProjectError, match="MASK_KEY is not set"):
        ingest.ingest(Settings(mask_key=""))


def test_forgetting_again_changes_nothing(project: Path, somebody: str) -> None:
    forget(Settings(), somebody)
    note, run = Paths.FORGOTTEN.read_text(), run_config.resolve_run(Settings())
    done = forget(Settings(), somebody)
    assert (done.rows, done.files, done.versions) == (0, 0, ())
    assert Paths.FORGOTTEN.read_text() == note
    assert run_config.resolve_run(Settings()) == run
    forget(Settings(), "somebody else")
    assert len(Paths.FORGOTTEN.read_text().split()) == 2
    assert run_config.resolve_run(Settings()).forgotten != run.forgotten  # so that DVC reads the source again


def test_versions_that_learnt_from_the_rows_are_named(registered: Path, somebody: str) -> None:
    assert forget(Settings(), "nobody").versions == ()
    assert forget(Settings(), somebody).versions == (1, 2)


@pytest.mark.parametrize(("subject", "key", "says"), [(" ", "k", "say whom"), ("x", "", "there is no key")])
def test_what_cannot_be_forgotten(project: Path, subject: str, key: str, says: str) -> None:
    with pytest.raises(ProjectError, match=says):
        forget(Settings(mask_key=key), subject)
    assert not Paths.FORGOTTEN.exists()


def test_rows_that_are_only_counted_cannot_be_found_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = SimpleNamespace(TABLE=readers.Table("rows.csv", rows=CONTRACT.id))
    monkeypatch.setattr(stage.project, "source", lambda: counted)
    with pytest.raises(ProjectError, match="rows of this table are only counted"):
        forget(Settings(), "1")


def test_an_object_store_is_searched_too(project: Path, somebody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder plays the store."""
    shutil.copytree(CACHE, "bucket")
    asked = []

    def object_store(location: str, endpoint: str) -> tuple[object, str]:
        asked.append((location, endpoint))
        return stage.pyarrow.fs.LocalFileSystem(), "bucket"

    monkeypatch.setattr(stage.readers, "object_store", object_store)
    forget(Settings(data_remote="s3://bucket/path", data_remote_endpoint="http://127.0.0.1:9"), somebody)
    assert asked == [("s3://bucket/path", "http://127.0.0.1:9")]
    assert objects_with(kept_as(somebody), Path("bucket")) == 0


def test_what_is_no_table_of_rows_is_left_alone(project: Path, somebody: str) -> None:
    for name, content in {"damaged": b"PAR1 and no more of it", "short": b"PAR1"}.items():
        (CACHE / name).write_bytes(content)
    tables.write(pd.DataFrame({"another id": [somebody]}), CACHE / "other")
    tables.write(pd.DataFrame({"another id": [somebody]}), Path("predictions.parquet"))
    forget(Settings(), somebody)
    assert all((CACHE / name).exists() for name in ("damaged", "short", "other"))
    assert Path("predictions.parquet").exists()


def test_nothing_stays_of_what_services_were_asked(project: Path, somebody: str) -> None:
    logs = [Settings().prediction_log, Path(".deploy/prod/predictions")]  # what was deployed here has one of its own
    for folder in logs:
        log = prediction_log.PredictionLog(folder, 60)
        log.add([{"prediction": name, "id": name} for name in (kept_as(somebody), "another")])
        log.close()
    done = forget(Settings(), somebody)
    assert (done.answers, done.waiting) == (2, 0)
    assert [one["id"] for one in log_reader.entries(*logs)] == ["another"] * 2
