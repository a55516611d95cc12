"""Blue-green deployment: the new release starts in the free color, passes its smoke test and the canary analysis, then takes over.

A failure leaves the previous release live. The module needs nothing but Python, so it also runs on a host that has only deploy/ of the
project and a part of the runtime.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import hashlib
import json
import math
import os
import signal
import sys
import time
import urllib.error
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from copier_mlops import InProgressError, ProjectError, _audit_log, _exit_codes, _files, _locks, _ports
from copier_mlops._errors import print_error
from copier_mlops.deploy import canary, image, rollout_checks, runtimes
from copier_mlops.deploy.host import EngineError, settings, variables, version_number
from copier_mlops.deploy.proxy import Direct, Proxy, ProxyError, Slot, share, slots
from copier_mlops.deploy.rollout_checks import BusyError, WrongError
from copier_mlops.deploy.runtimes import DEPLOY, Release

HOME = Path(".deploy")
AUDIT = "audit.jsonl"
ENVIRONMENTS = ("dev", "staging", "prod")
KEEP = 3  # releases that stay on the host, so that going back is starting one
DAY = 86_400.0  # the longest that a setting in seconds may be
PASSES = 10  # entries of the history; a release is in it once for each time that it went live


class DeployError(ProjectError):
    """A version does not go live; the text says why, and what to do."""


class DeployInProgressError(DeployError, InProgressError):
    """Another deployment to the same environment is in progress."""


@dataclass(frozen=True)
class Live:
    """What answers.

    Attributes:
        colour: Where.
        replicas: How many.
        release: What.
        since: From when on.
    """

    colour: str
    replicas: int
    release: Release
    since: str


@dataclass(frozen=True)
class Limits:
    """How a version takes over, and what it may do meanwhile; from the settings of the environment.

    Attributes:
        replicas: How many there are.
        steps: Percent of the requests, step by step; one step where it is not set.
        step_seconds: How long each step is looked at.
        ready_seconds: How long a replica may take until it is ready.
        drain_seconds: How long what was asked before may take.
        bounds: What the canary analysis lets pass.
    """

    replicas: int
    steps: list[int]
    step_seconds: float
    ready_seconds: float
    drain_seconds: float
    bounds: canary.Bounds

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Limits:
        """Read the settings.

        Raises:
            DeployError: If one cannot be used.
        """
        steps = settings.get("STEPS", "").replace(",", " ").split()
        if not all(step.isdecimal() for step in steps):
            raise DeployError(f'STEPS is {settings["STEPS"]!r}; it is a list of percentages, e.g. STEPS="10 50 100"')
        limits = cls(
            int(_number(settings, "REPLICAS", 1, 1, _ports.MAX_REPLICAS, whole=True)),
            [int(step) for step in steps] or [100],
            _number(settings, "STEP_SECONDS", 2, 0, DAY),
            _number(settings, "READY_SECONDS", 60, 0, DAY),
            _number(settings, "DRAIN_SECONDS", 30, 0, DAY),
            canary.Bounds(
                max_errors=_number(settings, "MAX_ERRORS", 0.01, 0, 1),
                max_seconds=_number(settings, "MAX_SECONDS", 0.5, 0, DAY),
                max_increase=_number(settings, "CANARY_MAX_INCREASE", 0.05, 0, 1),
                min_requests=int(_number(settings, "CANARY_MIN_REQUESTS", 20, 0, 1_000_000, whole=True)),
            ),
        )
        if limits.steps != sorted(set(limits.steps)) or limits.steps[0] < 1 or limits.steps[-1] != 100:
            raise DeployError(f'STEPS is {limits.steps}; it has to rise to 100, e.g. STEPS="10 50 100"')
        return limits


def _number(
    settings: Mapping[str, str], name: str, default: float, least: float, most: float, *, whole: bool = False
) -> float:
    """Return a setting as a number.

    Raises:
        DeployError: If it is no number from `least` to `most`; `nan` is none.
    """
    text = str(settings.get(name, default))
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise DeployError(
            f"{name} is {text}; it may be {kind} from {least:g} to {most:.15g} (deploy/*.env, or the environment)"
        )
    return value


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def who() -> str:
    """Who acts, for the record: ACTOR, or the account's name."""
    try:
        return os.environ.get("ACTOR") or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def recorded(file: Path) -> dict[str, Any]:
    """Return the state of an environment.

    Raises:
        DeployError: If the file is damaged; the text says what to do.
    """
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        releases = [*found["kept"], *found.get("history", [])]
        if found["live"]:
            releases.append(Live(**found["live"]).release)
        if not all(Release(**one) for one in releases) or (found["live"] and not isinstance(found["engine"], str)):
            raise ValueError("an entry is not valid")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        environment = file.parent.name
        raise DeployError(
            f"{file} is damaged ({type(error).__name__}: {error}), so the live release of {environment} is unknown. Remove the file, and "
            f"run `make deploy ENV={environment}` with the same ENGINE as before: it ends what runs, and starts the champion"
        ) from error
    return found


