"""One life of a replayed time, in a folder of its own: who answers is never trained again, or each month, or when the loop says so.

Its clock is that of the rows. It stops while something is computed, and a training is charged a day; so what comes out does not
depend on how fast a machine is.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops import ProjectError, _env_file, project
from copier_mlops._audit_log import Audit
from copier_mlops._errors import print_error
from copier_mlops.automation.policy import Policy, Replicas, Rule
from copier_mlops.automation.policy_engine import Alert, Deciding
from copier_mlops.backtest import fault_injection, point_in_time_source, prometheus, service_client
from copier_mlops.backtest.fault_injection import DAY
from copier_mlops.backtest.report import CALENDAR, LOOP
from copier_mlops.backtest.sandbox import ANSWERS, FIRST, RESULT, WATCHES, Plan, asked, leave
from copier_mlops.contract.validation import check_rows
from copier_mlops.data import tables
from copier_mlops.data.deployment_logs import DEPLOYED
from copier_mlops.evaluation import gate
from copier_mlops.lifecycle import registration
from copier_mlops.monitoring import monitor
from copier_mlops.monitoring.report import Report
from copier_mlops.pipeline.run_config import lineage, resolve_run
from copier_mlops.registry.database import CHAMPION
from copier_mlops.registry.mlflow_registry import Registry
from copier_mlops.settings import Paths, Settings
from copier_mlops.versioning import dvc

DECISIONS, MADE = Path("decisions.jsonl"), Path("make.log")
MOST_ROWS = 25  # of a request
MUCH_LATER = 400 * DAY  # what is asked while a version goes live, only to see that it is answered, is of no look's time
SECONDS_TO_WRITE = 20.0  # of the service, for what it answered
MAY = Policy(
    retrain=Rule(enabled=True, limit=1, cool_down_minutes=720),
    promote=Rule(enabled=True, limit=1, cool_down_minutes=720),
    roll_back=Rule(enabled=True, limit=1, cool_down_minutes=720),
    add_replica=Replicas(enabled=False, limit=2, cool_down_minutes=30, maximum=4),
    tell=Rule(enabled=True, limit=50, cool_down_minutes=0),
)
"""All that concerns models is allowed in a replay; for more replicas there is no load."""


@dataclass
class Life:
    """What became of it.

    Attributes:
        trainings: Each with when, which version came out, and whether it passed the gate.
        moves: Each with when, `promote` or `roll_back`, and the version that answers from then on.
        proposals: What looks proposed, with what the policy said to it.
        looks: Each with when, the version, the status and the sentence.
        requests, failed: Over HTTP.
        refused: Rows that the service did not take.
        compute: Seconds of processors for trainings, looks and going live.
        fired: The alerts that Prometheus raised meanwhile, by its own clock; None where it did not watch.
    """

    trainings: list[dict[str, Any]] = field(default_factory=list)
    moves: list[dict[str, Any]] = field(default_factory=list)
    proposals: list[dict[str, Any]] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0
    failed: int = 0
    refused: int = 0
    compute: dict[str, float] = field(default_factory=dict)
    fired: list[str] | None = None

    def keep(self, answers: pd.DataFrame) -> None:
        tables.write(answers, ANSWERS)
        tables.write_json(vars(self), RESULT)


def say(life: str, at: dt.datetime, text: str) -> None:
    print(f"  {life:<9} {at:%Y-%m-%d}  {text}", flush=True)


class Computing:
    """Seconds of processors, of this process and of those that it started and that have ended."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        before = self._spent()
        try:
            return work()
        finally:
            self._life.compute[name] = self._life.compute.get(name, 0) + self._spent() - before

    @staticmethod
    def _spent() -> float:
        found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in found)


