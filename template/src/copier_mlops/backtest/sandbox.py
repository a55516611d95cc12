"""Before and after a replay: the rows as they came, a copy of this project that leads nowhere else, and the lives compared."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import yaml

from copier_mlops import ProjectError, _env_file, _files, _ports, project
from copier_mlops.backtest import fault_injection, point_in_time_source
from copier_mlops.backtest import report as lives
from copier_mlops.contract.contract import mask
from copier_mlops.data import tables
from copier_mlops.evaluation.metrics import PROPER
from copier_mlops.params import PARAMS, load_params
from copier_mlops.pipeline.run_config import readable_source
from copier_mlops.settings import Paths, Settings
from copier_mlops.versioning import snapshot

HOME = Path(".replay")
PLAN = HOME / "plan.json"
FIRST = "first"
REPORT, PAGE = Path("reports/replay/replay.json"), Path("reports/replay/report.html")
RESULT, ANSWERS = Path("life.json"), Path("answers.parquet")
ALWAYS: tuple[Any, Any] = (pd.Timestamp("1700-01-01", tz="UTC"), pd.Timestamp("2200-01-01", tz="UTC"))
WATCHES = ("prometheus", "alertmanager", "receiver")
OF_DEPLOYMENT = 2 + _ports.SPAN  # in a row: the proxy, PORTS, and the replicas of both colors
PORTS = OF_DEPLOYMENT + len(WATCHES)
ONLY_TELLS = "".join(f"{name}: {{enabled: false}}\n" for name in ("retrain", "promote", "roll_back", "add_replica"))
"""The policy of the receiver in a replay: what is done, is done by the clock of the rows, and not by that of Prometheus."""


def prepare(settings: Settings, start: str, end: str, faults: str, look_days: int, label_days: float) -> Plan:
    """Copy the rows of the source, with what goes wrong, and decide what is replayed.

    Raises:
        ProjectError: If rows have no time, there are too few of them, or something cannot be used.
    """
    contract = project.contract()
    if contract.time is None:
        raise ProjectError("a replay follows the time of rows, and the contract has no column with the role time.")
    broken = fault_injection.read_faults(faults, contract)
    rows, key = HOME / point_in_time_source.ROWS, settings.mask_key.get_secret_value()
    with readable_source(settings):
        every = list(project.source().read(settings.source_uri, *ALWAYS, contract.names))
    if not sum(map(len, every)):
        raise ProjectError("the source has no rows, and so there is nothing to replay.")
    first, newest = (
        min(one[contract.time].min() for one in every),
        max(one[contract.time].max() for one in every),
    )
    begin, until = fault_injection.middle(first.to_pydatetime(warn=False), newest.to_pydatetime(warn=False))
    begin, until = _day("FROM", start) or begin, _day("UNTIL", end) or until
    if not first < begin < until <= newest + pd.Timedelta(days=1):
        raise ProjectError(
            f"a replay goes from a day after the first row to one before the last: there are rows of {first:%Y-%m-%d} to "
            f"{newest:%Y-%m-%d}, and {begin:%Y-%m-%d} to {until:%Y-%m-%d} is asked for (FROM, UNTIL)."
        )
    late = [str(one) for one in broken if not begin <= one.day < until]
    if late:
        raise ProjectError(f"FAULT={late[0]} is not within {begin:%Y-%m-%d} to {until:%Y-%m-%d}, which is replayed.")
    chunks = (mask(fault_injection.with_faults(one, broken, contract.time), contract, key) for one in every)
    tables.write_by_month(chunks, rows, contract.time)
    texts = " ".join(map(str, broken))
    return Plan(
        start=begin,
        end=until,
        look_days=look_days,
        label_days=label_days,
        faults=texts,
        source=str(rows.absolute()),
        listen=f"127.0.0.1:{_first_port()}",
    )


def _day(name: str, text: str) -> dt.datetime | None:
    if not text:
        return None
    try:
        return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
    except ValueError as error:
        raise ProjectError(f"{name} is {text}, which is no day such as 2024-07-01.") from error


def _first_port() -> int:
    """The first of some free ports in a row. Where to look first comes from the folder: two projects that are replayed at once choose
    long before they listen."""
    begins = list(range(20_000, 32_000, PORTS))
    first = int.from_bytes(hashlib.sha256(str(Path.cwd()).encode()).digest()[:4]) % len(begins)
    for begin in [*begins[first:], *begins[:first]]:
        try:
            for port in range(begin, begin + PORTS):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
            return begin
        except OSError:
            continue
    raise ProjectError(f"there are no {PORTS} free ports in a row from 20000 to 32000 for the service of the replay.")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is replayed.

    Attributes:
        start, end: From when until when, midnights UTC.
        look_days: How often production is looked at.
        label_days: How late labels come.
        faults: As `core.replay.read_faults` takes them.
        source: The rows, as they came.
        listen: Where the proxy of the looped life listens.
    """

    start: dt.datetime
    end: dt.datetime
    look_days: int
    label_days: float
    faults: str
    source: str
    listen: str

    @classmethod
    def read(cls, file: Path) -> Plan:
        return msgspec.json.decode(file.read_bytes(), type=cls)


