"""Tables of different kinds with a known truth, and some that scikit-learn carries.

python adopt_tables.py KIND FILE [ROWS]
"""

import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv


def shop(rows: int, start: int = 0, seed: int = 0) -> pd.DataFrame:
    """20 columns of all kinds: who buys again, with an effect of two inputs together."""
    random = np.random.default_rng(seed)
    number = np.arange(start, start + rows)
    inputs = random.normal(size=(rows, 6)).round(4)
    kinds = [random.integers(0, count, rows) for count in (3, 10, 50, 300)]
    pull = inputs[:, 0] + inputs[:, 1] * (kinds[0] == 1) + 0.05 * (kinds[2] % 17) + random.normal(size=rows)
    frame = pd.DataFrame(inputs, columns=[f"number {place}" for place in range(6)])
    frame.insert(0, "id", number)
    frame.insert(
        1, "ordered", (np.datetime64("2022-01-01T00:00:00") + (number * 60).astype("timedelta64[s]")).astype(str)
    )
    for place, kind in enumerate(kinds):
        frame[f"kind {place}"] = np.char.add(f"k{place}-", kind.astype(str))
    frame["visits"], frame["cents"] = random.integers(0, 100, rows), random.integers(0, 10**6, rows)
    frame["member"] = np.where(random.random(rows) < 0.3, "yes", "no")
    frame["mail"] = np.char.add(np.char.add("u", number.astype(str)), "@mail.example")
    frame["note"] = np.char.add("a few words about the parcel ", random.integers(0, 10**8, rows).astype(str))
    frame["shop"] = "north"
    frame["again"] = (pull > 1).astype(int)
    frame["amount"] = np.exp(inputs[:, 2] + random.normal(size=rows)).round(2)
    return frame


def rent(rows: int, seed: int = 1) -> pd.DataFrame:
    """A number with a long tail, gaps, and categories that matter."""
    random = np.random.default_rng(seed)
    area, rooms = random.lognormal(4, 0.4, rows), random.integers(1, 7, rows)
    district = random.integers(0, 40, rows)
    weight = np.random.default_rng(9).normal(0, 0.5, 40)
    price = np.exp(1.1 * np.log(area) + 0.05 * rooms + weight[district] + random.normal(0, 0.4, rows))
    frame = pd.DataFrame({"area": area.round(1), "rooms": rooms, "district": np.char.add("d", district.astype(str))})
    frame["built"] = random.integers(1900, 2024, rows)
    frame.loc[random.random(rows) < 0.1, "built"] = None
    return frame.assign(price=(price + 0.5 * (frame["built"].fillna(1960) - 1900)).round(2))