class Host:
    """One environment on this machine.

    Args:
        environment: dev, staging or prod.

    Raises:
        DeployError: If there is no such environment, or a setting cannot be used.
        EngineError: If what it runs in is not there.
    """

    def __init__(self, environment: str) -> None:
        file = DEPLOY / f"{environment}.env"
        if environment not in ENVIRONMENTS or not file.exists():
            raise DeployError(f"there is no environment {environment}: ENV may be {', '.join(ENVIRONMENTS)}")
        self.environment = environment
        self.folder = HOME / environment
        self.folder.mkdir(parents=True, exist_ok=True)
        said = variables(file)
        self.settings = {
            **said,
            **{name: value for name, value in settings().items() if name in said or name in OURS},
        }
        self.limits = Limits.of(self.settings)
        self.places = slots(int(_number(self.settings, "PORTS", 0, 1, 65535 - _ports.SPAN, whole=True)))

    # ------------------------------------------------------------------------------------------------ What is known

    @cached_property
    def engine(self) -> runtimes.Engine:
        """What replicas run in: what ENGINE says, or what they run in already.

        Raises:
            EngineError: If it is not there.
            DeployError: If they run in another.
        """
        found = self._state()
        wanted = os.environ.get("ENGINE") or (found["engine"] if found["live"] else "containers")
        engine = runtimes.choose(wanted, image.project(), self.environment, self.settings, self.folder)
        if found["live"] and found["engine"] != engine.name:
            raise DeployError(
                f"{self.environment} runs in {found['engine']}, and this is for {engine.name}. "
                f"Leave ENGINE out, or end what runs first: make undeploy ENV={self.environment} ENGINE={found['engine']}"
            )
        return engine

    @cached_property
    def proxy(self) -> Proxy:
        """The proxy that passes requests on to the replicas."""
        return (Proxy if self.engine.proxied else Direct)(self.folder, self.places)

    @property
    def public(self) -> str:
        """Host and port where callers reach the live release."""
        return self._public(self.live)

    def _public(self, live: Live | None) -> str:
        if not self.engine.proxied:
            return self._addresses(self._slots(live.colour, 1) if live else self.places)[0]
        address, _, port = self.settings["LISTEN"].rpartition(":")
        return f"{address if address not in ('', '*', '0.0.0.0', '[::]') else '127.0.0.1'}:{port}"

    def _state(self) -> dict[str, Any]:
        file = self.folder / "state.json"
        return recorded(file) if file.exists() else {"live": None, "kept": []}

    def _write(self, **changes: Any) -> None:
        state = {**self._state(), "engine": self.engine.name, **changes}
        _files.write_text(self.folder / "state.json", json.dumps(state, indent=2) + "\n", sync=True)

    @property
    def live(self) -> Live | None:
        """What answers; None if nothing was deployed."""
        found = self._state()["live"]
        return Live(**{**found, "release": Release(**found["release"])}) if found else None

    @property
    def kept(self) -> list[Release]:
        """The releases that are on this host, the last that went live at the end."""
        found = self._state()
        return [Release(**one) for one in found["kept"] if found.get("engine") == self.engine.name]

    @property
    def history(self) -> list[Release]:
        """The releases as they went live, the latest last; a rollback removes those that it left, as in the registry."""
        found = self._state()
        if "history" in found:
            return [Release(**one) for one in found["history"]] if found.get("engine") == self.engine.name else []
        # Before 1.3 the state had no history. A release that a rollback left is not a target of another rollback.
        live, entries = self.live, _audit_log.Audit(self.folder / AUDIT).entries()
        left = [
            entry["from"]["image"] for entry in entries if entry["action"] == "rollback" and entry["result"] == "live"
        ]
        return [one for one in self.kept if one.image not in left or (live and one == live.release)]

    def _remember(self, live: Live, action: str) -> None:
        """Record what is live, and remove the releases that are too old to stay on the host."""
        history, release = self.history, live.release
        if action == "rollback" and release in history:
            while history[-1] != release:
                history.pop()
        elif not history or history[-1] != release:
            history.append(release)
        # Releases of the history stay longest.
        order = dict.fromkeys(
            [*(one for one in self.kept if one not in history), *reversed(dict.fromkeys(history[::-1]))]
        )
        kept = list(order)[-KEEP:]
        history = [one for one in history if one in kept][-PASSES:]
        self._write(
            live=asdict(live),
            public=self._public(live),
            kept=[asdict(one) for one in kept],
            history=[asdict(one) for one in history],
            trying=None,
        )
        for old in list(order)[:-KEEP]:
            self._discard(old)

    def _discard(self, release: Release) -> None:
        """Remove the image or the folder of a release, unless an environment of this host needs it."""
        if release.image not in self._needed():
            self.engine.drop(release)

    def _needed(self) -> set[str]:
        """The images that environments of this host may start."""
        files = [HOME / name / "state.json" for name in ENVIRONMENTS]
        states = {file.parent.name: recorded(file) for file in files if file.exists()}
        needed = {one["image"] for state in states.values() for one in state["kept"]}
        # Another environment may be starting one right now.
        tried = [state.get("trying") for name, state in states.items() if name != self.environment]
        return needed | {one["image"] for one in tried if one}

    def audit(self, **entry: Any) -> None:
        """Add a line to the record of who did what, when and why; lines are never changed."""
        entry = {"at": now(), "who": who(), "environment": self.environment, **entry}
        _audit_log.append(self.folder / AUDIT, json.dumps(entry, sort_keys=True).encode(), mode=0o644)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One at a time; the system takes the lock back from one that was killed.

        Raises:
            DeployInProgressError: If another deployment to this environment is in progress.
        """
        holder = f"by {who()}, process {os.getpid()}, since {now()}"
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_locks.locked(self.folder / "lock", wait=False, holder=holder))
            except _locks.HeldError as error:
                raise DeployInProgressError(
                    f"{self.environment} is being deployed already ({error.holder or 'just now'}). "
                    "Wait until that is done, then do it again"
                ) from None
            yield

    # ---------------------------------------------------------------------------------------------- What is done

    def _slots(self, colour: str, replicas: int) -> list[Slot]:
        return [place for place in self.places if place.colour == colour][:replicas]

    @staticmethod
    def _addresses(slots: list[Slot]) -> list[str]:
        return [f"127.0.0.1:{slot.port}" for slot in slots]

    def settle(self) -> None:
        """Bring everything to what the state says: what a deploy that failed or was killed left is ended."""
        live = self.live
        answering = self._slots(live.colour, live.replicas) if live else []
        for slot in answering:
            if not self.engine.alive(slot.name):
                assert live is not None
                self._start(live.release, slot)
        weights = share([slot.name for slot in answering], [], 100)
        self._run_proxy(weights)
        self.proxy.shift(weights)
        self._end([slot for slot in self.places if slot not in answering])

    def _run_proxy(self, weights: Mapping[str, int]) -> None:
        """Start the proxy if none runs, and let a running one read a haproxy.cfg that has changed since it started."""
        if not self.engine.proxied:
            if self.engine.alive("proxy"):
                self.engine.quit()
            return
        configuration = hashlib.sha256((DEPLOY / "haproxy.cfg").read_bytes()).hexdigest()
        process = self.proxy.process()
        if process and self._state().get("proxy") == configuration:
            return
        self.proxy.begin(weights)
        if process:
            print("the proxy reads deploy/haproxy.cfg, which has changed since it started", flush=True)
        if not self.engine.reloads:
            process = ""
        begun = asked = time.monotonic()
        (self.engine.reload if process else self.engine.serve)()
        while self.proxy.process() in ("", process):
            moment = time.monotonic()
            if moment - begun > 15 or self.engine.ended("proxy"):
                log = self.engine.log("proxy")
                if not process:
                    self.engine.quit()  # or it would restart again and again
                raise DeployError(f"the proxy does not start at {self.settings['LISTEN']}:\n{log}")
            if process and moment - asked > 2:  # a proxy that has just started may miss a signal
                asked = moment
                self.engine.reload()
            time.sleep(0.05)
        self._write(proxy=configuration)

    def _end(self, places: list[Slot]) -> None:
        """Let replicas finish what they were asked, then end them."""
        present = self.engine.there()
        there = [slot for slot in places if slot.name in present]
        if not there:
            return
        names = [slot.name for slot in there]
        if not self.proxy.drain(names, self.limits.drain_seconds):
            print(f"note: {', '.join(names)} still answers after {self.limits.drain_seconds:g} s, and is ended")
        for slot in there:
            self.engine.stop(slot)
        self.proxy.retire(names)

    def _start(self, release: Release, slot: Slot) -> None:
        """Start a replica and wait until it is ready."""
        self.engine.start(release, slot)
        begun = looked = time.monotonic()
        while not rollout_checks.is_ready(f"127.0.0.1:{slot.port}"):
            time.sleep(0.1)
            moment = time.monotonic()
            if moment - looked < 1:  # to ask an engine takes the processor from what starts
                continue
            looked = moment
            why = "ended" if self.engine.ended(slot.name) else ""
            if not why and moment - begun > self.limits.ready_seconds:
                why = f"is not ready after {self.limits.ready_seconds:g} s (READY_SECONDS)"
            if why:
                raise DeployError(f"{release} on {slot.name} {why}. It said last:\n{self.engine.log(slot.name)}")

    def _enter(self, release: Release, slot: Slot, known: bool) -> None:
        """Start a replica and run its smoke test."""
        self._start(release, slot)
        try:
            self._smoke(f"127.0.0.1:{slot.port}", release, slot, live=False, known=known)
        except WrongError as error:
            raise WrongError(f"{release} on {slot.name}: {error}") from error

    def _smoke(self, address: str, release: Release, slot: Slot, *, live: bool, known: bool = False) -> bool:
        """Run the smoke test of a release.

        Args:
            address: host and port of the replica or the proxy.
            release: the expected release.
            slot: the slot of one of its replicas.
            live: whether callers use that address: a busy service then passes if it is the expected release.
            known: whether the release was live before: a busy service then passes.

        Returns:
            Whether the predictions were compared; False if the service was busy.

        Raises:
            WrongError: If it does not pass.
        """
        expected = self.engine.read(release, slot, "expected.json")
        try:
            rollout_checks.smoke(
                address, release.version, release.digest, expected, rollout_checks.headers(self.settings)
            )
        except BusyError as error:
            if not (known or (live and error.identified)):
                raise
            checked = "only its version was checked" if error.identified else "it was not checked"
            print(f"note: smoke test of {address}: {error}; {checked}", flush=True)
            return False
        return True

    def _stages(self, new: list[Slot], old: list[Slot]) -> Iterator[tuple[list[Slot], dict[str, int]]]:
        """Which replicas have to be there, and then with which weights all of them answer."""
        into, out = ([slot.name for slot in some] for some in (new, old))
        if not old:
            yield new, share(into, [], 100)
        elif self.limits.steps == [100] and len(new) > 1:
            for done in range(1, len(new) + 1):  # replica by replica
                staying = out[done * len(out) // len(new) :]
                yield [new[done - 1]], share(into[:done], staying, round(100 * done / (done + len(staying))))
        else:
            for place, step in enumerate(self.limits.steps):
                yield new if place == 0 else [], share(into, out, step)

    def replace(self, release: Release, action: str = "deploy") -> list[Slot]:
        """Let a release take over from the live one.

        Args:
            release: The new one.
            action: "rollback" if it was live before: then it may be slow, and fail as often as the release that it replaces.

        Returns:
            The slots of the previous release, which has no new requests now.

        Raises:
            DeployError, WrongError, EngineError, ProxyError: If it may not; `settle` then restores the previous release.
        """
        live, limits = self.live, self.limits
        colour = _ports.COLORS[0] if live is None else next(one for one in _ports.COLORS if one != live.colour)
        new = self._slots(colour, limits.replicas)
        old = self._slots(live.colour, live.replicas) if live else []
        replaced = self._counters(old)
        known = action == "rollback" or (live is not None and live.release == release)
        inside: list[Slot] = []
        for starting, weights in self._stages(new, old):
            for slot in starting:
                self._enter(release, slot, known)
            inside += starting
            self.proxy.shift(weights)
            percent = round(100 * sum(weights[slot.name] for slot in inside) / sum(weights.values()))
            reference = self._reference(replaced)
            seen = canary.watch(
                canary.Replicas(self._addresses(inside)),
                limits.step_seconds,
                self._bounds(known, reference),
                None if known else reference,
            )
            few = "" if seen.judged >= limits.bounds.min_requests else ", too few to judge them"
            print(
                f"  {colour} answers {percent} %: {seen.judged:.0f} requests, {seen.errors:.0f} errors{few}", flush=True
            )
        if self.engine.proxied:
            self._smoke(self.public, release, new[0], live=True, known=known)
        self._remember(Live(colour, len(new), release, now()), action)
        return old

    def _counters(self, slots: list[Slot]) -> canary.Replicas | None:
        """The counters of the release that is replaced; None if it does not return them."""
        try:
            return canary.Replicas(self._addresses(slots)) if slots else None
        except WrongError:
            return None

    def _reference(self, replaced: canary.Replicas | None) -> canary.Counted | None:
        """What the replaced release counted since the deployment began, or since it started if that is too little."""
        if replaced is None:
            return None
        try:
            recent = replaced.since()
            return recent if recent.judged >= self.limits.bounds.min_requests else replaced.ever()
        except WrongError:
            return None

    def _bounds(self, known: bool, reference: canary.Counted | None) -> canary.Bounds:
        """The bounds of a step; a release that was live before may fail as often as the replaced one, and has no other bound."""
        bounds = self.limits.bounds
        if not known:
            return bounds
        failing = reference.errors / reference.processed if reference and reference.processed else 0.0
        return replace(bounds, max_seconds=math.inf, max_errors=max(bounds.max_errors, failing))

    def go(self, action: str, release: Release, why: str) -> None:
        """Replace the live release under a lock, and record the result in the audit log.

        Raises:
            DeployError: If the release does not go live; the previous one is live.
        """
        with self.alone():
            begun = time.monotonic()
            self.settle()
            self._clean(release)
            live = self.live
            before = live.release if live else None
            if before == release and not self.settings.get("FORCE"):
                print(f"{release} answers in {self.environment} already; FORCE=1 starts it anew")
                return
            print(f"{self.environment}, in {self.engine}: {release}", flush=True)
            entry = {"action": action, "why": why, "from": asdict(before) if before else None, "to": asdict(release)}
            self._write(trying=asdict(release))
            try:
                old = self.replace(release, action)
            except BaseException as error:
                said = str(error) if isinstance(error, FAULTS) else f"stopped ({type(error).__name__})"
                with contextlib.suppress(*FAULTS):
                    self.settle()
                    self._clean()
                self.audit(**entry, result=f"failed: {said}", seconds=round(time.monotonic() - begun, 1))
                stays = f"{before} goes on answering" if before else "nothing answers, as before"
                raise DeployError(f"{said}\n{stays} in {self.environment}") from error
            seconds = round(time.monotonic() - begun, 1)
            self.audit(**entry, result="live", seconds=seconds)
            self._end(old)
            print(f"{release} answers at http://{self.public} after {seconds:g} s")

    def _clean(self, wanted: Release | None = None) -> None:
        """Remove what a deployment that failed or was killed left of its release, unless that one is wanted now."""
        tried = self._state().get("trying")
        if tried is not None:
            self._write(trying=None)
            if Release(**tried) != wanted:
                self._discard(Release(**tried))

    def back(self, version: int | None, why: str) -> None:
        """Bring back the release that was live before, or the last one of a version, as it was.

        Args:
            version: Number of the version; None for the release that was live before.
            why: Reason for the audit log.

        Raises:
            DeployError: If there is none, or it is no longer on this host.
        """
        live = self.live
        if live is None:
            raise DeployError(f"nothing is deployed in {self.environment}")
        former = [one for one in self.history if one != live.release]
        if version is not None:
            left = [one for one in self.kept if one != live.release and one not in former]
            former = [one for one in [*left, *former] if one.version == version]
        if version == live.release.version and not former:
            print(f"{live.release} answers in {self.environment} already")
            return
        if not former or not self.engine.has(former[-1]):
            what = f"version {version}" if version else f"the release that was live before {live.release}"
            raise DeployError(
                f"{what} is not on this host any more, or never was. `make deploy VERSION=... ENV={self.environment}` makes it again"
            )
        self.go("rollback", former[-1], why)

    def smoke(self) -> None:
        """Run the smoke test of the live release at the address that callers use.

        Raises:
            DeployError: If nothing is deployed.
            WrongError: If it does not pass.
        """
        live = self.live
        if live is None:
            raise DeployError(f"nothing is deployed in {self.environment}")
        try:
            passes = self._smoke(self.public, live.release, self._slots(live.colour, 1)[0], live=True)
        except WrongError as error:
            raise WrongError(f"{live.release} at http://{self.public}: {error}{self._missing(live)}") from error
        if passes:
            print(f"{live.release} answers its example rows at http://{self.public} as it should")

    def end(self, why: str) -> None:
        """End all of it; what was kept stays."""
        with self.alone():
            live = self.live
            for slot in self.places:
                self.engine.stop(slot)
            self.engine.quit()
            self._clean()
            self._write(live=None)
            if live:
                self.audit(action="end", why=why, **{"from": asdict(live.release)}, to=None, result="ended", seconds=0)

    def __str__(self) -> str:
        live = self.live
        if live is None:
            return f"{self.environment}: nothing is deployed"
        kept = ", ".join(str(one.version) for one in self.history if one != live.release) or "none"
        return (
            f"{self.environment}: {live.release} at http://{self.public}, {live.colour}, {live.replicas} of it, since {live.since}; "
            f"kept to go back to: {kept}{self._missing(live)}"
        )

    def _missing(self, live: Live) -> str:
        """What is wrong with the replicas of the live release, as the end of a sentence; empty if all of them are ready."""
        slots = self._slots(live.colour, live.replicas)
        missing = [slot.name for slot in slots if not rollout_checks.is_ready(f"127.0.0.1:{slot.port}")]
        if not missing:
            return ""
        return f"; not ready: {', '.join(missing)}. `make deploy ENV={self.environment} VERSION={live.release.version}` starts what has ended"


OURS = ("API_KEYS", "MASK_KEY", "VERIFY_KEY", "SHADOW_DIR", "SMOKE_TOKEN", "STEPS", "STEP_SECONDS", "READY_SECONDS", "DRAIN_SECONDS", "FORCE",
        "OIDC_ISSUER", "OIDC_AUDIENCE", "PROXY", "PROXY_IMAGE", "CANARY_MIN_REQUESTS", "CANARY_MAX_INCREASE")  # fmt: skip
"""What the host's environment says beside the names of deploy/*.env."""
FAULTS = (DeployError, WrongError, EngineError, ProxyError, urllib.error.URLError)