def asked(plan: Plan) -> pd.DataFrame:
    """The rows of the time that is replayed, in the order in which they are asked, as they came."""
    end = pd.Timestamp(plan.end)
    frames = []
    for _, files in tables.parts(Path(plan.source)):
        frames += [rows for rows in map(tables.read, files) if (rows[project.contract().time] >= plan.start).any()]
    rows: pd.DataFrame = pd.concat(frames, ignore_index=True)
    rows = rows[((rows[project.contract().time] >= plan.start) & (rows[project.contract().time] < end)).to_numpy()]
    return rows.sort_values(project.contract().order, kind="stable", ignore_index=True)


def leave(*_: object) -> None:
    """End, and what was started, too; a second signal does not disturb that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


# ------------------------------------------------------------------------------------------------------- Folders


def settle(plan: Plan, settings: Settings) -> Path:
    """A copy of this project as it is now, with nothing that it made and nothing that leads outside.

    Returns:
        The folder.
    """
    folder = HOME / FIRST
    for name in snapshot.files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, target)
    for name in (".venv", ".tools"):
        if Path(name).exists():
            (folder / name).symlink_to(Path(name).absolute())
    tables.write_text(point_in_time_source.IN_PLACE, folder / "src" / project.package() / "source.py")
    for made in (Paths.POINTER, Paths.LOCK, Paths.METRICS):
        (folder / made).unlink(missing_ok=True)
    _write_params(folder)
    _write_settings(folder, plan, settings)
    _write_watching(folder)
    snapshot.begin(folder)
    return folder


def _write_watching(folder: Path) -> None:
    """Prometheus asks each second, since a replay is over in minutes; alerts are told, and nothing else."""
    tables.write_text(ONLY_TELLS, folder / "monitoring/policy.yaml")
    file = folder / "monitoring/prometheus/prometheus.yml"
    tables.write_text(re.sub(r"(_interval|_timeout): \d+s", r"\1: 1s", file.read_text(encoding="utf-8")), file)
    routes = folder / "monitoring/alertmanager/alertmanager.yml"
    tables.write_text(
        re.sub(r"(group_wait|group_interval): \w+", r"\1: 1s", routes.read_text(encoding="utf-8")), routes
    )


def _write_params(folder: Path) -> None:
    """Always the newest rows, and one trial: what is shown is the loop, and not the search."""
    said = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    said["window"] = {**said.get("window", {}), "until": "newest"}
    said["search"] = {**said.get("search", {}), "trials": 1}
    said["promotion"] = {"automatic": False}
    tables.write_text(yaml.safe_dump(said, sort_keys=False), folder / PARAMS)


def _write_settings(folder: Path, plan: Plan, settings: Settings) -> None:
    """The settings of the copy: its own stores, nobody is told, and the service takes a question's time from the question."""
    base = int(plan.listen.rpartition(":")[2])
    lines = {
        "SOURCE_URI": plan.source,
        "MASK_KEY": settings.mask_key.get_secret_value(),
        "PREDICTION_LOG": ".deploy/dev/predictions",
        "PUSH_DATA": "false",
        "ACTOR": "replay",
        **{f"{name.upper()}_PORT": str(base + OF_DEPLOYMENT + place) for place, name in enumerate(WATCHES)},
    }
    text = "".join(f"{_env_file.assignment(name, value)}\n" for name, value in lines.items() if value)
    _files.write_text(folder / ".env", text, mode=0o600)
    dev = folder / "deploy/dev.env"
    kept = [line for line in dev.read_text().splitlines() if not line.startswith(("LISTEN=", "PORTS=", "REPLICAS="))]
    more = [
        f"LISTEN={plan.listen}",
        f"PORTS={base + 1}",
        "REPLICAS=1",
        "ACCEPT_ASKED_AT=true",
        "LOG_FLUSH_SECONDS=0.05",
    ]
    dev.write_text("\n".join([*kept, *more]) + "\n")


def collect(plan: Plan, folders: Mapping[str, Path], seconds: float) -> dict[str, Any]:
    """Compare the lives and write reports/replay.

    Returns:
        What replay.json says.
    """
    params, rows = load_params(), asked(plan)
    time_of = rows[project.contract().time]
    truth = pd.DataFrame({"id": rows[project.contract().id], "month": time_of.dt.strftime("%Y-%m"), "day": time_of.dt.strftime("%Y-%m-%d"),
                          "y": project.contract().labels(rows[project.contract().target])})  # fmt: skip
    lived = {life: tables.read_json(folder / RESULT) for life, folder in folders.items()}
    answers = {life: tables.read(folder / ANSWERS, skip=["version"]) for life, folder in folders.items()}
    metrics = dict.fromkeys([PROPER[params.problem], params.gate.metric])
    found = lives.compare(params.problem, [*metrics], truth, answers, params.evaluation.bootstrap, params.seed)
    report: dict[str, Any] = {
        "start": f"{plan.start:%Y-%m-%d}",
        "end": f"{plan.end:%Y-%m-%d}",
        "look_days": plan.look_days,
        "label_days": plan.label_days,
        "faults": plan.faults.split(),
        "says": lives.sentence(found, lived),
        "found": found,
        "lives": lived,
        "seconds": round(seconds, 1),
    }
    tables.write_json(report, REPORT)
    pictures = lives.plots(found, lived, f"{plan.start:%Y-%m-%d}", f"{plan.end:%Y-%m-%d}", report["faults"])
    tables.write_text(lives.page(project.title(), report, pictures), PAGE)
    return report