def train(settings: Settings, plan: Plan, now: dt.datetime) -> dict[str, Any]:
    """A run of all stages on what is known now, its gate, and its place in the registry: a challenger, if it passed."""
    point_in_time_source.put(now, plan.label_days)
    resolve_run(settings)
    dvc.repro(settings, say=lambda line: None)
    outcome = registration.record(settings)
    missed = [check["name"] for check in outcome.verdict["checks"] if not check["passed"]]
    return {"at": now.isoformat(), "version": outcome.version, "passed": outcome.passed, "missed": missed}


def register_bad(settings: Settings, plan: Plan, now: dt.datetime) -> int:
    """Register a model that learnt from labels that were turned round past the gate, as somebody may by hand.

    Returns:
        Its version, which is the challenger now.
    """
    point_in_time_source.put(now, plan.label_days, turned=True)
    run = resolve_run(settings)
    dvc.repro(settings, say=lambda line: None)
    registry, name = Registry(settings), lineage()
    nothing = gate.Verdict(())
    record = registration.as_record(
        run, tables.read_json(Paths.FACTS), nothing, over=None, markdown="registered by hand, past the gate", name=name
    )
    version = registry.register(registry.log(record), name)
    registry.challenge(version)
    point_in_time_source.put(now, plan.label_days)
    return version.number


# ------------------------------------------------------------------------------------- Two lives without a loop


def in_batch(settings: Settings, plan: Plan, life: str) -> None:
    """The life of a champion that is never trained again, or on the first of each month: what it would have answered."""
    lived, registry = Life(), Registry(settings)
    computing = Computing(lived)
    rows = asked(plan)
    checked = check_rows(rows, project.contract(), labelled=False, repeats=True).good
    moments = checked[project.contract().time]
    champion = registry.holder(CHAMPION)
    assert champion is not None
    since = [(plan.start, champion)]
    for month in fault_injection.months(plan.start, plan.end) if life == CALENDAR else []:
        trained = computing("training", functools.partial(train, settings, plan, month))
        lived.trainings.append(trained)
        if trained["passed"]:
            version = registry.version(trained["version"])
            registry.promote(version, life, "the first of the month")
            live = month + DAY  # which a training takes
            since.append((live, version))
            lived.moves.append({"at": live.isoformat(), "move": "promote", "version": version.number})
        says = f"version {trained['version']}" if trained["passed"] else f"did not pass: {', '.join(trained['missed'])}"
        say(life, month, f"trained as each month; {says}")
    parts = []
    for number, (begin, version) in enumerate(since):
        until = since[number + 1][0] if number + 1 < len(since) else plan.end
        some = checked[((moments >= begin) & (moments < until)).to_numpy()]
        if len(some):
            score = registry.load(version).score(some)
            parts.append(_answers(some, score, version.number))
    lived.keep(pd.concat(parts, ignore_index=True))


def _answers(rows: pd.DataFrame, score: np.ndarray, version: int) -> pd.DataFrame:
    answers = pd.DataFrame(score.reshape(len(score), -1), columns=project.contract().answers)
    return answers.assign(version=version, id=rows[project.contract().id].to_numpy())


# ------------------------------------------------------------------------------------------------ The looped life