# ------------------------------------------------------------------------------------------------------- Commands


def follow(left: int, now_is: int, why: str) -> None:
    """After the registry went back: every environment here that answers with the version that it left goes back, too.

    Raises:
        DeployError: If one does not.
    """
    for environment in _with(left) if left != now_is else []:
        try:
            Host(environment).back(now_is, why)
        except FAULTS as error:
            raise DeployError(
                f"{error}\nThe registry has gone back to version {now_is}, {environment} has not: "
                f"make deploy VERSION={now_is} ENV={environment}"
            ) from error


def lead(left: int, now_is: int, why: str) -> None:
    """After a promotion: every environment here that answers with the champion before answers with the new one.

    Raises:
        DeployError, EngineError: If one does not; there the version before answers.
    """
    found = _with(left) if left != now_is else []
    if not found:
        print(f"nothing here answers with version {left}; make deploy VERSION={now_is} lets the new champion answer")
    for environment in found:
        host = Host(environment)
        host.go("deploy", made(host, now_is), why)


def _with(version: int) -> list[str]:
    """The environments of this machine that answer with a version."""
    files = {name: HOME / name / "state.json" for name in ENVIRONMENTS}
    lives = {name: recorded(file)["live"] for name, file in files.items() if file.exists()}
    return [name for name, live in lives.items() if live and live["release"]["version"] == version]


