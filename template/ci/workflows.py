"""What weakens the workflows: failures that are ignored, gates that no longer run, secrets that are printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from ci.base import Base, Finding, read

FOLDER = ".github/workflows/"
PASS = "pass"  # the job that a branch rule requires

IGNORED = {
    r"\|\|\s*(?:true\b|:|exit\s+0|echo\b|printf\b|/bin/true)": "ignores a failure with ||",
    r"\bmake\b[^;\n]*\|\|(?!\s*(?:exit\s+\d|false\b|true\b|:|echo\b|printf\b|/bin/true))": "ignores a failure of make with ||",
    r"\bmake\b[^;|\n]*&&[^\n]*\n\s*[^\s#]": "ignores a failure of make before &&, as another line follows",
    r"(?:[;\n]|\btrap\b[^\n]*['\"])\s*(?:true|:|exit\s+0)\s*(?:[\n)}'\"]|$)": "ends with success whatever happened before",
    r"\bset\s+(?:\+[a-z]*e|\+o\s+errexit)": "continues after a failure (set +e)",
    r"(?:\b(?:if|elif|while|until)|(?:^|[\s;&|({])!)\s+[!({\s]*(?:(?:\S+=\S*|env|time|command|nice)\s+)*make\b": "takes a failure of make for a condition",
    r"\bmake\b[^|;&\n]*\|(?!\|)": "loses the result of make in a pipe",
    r"\bmake\b[^|;&\n]*(?<!&)&(?!&)": "starts make in the background",
    r"\bmake\b[^|;&\n]*\s-(?:-ignore-errors|-keep-going|-dry-run|-touch|-question|[a-z]*[iknqt][a-z]*)\b": "gives make an option that hides failures",
}  # fmt: skip
PRINTED = {
    r"(?:^|[\s;&|(`])env(?:\s+-\S+)*\s*(?:$|[|;&>)`])": "prints the environment",
    r"(?:^|[\s;&|(`])printenv\b": "prints the environment",
    r"(?:^|[\s;&|(`])(?:export\s+-p|declare\s+-\w*[px]\w*|typeset\s+-\w*[px]\w*|compgen\s+-\w*[ve]\w*)\s*(?:$|[|;&>)`])": "prints the environment",
    r"(?:^|[;&|(`])\s*set\s*(?:$|[|>])": "prints the environment",
    r"(?:\bset\s+-\w*x|\bset\s+-o\s+xtrace|\b(?:ba)?sh\s+-\w*x)": "prints each command with its secrets (xtrace)",
    r"/proc/[^\s/]+/environ": "reads the environment of a process",
    r"\b(?:cat|less|more|head|tail|base64|xxd|od|strings|sort|tee)\s+(?:-\S+\s+)*(?:\S*/)?\.env\b(?!\.)": "prints .env",
    r"(?i)\b(?:echo|printf|base64|xxd|rev|od)\b[^\n]*\$+[{(]*\s*\w*(?:TOKEN|SECRET|PASSWORD|_KEY)\w*": "prints a secret",
    r"\$\{\{\s*secrets\.": "has a secret in its text instead of in its environment",
    r"(?i)toJSON\(\s*(?:secrets|env|vars|github)\s*\)": "prints a whole context",
    r"\b(?:os\.environ|process\.env)\b(?!\s*[\[.])|\bENV\.to_h|\bgetenv\(\)": "prints the environment",
}  # fmt: skip
STEERING = re.compile(
    r"^(?:PYTEST_\w+|COVERAGE?_\w+|RUFF_\w+|MYPY\w*|G?N?U?MAKEFLAGS|MFLAGS|MAKEFILES|ONLY|SKIP|BASH_ENV)$"
)
"""Variables that make a gate check less."""
SCRIPTS = re.compile(r"(?:^|/)(?:Makefile|GNUmakefile|makefile|Dockerfile[^/]*|[^/]+\.(?:mk|sh|bash|zsh))$")


def printed(text: str) -> set[str]:
    """Return which possible secrets a script prints."""
    found = set()
    for line in text.splitlines():
        bare = re.sub(r"^\s*[@+-]*", "", line)
        if not bare.startswith("#"):
            found |= {f"{what}: {bare.strip()}" for shape, what in PRINTED.items() if re.search(shape, bare)}
    return found


def load(text: str | None) -> dict[str, Any]:
    """Return a workflow; an empty one where it is not YAML, which the linter of the workflows reports."""
    try:
        content = yaml.safe_load(text or "")
    except yaml.YAMLError:
        return {}
    if not isinstance(content, dict):
        return {}
    content["on"] = content.pop(True, content.get("on"))  # YAML 1.1 reads `on` as true
    return content


def jobs(workflow: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = workflow.get("jobs")
    return {name: job for name, job in found.items() if isinstance(job, dict)} if isinstance(found, dict) else {}


def steps(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = job.get("steps")
    return [step for step in found if isinstance(step, dict)] if isinstance(found, list) else []


def weak(workflow: Mapping[str, Any]) -> set[str]:
    """Return one sentence for each weakness of a workflow, whatever the workflow was before."""
    found = _steered("the workflow", workflow)
    for name, job in jobs(workflow).items():
        found |= _steered(f"job {name}", job)
        for step in steps(job):
            command = str(step.get("run", "")).replace("\\\n", " ")
            label = f"job {name}, step {step.get('name') or command.strip().partition(chr(10))[0] or step.get('uses')}"
            found |= _steered(label, step)
            lasting = "pipefail" in command
            found |= {
                f"{label}: {what}"
                for shape, what in IGNORED.items()
                if re.search(shape, command) and not (lasting and "pipe" in what)
            }
            found |= {f"{label}: {what}" for what in printed(command)}
            printing = printed(json.dumps(step.get("with", {}), default=str))
            found |= {f"{label}: {what}" for what in printing if "context" in what}
    return found


def _steered(label: str, part: Mapping[str, Any]) -> set[str]:
    found = set()
    if part.get("continue-on-error") not in (None, False):
        found.add(f"{label}: continue-on-error lets it fail")
    environment = part.get("env")
    if isinstance(environment, dict):
        found |= {f"{label}: {key} changes what a gate checks" for key in environment if STEERING.match(str(key))}
        whole = printed(json.dumps(environment, default=str))
        found |= {f"{label}: {what}" for what in whole if "context" in what}
    defaults = part.get("defaults")
    shell = part.get("shell") or (defaults.get("run", {}).get("shell") if isinstance(defaults, dict) else None)
    if isinstance(shell, str) and shell not in ("bash", "sh", "pwsh", "python"):
        found.add(f"{label}: the shell {shell!r} may go on after a failure")
    return found


def gates(workflow: Mapping[str, Any]) -> set[str]:
    """Return what a workflow runs, requires and listens to; less of that is a weaker workflow."""
    found = set()
    on = workflow.get("on")
    events = on if isinstance(on, dict) else dict.fromkeys([on] if isinstance(on, str) else on or [])
    for event, how in events.items():
        found.add(f"the trigger {event} {json.dumps(how, sort_keys=True, default=str) if how else ''}".strip())
    for name, job in jobs(workflow).items():
        found.add(f"the job {name} {_condition(job)}".strip())
        needs = job.get("needs") or []
        found |= {f"job {name} needs {other}" for other in ([needs] if isinstance(needs, str) else needs)}
        for step in steps(job):
            for target in re.findall(r"\bmake\b([^|;&\n]*)", str(step.get("run", ""))):
                found.add(f"job {name} runs make {target.strip()} {_condition(step)}".strip())
            environment = step.get("env")
            for key in ("BASE", "RESULTS"):
                if isinstance(environment, dict) and key in environment:
                    found.add(f"job {name} gives {key} {environment[key]}")
            given = step.get("with")
            if isinstance(given, dict) and "fetch-depth" in given:
                found.add(f"job {name} fetches the history")
    return found


def _condition(part: Mapping[str, Any]) -> str:
    return f"if {' '.join(str(part['if']).split())}" if "if" in part else ""


def unrequired(workflow: Mapping[str, Any]) -> set[str]:
    """Return the jobs that the job `pass` does not wait for, in the workflow that has one."""
    known = jobs(workflow)
    if PASS not in known:
        return set()
    needs = known[PASS].get("needs") or []
    return {f"job {name} is not in the `needs` of `pass`" for name in known if name != PASS and name not in needs}


def weakened(before: str | None, now: str | None) -> list[str]:
    """Return one sentence for each weakness that a workflow did not have before."""
    if now is None:
        return ["it is gone"]
    was, here = load(before), load(now)
    found = weak(here) - weak(was)
    found |= unrequired(here) - unrequired(was)
    found |= {f"no longer: {what}" for what in gates(was) - gates(here)}
    return sorted(found)


def lowered(base: Base) -> Iterator[Finding]:
    """Find workflows that are weaker than at the base, and scripts that print secrets."""
    for path in base.changed:
        before, now = base.read(path), read(path)
        if path.startswith(FOLDER) and path.endswith((".yml", ".yaml")):
            for text in weakened(before, now):
                yield Finding(path, PurePosixPath(path).name, f"{path}: {text}")
        elif SCRIPTS.search(path) and now is not None:
            for text in sorted(printed(now) - printed(before or "")):
                yield Finding(path, PurePosixPath(path).name, f"{path} {text}")
