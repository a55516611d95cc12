"""The record of what alerts had done: what was written is there, whatever happened to whoever wrote it."""

import datetime as dt
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from copier_mlops._audit_log import Audit, AuditError

NOW = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


def test_lines_stay_in_their_order(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "made/audit.jsonl")
    assert list(audit.entries()) == []
    first = audit.add(NOW, id="a", why='Größe "x"\nand more')
    audit.add(NOW, id="b")
    assert [one["id"] for one in audit.entries()] == ["a", "b"]
    assert (
        next(audit.entries()) == first == {"at": "2026-03-04T12:00:00+00:00", "id": "a", "why": 'Größe "x"\nand more'}
    )
    assert len(audit.file.read_text().splitlines()) == 2


def test_a_torn_line_is_passed_over_and_spoils_none(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    audit.add(NOW, id="a")
    with audit.file.open("ab") as file:
        file.write(b'{"at": "2026-03-04T12:00:00+00:00", "id": "t')
    assert [one["id"] for one in audit.entries()] == ["a"]
    audit.add(NOW, id="b")
    with audit.file.open("ab") as file:
        file.write(b"\xff\xfe\n[1]\n{}\n")
    assert [one["id"] for one in audit.entries()] == ["a", "b"]


def test_many_write_at_once(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: audit.add(NOW, number=number, text="x" * 5000), range(40)))
    assert sorted(one["number"] for one in audit.entries()) == list(range(40))


def test_what_a_killed_process_wrote_is_there(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    code = (
        "import datetime as dt, sys, pathlib\n"
        f"from {Audit.__module__} import Audit\n"
        "audit, number = Audit(pathlib.Path(sys.argv[1])), 0\n"
        "while True:\n"
        "    audit.add(dt.datetime.now(dt.UTC), number=number)\n"
        "    print(number, flush=True)\n"
        "    number += 1\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(audit.file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.kill()
        said = [0, *map(int, process.stdout.read().split())]
    found = [one["number"] for one in audit.entries()]
    assert found == list(range(len(found)))
    assert found[: len(said)] == said


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="and so nothing is done"):
        Audit(tmp_path / "file/audit.jsonl").add(NOW)
    (tmp_path / "folder").mkdir()
    with pytest.raises(AuditError, match="cannot be read"):
        list(Audit(tmp_path / "folder").entries())
