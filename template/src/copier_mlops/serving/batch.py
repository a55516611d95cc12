"""Batch: a table of any size becomes a table of answers, a row per row; a run that is killed goes on where it was.

Rows are read a batch at a time and answered by some threads, or by a cluster of Dask where SCHEDULER_ADDRESS names one, so that
memory does not grow with the table. What is finished is in parts of their own, with a journal beside them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from copier_mlops import ProjectError, UnreachableError
from copier_mlops._progress import progress
from copier_mlops.bundle import bundle_files, serving_bundle
from copier_mlops.bundle.bundle import Bundle
from copier_mlops.contract.contract import Contract, as_text
from copier_mlops.contract.validation import REASON
from copier_mlops.data.readers import Table
from copier_mlops.serving.batch_input import questions, table_at
from copier_mlops.serving.batch_logging import PREDICTION, Notes
from copier_mlops.serving.partitioned_output import Journal, Parts
from copier_mlops.settings import Settings

PART_ROWS = 500_000  # rows after which a part is written
PATIENCE = 20  # seconds, with a scheduler
MOST_THREADS = 4  # what is not the model's is Python's, and no faster on more


@dataclass(frozen=True)
class Scored:
    """What a run did.

    Attributes:
        version: That answers.
        rows: Answers that are there, those without a score and those of an earlier run included.
        set_aside: Rows that break the contract, which have a reason in place of a score.
        kept: Rows that an earlier run had answered.
    """

    version: int
    rows: int
    set_aside: int
    kept: int

    @property
    def nothing_to_do(self) -> bool:
        return self.kept == self.rows


@dataclass(frozen=True)
class _Batch:
    """Some rows of a file, and how many of that file's rows are read then."""

    frame: pd.DataFrame
    file: int
    row: int


def score(
    loaded: Bundle, given: str, target: str, settings: Settings, folder: Path, say: Callable[[str], None] = print
) -> Scored:
    """Answer a table.

    Args:
        loaded: The bundle that answers.
        given: A file (Parquet, CSV, TSV, JSON lines, compressed or not), a folder or a glob of them, or those at s3://. It has
            the columns of the contract, as the source has them: what is personal is masked here. Others are not looked at, and
            rows without an id are called by their number.
        target: A folder, or a file that ends in .csv or .parquet, or those at s3://. It gets a row per row, in order: the id,
            the columns of `Bundle.answer`, the version, and under which name the prediction log has it.
        settings: The key that masks, the address of the cluster, if there is one, and what of the answers is logged.
        folder: Where `loaded` was loaded from; a cluster gets the files.
        say: Hears what is begun anew, and why.

    Raises:
        ProjectError: If the table cannot be read or has other columns, a place cannot be written to, or there is no row. What
            was finished before is kept, and the same call goes on with it.
    """
    table = table_at(given)
    files, parts = table.files(), Parts(target)
    _apart(given, target)
    with parts.held():
        journal = _begun(parts, loaded, table, files, say)
        kept = journal.rows
        if not (journal.finished and len(journal.files) == len(files)):
            journal.finished = False
            parts.begin(journal)
            notes = Notes(loaded.contract, settings)
            try:
                with _answering(loaded, folder, settings) as (ask, ahead), progress("predict", "rows") as advance:
                    advance(kept)
                    _answer_all(
                        loaded,
                        table,
                        files,
                        parts=parts,
                        journal=journal,
                        settings=settings,
                        notes=notes,
                        ask=ask,
                        ahead=ahead,
                        advance=advance,
                    )
            finally:
                notes.close(say)
            parts.finish(journal, answers_schema(loaded.contract))
    return Scored(loaded.version, journal.rows, journal.set_aside, kept)


def _apart(given: str, target: str) -> None:
    if (
        "://" not in given + target
        and Path(given).is_dir()
        and Path(target).absolute().is_relative_to(Path(given).absolute())
    ):
        raise ProjectError(
            f"{target} is inside of {given}, so the answers would be read as questions. Name another OUTPUT."
        )