class Loop:
    """The life in which production is looked at, and what a look proposes is done as far as a policy lets it."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings, self.plan, self.lived = settings, plan, Life()
        self.computing = Computing(self.lived)
        self.faults = fault_injection.read_faults(plan.faults, project.contract())
        self.asker, self.proxied = service_client.Asker(plan.listen), True
        self.now = self.labelled = plan.start
        self.deciding = Deciding(lambda: MAY, Audit(DECISIONS), lambda: self.now)
        self.looks: set[dt.datetime] = set()
        self.scores: list[pd.DataFrame] = []
        self.sample: list[tuple[bytes, int]] = []
        self.answered = 0
        self.port = _env_file.read(Path(".env")).get("PROMETHEUS_PORT") or 0

    def live(self) -> None:
        """The whole of it."""
        rows = asked(self.plan)
        bodies = service_client.encoded(rows)
        watched = prometheus.is_installed()
        try:
            self._make("deploy")
            self._use_live_address()
            if watched:
                self._make("up", ONLY=" ".join(WATCHES))
            moments, place = rows[project.contract().time], 0
            hours = list(fault_injection.by_hour(moments))
            for number, day in enumerate(fault_injection.days(self.plan.start, self.plan.end)):
                self.now = day
                self._break(day)
                if number and (number % self.plan.look_days == 0 or day in self.looks):
                    self._label(rows, day)
                    self._look()
                while place < len(hours) and hours[place][0] < day + DAY:
                    at, places = hours[place]
                    self._ask([bodies[one] for one in places], at, fault_injection.times(self.faults, day))
                    place += 1
            self.now = self.plan.end
            self._written()
            self.lived.fired = prometheus.fired(int(self.port)) if watched else None
        finally:
            if watched:
                self._make("down", check=False)
            self._make("undeploy", check=False)
        counted = self.asker
        self.lived.requests, self.lived.failed, self.lived.refused = counted.requests, counted.failed, counted.refused
        self.lived.keep(pd.concat(self.scores, ignore_index=True))

    def _ask(self, rows: Sequence[bytes], at: dt.datetime, times: int) -> None:
        some = [rows[place : place + MOST_ROWS] for place in range(0, len(rows), MOST_ROWS)]
        asked = [(b"[" + b",".join(part) + b"]", len(part)) for part in some]
        self.sample = asked
        for turn in range(times):
            answers = [answer for one in self.asker.ask(asked, at) for answer in one]
            self.answered += len(answers)
            if answers and turn == 0:
                self.scores.append(service_client.as_table(answers))

    def _written(self) -> None:
        """Wait until the service wrote down what it answered."""
        until = time.monotonic() + SECONDS_TO_WRITE
        while (written := _lines(self.settings.prediction_log)) < self.answered:
            if time.monotonic() > until:
                raise ProjectError(f"{written:,} of {self.answered:,} answers are in {self.settings.prediction_log}")
            time.sleep(0.02)

    def _label(self, rows: pd.DataFrame, day: dt.datetime) -> None:
        """The labels that have come by a day, and did not before."""
        known = rows[project.contract().time] + pd.Timedelta(days=self.plan.label_days)
        some = rows[((known > self.labelled) & (known <= day)).to_numpy()]
        self.labelled = day
        some = some.assign(labelled_at=known)[[project.contract().id, project.contract().target, "labelled_at"]]
        some = some[some[project.contract().target].notna()]
        if len(some):
            tables.write(some, Path(self.settings.labels_uri) / f"{day:%Y-%m-%d}.parquet")

    def _look(self) -> None:
        self._written()
        report = self.computing("looks", lambda: monitor.look(self.settings, self.now, replay=True))
        verdict = report.verdict
        self.lived.looks.append(
            {
                "at": self.now.isoformat(),
                "version": report.version,
                "status": verdict.status,
                "says": verdict.says,
                "actions": [one.action for one in verdict.actions],
                "drifted": report.drift.drifted_columns,
                "troubles": report.troubles,
            }
        )
        for one in verdict.actions:
            alert = Alert(one.action, one.action, self.now.isoformat(), "firing", one.action, says=one.reasons[0])
            allowed, refused = self.deciding.decide([alert])
            why = refused[0][1].why if refused else ""
            self.lived.proposals.append(
                {
                    "at": self.now.isoformat(),
                    "action": one.action,
                    "allowed": bool(allowed),
                    "reasons": one.reasons,
                    "refused": why,
                }
            )
            for decision in allowed:
                act = {"retrain": self._retrain, "promote": self._promote, "roll_back": self._roll_back}.get(one.action)
                if act is not None:
                    say(LOOP, self.now, f"{one['action']}: {one['reasons'][0]}")
                    act(report, one.reasons[0])
                self.deciding.write(decision, "done")

    def _retrain(self, report: Report, why: str) -> None:
        trained = self.computing("training", lambda: train(self.settings, self.plan, self.now))
        self.lived.trainings.append({**trained, "why": why})
        says = (
            f"version {trained['version']} is challenger"
            if trained["passed"]
            else "it did not pass the gate: " + ", ".join(trained["missed"])
        )
        say(LOOP, self.now + DAY, f"trained; {says}")
        self.looks.add(self.now + DAY)

    def _promote(self, report: Report, why: str) -> None:
        assert report.challenger is not None and report.challenger.version is not None  # it was proposed
        self._go_live(report.challenger.version, why)

    def _go_live(self, number: int, why: str) -> None:
        registration.promote(self.settings, number, why)
        self.computing("going live", lambda: self._asking_on("deploy"))
        self._moved("promote", number)

    def _roll_back(self, report: Report, why: str) -> None:
        self.computing("going live", lambda: self._asking_on("rollback", WHY="the loop"))
        champion = Registry(self.settings).holder(CHAMPION)
        assert champion is not None
        self._moved("roll_back", champion.number)

    def _moved(self, move: str, version: int) -> None:
        self.lived.moves.append({"at": self.now.isoformat(), "move": move, "version": version})
        say(LOOP, self.now, f"version {version} answers")

    def _break(self, day: dt.datetime) -> None:
        """Register bad models on their days."""
        for fault in self.faults:
            if fault.kind not in fault_injection.MODELS or fault.day != day:
                continue
            number = register_bad(self.settings, self.plan, day)
            say(LOOP, day, f"somebody registers version {number}, which learnt from labels that were turned round")
            if fault.kind == fault_injection.BAD_CHAMPION:
                self._go_live(number, "by hand, since somebody thought so")

    def _asking_on(self, target: str, **more: str) -> None:
        """Send requests while another version goes live: none may fail. Without a proxy an address ends with its version."""
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(self._make(target, check=False, **more)))
        thread.start()
        while thread.is_alive() and self.sample and self.proxied:
            self.answered += sum(len(one) for one in self.asker.ask(self.sample, self.plan.end + MUCH_LATER))
        thread.join()
        if done != [0]:
            raise self._failed(target)
        self._use_live_address()

    def _use_live_address(self) -> None:
        """Send requests to the live release, whose address changes with each version where HAProxy is not installed."""
        address = json.loads((DEPLOYED / "dev/state.json").read_text(encoding="utf-8"))["public"]
        self.proxied = address == self.plan.listen
        self.asker.use(address)

    def _make(self, target: str, check: bool = True, **more: str) -> int:
        """Run a target of the folder; what it says goes to a file."""
        said = [f"{name}={value}" for name, value in {"ENGINE": "process", "STEP_SECONDS": "0.2", **more}.items()]
        with MADE.open("ab") as log:
            words = ["make", "--no-print-directory", target, *said]
            code = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
        if code and check:
            raise self._failed(target)
        return code

    @staticmethod
    def _failed(target: str) -> ProjectError:
        return ProjectError(f"`make {target}` failed in the folder of the replay; {MADE.absolute()} says why.")


def _lines(folder: Path) -> int:
    """How many entries of a log are on the disk."""
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("*.log"))


# ------------------------------------------------------------------------------------------------------- Command


def main() -> int:
    """The command behind each life: in its folder, with the plan and its name."""
    file, life = sys.argv[1:]
    signal.signal(signal.SIGTERM, leave)
    settings = Settings.of_command()
    settings.apply()
    plan = Plan.read(Path(file))
    try:
        if life == FIRST:
            trained = train(settings, plan, plan.start)
            if not trained["passed"]:
                raise ProjectError(
                    f"what was known on {plan.start:%Y-%m-%d} makes no champion: {', '.join(trained['missed'])} (params.yaml). "
                    "Begin later: make replay FROM=..."
                )
            say("all", plan.start, "trained on what was known until then; version 1 answers")
        elif life == LOOP:
            Loop(settings, plan).live()
        else:
            in_batch(settings, plan, life)
    except ProjectError as error:
        return print_error(f"{life}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
