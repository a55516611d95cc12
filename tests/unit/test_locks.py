"""One process at a time."""

from pathlib import Path

import pytest

from copier_mlops import _locks


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.write_text("a longer text of a process that has ended")
    with _locks.locked(file, wait=False, holder="by Ada"):
        assert file.read_text() == "by Ada"
        with pytest.raises(_locks.HeldError) as told, _locks.locked(file, wait=False, holder="by Grace"):
            pass
    assert told.value.holder == "by Ada"
    with _locks.locked(file, wait=False):
        assert file.read_text() == "by Ada"


def test_readers_share_the_lock_of_a_folder(tmp_path: Path) -> None:
    with _locks.locked(tmp_path, shared=True):
        with _locks.locked(tmp_path, shared=True, wait=False):
            pass
        with pytest.raises(_locks.HeldError), _locks.locked(tmp_path, wait=False):
            pass
    with _locks.locked(tmp_path, wait=False):
        pass


def test_a_link_is_refused_where_others_may_write(tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"), _locks.locked(tmp_path / "lock", follow=False):
        pass
