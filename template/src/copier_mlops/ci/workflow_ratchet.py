"""What weakens the workflows: failures that are ignored, gates that no longer run, secrets that are printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from copier_mlops.ci.base import Base, Finding, read

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
    r"\bmake\b[^|;&\n]*\s-(?:-ignore-errors|-keep-going|-dry-run|-just-print|-recon|-touch|-question|-environment-overrides|-(?:old|assume-old|new|assume-new|what-if)[\w-]*|[a-z]*[eiknoqt][a-z]*)\b": "gives make an option that hides failures",
    r"(?:^|[;\n])\s*exit(?:\s+0)?\s*[;\n][\s\S]*\bmake\b": "ends with success before make",
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
STEERS = (
    r"(?:PYTEST_\w+|COVERAGE?_\w+|RUFF_\w+|MYPY\w*|G?N?U?MAKEFLAGS|MFLAGS|MAKEFILES|ONLY|SKIP|BASH_ENV|CI|PATH"
    r"|PYTHON(?:OPTIMIZE|PATH|HOME|STARTUP|WARNINGS|BREAKPOINT))"
)
STEERING = re.compile(rf"^{STEERS}$")
"""Variables that make a gate check less."""
GATE = re.compile(r"\bmake\b[^|;&\n]*\s(?:check|check-lock|standards|test|test-model|review|notebook|audit|pass)\b")
WHAT_IS_CHECKED = r"(?:tests|ci|src|make|\.github|pyproject\.toml|params\.yaml|champion\.json|uv\.lock|dvc\.lock|\w*[Mm]akefile|\w+\.mk)"
MISLED = {
    rf"(?:^|[;&|({{\n]|\bexport\b|\benv\b)\s*(?:\w+=\S*\s+)*{STEERS}=": "sets a variable that changes what a gate checks",
    r"\bGITHUB_(?:ENV|PATH)\b": "changes the environment of later steps",
    r"(?:^|[;&|({\n])\s*(?:cd|pushd)\s[\s\S]*\bmake\b": "changes the folder before make",
    r"\b(?:sed\b[^;&|\n]*\s(?:-\w*i|--in-place)|perl\s+-\w*i|git\s+(?:checkout|switch|restore|reset|apply|rm|revert|stash)\b|patch\s)": "changes files before a gate reads them",
    rf"\b(?:rm|mv|cp|ln|chmod|truncate|tee|unlink)\s[^;&|\n]*(?<![\w.-]){WHAT_IS_CHECKED}\b": "changes files before a gate reads them",
    rf">\s*[\"']?(?:\./)?{WHAT_IS_CHECKED}\b": "changes files before a gate reads them",
}  # fmt: skip
"""Commands in a job with a gate that lead the gate to other files or settings."""
INERT = re.compile(r"(?:^|(?<=[\s;&|({]))(?:#[^\n]*|(?:echo|printf|true|false|:)(?=[\s;&|)]|$)[^;&|\n]*)", re.M)
"""Text of a script that runs nothing: comments, and what is printed."""
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
            if _has_gate(job):
                found |= {f"{label}: {what}" for what in _misled(command, step, job, workflow)}
            printing = printed(json.dumps(step.get("with", {}), default=str))
            found |= {f"{label}: {what}" for what in printing if "context" in what}
    return found


def _has_gate(job: Mapping[str, Any]) -> bool:
    return any(GATE.search(str(step.get("run", ""))) for step in steps(job))


def _misled(command: str, step: Mapping[str, Any], *around: Mapping[str, Any]) -> set[str]:
    """Return how a step leads the gates of its job to other files or settings."""
    found = {what for shape, what in MISLED.items() if re.search(shape, command)}
    if str(step.get("uses", "")).startswith("actions/checkout@") and isinstance(step.get("with"), dict):
        found |= {f"checks out another {key}" for key in ("ref", "repository", "path") if key in step["with"]}
    defaults = [part["defaults"].get("run") for part in around if isinstance(part.get("defaults"), dict)]
    folders = [part.get("working-directory") for part in (step, *defaults) if isinstance(part, dict)]
    if "make" in command:
        found |= {f"runs in the folder {folder}" for folder in folders if folder}
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
            for target in re.findall(r"\bmake\b([^|;&\n]*)", INERT.sub("", str(step.get("run", "")))):
                found.add(f"job {name} runs make {target.strip()} {_condition(step)}".strip())
            for module in re.findall(r"\bpython\d*\s+-m\s+(ci\.\w+)", INERT.sub("", str(step.get("run", "")))):
                found.add(f"job {name} runs {module} without make {_condition(step)}".strip())
            environment = step.get("env")
            for key in ("BASE", "RESULTS"):
                if isinstance(environment, dict) and key in environment:
                    found.add(f"job {name} gives {key} {environment[key]}")
            given = step.get("with")
            if isinstance(given, dict) and str(given.get("fetch-depth")) == "0":
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


def posing(before: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """Return the jobs that a branch rule can take for the job `pass`, by their names."""
    known = jobs(now)
    posing = {name for name, job in known.items() if name != PASS and str(job.get("name", "")).strip() == PASS}
    if PASS in known and PASS not in jobs(before):
        posing.add(PASS)
    return {f"job {name} has the name of the required job `pass`" for name in posing}


def weakened(before: str | None, now: str | None) -> list[str]:
    """Return one sentence for each weakness that a workflow did not have before."""
    if now is None:
        return ["it is gone"]
    was, here = load(before), load(now)
    found = weak(here) - weak(was)
    found |= unrequired(here) - unrequired(was)
    found |= posing(was, here) - posing(was, was)
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
