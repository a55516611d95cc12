"""forget: take a subject's rows out of every store of this project, and keep them out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import yaml

from copier_mlops import ProjectError, project
from copier_mlops.contract.contract import as_text, forgotten_as, pseudonym
from copier_mlops.data import deployment_logs, log_compaction, readers, tables
from copier_mlops.registry.mlflow_registry import Registry
from copier_mlops.settings import Paths, Settings
from copier_mlops.versioning import dvc

COPIES = (Path(".cache/reproduce"), Path(".cache/bundles"))
OWN_OUTPUTS = ("predictions.parquet", "predictions.csv")


@dataclass(frozen=True)
class Forgotten:
    """What was removed.

    Attributes:
        rows: Rows in the tables of the work tree, all copies of a row counted.
        files: Objects of the cache and the store that held some, and are gone.
        versions: Versions of the model that learnt from them.
        answers: Entries of the prediction log.
        waiting: Entries in files of that log which a service still writes.
    """

    rows: int
    files: int
    versions: tuple[int, ...]
    answers: int = 0
    waiting: int = 0


def forget(settings: Settings, subject: str) -> Forgotten:
    """Remove the rows of a subject from data, cache, store and predictions, and note its hash, so that the next run leaves
    them out at the source.

    Versions of files in the cache that hold such a row cannot be rewritten, since they are named by their content; they
    are removed, and what was made from them can no longer be reproduced.

    Args:
        settings: The key, and where the stores are.
        subject: The value of the contract's id, as the source has it.

    Raises:
        ProjectError: If rows are only counted, or there is no key to keep the note unreadable with.
    """
    subject = subject.strip()
    if not subject:
        raise ProjectError("say whom: make forget KEY=<the value of the id>.")
    key = settings.mask_key.get_secret_value()
    if getattr(getattr(project.source(), "TABLE", None), "rows", "") == project.contract().id:
        raise ProjectError(
            f"rows of this table are only counted ({project.contract().id}), so nobody can be found again. Adopt it with ID=<column>."
        )
    if not key:
        raise ProjectError(
            "the note of who is forgotten is a keyed hash, and there is no key. Put MASK_KEY=<a long random text> into .env; "
            "`openssl rand -hex 32` makes one."
        )
    kept = pseudonym(subject, key) if project.contract()[project.contract().id].personal else subject
    with dvc.only_run():
        note(subject, key)
        gone: set[str] = set()
        for folder in (Path(".dvc/cache"), *_local_store(settings)):
            gone |= _without_objects(pyarrow.fs.LocalFileSystem(), str(folder), kept)
        system, path = _far_store(settings)
        if system is not None:
            gone |= _without_objects(system, path, kept)
        rows = sum(_without_rows(file, kept) for file in _tables())
        for folder in COPIES:
            shutil.rmtree(folder, ignore_errors=True)
        settings.precomputed.unlink(missing_ok=True)  # the model answers until these are made again
        return Forgotten(rows, len(gone), _learnt(settings, gone), *_from_the_log(settings, kept))


def _from_the_log(settings: Settings, kept: str) -> tuple[int, int]:
    """What services were asked about the subject, in a project that has them: entries that are gone, and that wait."""
    done = [log_compaction.forget(folder, kept) for folder in deployment_logs.logs(settings)]
    return sum(one.entries for one in done), sum(one.waiting for one in done)


def note(subject: str, key: str) -> None:
    """Write the subject's hash into the list that each run reads."""
    file = Paths.FORGOTTEN
    lines = file.read_text().split() if file.exists() else []
    hashed = forgotten_as(subject, key)
    if hashed not in lines:
        tables.write_text("\n".join(sorted([*lines, hashed])) + "\n", file)


def _tables() -> Iterator[Path]:
    for folder in (Paths.RAW, Paths.VALIDATED, Paths.SET_ASIDE, Paths.FEATURES, Paths.SCORED.parent):
        yield from sorted(folder.rglob("*.parquet"))
    yield from (Path(name) for name in OWN_OUTPUTS if Path(name).exists())


def _without_rows(file: Path, subject: str) -> int:
    """Write a table again without the subject's rows; an empty file goes."""
    frame = tables.read_any(file)
    if project.contract().id not in frame:
        return 0
    names = {subject, *(tables.spreadsheet_safe(pa.array([subject])).to_pylist() if file.suffix == ".csv" else ())}
    found = as_text(frame[project.contract().id]).isin(names).fillna(False).to_numpy(dtype=bool)
    if not found.any():
        return 0
    if found.all():
        file.unlink()
    else:
        tables.write_any(frame[~found], file)
    return int(found.sum())


def _without_objects(system: Any, folder: str, subject: str) -> set[str]:
    """Remove the objects of a DVC store that hold a row of the subject; returns their names."""
    gone = set()
    for item in system.get_file_info(pyarrow.fs.FileSelector(folder, recursive=True, allow_not_found=True)):
        if item.type != pyarrow.fs.FileType.File or not _holds(system, item.path, subject):
            continue
        if isinstance(system, pyarrow.fs.LocalFileSystem):
            Path(item.path).chmod(0o644)  # DVC protects what is in its cache
        readers.remove(system, item.path)
        gone.add("".join(Path(item.path).parts[-2:]))
    return gone


def _holds(system: Any, path: str, subject: str) -> bool:
    with system.open_input_file(path) as file:
        if file.size() < 12 or file.read_at(4, 0) != b"PAR1":
            return False
        try:
            with pq.ParquetFile(file, pre_buffer=False) as table:
                if project.contract().id not in table.schema_arrow.names:
                    return False
                return any(
                    bool((as_text(batch.column(0).to_pandas()) == subject).any())
                    for batch in table.iter_batches(columns=[project.contract().id])
                )
        except pa.ArrowException:  # a damaged object is not readable for anybody
            return False


def _local_store(settings: Settings) -> list[Path]:
    address = dvc.configure_remote(settings)
    if "://" in address or address == "unknown":
        return []
    return [Path(address) if settings.data_remote else Path(".dvc", address)]


def _far_store(settings: Settings) -> tuple[Any, str]:
    """The object store that holds the data's versions, if one does."""
    address = dvc.configure_remote(settings)
    if not address.startswith("s3://"):
        return None, ""
    return readers.object_store(address, settings.data_remote_endpoint)


def _learnt(settings: Settings, gone: set[str]) -> tuple[int, ...]:
    """The versions whose data held an object that is gone."""
    if not gone:
        return ()
    registry = Registry(settings)
    found = []
    for version in registry.versions():
        place = Path(".cache/lock")
        shutil.rmtree(place, ignore_errors=True)
        lock = yaml.safe_load(registry.fetch(version.run_id, "lineage/dvc.lock", place).read_text())
        shutil.rmtree(place, ignore_errors=True)
        for stage in lock["stages"].values():
            names = [out["md5"] for out in stage.get("outs", []) if "md5" in out]
            if any(name in gone or gone & _listed(settings, name) for name in names):
                found.append(version.number)
                break
    return tuple(found)


def _listed(settings: Settings, name: str) -> set[str]:
    """The objects in a folder that DVC keeps."""
    for folder in (Path(".dvc/cache"), *_local_store(settings)):
        file = folder / "files/md5" / name[:2] / name[2:]
        if name.endswith(".dir") and file.exists():
            return {item["md5"] for item in json.loads(file.read_text())}
    return set()
