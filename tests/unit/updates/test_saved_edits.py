"""Edits that an update could not merge keep `make check` from passing."""

from __future__ import annotations

from pathlib import Path

import pytest

from copier_mlops.updates import saved_edits


def test_a_patch_is_listed_until_it_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert saved_edits.main() == 0
    patch = tmp_path / ".update/src/copier_mlops/cli.py.patch"
    patch.parent.mkdir(parents=True)
    patch.write_text("Your edits of cli.py are not in release 2.0: it has other lines there.\n\n--- a\n")
    assert saved_edits.main() == 1
    said = capsys.readouterr().err
    assert ".update/src/copier_mlops/cli.py.patch: Your edits of cli.py" in said and "git rm" in said
    patch.unlink()
    assert saved_edits.main() == 0
