"""features: what the model is given, computed month by month with the code of features.py, ordered by time."""

import shutil

import pandas as pd

from copier_mlops import ProjectError, project
from copier_mlops._progress import progress
from copier_mlops.data import tables
from copier_mlops.settings import Paths


def features() -> int:
    """Compute data/features from data/validated.

    Returns:
        The number of rows.

    Raises:
        ProjectError: If build_features loses rows, gives a key column, or nothing.
    """
    shutil.rmtree(Paths.FEATURES, ignore_errors=True)
    rows = 0
    months = tables.parts(Paths.VALIDATED)
    with progress("features", "months", len(months), of_stage=True) as advance:
        for month, files in months:
            good = pd.concat([tables.read(file) for file in files], ignore_index=True)
            good = good.sort_values(project.contract().order, kind="stable", ignore_index=True)
            # The answer is not there to be looked at.
            inputs = project.build_features(good.drop(columns=project.contract().target))
            _check(inputs, good)
            tables.write(
                pd.concat([good[project.contract().keys], inputs], axis=1),
                Paths.FEATURES / f"month={month}" / "part.parquet",
            )
            rows += len(good)
            advance(1)
    print(f"{rows:,} rows, {inputs.shape[1]} inputs")
    return rows


def _check(inputs: pd.DataFrame, good: pd.DataFrame) -> None:
    if not inputs.index.equals(good.index):
        raise ProjectError(
            f"build_features gave {len(inputs)} rows for {len(good)}, or another index. Row i has to come from row i: "
            "drop and filter in source.py or by the contract, not in features.py."
        )
    taken = [name for name in inputs if name in project.contract().keys]
    if taken or inputs.shape[1] == 0:
        raise ProjectError(
            f"build_features gave {taken or 'no inputs'}; the id, the time and the target themselves are no inputs. "
            "Compute others from them in features.py."
        )
