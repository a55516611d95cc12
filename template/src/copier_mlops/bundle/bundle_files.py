"""The files of a bundle: what belongs to it, its checksums, its digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import copier_mlops
from copier_mlops import ProjectError

CHECKSUMS = "checksums.txt"
SIGNATURE = "signature"
TABLE = "code/contract.csv"  # where columns are many, they stand in a table that the code reads
PAPERS = ("lineage.json", "card.md")


RELEASE = "runtime_release"
"""The release of copier-mlops that made a bundle, in its manifest; `runtime` there is the form of the model."""


class BundleError(ProjectError):
    """A bundle is damaged, incomplete or does not answer as it did."""


class StaleBundleError(BundleError):
    """A bundle is whole, but does not answer as it did with the packages that are installed."""


Contents = Mapping[str, bytes]
"""The files of a bundle, by name. Each is read once: what was checked is what is used, whatever becomes of the folder."""


def write_checksums(folder: Path) -> None:
    """Write the checksums of a folder's files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{_sha256(path.read_bytes())}  {path.relative_to(folder).as_posix()}" for path in files]
    (folder / CHECKSUMS).write_text("\n".join(lines) + "\n")


def facts_of(files: Contents) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the manifest, the expected rows and the reference."""
    manifest, expected, reference = (
        json.loads(files[name]) if name in files else {}
        for name in ("manifest.json", "expected.json", "reference.json")
    )
    return manifest, expected, reference


def papers_of(files: Contents) -> dict[str, str]:
    return {name: files[name].decode() for name in PAPERS if name in files}


def contents(folder: Path, digest: str = "") -> dict[str, bytes]:
    """The files of a bundle as they were made.

    Raises:
        BundleError: If a file is missing, changed or was added, or the digest is not the recorded one.
    """
    files = bundle_files(folder)
    check_files(files, folder, digest)
    return files


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder as they are, by name.

    Raises:
        BundleError: If one of them goes while they are read, or cannot be read.
    """
    try:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    except FileNotFoundError as error:
        raise BundleError(
            f"the bundle in {folder} is just being replaced: {error.filename} has gone. Load it again."
        ) from error
    except OSError as error:
        raise BundleError(
            f"the bundle in {folder} cannot be read ({error}). Let this account read all of its files."
        ) from error


def bundle_files(folder: Path) -> dict[str, bytes]:
    present = (folder / CHECKSUMS).is_file()  # a folder without it may be any, and large
    files = files_of(folder) if present else {}
    if CHECKSUMS not in files:
        raise BundleError(
            f"{folder} is no bundle: it has no {CHECKSUMS}. `make bundle` makes the one that services load, "
            "`make pipeline` models/bundle."
        )
    return files


def digest(folder: Path) -> str:
    """SHA-256 of the checksums, and so of the whole bundle."""
    return digest_of({CHECKSUMS: (folder / CHECKSUMS).read_bytes()})


def digest_of(files: Contents) -> str:
    """The same of its files."""
    return _sha256(files[CHECKSUMS])


def check_files(files: Contents, folder: Path, digest: str = "") -> None:
    listed = {}
    for line in files[CHECKSUMS].decode(errors="replace").splitlines():
        checksum, _, name = line.partition("  ")
        listed[name] = checksum
    present = files.keys() - {CHECKSUMS, SIGNATURE}
    wrong = [f"{name} is missing" for name in sorted(listed.keys() - present)]
    wrong += [f"{name} was added" for name in sorted(present - listed.keys())]
    wrong += [f"{name} was changed" for name in sorted(listed.keys() & present) if _sha256(files[name]) != listed[name]]
    if wrong:
        raise BundleError(
            f"the bundle in {folder} is not what was made: {'; '.join(wrong)}. It is not loaded. "
            "`make bundle` makes the one that services load again, `make run` trains again."
        )
    if digest and digest_of(files) != digest:  # an attacker who changes the files can rewrite the checksums, too
        raise BundleError(
            f"the bundle in {folder} is not the recorded one: its SHA-256 is {digest_of(files)}, and the registry and git "
            f"record {digest}. Nothing of it was loaded. Find out who changed the artifact store. Then restore the "
            "files from a backup, or train again: make run."
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")


def check_release(files: Contents, folder: Path) -> None:
    """Check that the runtime is at least the release that made a bundle; releases before 2.0 recorded none.

    Raises:
        BundleError: If a newer release made it.
    """
    made = str(json.loads(files.get("manifest.json", b"{}")).get(RELEASE, ""))
    if _numbers_of(made) > _numbers_of(copier_mlops.__version__):
        raise BundleError(
            f"the bundle in {folder} was made by release {made} of copier-mlops, which is newer than the runtime here "
            f"({copier_mlops.__version__}), so it may be read wrongly. Update this project to that release: make update. Or export "
            "the version again with this one: make bundle."
        )


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest, with the release of the runtime that makes the bundle."""
    write_json(folder / "manifest.json", {**manifest, RELEASE: copier_mlops.__version__})


def _numbers_of(release: str) -> tuple[int, ...]:
    """Return the numbers of a release such as 2.1.0; none if it is not valid."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", release)
    return tuple(map(int, match.groups())) if match else ()
