"""From a row of the contract to the inputs of the model. Yours.

Row by row: what a row becomes depends on that row alone, so that one row and a million give the same answer. Whatever has
to be learnt from many rows (the order of categories, a mean) belongs into the estimator that `model.py` builds. Import
nothing of this project here but `.schema`: the bundle keeps a copy of both files.
"""

import numpy as np
import pandas as pd

CATEGORIES = ["carrier", "origin", "destination"]
AS_THEY_ARE = [
    "distance",
    "scheduled_arrival",
    "seats",
    "latitude",
    "longitude",
    "dew_point",
    "humidity",
    "wind_gust",
    "precipitation",
    "pressure",
    "visibility",
]


def build_features(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute the inputs of the model.

    Args:
        rows: Rows that keep the contract, one flight each.

    Returns:
        As many rows with the same index; numbers as float32, categories as text.
    """
    departure = rows["scheduled_departure"].dt.tz_convert("America/New_York")
    minute = departure.dt.hour * 60 + departure.dt.minute
    offset = rows["utc_offset"].fillna(-5) + 5  # hours that the destination is ahead of New York
    planned = (rows["scheduled_arrival"] - minute - offset * 60) % 1440
    bearing = np.deg2rad(rows["wind_direction"])
    numbers = {
        "departure_minute": minute,
        "departure_hour": departure.dt.hour,
        "weekday": departure.dt.day_of_week,
        "planned_minutes": planned,
        "slack_minutes": planned - rows["distance"] / 8,  # what is left at 8 miles a minute
        "plane_age": departure.dt.year - rows["built"],
        "wind_north": rows["wind_speed"] * np.cos(bearing),
        "wind_east": rows["wind_speed"] * np.sin(bearing),
        "wind_speed": rows["wind_speed"],
        "dew_spread": rows["temperature"] - rows["dew_point"],  # near zero: fog
    }
    features = pd.DataFrame({**numbers, **{name: rows[name] for name in AS_THEY_ARE}}, index=rows.index)
    return features.astype("float32").assign(**{name: rows[name] for name in CATEGORIES})
