"""Run the actions that were decided: one at a time, each as a child process with a time limit, with retries."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from copier_mlops import ProjectError, _exit_codes
from copier_mlops.automation.policy_engine import Alert, Deciding, Decision, known, printable
from copier_mlops.versioning.dvc import stop

MOST_SECONDS = 600.0  # between two attempts
GIVE_UP_SECONDS = 24 * 3600.0
STOP_SECONDS = 15.0  # for a child that was told to end
LAST_LETTERS = 1_000  # of what a child said
SHORTAGES = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Command:
    """How an action is done.

    Attributes:
        words: The command.
        seconds: How long it may take.
        given: What it reads from its standard input.
        repeatable: Whether to do it twice is as good as once: then a time limit that is over means later, and what a restart
            interrupted is done again.
    """

    words: Sequence[str]
    seconds: float
    given: str = ""
    repeatable: bool = False


class Acting(threading.Thread):
    """Works off what was decided.

    Args:
        deciding: Where it is written down how far each decision has come.
        command: How a decision is done.
        environment: Of a child process, as it is when that begins.
        again_seconds: Until the second attempt; each time twice as long, at most MOST_SECONDS.
        told: Is given an alert of our own when something failed or has to wait.

    Attributes:
        counts: How often something ended how, by action and result.
    """

    def __init__(
        self,
        deciding: Deciding,
        command: Callable[[Decision], Command],
        environment: Callable[[], Mapping[str, str]],
        again_seconds: float,
        told: Callable[[Alert], object] = lambda alert: None,
    ) -> None:
        super().__init__(name="acting", daemon=True)
        self._deciding, self._command, self._environment = deciding, command, environment
        self._again, self._told = again_seconds, told
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()
        self._leaving = False
        self.counts: Counter[tuple[str, str]] = Counter()

    @property
    def waiting(self) -> int:
        """How many decisions are being carried out or wait for it."""
        return len(self._jobs)

    def put(self, decision: Decision) -> None:
        """Have a decision carried out, after those that came before."""
        with self._changed:
            self._jobs.append(_Job(decision, time.monotonic()))
            self._changed.notify()

    def leave(self, seconds: float) -> None:
        """Begin nothing more; wait for what is being done. What is not done by then stays open in the record."""
        with self._changed:
            self._leaving = True
            self._changed.notify()
        self.join(seconds)

    def run(self) -> None:
        while (job := self._next()) is not None:
            try:
                over = self._attempt(job)
            except Exception as error:  # one action must not end the thread, which carries out all later ones
                log.error("error: %s of decision %s: %s", job.decision.action, job.decision.id, _said(error))
                over = self._later(job)
            if over:
                with self._changed:
                    self._jobs.remove(job)

    def _next(self) -> _Job | None:
        """The job that is due first, when it is due; None if there shall be no more."""
        with self._changed:
            while not self._leaving:
                job = min(self._jobs, key=lambda one: one.due, default=None)
                wait = None if job is None else job.due - time.monotonic()
                if job is not None and wait is not None and wait <= 0:
                    return job
                self._changed.wait(wait)
        return None

    def _attempt(self, job: _Job) -> bool:
        """Try it once; True if that was the last time."""
        decision = job.decision
        if job.ended:  # it was done, and could not be written down
            return self._end(job, *job.ended)
        try:
            command, environment = self._command(decision), dict(self._environment())
            output = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        except (OSError, ValueError, ProjectError) as error:  # of the policy, of .env, of a full disk: fixable
            return self._retry(job, f"{decision.action} cannot be started: {_said(error)}")
        code: int | None
        with output:
            if not job.begun:
                self._deciding.write(decision, "begun")
                job.begun = True
            try:
                code, said = self._run(command, environment, output)
            except Exception as error:
                code, said = None, f"the action was interrupted: {_said(error)}"
        if code == 0:
            return self._end(job, "done", said)
        if code == _exit_codes.TRY_LATER or (code is None and command.repeatable):
            return self._retry(job, said)
        return self._end(job, "failed", said)

    def _retry(self, job: _Job, said: str) -> bool:
        if time.monotonic() - job.since >= GIVE_UP_SECONDS:
            return self._end(job, "failed", f"given up after {job.attempts + 1} attempts: {said}")
        if not job.waits:
            self._deciding.write(job.decision, "waits", said)
            job.waits = True
            self.counts[known(job.decision.action), "waits"] += 1
            self._tell(job.decision, "waits, and is tried again", said)
        return self._later(job)

    def _later(self, job: _Job) -> bool:
        with self._changed:
            job.due = time.monotonic() + min(MOST_SECONDS, self._again * 2.0 ** min(job.attempts, 30))
            job.attempts += 1
        return False

    def _end(self, job: _Job, result: str, said: str) -> bool:
        if not job.recorded:
            job.ended = (result, said)
            self._deciding.write(job.decision, result, said)
            job.recorded = True
            self.counts[known(job.decision.action), result] += 1
        if result != "done":
            self._tell(job.decision, result, said)
        return True

    def _tell(self, decision: Decision, result: str, said: str) -> None:
        """A person hears of it; that nobody could be told is told to nobody."""
        if decision.action != "tell":
            says = f"{decision.action} {result} ({decision.why}): {said}"
            moment = f"{time.time():.3f}"
            self._told(Alert("LoopAction", decision.id, moment, "firing", says=says))

    def _run(self, command: Command, environment: Mapping[str, str], output: IO[bytes]) -> tuple[int | None, str]:
        """Return the exit code and the last output; the code is None when the time limit was exceeded."""
        try:
            child = subprocess.Popen(
                list(command.words),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            later = isinstance(error, OSError) and error.errno in SHORTAGES
            return (_exit_codes.TRY_LATER if later else 127), f"{command.words[0]} cannot be started ({error})"
        code: int | None
        try:
            child.communicate(command.given.encode(errors="replace"), timeout=command.seconds)
            code = child.returncode
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if child.returncode is None:
                stop(child, STOP_SECONDS)
        output.seek(max(0, output.seek(0, os.SEEK_END) - 4 * LAST_LETTERS))
        said = printable(" ".join(output.read().decode(errors="replace").split()))[-LAST_LETTERS:]
        return code, f"took longer than {command.seconds:g} s. {said}" if code is None else said

    def go_on(self, decision: Decision) -> None:
        """What a process before this one left open: it is done now, but not twice where twice is not as good as once."""
        if decision.id in self._deciding.begun and not self._command(decision).repeatable:
            said = "it was interrupted, and nobody knows how far it came. Look, and do what is left by hand"
            self._end(_Job(decision, 0), "unknown", said)
            return
        self.put(decision)


@dataclass(eq=False)
class _Job:
    """A decision that is carried out.

    Attributes:
        decision: the decision.
        due: when it is tried next, as time.monotonic() counts.
        attempts: number of attempts so far.
        begun: whether the audit log has its start.
        waits: whether the audit log has that it waits for another attempt.
        ended: its result and the reason, once it has one.
        recorded: whether the audit log has that result.
    """

    decision: Decision
    due: float
    attempts: int = 0
    begun: bool = False
    waits: bool = False
    ended: tuple[str, str] | None = None
    recorded: bool = False

    def __post_init__(self) -> None:
        self.since = self.due


def _said(error: Exception) -> str:
    return printable(str(error) if isinstance(error, ProjectError) else f"{type(error).__name__}: {error}")


def here(python: str, maximum: Callable[[], int]) -> Callable[[Decision], Command]:
    """How the actions are done in a project.

    Args:
        python: That of its environment.
        maximum: How many replicas there may be.
    """

    def command(decision: Decision) -> Command:
        mlops = [python, "-m", "copier_mlops"]
        if decision.action == "retrain":
            return Command([*mlops, "request-training", f"--key={decision.id}"], 180, repeatable=True)
        if decision.action == "promote":  # which version the monitor's report says, and not whoever sent the alert
            return Command([*mlops, "promote-proposed", f"--reason={plain(decision.why)}"], 3600)
        if decision.action == "roll_back":
            return Command([*mlops, "rollback", f"--reason={plain(decision.why)}"], 3600)
        if decision.action == "add_replica":
            words = [*mlops, "add-replica", str(maximum()), f"--env={decision.environment}"]
            return Command([*words, f"--reason={plain(decision.why)}"], 1800)
        return Command([*mlops, "notify"], 120, given=decision.says, repeatable=True)

    return command


def plain(text: str) -> str:
    """What make and a shell take for text and nothing else: names of alerts come from outside."""
    return "".join(letter if letter.isalnum() or letter in " .,:;-_()" else " " for letter in text)[:200]
