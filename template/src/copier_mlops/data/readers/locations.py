"""Where a table is: files, folders, object stores, databases; the kind of a file by its name."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from copier_mlops import ProjectError, UnreachableError

BLOCK = 8 << 20  # bytes of text that are parsed at a time
ROWS = 100_000  # rows of the other kinds
HEAD = 4 << 20  # bytes that are looked at to learn how a file is written
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}
KINDS = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".txt": "csv",
    ".jsonl": "json", ".ndjson": "json", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
PARTITION = re.compile(r"(?:^|/)([^/=]+=[^/]+)/")
"""A folder of a partitioned table, as Hive and Spark write it."""
DATABASES = ("sqlite", "duckdb", "postgresql")
Say = Callable[[str], object]


class SourceError(ProjectError):
    """The source of raw rows cannot be read; the text names the file, and the line or column where there is one."""


# ------------------------------------------------------------------------------------------------------- Places


def scheme_of(location: str) -> str:
    return urlsplit(location).scheme.split("+")[0] if "://" in location else ""


def check_location(location: str, query: str) -> None:
    """Refuse an address that cannot be read, or that carries a password.

    Raises:
        SourceError: The text says which part, and never repeats the password.
    """
    scheme = scheme_of(location)
    if scheme and (urlsplit(location).password or "password=" in location.lower()):
        where = "PGPASSWORD=..." if scheme == "postgresql" else "AWS_SECRET_ACCESS_KEY=..."
        raise SourceError(f"the {scheme} address carries a password. Leave it out, and put {where} into .env instead.")
    if scheme not in ("", "s3", *DATABASES):
        raise SourceError(
            f"{scheme}:// cannot be read. There are files and folders, s3://, sqlite:///, duckdb:/// and postgresql://."
        )
    if (scheme in DATABASES) != bool(query.strip()):
        raise SourceError(
            f'a {scheme} address needs QUERY="SELECT ...".' if not query.strip() else "QUERY goes with a database only."
        )


def _system(location: str) -> tuple[Any, str]:
    if scheme_of(location) != "s3":
        return pa.fs.LocalFileSystem(), os.path.expanduser(location)  # noqa: PTH111 (a glob is no path)
    return object_store(location)


def object_store(location: str, endpoint: str = "") -> tuple[Any, str]:
    """The file system behind s3://, and the path in it; keys come from the environment.

    Args:
        location: s3://bucket/path.
        endpoint: The address of a store that is not Amazon's; by default AWS_ENDPOINT_URL, as all of its tools read it.
    """
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:  # others than Amazon may refuse the checksums that its library adds to the end of an upload
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    named = {"endpoint_override": endpoint, "scheme": urlsplit(endpoint).scheme} if endpoint else {}
    return pa.fs.S3FileSystem(connect_timeout=10, region=region, **named), location.removeprefix("s3://").rstrip("/")


def remove(system: Any, path: str) -> None:
    """Remove a file. Arrow then puts an empty object in the place of its folder, which some stores refuse; the file is gone."""
    try:
        system.delete_file(path)
    except OSError:
        if system.get_file_info(path).type != pa.fs.FileType.NotFound:
            raise


def files_of(location: str) -> tuple[Any, list[str]]:
    """The files of a location, in order of their names."""
    if not location:
        raise SourceError("there is no table yet: make adopt DATA=../customers.csv TARGET=churned [TIME=...] [ID=...]")
    system, path = _system(location)
    try:
        if any(mark in path for mark in "*?[") and system.get_file_info(path).type == pa.fs.FileType.NotFound:
            fixed = path[: min(path.index(mark) for mark in "*?[" if mark in path)]
            folder = fixed.rsplit("/", 1)[0] if "/" in fixed else "."
            found = _under(system, folder)
            found = [one for one in found if fnmatch.fnmatch(one.removeprefix("./"), path.removeprefix("./"))]
        elif system.get_file_info(path).type == pa.fs.FileType.Directory:
            found = [one for one in _under(system, path) if kind_of(one, strict=False)]
        else:
            found = [path] if system.get_file_info(path).type == pa.fs.FileType.File else []
    except OSError as error:
        kind = SourceError if isinstance(error, FileNotFoundError | PermissionError) else UnreachableError
        raise kind(f"{location} cannot be reached: {first_line(error)}") from error
    if not found:
        raise SourceError(
            f"there is no table at {location}: no such file, or none in it whose name ends in one of {_ends()}."
        )
    return system, sorted(found)


def _under(system: Any, folder: str) -> list[str]:
    found = system.get_file_info(pa.fs.FileSelector(folder, recursive=True, allow_not_found=True))
    files = [one.path for one in found if one.type == pa.fs.FileType.File]
    return [path for path in files if not PurePosixPath(path).name.startswith((".", "_"))]


def _ends() -> str:
    return ", ".join(KINDS)


def kind_of(path: str, strict: bool = True) -> str:
    name = PurePosixPath(path)
    suffix = PurePosixPath(name.stem).suffix if name.suffix.lower() in COMPRESSED else name.suffix
    kind = KINDS.get(suffix.lower(), "")
    if strict and not kind:
        raise SourceError(
            f"{path} is of no kind that can be read; its name should end in one of {_ends()}, or those and .gz."
        )
    return kind


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """What a library says about a file, with the file's name."""
    try:
        yield
    except (ProjectError, GeneratorExit):
        raise
    except (OSError, EOFError, UnicodeError, ValueError, pa.ArrowException) as error:
        broken = isinstance(error, EOFError) or "runcated" in str(error) or "end of" in str(error).lower()
        raise SourceError(
            f"{path} cannot be read{': it is truncated' if broken else ''} ({first_line(error)})."
        ) from error


def first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


# -------------------------------------------------------------------------------------------------------- Kinds


def opened(system: Any, path: str) -> Any:
    compression = COMPRESSED.get(PurePosixPath(path).suffix.lower())
    return system.open_input_stream(path, compression=compression)


def head(location: str) -> tuple[str, bytes]:
    """The first file of a location, and the beginning of what is in it, decompressed."""
    system, files = files_of(location)
    with naming(files[0]), opened(system, files[0]) as stream:
        return files[0], stream.read(HEAD)


DRIVERS = {"duckdb": "duckdb>=1.4", "postgresql": "psycopg[binary]>=3.2"}
