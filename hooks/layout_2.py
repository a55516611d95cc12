"""The layout of release 2: where each file and module of release 1 went, and the texts that name them.

Standard library only, Python 3.10. Every function returns a new text and changes no file.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

RUNTIME = "copier_mlops"
USER = {"core/schema": "schema", "core/features": "features", "core/model": "model", "io/source": "source"}
"""The user's modules, relative to the package."""

# Modules of the package, then those of ci/: folder of the runtime, then "old=new" for each module.
PACKAGE_MODULES = {
    "": "__main__=__main__ cli=cli params=params settings=settings environment=_environment faults=_user_errors "
    "interruption=_interruption io.progress=_progress io.audit=_audit_log",
    "adopt": "core.profile=profile core.adoption=inference core.draft=codegen stages.adopt=adopt",
    "automation": "core.gauges=exporter core.policy=policy serving.deciding=policy_engine serving.receiver=alert_webhook "
    "serving.acting=action_runner serving.connections=connections serving.webhook=webhook_messages flows.act=actions "
    "io.supervisor=supervisor",
    "backtest": "core.replay=fault_injection stages.replay=sandbox flows.replay=driver flows.life=strategy "
    "core.lives=report io.replayed=point_in_time_source io.service=service_client io.prometheus=prometheus",
    "bundle": "core.reference=reference io.bundle=bundle io.isolated=isolated io.exported=serving_bundle "
    "io.signing=signing core.convert=onnx_export core.counterparts=onnx_converters core.explain=shapley",
    "contract": "core.contract=contract core.values=parsing core.personal=pii core.examples=synthetic core.units=units",
    "data": "io.readers=readers io.tables=tables io.parquet=parquet io.prediction_log=prediction_log "
    "io.deployed=deployment_logs",
    "evaluation": "core.metrics=metrics core.gate=gate core.report=report",
    "lifecycle": "stages.release=registration stages.review=model_check flows.train=flow_steps "
    "stages.reproduce=reproduce stages.predict=predict stages.forget=erase stages.compare=compare "
    "stages.history=history",
    "monitoring": "core.drift=drift core.window=drift_histograms core.differences=drift_statistics "
    "core.columns=drift_univariate core.together=drift_multivariate core.labels=label_join io.labels=label_store "
    "stages.label=import_labels core.logged=log_frames core.seen=log_aggregator core.performance=performance "
    "core.estimate=performance_estimation core.contest=challenger stages.contest=candidates core.verdict=verdict "
    "stages.monitor=monitor core.look=report core.production=report_html io.looks=monitor_runs",
    "pipeline": "stages.resolve=run_config stages.ingest=ingest stages.validate=validate stages.features=features "
    "stages.split=split stages.train=train stages.evaluate=evaluate core.search=search core.season=season",
    "registry": "io.registry=mlflow_registry io.database=database io.moving=store_migration",
    "serving": "stages.bundle=make_bundle stages.answering=batch_bundle serving.answering=bundle_loader "
    "serving.compacting=compact_log serving.reading=request_parser serving.batch=batch serving.noting=batch_logging "
    "serving.questions=batch_input io.parts=partitioned_output flows.score=batch_flow flows.scoring=batch_deployment "
    "serving.hybrid=prediction_cache serving.precompute=precompute serving.access=auth "
    "serving.provider=identity_provider serving.batching=request_batcher serving.described=openapi "
    "serving.explaining=explanations serving.metrics=metrics serving.online=online serving.predicting=predict_endpoint "
    "serving.protocol=http_protocol serving.workers=workers serving.stream=stream io.brokers=brokers "
    "serving.shadow=shadow",
    "versioning": "io.dvc=dvc io.git=snapshot",
}
CI_MODULES = {
    "": "environment=_environment",
    "automation": "launch=launch supervision=supervision targets=scrape_targets up=monitoring_stack",
    "ci": "base=base comment=pr_comment gate=required_jobs standards=quality_ratchet ratchet=code_ratchet "
    "limits=model_limits workflows=workflow_ratchet audit=security_scan tracked=tracked_files notebooks=notebooks "
    "lock=lockfile repository=repository",
    "deploy": "asking=rollout_checks back=registry_rollback canary=canary deploy=blue_green engines=runtimes image=image "
    "proxy=proxy remote=ssh replicas=scale machine=host",
    "updates": "doctor=doctor merge=three_way_merge origin=upstream propose=update_pr update=update",
}
COMMANDS = (
    "resolve ingest validate features train evaluate adopt forget pipeline review retrain run pull push predict schedule ui "
    "promote rollback verify history compare reproduce move-registry"
)
TOP_NAMES = ("ProjectError", "UnreachableError")  # defined by the package's __init__.py until 1.3
LINE_LENGTH = 120
TEXTS = (".cfg", ".ini", ".ipynb", ".json", ".md", ".mk", ".py", ".rst", ".sh", ".toml", ".txt", ".yaml", ".yml")


