"""Files and folders are whole or not there."""

from pathlib import Path

import pytest

from copier_mlops import _files


@pytest.mark.parametrize("sync", [True, False])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, sync: bool) -> None:
    file = tmp_path / "state.json"
    file.write_text("previous")
    _files.write_text(file, "größer", sync=sync)
    assert file.read_text(encoding="utf-8") == "größer"
    with pytest.raises(ZeroDivisionError), _files.replacing(file) as partial:
        partial.write_text("half")
        _ = 1 / 0
    assert file.read_text(encoding="utf-8") == "größer"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_private_file_is_private_from_the_beginning(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("")
    with _files.replacing(file, partial=tmp_path / "cache/token", mode=0o600) as partial:
        assert partial == tmp_path / "cache/token" and partial.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_link_at_the_partial_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("as it was")
    (tmp_path / ".x.partial").symlink_to(tmp_path / "victim")
    _files.write_text(tmp_path / "x", "new")
    assert (tmp_path / "victim").read_text() == "as it was" and (tmp_path / "x").read_text() == "new"


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    for text in ("1", "2"):
        with _files.replacing_folder(folder) as partial:
            (partial / "version").write_text(text)
    with pytest.raises(ZeroDivisionError), _files.replacing_folder(folder) as partial:
        (partial / "version").write_text("3")
        _ = 1 / 0
    assert (folder / "version").read_text() == "2" and [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_private_folder_loses_the_access_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    _files.private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    _files.private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o750
