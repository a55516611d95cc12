"""The code of a bundle: schema.py and features.py as they were in training, loaded under a name of their own."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import pandas as pd

import copier_mlops
from copier_mlops.bundle.bundle_files import TABLE
from copier_mlops.contract.contract import Contract

if TYPE_CHECKING:
    from copier_mlops.bundle.bundle_files import Contents

_numbers = itertools.count()


def code_of(files: Contents, folder: Path) -> tuple[Contract, Callable[[pd.DataFrame], pd.DataFrame]]:
    """Load the bundle's own code under a package name that nothing else has.

    Args:
        files: What is loaded.
        folder: Where errors say that it is.
    """
    name = f"_bundle_{next(_numbers)}"
    for package in (name, f"{name}.core"):
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = []
    sys.modules[f"{name}.api"] = copier_mlops  # where a bundle of release 1 looks for Column and Contract
    with _beside(files, folder / "code") as place:
        schema = _module(f"{name}.core.schema", files["code/schema.py"], place / "schema.py")
        features = _module(f"{name}.core.features", files["code/features.py"], place / "features.py")
    return cast(Contract, schema.CONTRACT), cast(Callable[[pd.DataFrame], pd.DataFrame], features.build_features)


@contextlib.contextmanager
def _beside(files: Contents, folder: Path) -> Iterator[Path]:
    """The folder that code finds beside itself: one that nobody else writes to where it reads a table of columns there."""
    if TABLE not in files:
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, Path(TABLE).name).write_bytes(files[TABLE])
        yield Path(scratch)


def _module(name: str, content: bytes, file: Path) -> ModuleType:
    """Execute code as a module, without leaving byte code beside it, which the checksums would not know."""
    specification = importlib.util.spec_from_loader(name, loader=None, origin=str(file))
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    module.__file__ = str(file)
    sys.modules[name] = module
    exec(compile(content, str(file), "exec"), module.__dict__)  # noqa: S102 (the import system would leave byte code)
    return module
