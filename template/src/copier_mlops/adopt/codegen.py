"""From a plan to the files that a person would have written: contract, source, features, model, params."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from copier_mlops.adopt.decisions import SEASONS
from copier_mlops.adopt.inference import Plan
from copier_mlops.contract.contract import Column, to_csv

TEMPLATES = Path(__file__).with_name("templates")
WIDE = 40  # columns; with more of them they stand in contract.csv
WIDTH = 120


def _template(name: str) -> str:
    """Return the text of a file of the user's as it is before a table is known."""
    return (TEMPLATES / f"{name}.py.tmpl").read_text(encoding="utf-8")


def schema(plan: Plan) -> dict[str, str]:
    """schema.py and, of a wide table, contract.csv: text by name."""
    left = [decision.name for decision in plan.decisions if decision.role == "left out"]
    said = ""
    if left:
        names = ", ".join(left[:20]) + (f" and {len(left) - 20} more" if len(left) > 20 else "")
        lines = textwrap.wrap(
            f"Left out when the table was adopted: {names}. adoption.json says why.", WIDTH, break_long_words=False
        )
        said = "\n\n" + "\n".join(_plain(line) for line in lines) + "\n"
    opening = f'"""The data contract: what a row is. Yours; `make test` and every stage read it.{said}"""\n\n'
    columns = plan.contract.columns
    if len(columns) > WIDE:
        code = (
            "from pathlib import Path\n\nfrom copier_mlops import Contract, read_contract\n\n"
            'CONTRACT: Contract = read_contract(Path(__file__).with_name("contract.csv"))\n'
        )
        return {"schema.py": opening + code, "contract.csv": to_csv(plan.contract)}
    listed = "".join(f"        {_column(column)},\n" for column in columns)
    classes = ""
    if len(_column(plan.contract[plan.contract.target])) > WIDTH - 9:
        filled = _filled([_quoted(name) for name in plan.contract.classes], "    ")
        classes = f"CLASSES = (\n{filled}\n)  # fmt: skip\n\n"
        listed = listed.replace(_tuple(plan.contract.classes), "CLASSES")
    return {
        "schema.py": f"{opening}from copier_mlops import Column, Contract\n\n{classes}CONTRACT = Contract(\n    (\n{listed}    )\n)\n",
        "contract.csv": "",
    }


def _column(column: Column) -> str:
    rules = [_quoted(column.name), _quoted(column.kind)]
    if column.role != "feature":
        rules.append(f"role={_quoted(column.role)}")
    if column.nullable:
        rules.append("nullable=True")
    for name in ("minimum", "maximum"):
        value = getattr(column, name)
        if value is not None:
            rules.append(f"{name}={_number(value)}")
    if column.allowed:
        rules.append(f"allowed={_tuple(column.allowed)}")
    if column.personal:
        rules.append("personal=True")
    if column.unit:
        rules.append(f"unit={_quoted(column.unit)}")
    if column.unseen == "pool":
        rules.append('unseen="pool"')
    text = f"Column({', '.join(rules)})"
    if len(text) > WIDTH - 9 and column.allowed and column.role != "target":  # a list that fills lines helps nobody
        return text.replace(f", allowed={_tuple(column.allowed)}", "")
    return text


def source(
    location: str,
    query: str,
    separator: str,
    encoding: str,
    styles: Mapping[str, str],
    rows: str,
    time: str | None,
    header: bool | None = None,
) -> str:
    """source.py."""
    arguments = [_quoted(location)]
    if query:
        arguments.append(f"query={_quoted(query)}")
    if separator != ",":
        arguments.append(f"separator={_quoted(separator)}")
    if encoding != "utf-8":
        arguments.append(f"encoding={_quoted(encoding)}")
    if header is not None:
        arguments.append(f"header={header}")
    if styles:
        pairs = [f"{_quoted(name)}: {_quoted(style)}" for name, style in styles.items()]
        items = ", ".join(pairs)
        if len(items) > WIDTH - 20:
            items = "".join(f"\n        {pair}," for pair in pairs) + "\n    "
        arguments.append(f"styles={{{items}}}")
    if rows:
        arguments.append(f"rows={_quoted(rows)}")
    listed = "".join(f"    {argument},\n" for argument in arguments)
    return SOURCE.replace("<listed>", listed).replace("<time>", "None" if time is None else _quoted(time))


SOURCE = _template("source")