def _table(groups: Mapping[str, str]) -> dict[str, str]:
    return {
        old: f"{RUNTIME}.{folder}.{new}" if folder else f"{RUNTIME}.{new}"
        for folder, pairs in groups.items()
        for old, _, new in (pair.partition("=") for pair in pairs.split())
    }


@dataclass
class Layout:
    """The old and the new names of one project.

    Attributes:
        package: the name of the project's package.
        modules: the new dotted name of each old module. `ci.<name>` are the modules of the folder ci/.
    """

    package: str
    modules: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        package = self.package
        self.modules = {
            f"{package}.api": RUNTIME,
            f"{package}.project": RUNTIME,
            f"{package}.flows.train.train": f"{package}.flow.train",
            **{f"{package}.{old}": new for old, new in _table(PACKAGE_MODULES).items()},
            **{f"{package}.{old.replace('/', '.')}": f"{package}.{new}" for old, new in USER.items()},
            **{f"ci.{old}": new for old, new in _table(CI_MODULES).items()},
        }

    # ------------------------------------------------------------------------------------------------- Paths

    def user_files(self) -> dict[str, str]:
        """Return the new path of each file of the user that moves."""
        moves = {f"{old}.py": f"{new}.py" for old, new in USER.items()} | {"core/contract.csv": "contract.csv"}
        return {f"src/{self.package}/{old}": f"src/{self.package}/{new}" for old, new in moves.items()}

    def module_of(self, path: str) -> str:
        """Return the dotted name under which a file was imported; empty if it is not Python."""
        parts = PurePosixPath(path)
        if parts.suffix != ".py":
            return ""
        names = list(parts.with_suffix("").parts)
        if names[0] == "src":
            del names[0]
        return ".".join(names[:-1] if names[-1] == "__init__" and len(names) > 1 else names)

    def new_path(self, path: str) -> str:
        """Return the path that a file has in release 2; its old one if it does not move, empty if it has none."""
        if path in self.user_files():
            return self.user_files()[path]
        module = self.module_of(path)
        if module in (f"{self.package}.api", f"{self.package}.project"):
            return ""
        new = self.modules.get(module, "")
        if new:
            return f"src/{new.replace('.', '/')}.py"
        inside = path.startswith(("ci/", f"src/{self.package}/")) and path != f"src/{self.package}/__init__.py"
        return "" if inside else path

    # ------------------------------------------------------------------------------------------------- Texts

    def text(self, text: str) -> str:
        """Return a text with the new names of modules, files and commands, wherever they are."""
        package = re.escape(self.package)
        name = rf"(?:{package}|\$\(PACKAGE\)|\$\{{PACKAGE\}})"
        text = re.sub(rf"(?<![\w./-])({name})((?:\.[A-Za-z_]\w*)+)", self._dotted, text)
        text = re.sub(r"((?:-m[ =]+|-m\", *\"|-m', *'|[\"']))(ci\.[a-z]+)(?![\w.]*\()", self._ci, text)
        text = re.sub(rf"src/({name})/((?:[\w]+/)*\w+\.(?:py|csv))", self._path, text)
        text = re.sub(r"(?<![\w./-])(?:core|io)/((?:schema|features|model|source)\.py|contract\.csv)\b", r"\1", text)
        text = re.sub(r"(?<![\w./-])ci/[a-z]+\.py", lambda match: self.new_path(match[0]) or match[0], text)
        text = re.sub(rf"-m {package}(?=\s)", f"-m {RUNTIME}", text)
        text = re.sub(rf"(\.venv/bin/|\$\(BIN\)/|\$\{{BIN\}}/){package}(?![\w.])", r"\1mlops", text)
        commands = "|".join(COMMANDS.split())
        start = r"((?:^|[`;&|(]|cmd:|\$)[ \t@]*(?:- )?[\"']?)"  # where a shell reads the name of a command
        return re.sub(rf"{start}{package} (?=(?:{commands})(?![\w.]))", r"\1mlops ", text, flags=re.M)

    def _dotted(self, match: re.Match[str]) -> str:
        shown, words = match[1], match[2][1:].split(".")
        for count in range(len(words), 0, -1):
            new = self.modules.get(".".join([self.package, *words[:count]]))
            if new:
                head, _, rest = new.partition(".")
                new = f"{shown}.{rest}" if head == self.package else new
                return ".".join([new, *words[count:]])
        return match[0]

    def _ci(self, match: re.Match[str]) -> str:
        return match[1] + self.modules.get(match[2], match[2])

    def _path(self, match: re.Match[str]) -> str:
        new = self.new_path(f"src/{self.package}/{match[2]}")
        return new.replace(f"src/{self.package}/", f"src/{match[1]}/", 1) if new else match[0]

    def file(self, path: str, text: str) -> str:
        """Return the text of a file with the new names; of Python and notebooks the imports, too."""
        if path.endswith(".py"):
            return self.python(text, self.module_of(path), self.module_of(self.new_path(path) or path))
        if path.endswith(".ipynb"):
            return self._notebook(text)
        return self.text(text)

    def _notebook(self, text: str) -> str:
        try:
            notebook = json.loads(text)
            cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        except (ValueError, KeyError, TypeError):
            return self.text(text)
        changed = False
        for cell in cells:
            source = "".join(cell["source"])
            new = self._cell(source)
            if new != source:
                cell["source"], changed = new.splitlines(keepends=True), True
        return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n" if changed else text

    def _cell(self, source: str) -> str:
        """A cell of a notebook: lines for IPython alone are comments while the rest is read as Python."""
        mark = "pass  # only for IPython: "
        lines = [re.sub(r"^(\s*)(?=[%!])", rf"\1{mark}", line) for line in source.splitlines(keepends=True)]
        return self.python("".join(lines), "").replace(mark, "")

    # ------------------------------------------------------------------------------------------------- Imports

    def python(self, text: str, module: str, new_module: str = "") -> str:
        """Return a Python text with the new imports.

        Args:
            text: the text; if Python cannot parse it, only names with dots are replaced.
            module: its dotted name in release 1, from which relative imports count.
            new_module: its dotted name in release 2.
        """
        if re.search(r"^\s*import ci\.", text, re.M):
            text = re.sub(r"(?<![\w./\"'-])ci\.[a-z]+", lambda match: self.modules.get(match[0], match[0]), text)
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            return self.text(text)
        lines = text.splitlines(keepends=True)
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line))

        def offset(line: int, column: int) -> int:
            return starts[line - 1] + len(lines[line - 1].encode()[:column].decode(errors="ignore"))

        edits = []
        whole_project = False
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom):
                continue
            new = self._import(node, module, new_module or module)
            if new is None:
                continue
            whole_project = whole_project or any(one.endswith("copier_mlops as project") for one in new)
            start, end = offset(node.lineno, node.col_offset), offset(node.end_lineno or 0, node.end_col_offset or 0)
            alone = text[starts[node.lineno - 1] : start].strip() == "" and not text[end:].lstrip(" ").startswith(";")
            joint = "\n" + " " * node.col_offset if alone else "; "
            wrapped = [_wrapped(one, node.col_offset) if alone else one for one in new]
            edits.append((start, end, joint.join(wrapped)))
        done = text
        for start, end, new_text in sorted(edits, reverse=True):
            done = done[:start] + new_text + done[end:]
        if whole_project and re.search(r"\bproject\.CONTRACT\b", done):
            done = re.sub(r"\bproject\.CONTRACT\b", "CONTRACT", done)
            line = f"from {self.package}.schema import CONTRACT"
            if not re.search(rf"^{re.escape(line)}$", done, re.M):
                done = re.sub(
                    r"^import copier_mlops as project$",
                    f"import copier_mlops as project\n{line}",
                    done,
                    count=1,
                    flags=re.M,
                )
        return self._tidy(self.text(done), done != text)

    def _import(self, node: ast.ImportFrom, module: str, new_module: str) -> list[str] | None:
        """The statements that take the place of one; None if it stays as it is."""
        base = node.module or ""
        if node.level:
            above = module.split(".")[: -node.level]
            if not above:
                return None
            base = ".".join([*above, *([node.module] if node.module else [])])
        if base.split(".")[0] not in (self.package, "ci", "tests"):
            return None
        statements: dict[str, list[str]] = {}
        whole = []
        for alias in node.names:
            target, name = self._target(base, alias.name)
            local = alias.asname or alias.name
            if not target:
                whole.append(f"import {name}" if local == name else f"import {name} as {local}")
                continue
            target = _relative(target, new_module) if node.level else target
            statements.setdefault(target, []).append(name if local == name else f"{name} as {local}")
        new = whole + [f"from {target} import {', '.join(names)}" for target, names in statements.items()]
        same = f"from {'.' * node.level}{node.module or ''} import " + ", ".join(
            alias.name if alias.asname is None else f"{alias.name} as {alias.asname}" for alias in node.names
        )
        return None if new == [same] else new

    def _target(self, base: str, name: str) -> tuple[str, str]:
        """From where a name is imported now, and its name there; from nowhere if it is a module without a dot."""
        full = f"{base}.{name}"
        if full in self.modules:
            parent, _, leaf = self.modules[full].rpartition(".")
            return parent, leaf
        if full == f"{self.package}.project.CONTRACT":
            return f"{self.package}.schema", name
        if base == self.package and name in TOP_NAMES:
            return RUNTIME, name
        if full == "tests.sample":  # tests/ is no package any more: pytest finds its modules by their names
            return "", "sample"
        if base == "tests.sample":
            return "sample", name
        return self.modules.get(base, base), name

    def _tidy(self, text: str, changed: bool) -> str:
        """Sort the imports of this project where they changed, as the project's linter wants them."""
        if not changed:
            return text
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError):
            return text
        lines = text.splitlines(keepends=True)
        blocks: list[list[ast.stmt]] = []
        for node in body:
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            near = blocks and (blocks[-1][-1].end_lineno or 0) + 1 == node.lineno
            blocks[-1].append(node) if near else blocks.append([node])
        for block in reversed(blocks):
            first, last = block[0].lineno - 1, block[-1].end_lineno or 0
            said = "".join(lines[first:last])
            if "#" in said or ";" in said or not all(self._ours(node) for node in block):
                continue
            new = _sorted(block)
            lines[first:last] = [new if said.endswith("\n") else new.rstrip("\n")]
        return "".join(lines)

    def _ours(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.ImportFrom):
            return bool(node.level) or (node.module or "").split(".")[0] in (self.package, RUNTIME)
        names = node.names if isinstance(node, ast.Import) else []
        return all(alias.name.split(".")[0] in (self.package, RUNTIME) for alias in names)


