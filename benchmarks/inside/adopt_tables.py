"""Tables of different kinds with a known truth, and two that scikit-learn carries.

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


def carried(kind: str) -> pd.DataFrame:
    from sklearn import datasets

    return getattr(datasets, f"load_{kind}")(as_frame=True).frame


def main() -> None:
    kind, file = sys.argv[1:3]
    rows = int(sys.argv[3]) if len(sys.argv) > 3 else 20_000
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
