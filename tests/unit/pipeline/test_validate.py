"""Rows that break the contract are set aside with their reasons; too many of them stop the run."""

import re
from pathlib import Path

import pandas as pd
import pytest
from sample_project import schema

from copier_mlops import ProjectError
from copier_mlops.contract.contract import ContractError
from copier_mlops.contract.validation import REASON
from copier_mlops.data import tables
from copier_mlops.pipeline import run_config
from copier_mlops.pipeline.validate import validate
from copier_mlops.settings import Paths, Settings

from ..conftest import change, rewrite

CONTRACT = schema.CONTRACT


def whole(folder: Path) -> pd.DataFrame:
    return pd.concat([tables.read(file) for _, files in tables.parts(folder) for file in files], ignore_index=True)


def test_every_row_has_its_place(project: Path) -> None:
    report = tables.read_json(Paths.VALIDATION)
    assert report["rows"] == len(whole(Paths.RAW))
    assert report["good"] == len(whole(Paths.VALIDATED))
    assert report["rows"] == report["good"] + report["set_aside"] + report["unlabelled"]


def test_bad_rows_are_set_aside_and_counted_by_reason(project: Path) -> None:
    before = tables.read_json(Paths.VALIDATION)

    def without_a_name(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{CONTRACT.id: frame[CONTRACT.id].where(frame.index > 0)})

    rewrite(Paths.RAW, without_a_name)
    files = len(list(Paths.RAW.rglob("*.parquet")))
    report = validate()
    assert report["reasons"][f"{CONTRACT.id}: missing"] == files
    assert report["set_aside"] == before["set_aside"] + files
    assert whole(Paths.SET_ASIDE)[REASON].str.startswith(f"{CONTRACT.id}: missing").sum() == files
    assert report == tables.read_json(Paths.VALIDATION)


def test_the_same_row_in_two_files_is_kept_once(project: Path) -> None:
    months = tables.parts(Paths.RAW)
    first, last = months[0][1][0], months[-1][1][-1]
    some = tables.read(first).head(20)
    tables.write(some, last.with_name("part-9999.parquet"))
    kept = len(tables.read(Paths.VALIDATED / first.relative_to(Paths.RAW)).merge(some[[CONTRACT.id]], on=CONTRACT.id))
    report = validate()
    assert report["reasons"][f"{CONTRACT.id}: occurs before"] == kept > 0
    assert whole(Paths.VALIDATED)[CONTRACT.id].is_unique


def test_more_bad_rows_than_allowed_stop_the_run(project: Path) -> None:
    rewrite(Paths.RAW, lambda frame: frame.assign(**{CONTRACT.id: frame[CONTRACT.id].where(frame.index % 2 == 0)}))
    with pytest.raises(ProjectError, match=r"rows break the contract, 5.0% are allowed") as error:
        validate()
    assert f"{CONTRACT.id}: missing: " in str(error.value)
    assert len(whole(Paths.SET_ASIDE)) > 0  # to be looked at
    change(project, validation={"max_bad_share": 0.9})
    run_config.resolve_run(Settings())
    validate()


def test_rows_without_an_answer_are_not_wrong_but_nothing_can_be_learnt_from_them(project: Path) -> None:
    rewrite(Paths.RAW, lambda frame: frame.assign(**{CONTRACT.target: None}))
    with pytest.raises(ProjectError, match=re.escape(f"have no {CONTRACT.target}")):
        validate()


def test_a_missing_column_stops_the_run(project: Path) -> None:
    name = CONTRACT.features()[0]
    rewrite(Paths.RAW, lambda frame: frame.rename(columns={name: f"{name}_"}))
    with pytest.raises(ContractError, match=re.escape(f"did you mean {name}_?")):
        validate()