def _relative(target: str, module: str) -> str:
    """A module as another one of the same package names it."""
    here, there = module.split(".")[:-1], target.split(".")
    if not here or here[0] != there[0]:
        return target
    common = 0
    while common < min(len(here), len(there)) and here[common] == there[common]:
        common += 1
    return "." * (len(here) - common + 1) + ".".join(there[common:])


def _wrapped(statement: str, indent: int) -> str:
    """A statement in as many lines as the formatter gives it."""
    if indent + len(statement) <= LINE_LENGTH or not statement.startswith("from "):
        return statement
    head, _, names = statement.partition(" import ")
    space = " " * indent
    return f"{head} import (\n" + "".join(f"{space}    {name},\n" for name in names.split(", ")) + f"{space})"


def _sorted(block: list[ast.stmt]) -> str:
    """Imports as the linter sorts them: whole modules, names of modules, then relative ones in a section of their own."""
    whole, names, local = [], dict[str, list[str]](), dict[str, list[str]]()
    for node in block:
        if isinstance(node, ast.Import):
            whole += [f"import {ast.unparse(alias)}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            group = local if node.level else names
            group.setdefault("." * node.level + (node.module or ""), []).extend(map(ast.unparse, node.names))

    def ordered(group: Mapping[str, list[str]], key: Callable[[str], Any]) -> list[str]:
        return [
            _wrapped(f"from {name} import {', '.join(sorted(set(group[name]), key=_rank))}", 0) + "\n"
            for name in sorted(group, key=key)
        ]

    def depth(name: str) -> tuple[int, str]:
        return -(len(name) - len(name.lstrip("."))), name.lower()

    absolute = [f"{one}\n" for one in sorted(set(whole), key=str.lower)] + ordered(names, str.lower)
    relative = ordered(local, depth)
    return "".join([*absolute, *(["\n"] if absolute and relative else []), *relative])


def _rank(name: str) -> tuple[int, str]:
    """Constants, classes, then the rest."""
    word = name.split(" ")[0]
    kind = 0 if word.isupper() and len(word) > 1 else 1 if word[:1].isupper() else 2
    return kind, name.lower()
