"""The answer in plain words, computed from the rows: nothing is said that a number below does not support."""

from dataclasses import dataclass
from math import sqrt
from statistics import median

from reports.formats import counted, fixed, listing, percent
from reports.run import MODES, Row, Stack, given
from reports.tables import Cell, Table

READING = (
    "Read every exponent beside its null. A small alpha close to the null means a flat spectrum whose slight slope is "
    "set by the unfolding's aspect ratio; it is not a sign of heavy tails. The further alpha lies above its null, the "
    "more of the weights a low rank can hold."
)


@dataclass(frozen=True)
class ModeSummary:
    """One mode over all stacks: only rows that have both an exponent and its null."""

    mode: str
    rows: list[Row]

    def middle(self, column: str) -> float | None:
        values = [float(row[column]) for row in self.rows if given(row, column)]
        return median(values) if values else None

    @property
    def excess(self) -> list[float]:
        return [float(row["alpha"]) - float(row["alpha_null"]) for row in self.rows]

    @property
    def above(self) -> int:
        return sum(value > 0 for value in self.excess)

    @property
    def left_error(self) -> float | None:
        """Median relative weight error of keeping a quarter of this mode's rank and everything of the other modes."""
        kept = [float(row["energy_25"]) for row in self.rows if given(row, "energy_25")]
        return median(sqrt(max(0.0, 1 - share)) for share in kept) if kept else None


def summaries(listed: list[Stack]) -> list[ModeSummary]:
    """The modes that have at least one exponent with its null."""
    found = []
    for mode in MODES:
        rows = [stack.rows[mode] for stack in listed if mode in stack.rows]
        if compared := [row for row in rows if given(row, "alpha", "alpha_null")]:
            found.append(ModeSummary(mode, compared))
    return found


def answer(listed: list[Stack]) -> list[str]:
    """Sentences for the top of the page, the most important first."""
    rows = [row for stack in listed for row in stack.rows.values()]
    modes = summaries(listed)
    if not modes:
        return ["No unfolding has an exponent with a null to compare it with, so this run answers nothing yet."]
    said = (_above(modes, rows), READING, _truncation(modes), _tail(rows), _paper(rows), _coverage(listed, rows, modes))
    return [sentence for sentence in said if sentence]


def summary_table(listed: list[Stack]) -> Table | None:
    """The numbers behind the sentences, one line a mode."""
    modes = summaries(listed)
    if not modes:
        return None
    headings = ("mode", "above null", "median alpha", "range of alpha", "median null", "median excess",
                "energy in 25 % of the rank (null)", "weight error after keeping 25 %")  # fmt: skip
    lines = [
        [Cell(text) for text in (
            mode.mode, f"{mode.above} of {len(mode.rows)}", fixed(mode.middle("alpha")),
            f"{fixed(min(row['alpha'] for row in mode.rows))} to {fixed(max(row['alpha'] for row in mode.rows))}",
            fixed(mode.middle("alpha_null")), fixed(median(mode.excess), signed=True),
            f"{percent(mode.middle('energy_25'))} ({percent(mode.middle('energy_25_null'))})", percent(mode.left_error),
        )] for mode in modes
    ]  # fmt: skip
    return Table("By mode, over all measured stacks (medians)", headings, lines)


def _coverage(listed: list[Stack], rows: list[Row], modes: list[ModeSummary]) -> str:
    layers = {stack.layer for stack in listed}
    measured = sum(bool(stack.rows) for stack in listed)
    compared = sum(len(mode.rows) for mode in modes)
    return (
        f"Measured: {measured} of {len(listed)} expert stacks in {counted(len(layers), 'layer')}, "
        f"{counted(len(rows), 'unfolding')}, {compared} of them with an exponent and its null."
        + (
            ""
            if measured == len(listed)
            else " The run is incomplete: all of the above holds for the measured part only."
        )
    )


def _above(modes: list[ModeSummary], rows: list[Row]) -> str:
    above, total = sum(mode.above for mode in modes), sum(len(mode.rows) for mode in modes)
    parts = [f"{fixed(median(mode.excess), signed=True)} ({mode.mode})" for mode in modes]
    said = (
        f"{above} of {counted(total, 'unfolding')} {'has' if total == 1 else 'have'} a spectrum steeper than "
        f"that of a Gaussian stack of the same shape (the null). Median of alpha minus its null: {listing(parts)}. "
    )
    known = [row for row in rows if given(row, "alpha", "alpha_null", "alpha_jackknife_stderr")]
    if known:
        clear = sum(row["alpha"] - row["alpha_null"] > 2 * row["alpha_jackknife_stderr"] for row in known)
        said += f"In {clear} of {len(known)} the difference is more than two jackknife standard errors. "
    if len(modes) > 1:
        flattest = min(modes, key=lambda mode: mode.middle("alpha") or 0.0)
        said += (
            f"Flattest is the {flattest.mode} mode: median alpha {fixed(flattest.middle('alpha'))}, null "
            f"{fixed(flattest.middle('alpha_null'))}."
        )
    return said.strip()


def _truncation(modes: list[ModeSummary]) -> str:
    """What a quarter of the rank keeps, in the mode where that is most and the one where it is least."""
    ranked = sorted((mode.left_error, mode.mode, mode) for mode in modes if mode.left_error is not None)
    if not ranked:
        return ""
    best, worst = ranked[0][2], ranked[-1][2]
    said = f"Truncation: a quarter of the rank of the {best.mode} mode alone keeps {_kept(best)}"
    if worst is not best:
        said += f"; of the {worst.mode} mode alone, {_kept(worst)}"
    return (
        f"{said} (medians). A Tucker decomposition truncates modes together; its error cannot be below the largest of "
        "their single errors."
    )


def _kept(mode: ModeSummary) -> str:
    null = mode.middle("energy_25_null")
    beside = "" if null is None else f" (Gaussian: {percent(null)})"
    energy, error = percent(mode.middle("energy_25")), percent(mode.left_error)
    return f"{energy} of the energy{beside}, a relative weight error of {error}"


def _tail(rows: list[Row]) -> str:
    known = sum(given(row, "alpha_density") for row in rows)
    short = sum(row.get("status") == "insufficient_tail" for row in rows)
    tested = [row for row in rows if given(row, "lognormal_ratio", "lognormal_p")]
    decided = [row for row in tested if row["lognormal_p"] < 0.05]
    normal = sum(row["lognormal_ratio"] < 0 for row in decided)
    said = f"The density exponent of the eigenvalues could be fitted in {known} of {len(rows)} unfoldings"
    said += f"; in {short} the tail is too short." if short else "."
    if tested:
        said += (
            f" Against a lognormal, in {len(tested)} tails: the lognormal fits better in {normal}, the power law in "
            f"{len(decided) - normal}, undecided (p ≥ 0.05) in {len(tested) - len(decided)}."
        )
    return said


def _paper(rows: list[Row]) -> str:
    known = [row for row in rows if given(row, "alpha", "alpha_paper")]
    if not known:
        return ""
    worst = max(known, key=lambda row: abs(row["alpha"] - row["alpha_paper"]))
    return (
        f"Against the paper's Table 1 ({len(known)} values; its fit range is not stated): the largest difference is "
        f"{fixed(worst['alpha'] - worst['alpha_paper'], signed=True)}, at layer {worst['layer']}, "
        f"{worst['projection']}, {worst['mode']}."
    )