def _begun(parts: Parts, loaded: Bundle, table: Table, files: list[str], say: Callable[[str], None]) -> Journal:
    """What an earlier run wrote, as far as it still holds."""
    journal = parts.journal()
    if journal is None:
        return Journal(loaded.digest)
    if journal.bundle != loaded.digest:
        say("another model answered before: all of it is answered anew")
        return Journal(loaded.digest)
    for place, (name, fingerprint) in enumerate(journal.files):
        if (
            place < len(files)
            and Path(files[place]).name == name
            and table.at(files[place]).fingerprint() == fingerprint
        ):
            continue
        if parts.single and journal.finished:  # its parts are gone
            journal.parts = []
        journal.cut(place)
        kept = f"what comes after {journal.rows:,} rows" if journal.parts else "all of it"
        say(f"{name} is not what it was before: {kept} is answered anew")
        break
    if parts.single and journal.finished and len(journal.files) < len(files):
        say("there are more files than before: all of it is answered anew")
        return Journal(loaded.digest)
    return journal


def _answer_all(
    loaded: Bundle,
    table: Table,
    files: list[str],
    *,
    parts: Parts,
    journal: Journal,
    settings: Settings,
    notes: Notes,
    ask: Callable[[pd.DataFrame], Future[pa.Table]],
    ahead: int,
    advance: Callable[[int], None],
) -> None:
    """Answer what is not answered yet, a part after the other."""
    asked: deque[tuple[_Batch, Future[pa.Table]]] = deque()
    done: list[tuple[_Batch, pa.Table]] = []

    def write(batches: list[tuple[_Batch, pa.Table]]) -> None:
        if batches:
            last, answers = batches[-1][0], notes.named([answer for _, answer in batches])
            parts.add(journal, answers, sum(_set_aside(answer) for answer in answers), last.file, last.row)
            notes.add([batch.frame for batch, _ in batches], answers)

    def take() -> None:
        batch, future = asked.popleft()
        done.append((batch, future.result()))
        advance(len(batch.frame))
        if sum(answer.num_rows for _, answer in done) >= PART_ROWS:
            write(done)
            done.clear()

    reading, broken = _batches(loaded.contract, table, files, journal, settings), None
    while broken is None:
        try:
            batch = next(reading, None)
        except ProjectError as error:
            broken = error
            break
        if batch is None:
            break
        asked.append((batch, ask(batch.frame)))
        if len(asked) > ahead:
            take()
    while asked:
        take()
    if broken is not None:  # what comes before that file is kept, whatever becomes of it
        write([one for one in done if one[0].file < len(journal.files) - 1])
        raise broken
    write(done)
    if not journal.rows:
        raise ProjectError(f"{table.location} has no rows; nothing was written.")


def _batches(
    contract: Contract, table: Table, files: list[str], journal: Journal, settings: Settings
) -> Iterator[_Batch]:
    """The rows that are not answered yet, masked; each file is noted in the journal when it is begun."""
    key, number = settings.mask_key.get_secret_value(), journal.rows
    at = journal.parts[-1] if journal.parts else None
    first, skipped = (at.file, at.row) if at else (0, 0)
    for place, file in enumerate(files[first:], start=first):
        if place >= len(journal.files):
            journal.files.append((Path(file).name, table.at(file).fingerprint()))
        for frame, row in questions(table.at(file), contract, key, skipped if place == first else 0, number):
            number += len(frame)
            if len(frame):
                yield _Batch(frame, place, row)


def _set_aside(answers: pa.Table) -> int:
    return int(answers["score"].null_count)


def answers_schema(contract: Contract) -> pa.Schema:
    """The columns of the answers: the id as its kind is, those of `Bundle.answer`, and before the reason the version and the name
    of the answer in the prediction log."""
    kind = {"integer": pa.int64(), "number": pa.float64()}.get(contract[contract.id].kind, pa.string())
    named = [("prediction", pa.string())] if contract.classes else []
    each = contract.answers if len(contract.answers) > 1 else []
    scores = [(name, pa.float64()) for name in ("score", *each)]
    noted = [("version", pa.int64()), (PREDICTION, pa.string())]
    return pa.schema([(contract.id, kind), *named, *scores, *noted, (REASON, pa.string())])


def answer(loaded: Bundle, frame: pd.DataFrame) -> pa.Table:
    """Answer some rows.

    Args:
        loaded: What answers.
        frame: The columns of its contract, masked, with an index that counts.

    Returns:
        A row per row as `answers_schema` has it, without the name in the prediction log.

    Raises:
        ContractError: If a column is missing.
    """
    contract = loaded.contract
    answers = loaded.answer(frame)
    answers.insert(0, contract.id, _name(frame[contract.id], contract[contract.id].kind))
    answers["version"] = loaded.version
    schema = answers_schema(contract)
    schema = schema.remove(schema.get_field_index(PREDICTION))
    return pa.Table.from_pandas(answers[schema.names], schema=schema, preserve_index=False)


