"""The answer in plain words, computed from the rows: nothing is said that a number below does not support."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from reports.experts.data import NAMES, ExpertStack, answered, metric_name, middle, ratios_of
from reports.formats import fixed, listing, percent
from reports.run import Row, given
from reports.tables import Cell, Table

READING = (
    "How to read it: the change of the least error says whether cutting experts pays at equal storage; it is small by "
    "construction, since the search may cut a single expert. The price share says how clear it is: what a stored "
    "parameter is worth in the expert mode, over that plus what it is worth in the mode where it is worth least. Above "
    "0.5 the experts should be cut last, below it first."
)


def answer(listed: Sequence[ExpertStack]) -> list[str]:
    """Sentences for the top of the page, the most important first."""
    ratios = ratios_of(listed)
    if not any(answered(listed, ratio, "gain") for ratio in ratios):
        return ["No stack has experts that could be cut, so this run answers nothing yet.", *_coverage(listed)]
    said = [_binding(listed, ratio) for ratio in ratios]
    said += [READING, *(_published(listed, ratio) for ratio in ratios), _similarity(listed), *_coverage(listed)]
    return [sentence for sentence in said if sentence]


def _binding(listed: Sequence[ExpertStack], ratio: float) -> str:
    rows = answered(listed, ratio, "gain")
    if not rows:
        return ""
    counts = Counter(row.get("binding") or "without an interval" for row in rows)
    total = f"{len(rows)} {'stack' if len(rows) == 1 else 'stacks'}"
    found = listing([f"{name} in {counts[name]}" for name in ("yes", "no", "undecided", "without an interval")
                     if counts[name]])  # fmt: skip
    changes = [-float(row["gain"]) for row in rows]
    said = (
        f"Is the expert mode the binding constraint, with {percent(ratio, 0)} of the parameters removed? {found} of "
        f"{total}. Cutting it changes the least {metric_name(listed)} at equal storage by "
        f"{_span([100 * change for change in changes], 1, ' %', signed=True)}{_interval(rows, 'gain')}."
    )
    priced = [row for row in rows if given(row, "price_share")]
    if priced:
        shares = [float(row["price_share"]) for row in priced]
        said += f" Its price share is {_span(shares, 2)}{_interval(priced, 'price_share')}: {_worth(median(shares))}."
    return said


def _worth(share: float) -> str:
    if share >= 0.995:
        return "a parameter in the expert mode is worth more than 100 times one in the cheapest other mode"
    if share <= 0.005:
        return "a parameter in the expert mode is worth less than a hundredth of one in the cheapest other mode"
    times = share / (1 - share)
    return f"a parameter in the expert mode is worth {fixed(times, 1)} times one in the cheapest other mode"


def _interval(rows: Sequence[Row], name: str) -> str:
    """The interval where there is one stack, otherwise how many of them are clear."""
    known = [row for row in rows if given(row, f"{name}_low", f"{name}_high")]
    if not known:
        return ""
    if len(rows) == 1:
        low, high = float(known[0][f"{name}_low"]), float(known[0][f"{name}_high"])
        if name == "gain":
            return f" (95 % interval {fixed(-100 * high, 1, signed=True)} to {fixed(-100 * low, 1, signed=True)} %)"
        return f" (95 % interval {fixed(low, 2)} to {fixed(high, 2)})"
    neutral = 0.0 if name == "gain" else 0.5
    clear = sum(row[f"{name}_low"] > neutral or row[f"{name}_high"] < neutral for row in known)
    return f", in {clear} of {len(known)} with a 95 % interval that leaves out {fixed(neutral, 1 if neutral else 0)}"


def _span(values: Sequence[float], places: int, unit: str = "", signed: bool = False) -> str:
    """The value, or the median with the range."""
    middle_one = fixed(median(values), places, signed)
    if len(values) == 1:
        return f"{middle_one}{unit}"
    return f"{middle_one}{unit} (median; {fixed(min(values), places, signed)} to {fixed(max(values), places, signed)})"


def _published(listed: Sequence[ExpertStack], ratio: float) -> str:
    """How far the published triples are from the best ones, and what their difference is made of."""
    pairs = []
    for stack in listed:
        triples = stack.headlines(ratio)
        ours, theirs = triples.get(("exact", "preserve"), {}), triples.get(("published", "preserve"), {})
        if given(ours, "metric_error") and given(theirs, "metric_error"):
            pairs.append((float(theirs["metric_error"]), float(ours["metric_error"])))
    if not pairs:
        return ""
    said = (
        f"Published ranks with {percent(ratio, 0)} removed, which never look at the weights: {metric_name(listed)} "
        f"{fixed(median(a for a, _ in pairs))} with all experts kept, against {fixed(median(b for _, b in pairs))} "
        "for the best ranks of the same storage"
    )
    rows = answered(listed, ratio, "due_to_experts")
    cut = [row for row in rows if row["rank_expert_published"] < row["experts"]]
    if not cut:
        return f"{said}. Their compress triple cuts no expert here, so it says nothing about the expert mode."
    return (
        f"{said}. Between their compress and their preserve triple lie "
        f"{fixed(middle(cut, 'published_difference'), signed=True)}: "
        f"{fixed(middle(cut, 'due_to_experts'), signed=True)} is the expert mode, "
        f"{fixed(middle(cut, 'due_to_ranks'), signed=True)} the accident of the other ranks"
        + (" (medians)." if len(cut) > 1 else ".")
    )


def _similarity(listed: Sequence[ExpertStack]) -> str:
    parts = []
    for measure in ("cosine", "aligned_cosine", "input_overlap", "output_overlap", "cka", "cka_isotropic"):
        rows = [stack.similar[measure] for stack in listed if measure in stack.similar]
        rows = [row for row in rows if given(row, "mean", "null_mean") and (row["order_free"] or measure == "cosine")]
        if rows:
            parts.append(f"{NAMES[measure]} {fixed(middle(rows, 'mean'))} ({fixed(middle(rows, 'null_mean'))})")
    if not parts:
        return ""
    return (
        "How alike two experts are, and in brackets two independent experts with the same spectra: "
        f"{listing(parts)} (means over pairs{', medians over stacks' if len(listed) > 1 else ''}). All but the plain "
        "cosine are measured where the arbitrary order of an expert's hidden units plays no part."
    )


def _coverage(listed: Sequence[ExpertStack]) -> list[str]:
    measured = sum(bool(stack.points) for stack in listed)
    layers = len({stack.layer for stack in listed})
    said = f"Measured: {measured} of {len(listed)} expert stacks in {layers} {'layer' if layers == 1 else 'layers'}."
    if measured < len(listed):
        said += " The run is incomplete: all of the above holds for the measured part only."
    return [said]


def summary_table(listed: Sequence[ExpertStack]) -> Table | None:
    """The numbers behind the sentences, one line a ratio."""
    lines = []
    for ratio in ratios_of(listed):
        rows = answered(listed, ratio, "gain")
        if not rows:
            continue
        counts = Counter(row.get("binding") for row in rows)
        best = Counter("whole" if row["rank_expert"] == row["experts"] else "cut" for row in rows)
        lines.append(
            [Cell(text) for text in (
                percent(ratio, 0), f"{counts['yes']} / {counts['no']} / {counts['undecided']}",
                f"{best['whole']} of {len(rows)}", fixed(middle(rows, "error_preserve")),
                fixed(middle(rows, "error_compress")), fixed(_percent(rows), 1, signed=True),
                fixed(middle(rows, "price_share"), 2), fixed(middle(rows, "published_difference"), signed=True),
                fixed(middle(rows, "due_to_experts"), signed=True), fixed(middle(rows, "due_to_ranks"), signed=True),
            )]
        )  # fmt: skip
    headings = ("removed", "binding: yes / no / undecided", "best with all experts", "least error, all experts",
                "least error, experts cut", "change by cutting (%)", "price share", "published difference",
                "due to experts", "due to ranks")  # fmt: skip
    caption = f"By ratio, over all measured stacks (medians); errors are the {metric_name(listed)}"
    return Table(caption, headings, lines) if lines else None


def _percent(rows: Sequence[Row]) -> float | None:
    gain = middle(rows, "gain")
    return None if gain is None else -100 * gain