def made(host: Host, version: int | None) -> Release:
    """The release of a version, the champion by default, for what an environment runs in."""
    return (image.unpack if host.engine.name == "processes" else image.build)(version)


def act(what: str, given: Mapping[str, str]) -> None:
    """Do what a command says.

    Args:
        what: The command.
        given: ENV, VERSION, IMAGE, WHY; for `follow` and `lead` LEFT and VERSION.
    """
    why = given.get("WHY") or "by hand"
    version = version_number(given)
    if what in ("follow", "lead"):
        assert version is not None
        (follow if what == "follow" else lead)(int(given["LEFT"]), version, why)
        return
    host = Host(given.get("ENV") or "dev")
    if what == "deploy":
        release = image.described(given["IMAGE"]) if given.get("IMAGE") else made(host, version)
        host.go("deploy", release, why)
    elif what == "rollback":
        host.back(version, why)
    elif what == "smoke":
        host.smoke()
    elif what == "status":
        print(host)
    else:
        host.end(why)


def main() -> int:
    """Run a command on a host that has only Python, and return its exit code; after an error the previous release is live."""
    parser = argparse.ArgumentParser(prog="python -m copier_mlops.deploy.blue_green", description=__doc__)
    parser.add_argument("what", choices=["deploy", "rollback", "follow", "lead", "smoke", "status", "end"])
    what = parser.parse_args().what
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if what == "status":  # its reader may have read enough; whatever changes something has to end in order
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    given = dict(os.environ)
    try:
        act(what, given)
    except (*FAULTS, ValueError) as error:
        return print_error(error, error.exit_code if isinstance(error, ProjectError) else _exit_codes.ERROR)
    return _exit_codes.DONE


if __name__ == "__main__":
    sys.exit(main())