def _name(values: pd.Series, kind: str) -> pd.Series:
    """The id as its kind is; one that cannot be read as a number is missing, and stands in the reason."""
    if kind not in ("integer", "number"):
        return as_text(values)
    numbers = pd.to_numeric(values, errors="coerce").astype(
        "float64" if values.dtype.kind not in "iu" else values.dtype
    )
    if kind == "number":
        return numbers.astype("float64")
    whole = numbers.where((numbers == numbers.round()) & (numbers.abs() < 2.0**63))
    return whole.astype("Int64")


# -------------------------------------------------------------------------------------------------------- Where


@contextlib.contextmanager
def _answering(
    loaded: Bundle, folder: Path, settings: Settings
) -> Iterator[tuple[Callable[[pd.DataFrame], Future[pa.Table]], int]]:
    """What answers a frame some time, and how many frames it may be given before the first of them is taken back."""
    if settings.scheduler_address:
        with _cluster(loaded, folder, settings.scheduler_address) as found:
            yield found
        return
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    with ThreadPoolExecutor(threads, thread_name_prefix="answers", initializer=_one_thread) as pool:
        try:
            yield lambda frame: pool.submit(answer, loaded, frame), threads
        finally:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """An estimator of scikit-learn computes on this thread alone: several that start threads of their own wait for each other."""
    if "sklearn" in sys.modules:
        import threadpoolctl

        threadpoolctl.threadpool_limits(1)


@contextlib.contextmanager
def _cluster(
    loaded: Bundle, folder: Path, address: str
) -> Iterator[tuple[Callable[[pd.DataFrame], Future[pa.Table]], int]]:
    """The workers of a Dask scheduler; they have this project's packages, and get the bundle's files once."""
    import distributed
    from distributed.comm.core import CommClosedError

    try:
        client: Any = distributed.Client(address, timeout=PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
        client.wait_for_workers(1, timeout=PATIENCE)
    except (OSError, TimeoutError) as error:
        raise UnreachableError(
            f"the scheduler at {address} does not answer, or has no worker ({type(error).__name__}). Start one, or leave "
            "SCHEDULER_ADDRESS empty."
        ) from error
    with client:
        content = client.scatter([_same_files(loaded, folder)], broadcast=True)[0]
        pool = client.get_executor()
        ahead = 2 * max(1, sum(client.ncores().values()))
        try:
            yield lambda frame: pool.submit(answer_there, loaded.digest, content, frame), ahead
        except (distributed.KilledWorker, CommClosedError, CancelledError, TimeoutError) as error:
            raise UnreachableError(
                f"the cluster at {address} lost its workers ({type(error).__name__}). What is finished is kept: run the same again."
            ) from error
        finally:
            pool.shutdown(wait=False)


def _same_files(loaded: Bundle, folder: Path) -> dict[str, bytes]:
    """The files of the bundle that was loaded: answers of one run are of one model, wherever they are computed.

    Raises:
        BundleError: If they are no longer those.
    """
    files = bundle_files.contents(folder)
    if bundle_files.digest_of(files) != loaded.digest:
        raise bundle_files.BundleError(f"the bundle in {folder} was replaced since it was loaded; run the same again.")
    return files


_loaded: dict[str, Bundle] = {}  # of a worker


def answer_there(digest: str, files: dict[str, bytes], frame: pd.DataFrame) -> pa.Table:
    """Answer some rows on a worker, which loads the bundle once."""
    if digest not in _loaded:
        with tempfile.TemporaryDirectory() as scratch:
            for name, content in files.items():
                path = Path(scratch, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            _loaded[digest] = serving_bundle.load(Path(scratch))
    return answer(_loaded[digest], frame)


# ------------------------------------------------------------------------------------------------------ Command


def told(done: Scored, target: str) -> str:
    """What a run did, in a line."""
    if done.nothing_to_do:
        return f"{target} has all {done.rows:,} answers of version {done.version} already; nothing to do"
    before = f", {done.kept:,} of them by the run before" if done.kept else ""
    aside = (
        f"; {done.set_aside:,} rows break the contract and have a reason in place of a score" if done.set_aside else ""
    )
    return (
        f"version {done.version} answered {done.rows - done.set_aside:,} of {done.rows:,} rows{before}; {target}{aside}"
    )
