"""The answer in plain words, computed from the rows: nothing is said that a number below does not support."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from reports.experts.data import NAMES, WeightStack, answered, beside_null, metric_name, middle, ratios_of
from reports.formats import fixed, listing, percent
from reports.run import Row, given
from reports.tables import Cell, Table

READING = (
    "How to read it: the change of the least error says whether cutting experts pays at all; it may be small where it "
    "does not, since cutting a single expert is enough. The price share says how clear it is: what a stored parameter "
    "is worth in the expert mode, over that plus what it is worth in the mode where it is worth least. Above 0.5 "
    "experts should be cut last, below it first. Where change and price share are like those of independent experts, "
    "the numbers say nothing of what experts share."
)


def answer(listed: Sequence[WeightStack]) -> list[str]:
    """Sentences for the top of the page, the most important first."""
    ratios = ratios_of(listed)
    if not any(answered(listed, ratio, "gain") for ratio in ratios):
        return ["No stack has experts that could be cut, so this run answers nothing yet.", *_coverage(listed)]
    said = [_binding(listed, ratio) for ratio in ratios]
    said += [READING, *(_published(listed, ratio) for ratio in ratios), _similarity(listed), *_coverage(listed)]
    return [sentence for sentence in said if sentence]


def _binding(listed: Sequence[WeightStack], ratio: float) -> str:
    rows = answered(listed, ratio, "gain")
    if not rows:
        return ""
    changes = [-100 * float(row["gain"]) for row in rows]
    up = median(changes) > 0
    said = (
        f"On this model, with {percent(ratio, 0)} of the parameters removed, {_verdicts(rows)}. Cutting experts "
        f"{'raises' if up else 'lowers'} the least {metric_name(listed)} at equal storage by "
        f"{_span(changes if up else [-change for change in changes], 1, ' %')}{_clear(rows, 'gain', 0.0)}"
        f"{f'; {baseline}' if (baseline := beside_null(rows, up=up)) else ''}."
    )
    if not (priced := [row for row in rows if given(row, "price_share")]):
        return said
    shares = [float(row["price_share"]) for row in priced]
    null = middle(priced, "price_share_null")
    beside = "" if null is None else f"; independent experts would have {fixed(null, 2)}"
    return (
        f"{said} A stored parameter is worth {_times(median(shares))} in the expert mode as in the mode where it is "
        f"worth least: price share {_span(shares, 2)}{_clear(priced, 'price_share', 0.5)}{beside}."
    )


def _verdicts(rows: Sequence[Row]) -> str:
    """In how many stacks the expert mode binds."""
    if len(rows) == 1:
        words = {"yes": "is the binding constraint", "no": "is not the binding constraint"}
        undecided = "cannot be told from the others (the intervals leave it open)"
        return f"the expert mode {words.get(str(rows[0].get('binding')), undecided)}"
    counts = Counter(row.get("binding") for row in rows)
    others = [f"{word} in {counts[name]}" for name, word in (("no", "not"), ("undecided", "undecided"))
              if counts[name]]  # fmt: skip
    aside = f" ({listing(others)})" if others else ""
    return f"the expert mode is the binding constraint in {counts['yes']} of {len(rows)} stacks{aside}"


def _times(share: float) -> str:
    """The ratio of the prices that a price share means."""
    if share >= 0.99:
        return "more than 99 times as much"
    return "less than a hundredth as much" if share <= 0.01 else f"{fixed(share / (1 - share), 1)} times as much"


def _clear(rows: Sequence[Row], name: str, neutral: float) -> str:
    """The interval where there is one stack, otherwise in how many of them it leaves out the neutral value."""
    known = [row for row in rows if given(row, f"{name}_low", f"{name}_high")]
    if not known:
        return ""
    if len(rows) == 1:
        of_change = name == "gain"
        ends = sorted((-100.0 if of_change else 1.0) * float(known[0][f"{name}_{end}"]) for end in ("low", "high"))
        low, high = (fixed(end, 1 if of_change else 2, signed=of_change) for end in ends)
        return f" (95 % interval {'of the change ' if of_change else ''}{low} to {high})"
    clear = sum(row[f"{name}_low"] > neutral or row[f"{name}_high"] < neutral for row in known)
    return f", in {clear} of {len(known)} with a 95 % interval that leaves out {neutral:g}"


def _span(values: Sequence[float], places: int, unit: str = "", signed: bool = False) -> str:
    """The value, or the median with the range."""
    middle_one = fixed(median(values), places, signed)
    if len(values) == 1:
        return f"{middle_one}{unit}"
    return f"{middle_one}{unit} (median; {fixed(min(values), places, signed)} to {fixed(max(values), places, signed)})"


def _published(listed: Sequence[WeightStack], ratio: float) -> str:
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
    rows = answered(listed, ratio, "rank_expert_published", "experts")
    cut = [row for row in rows if row["rank_expert_published"] < row["experts"]]
    if rows and not cut:
        return f"{said}. Their compress triple cuts no expert here, so it says nothing about the expert mode."
    if not (apart := [row for row in cut if given(row, "due_to_experts")]):
        return f"{said}."
    medians = "" if len(apart) == 1 else " (medians)"
    if len(apart) < len(rows):
        many = "the one stack" if len(apart) == 1 else f"medians over the {len(apart)} stacks"
        medians = f" ({many} of {len(rows)} where their compress triple cuts experts)"
    return (
        f"{said}. Between their compress and their preserve triple lie "
        f"{fixed(middle(apart, 'published_difference'), signed=True)}: "
        f"{fixed(middle(apart, 'due_to_experts'), signed=True)} is the expert mode, "
        f"{fixed(middle(apart, 'due_to_ranks'), signed=True)} the accident of the other ranks"
        f"{medians}."
    )


def _similarity(listed: Sequence[WeightStack]) -> str:
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


def _coverage(listed: Sequence[WeightStack]) -> list[str]:
    measured = sum(bool(stack.points) for stack in listed)
    layers = len({stack.layer for stack in listed})
    said = f"Measured: {measured} of {len(listed)} expert stacks in {layers} {'layer' if layers == 1 else 'layers'}."
    if measured < len(listed):
        said += " The run is incomplete: all of the above holds for the measured part only."
    return [said]


def summary_table(listed: Sequence[WeightStack]) -> Table | None:
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
                fixed(middle(rows, "error_compress")), fixed(_percent(rows, "gain"), 1, signed=True),
                fixed(_percent(rows, "gain_null"), 1, signed=True),
                fixed(middle(rows, "price_share"), 2), fixed(middle(rows, "price_share_null"), 2),
                fixed(middle(rows, "published_difference"), signed=True),
                fixed(middle(rows, "due_to_experts"), signed=True), fixed(middle(rows, "due_to_ranks"), signed=True),
            )]
        )  # fmt: skip
    headings = ("removed", "binding: yes / no / undecided", "best with all experts", "least error, all experts",
                "least error, experts cut", "change by cutting (%)", "of independent experts (%)", "price share",
                "of independent experts",
                "published difference", "due to experts", "due to ranks")  # fmt: skip
    caption = f"By ratio, over all measured stacks (medians); errors are the {metric_name(listed)}"
    return Table(caption, headings, lines) if lines else None


def _percent(rows: Sequence[Row], column: str) -> float | None:
    gain = middle(rows, column)
    return None if gain is None else -100 * gain
