"""The run as the page reads it: what was injected together (a site), its cells, its statistics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from reports.run import Row, Run, given

ERRORS = ("weight_error", "functional_error", "operator_error")
PER_EXPERT = "functional_error_expert"
NAMES = {
    "weight_error": "weight error",
    "functional_error": "functional error",
    PER_EXPERT: "functional error, own inputs",
    "operator_error": "operator error",
}
HELD = {"frobenius": "weight_error", "operator": "operator_error", "functional": "functional_error"}
DESIGN_NAMES = {"frobenius": "Frobenius norm", "operator": "operator norm", "functional": "functional error"}
DRAWN = ("isotropic", "flat", "rank_one", "along", "against")


@dataclass
class Cell:
    """All draws of one family at one design and size."""

    design: str
    family: str
    size: float
    rows: list[Row] = field(default_factory=list)

    @property
    def response(self) -> float:
        """Mean change of the loss in nats."""
        return fmean(float(row["loss_change"]) for row in self.rows)

    def error(self, name: str) -> float | None:
        values = [float(row[name]) for row in self.rows if given(row, name)]
        return fmean(values) if values else None


@dataclass
class Site:
    """What was injected into at once."""

    scope: str
    layer: int | None
    projection: str
    rows: list[Row] = field(default_factory=list)
    contrasts: list[Row] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As a title."""
        where = "All layers" if self.layer is None else f"Layer {self.layer}"
        return f"{where}: {self.projection.replace(',', ', ')}"

    @property
    def phrase(self) -> str:
        """Inside a sentence."""
        where = "all layers" if self.layer is None else f"layer {self.layer} alone"
        return f"{self.projection.replace(',', ', ')} of {where}"

    @property
    def anchor(self) -> str:
        where = "all" if self.layer is None else f"L{self.layer:03d}"
        return f"injection-{where}-{self.projection.replace(',', '-')}"

    def cells(self) -> list[Cell]:
        found: dict[tuple[str, str, float], Cell] = {}
        for row in self.rows:
            if given(row, "loss_change", "size"):
                key = (str(row["design"]), str(row["family"]), float(row["size"]))
                found.setdefault(key, Cell(*key)).rows.append(row)
        return list(found.values())

    def statistics(self, statistic: str, **where: Any) -> list[Row]:
        """Those with a value."""
        chosen = (row for row in self.contrasts if row["statistic"] == statistic and given(row, "value"))
        return [row for row in chosen if all(row.get(column) == value for column, value in where.items())]

    def statistic(self, statistic: str, **where: Any) -> Row | None:
        """The only one of that kind, or none."""
        return next(iter(self.statistics(statistic, **where)), None)


def sites(run: Run) -> list[Site]:
    """In the order of the rows."""
    found: dict[tuple[str, int | None, str], Site] = {}

    def of(row: Row) -> Site:
        layer = row.get("layer")
        key = (str(row["scope"]), None if layer is None else int(layer), str(row["projection"]))
        return found.setdefault(key, Site(*key))

    for row in _ordered(run["tables"].get("injection", [])):
        of(row).rows.append(row)
    for row in run["tables"].get("injection_contrasts", []):
        of(row).contrasts.append(row)
    return sorted(
        found.values(), key=lambda s: (s.layer is not None, s.layer or 0, -s.projection.count(","), s.projection)
    )


def ratios(site: Site) -> list[Row]:
    """Ratios of families at equal Frobenius and at equal operator norm: over all sizes where there are several."""
    rows = [row for row in site.statistics("ratio") if row["design"] in ("frobenius", "operator")]
    whole = {(row["design"], row["families"]) for row in rows if row.get("size") is None}
    chosen = [row for row in rows if row.get("size") is None or (row["design"], row["families"]) not in whole]
    return sorted(chosen, key=lambda row: (str(row["design"]), str(row["families"]) != "rank_one/flat"))


def families(found: Iterable[Site]) -> list[str]:
    """All that occur: the drawn ones in their order, then methods."""
    seen = dict.fromkeys(str(row["family"]) for site in found for row in site.rows)
    return [*(name for name in DRAWN if name in seen), *(name for name in seen if name not in DRAWN)]


def words(family: str) -> str:
    """A family's name for people."""
    return {"rank_one": "rank one"}.get(family, family)


def _ordered(rows: Sequence[Row]) -> list[Row]:
    def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
        family = str(row["family"])
        number = DRAWN.index(family) if family in DRAWN else len(DRAWN)
        return (str(row.get("design")), number, family, row.get("size") or 0.0, row.get("seed") or 0)

    return sorted(rows, key=key)