def crossed(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """Two categories whose combination decides, and neither alone."""
    first, second = random.integers(0, 30, rows), random.integers(0, 30, rows)
    weight = np.random.default_rng(2).normal(0, 1.2, (30, 30))
    x = random.normal(size=rows)
    y = weight[first, second] + 0.5 * x + random.logistic(size=rows) > 0
    return pd.DataFrame(
        {"first": _names("a", first), "second": _names("b", second), "x": x.round(3), "y": y.astype(int)}
    )


def shops(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """A category of 3,000 values, ten rows each."""
    shop = random.integers(0, 3000, rows)
    pull = np.random.default_rng(3).normal(0, 1, 3000)[shop]
    x = random.normal(size=rows)
    return pd.DataFrame(
        {"shop": _names("s", shop), "x": x.round(3), "y": (pull + 0.5 * x + random.logistic(size=rows) > 0).astype(int)}
    )


def rare(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """One positive in a hundred."""
    inputs = random.normal(size=(rows, 8))
    pull = 1.5 * inputs[:, 0] - inputs[:, 1] + inputs[:, 2] * inputs[:, 3] - 6.5
    frame = pd.DataFrame(inputs.round(3), columns=[f"x{place}" for place in range(8)])
    return frame.assign(y=(random.logistic(size=rows) < pull).astype(int))


def wide(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """200 numbers, of which five matter."""
    inputs = random.normal(size=(rows // 10, 200))
    pull = inputs[:, :5].sum(axis=1) + random.normal(size=len(inputs))
    frame = pd.DataFrame(inputs.round(3), columns=[f"x{place}" for place in range(200)])
    return frame.assign(y=(pull > 0).astype(int))


def gaps(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """Numbers that are missing where they are large."""
    inputs = random.normal(size=(rows, 6))
    y = inputs[:, 0] + inputs[:, 1] + random.normal(size=rows) > 0
    holes = random.random((rows, 6)) < 0.6 / (1 + np.exp(-2 * inputs))
    frame = pd.DataFrame(np.where(holes, np.nan, inputs.round(3)), columns=[f"x{place}" for place in range(6)])
    return frame.assign(y=y.astype(int))


def linear(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """A sum of ten inputs and noise, in few rows."""
    inputs = random.normal(size=(rows // 20, 10))
    y = inputs @ np.arange(1, 11) + random.normal(0, 8, len(inputs))
    return pd.DataFrame(inputs.round(4), columns=[f"x{place}" for place in range(10)]).assign(y=y.round(3))


def counts(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """A count that is mostly zero."""
    region, x = random.integers(0, 12, rows), random.normal(size=rows)
    mean = np.exp(np.random.default_rng(4).normal(-0.5, 0.8, 12)[region] + 0.6 * x)
    many = random.poisson(mean) * (random.random(rows) < 0.6)
    return pd.DataFrame(
        {"region": _names("r", region), "x": x.round(3), "z": random.normal(size=rows).round(3), "y": many}
    )


def hourly(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """A measure that follows the hour and the weekday."""
    at = pd.date_range("2021-01-01", periods=rows, freq="h")
    day = 10 * np.sin(2 * np.pi * at.hour / 24) + np.where(at.dayofweek >= 5, -6, 0)
    weather = pd.Series(random.normal(size=rows)).rolling(24, min_periods=1).mean().to_numpy() * 4
    y = 50 + day + 2 * weather + random.normal(0, 2, rows)
    return pd.DataFrame({"at": at.astype(str), "weather": weather.round(3), "y": np.round(y, 2)})


def drifting(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """What an input means changes over the years."""
    inputs, share = random.normal(size=(rows, 4)), np.linspace(0, 1, rows)
    y = inputs[:, 0] * (1 - share) + inputs[:, 1] * share + 0.7 * random.normal(size=rows) > 0
    frame = pd.DataFrame(inputs.round(3), columns=[f"x{place}" for place in range(4)])
    frame.insert(0, "at", pd.date_range("2020-01-01", periods=rows, freq="h").astype(str))
    return frame.assign(y=y.astype(int))


def classes(random: np.random.Generator, rows: int) -> pd.DataFrame:
    """Five classes with names, from numbers and a category."""
    inputs, kind = random.normal(size=(rows, 5)), random.integers(0, 8, rows)
    pull = inputs @ np.random.default_rng(5).normal(size=(5, 5)) + np.random.default_rng(6).normal(0, 1.5, (8, 5))[kind]
    y = (pull + random.gumbel(size=(rows, 5))).argmax(axis=1)
    frame = pd.DataFrame(inputs.round(3), columns=[f"x{place}" for place in range(5)])
    return frame.assign(kind=_names("k", kind), y=_names("class ", y))


def _names(prefix: str, numbers: np.ndarray) -> np.ndarray:
    return np.char.add(prefix, numbers.astype(str))


DRAWN = {
    function.__name__: function
    for function in (crossed, shops, rare, wide, gaps, linear, counts, hourly, drifting, classes)
}


def carried(kind: str) -> pd.DataFrame:
    from sklearn import datasets

    return getattr(datasets, f"load_{kind}")(as_frame=True).frame


def main() -> None:
    kind, file = sys.argv[1:3]
    rows = int(sys.argv[3]) if len(sys.argv) > 3 else 20_000
    if kind in DRAWN:
        DRAWN[kind](np.random.default_rng(11), rows).to_csv(file, index=False)
        return
    if kind != "shop":
        (rent(rows) if kind == "rent" else carried(kind)).to_csv(file, index=False)
        return
    writer = None
    for start in range(0, rows, 500_000):
        part = pa.Table.from_pandas(shop(min(500_000, rows - start), start, start), preserve_index=False)
        if writer is None:
            writer = pyarrow.csv.CSVWriter(file, part.schema)
        writer.write_table(part)
    if writer is not None:
        writer.close()


if __name__ == "__main__":
    main()
