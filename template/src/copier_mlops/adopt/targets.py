"""What kind of target a column is: two classes, more, or a number."""

from __future__ import annotations

import re

from copier_mlops.adopt.decisions import FEWEST, AdoptionError, Target, label_of, room_of, some_of, words_of
from copier_mlops.adopt.profile import Column
from copier_mlops.contract import contract
from copier_mlops.contract.parsing import TRUE, true_or_false

FEWEST_OF_A_CLASS = 10
MOST_CLASSES = 50
CLASSES_OF_NUMBERS = 12  # whole numbers with no more values than this are classes, if nobody says otherwise
YES = frozenset({"ja", "oui", "si", "sí", "sì", "sim", "tak", "evet", "да", "是", "positive", "pos"})


# ------------------------------------------------------------------------------------------------------- Target


def infer_target(column: Column, asked: str) -> Target:
    name, present = column.name, column.present - column.unread
    warnings = []
    if present == 0:
        raise AdoptionError(f"the target {name} has no value in any row; there is nothing to learn.")
    words = f" {said} If one is a class, write it otherwise in the source." if (said := words_of(column)) else ""
    if column.missing:
        warnings.append(
            f"{column.missing:,} rows have no {name} yet: they are set aside as unlabelled, not as wrong.{words}"
        )
    if column.distinct == 1:
        only = label_of(next(iter(column.counts or {}), ""))
        raise AdoptionError(
            f"the target {name} is {only} in all rows{' that have one' if column.missing else ''}; there is nothing to tell apart.{words}"
        )
    if present < FEWEST:
        raise AdoptionError(
            f"{present} rows have an answer; with fewer than {FEWEST} nothing that is learnt can be trusted."
        )
    if column.guess.kind == "time":
        raise AdoptionError(f"the target {name} is a time. Predict a number of days, or a class, that follows from it.")
    if column.guess.kind == "boolean":
        return _two(column, warnings, asked)
    if column.guess.kind == "number":
        whole = column.whole and column.distinct is not None
        if asked == "classification" and (not whole or (column.distinct or 0) > MOST_CLASSES):
            raise AdoptionError(f"the target {name} has too many different numbers for classes; leave PROBLEM out.")
        few = whole and (column.distinct or 0) <= CLASSES_OF_NUMBERS and present >= 20 * (column.distinct or 0)
        if asked == "classification" or (few and asked != "regression"):
            return _named(column, warnings, " (PROBLEM=regression takes it as a number)" if not asked else "")
        return _number(column, warnings)
    if asked == "regression":
        raise AdoptionError(f"the target {name} is text ({some_of(column)}); only numbers can be a regression.")
    if column.counts is None or len(column.counts) > MOST_CLASSES:
        count = "thousands of" if column.counts is None else f"{len(column.counts)}"
        raise AdoptionError(
            f"the target {name} has {count} different texts; {MOST_CLASSES} classes are the most. Group them first."
        )
    return _named(column, warnings)


def _two(column: Column, warnings: list[str], asked: str) -> Target:
    if asked == "regression":
        raise AdoptionError(f"the target {column.name} is true or false; that is a classification.")
    counts: dict[str, int] = {}
    for key, count in (column.counts or {}).items():  # yes, Yes and YES are one word
        counts[label_of(key).lower()] = counts.get(label_of(key).lower(), 0) + count
    positive = sum(count for key, count in counts.items() if key in TRUE)
    fewer = min(positive, sum(counts.values()) - positive)
    if fewer < FEWEST_OF_A_CLASS:
        raise AdoptionError(
            f"the rarer answer of {column.name} occurs {fewer} times; {FEWEST_OF_A_CLASS} are the least to learn from."
        )
    share = positive / max(sum(counts.values()), 1)
    return Target(
        contract.Column(column.name, "boolean", role="target"),
        "classification",
        f"two answers, {share:.2%} of them true",
        "",
        warnings,
    )


def _named(column: Column, warnings: list[str], hint: str = "") -> Target:
    counts = {label_of(key): count for key, count in (column.counts or {}).items()}
    words = {key.lower() for key in counts}
    if true_or_false(words):
        return _two(column, warnings, "")
    alike = [[key for key in counts if key.lower() == word] for word in sorted(words)]
    if twins := [" and ".join(keys) for keys in alike if len(keys) > 1]:
        warnings.append(
            f"{column.name} has classes that differ in capital letters alone: {', '.join(twins[:4])}. They are kept apart. If they "
            "are one class, write them alike in the source."
        )
    rare = [key for key, count in counts.items() if count < FEWEST_OF_A_CLASS]
    kept = [key for key in counts if key not in rare]
    if len(kept) < 2:
        raise AdoptionError(
            f"only {len(kept)} class of {column.name} has {FEWEST_OF_A_CLASS} rows or more; there is nothing to tell apart."
        )
    if rare:
        warnings.append(f"classes of fewer than {FEWEST_OF_A_CLASS} rows are set aside: {', '.join(rare[:8])}.")
    if len(kept) == 2:  # the rarer one is what people look for, unless one says yes
        known = true_or_false({key.lower() for key in kept})  # with a third class, which is rare
        kept.sort(key=lambda key: (key.lower() in (TRUE if known else YES), -counts[key]))
        why = f"two classes; the score is the probability of {kept[1]}, {counts[kept[1]] / sum(counts.values()):.2%} of the rows"
    else:
        kept.sort(key=lambda key: (0, float(key), "") if re.fullmatch(r"-?\d+", key) else (1, 0.0, key))
        why = f"{len(kept)} classes" + hint
    found = contract.Column(column.name, "string", role="target", allowed=tuple(kept))
    return Target(found, "classification", why, "", warnings)


def _number(column: Column, warnings: list[str]) -> Target:
    mean, top = column.total / max(column.present - column.unread, 1), column.maximum
    low, high = room_of(column)
    span = max(mean - column.minimum, 1e-12)
    tail = column.minimum >= 0 and (top - mean) / span > 8
    kind = "integer" if column.whole else "number"
    why = f"a number from {column.minimum:g} to {column.maximum:g}" + (", with a long tail" if tail else "")
    found = contract.Column(column.name, kind, role="target", minimum=low, maximum=high)  # type: ignore[arg-type]
    return Target(found, "regression", why, "", warnings, long_tail=tail)
