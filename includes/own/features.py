"""From a row of the contract to the inputs of the model. Yours.

Row by row: what a row becomes depends on that row alone, so that one row and a million give the same answer. Whatever has
to be learnt from many rows (the weight of a category, a mean) belongs into the estimator that `model.py` builds. Import
nothing of this project here but `.schema`: the bundle keeps a copy of both files.
"""

import pandas as pd

from .schema import CONTRACT

NUMBERS = CONTRACT.features("number", "integer", "boolean")
CATEGORIES = CONTRACT.features("string")
MOMENTS = CONTRACT.features("timestamp")
EPOCH = pd.Timestamp("1970-01-01", tz="UTC").as_unit("us")  # in nanoseconds no time after 2262 can be compared with it


def build_features(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute the inputs of the model.

    Args:
        rows: Rows that keep the contract.

    Returns:
        As many rows with the same index; numbers as float32, categories as text.
    """
    numbers = {name: rows[name] for name in NUMBERS}
    for name in [*MOMENTS, *([CONTRACT.time] if CONTRACT.time else [])]:
        moment = rows[name].dt
        numbers |= {
            f"{name} month": moment.month,
            f"{name} weekday": moment.day_of_week,
            f"{name} hour": moment.hour,
        }
        if CONTRACT.time and name != CONTRACT.time:
            numbers[f"days since {name}"] = (rows[CONTRACT.time] - rows[name]).dt.total_seconds() / 86_400
        elif name != CONTRACT.time:
            numbers[f"{name} day"] = (rows[name] - EPOCH).dt.total_seconds() / 86_400
    # What is computed from several columns comes here: numbers["rooms per person"] = rows["rooms"] / rows["persons"]
    features = pd.DataFrame(numbers, index=rows.index).astype("float32")
    return features.assign(**{name: rows[name] for name in CATEGORIES})