def params(plan: Plan) -> str:
    """params.yaml."""
    found = plan.params
    classes = plan.problem == "classification"
    lines = [
        "# What to learn, as rules. `make pipeline` resolves them into run.yaml; a key that is left out keeps its default.",
        "",
        f"problem: {plan.problem}",
        "seed: 7",
        "",
    ]
    if "span" in found:
        lines += [
            "window:",
            "  days: null # all rows; a number is counted back from ...",
            f'  until: "{found["until"]}" # later rows are not used; newest takes all'
            if "until" in found
            else '  until: newest # ... the newest row at the source, or a date: "2024-10-01"',
            "",
        ]
    split, drawn = found["split"], "group, whole" if plan.contract.group else "id"
    lines += ["split:"]
    if "test_days" in split:
        lines += [
            f"  test_days: {split['test_days']} # the newest days judge the model; no choice is made on them",
            f"  folds: {split['folds']} # each trained on its past, tried on what follows",
        ]
    else:
        lines += [
            f"  test_share: {split['test_share']} # of each class, drawn by the {drawn}; no choice is made on these rows",
            f"  folds: {split['folds']}",
        ]
    lines += [
        "",
        "validation:",
        f"  max_bad_share: {found.get('bad_share', 0.02):g} # more rows than this breaking the contract stop the run",
        "  max_single_input_skill: 0.98 # one input alone that predicts this well leaks the answer",
        "  max_model_skill: 0.999 # so does a model that is better than this, in AUC or R2",
        "",
        "search:",
        f"  trials: {found['search']['trials']}",
        f"  max_rows: {found['search']['max_rows']} # for the search; the final fit takes all",
        "",
        "evaluation:",
        f"  slices: [{', '.join(json.dumps(name, ensure_ascii=False) for name in found['slices'])}]",
        "  bootstrap: 200 # resamples behind each interval",
        *(["  threshold: 0.5 # of a positive prediction, for the report and the model card only"] if classes else []),
        "",
        "gate:",
        f"  metric: {found['metric']} # decides between models",
    ]
    lines += ["  at_least: {}", "  at_most: {}"] if not classes else ["  at_least: {auc: 0.55}", "  at_most: {}"]
    lines += [
        f"  better_than_baseline: {found['better']:g} # in the metric above",
        f"  worse_than_champion: {found['worse']:g} # allowed, on the same rows",
        "",
        "promotion:",
        "  automatic: false # true: a challenger that passes becomes champion by itself",
    ]
    return "\n".join(lines) + "\n"


def features(plan: Plan) -> str:
    """features.py. Of the column that orders the rows the month is an input only where each has come back."""
    if plan.params.get("span", SEASONS) >= SEASONS:
        return FEATURES
    without = FEATURES.replace(_MONTH, "").replace(_BETWEEN, _BETWEEN + _MONTH_OF_OTHERS)
    return without.replace(_LOOP, _WHY_NO_MONTH + _LOOP)


def model(plan: Plan) -> str:
    """model.py."""
    text = MODEL
    if plan.long_tail:
        text = text.replace("LOG_TARGET = False", "LOG_TARGET = True")
    if plan.rows > 200_000:  # leaves of 20 rows learn noise by heart
        text = text.replace('"min_samples_leaf": 20', '"min_samples_leaf": 200')
        text = text.replace('"min_samples_leaf", 5, 200', '"min_samples_leaf", 50, 2000')
    return text


def _filled(items: Sequence[str], indent: str) -> str:
    """Items in lines that are as full as may be, a comma after each; none is cut, whatever is in it."""
    lines = [""]
    for item in items:
        if lines[-1] and len(indent) + len(lines[-1]) + len(item) + 2 > WIDTH:
            lines.append("")
        lines[-1] += f" {item}," if lines[-1] else f"{item},"
    return "\n".join(indent + line for line in lines)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', "'''")


def _tuple(words: Sequence[str]) -> str:
    return "(" + ", ".join(map(_quoted, words)) + ("," if len(words) == 1 else "") + ")"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


_MONTH = '            f"{name} month": moment.month,\n'
_MONTH_OF_OTHERS = '            numbers[f"{name} month"] = moment.month\n'
_BETWEEN = "        if CONTRACT.time and name != CONTRACT.time:\n"
_LOOP = "    for name in [*MOMENTS"
_WHY_NO_MONTH = """\
    # The rows span less than two years, in which no season comes back: the month that a row is of would tell then from now, and no more.
"""

FEATURES = _template("features")

MODEL = _template("model")

SAMPLE = _template("sample")
