"""validate: hold every raw row against the contract; good rows to data/validated, the others to data/set_aside."""

import shutil
from collections import Counter

import numpy as np

from copier_mlops import ProjectError, project
from copier_mlops._progress import progress
from copier_mlops.contract.validation import check_rows, count_rules, fingerprints, unseen
from copier_mlops.data import tables
from copier_mlops.params import load_run
from copier_mlops.settings import Paths


def validate() -> dict[str, object]:
    """Check the raw table part by part.

    Returns:
        What reports/validation.json says: rows, good, set_aside, unlabelled, reasons.

    Raises:
        ProjectError: If columns are missing or unexpected, more rows break the contract than params.yaml allows, or no
            row with an answer is left.
    """
    limit = load_run().validation.max_bad_share
    for folder in (Paths.VALIDATED, Paths.SET_ASIDE):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    total: Counter[str] = Counter(rows=0, good=0, set_aside=0, unlabelled=0)
    reasons: Counter[str] = Counter()
    seen, pooled = np.empty(0, dtype="uint64"), Counter[str]()
    parts = [(month, file) for month, files in tables.parts(Paths.RAW) for file in files]
    with progress("validate", "files", len(parts), of_stage=True) as advance:
        for month, file in parts:
            raw = tables.read(file)
            checked = check_rows(raw, project.contract(), seen=seen)
            place = f"month={month}/{file.name}"
            if len(checked.good):
                tables.write(checked.good, Paths.VALIDATED / place)
            if len(checked.set_aside):
                tables.write(checked.set_aside, Paths.SET_ASIDE / place)
                reasons.update(count_rules(checked.violations))
            total.update(
                rows=len(raw),
                good=len(checked.good),
                set_aside=len(checked.set_aside),
                unlabelled=len(checked.unlabelled),
            )
            pooled.update({name: int(found.sum()) for name, found in unseen(checked.good, project.contract()).items()})
            known = fingerprints(checked.good[project.contract().id])
            seen = np.sort(np.concatenate([seen, known]))
            advance(1)
    report = {**total, "reasons": dict(reasons.most_common())}
    tables.write_json(report, Paths.VALIDATION)
    print(f"{total['good']:,} good, {total['set_aside']:,} quarantined, {total['unlabelled']:,} without a label yet")
    for name, count in pooled.items():
        print(f"{count:,} rows have a {name} that schema.py does not list; they are used. List it there if it is meant")
    share = total["set_aside"] / max(total["rows"], 1)
    if share > limit:
        worst = "; ".join(f"{reason}: {count:,} rows" for reason, count in reasons.most_common(5))
        raise ProjectError(
            f"{share:.1%} of {total['rows']:,} rows break the contract, {limit:.1%} are allowed "
            f"(validation.max_bad_share). Most of them: {worst}. They are in {Paths.SET_ASIDE} with their reasons; "
            "mend the source, or the rule in schema.py if it is the rule that is wrong."
        )
    if total["good"] == 0:
        raise ProjectError(
            f"none of {total['rows']:,} rows can be learnt from: {total['unlabelled']:,} have no {project.contract().target}, "
            f"{total['set_aside']:,} break the contract."
        )
    return report
