"""The answer in plain words, computed from the rows: nothing is said that a number below does not support."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

from reports.formats import fixed, integer, listing, percent, significant
from reports.methods import method_name
from reports.run import Row, Run, given
from reports.superweights.effects import Effect, effects
from reports.superweights.matrices import WORDS, Matrix, matrices, rows_of
from reports.tables import Cell, Table

MATRICES = 3  # told in words, and the control
KEPT = 0.6  # storage at which methods are compared in words: 40 % removed


def answer(run: Run) -> list[str]:
    """Sentences for the top of the page, the most important first."""
    listed = matrices(run)
    told = listed[:MATRICES] + [matrix for matrix in listed[MATRICES:] if matrix.role == "control"]
    said = [_found(run), *(_recovery(matrix) for matrix in told), _methods(listed), *_ablation(run)]
    sentences = [sentence for sentence in said if sentence]
    return sentences or ["Nothing has been measured, so this run answers nothing yet."]


def summary_table(run: Run) -> Table | None:
    """The numbers behind the sentences: one line a matrix and group."""
    listed = matrices(run)
    if not listed:
        return None
    headings = ("matrix, group", "entries", "full rank", "half stay recovered from rank", "all from rank",
                "lost again at a rank", "dominant component", "its share", "half of the magnitude by rank")  # fmt: skip
    lines = []
    for matrix in listed:
        for group in matrix.groups:
            rows = matrix.of(group)
            lost = sum(int(row["first_rank"]) < int(row["stays_from_rank"]) for row in rows)
            texts = (
                *(f"{matrix.name}, {WORDS[group]}", str(len(rows)), str(matrix.full_rank)),
                *(integer(matrix.rank_for(group, share)) for share in (0.5, 1.0)),
                *(f"{lost} of {len(rows)}", fixed(matrix.middle(group, "dominant_component"), 1)),
                *(percent(matrix.middle(group, "dominant_share")), fixed(matrix.middle(group, "half_rank"), 1)),
            )
            lines.append([Cell(text) for text in texts])
    return Table("By matrix and group of entries (components: medians over the group)", headings, lines)


def _found(run: Run) -> str:
    rows = rows_of(run, "superweights")
    spikes = rows_of(run, "spikes")
    if not rows:
        return ""
    found = [row for row in rows if row["status"] == "found"]
    missed = [row for row in rows if row["status"] == "published"]
    if found:
        parts = [_one(row) for row in found[:4]]
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        said = (
            f"{len(found)} super {'weight was' if len(found) == 1 else 'weights were'} found: {listing(parts)}{more}. "
        )
    elif spikes:
        threshold = float(spikes[0]["threshold"])
        best = max(spikes, key=lambda row: min(abs(row["input_activation"]), abs(row["output_activation"])))
        said = (
            f"No super weight was found: no down projection has both an input and an output above {threshold:g} at one "
            f"token. The strongest spike, {_at(best)}, has an input of {significant(abs(best['input_activation']))} "
            f"({integer(best.get('input_ratio'))} times the median magnitude) and an output of "
            f"{significant(abs(best['output_activation']))} ({integer(best.get('output_ratio'))} times)"
        )
        share = best.get("output_share")
        said += f", of which this one weight makes {percent(share, 0)}. " if share is not None else ". "
    else:
        said = "No super weight was found. "
    if missed:
        said += (
            f"{len(missed)} published {'entry was' if len(missed) == 1 else 'entries were'} not found by their spikes."
        )
    if found and len(found) >= int(run["config"].get("most") or 0) > 0:
        said += "As many were found as were looked for: more may be left. "
    confirmed = sum(row.get("published") in (True, "True", "yes") for row in found)
    return said + (f"Of these, {confirmed} {'is' if confirmed == 1 else 'are'} published." if confirmed else "")


def _one(row: Row) -> str:
    return (
        f"{significant(row['value'])} at [{int(row['row'])}, {int(row['column'])}] of {_at(row)} (input "
        f"{significant(row.get('input_activation'))}, output {significant(row.get('output_activation'))})"
    )


def _at(row: Row) -> str:
    expert = f", expert {int(row['expert'])}" if given(row, "expert") else ""
    return f"L{int(row['layer'])} {row['projection']}{expert}"


def _recovery(matrix: Matrix) -> str:
    parts = []
    for group in matrix.groups:
        half, whole = (matrix.rank_for(group, share) for share in (0.5, 1.0))
        count = len(matrix.of(group))
        parts.append(
            f"the {WORDS[group]} from rank {integer(whole)} on"
            if count == 1
            else f"half of the {_many(group, count)} from rank {integer(half)} on, all from {integer(whole)}"
        )
    said = f"{matrix.title}, full rank {matrix.full_rank}. By truncated SVD stay recovered: {'; '.join(parts)}. "
    limit = int(matrix.dense_rank)
    kept = [(group, row) for group in matrix.groups for row in _at_most(matrix.curve(group), limit)]
    if kept:
        shares = [f"{percent(row['stays_recovered_fraction'], 0)} of the {_many(group)}" for group, row in kept]
        said += f"At rank {int(kept[0][1]['rank'])}, where it still stores less than the matrix: {listing(shares)}."
    return said.strip()


def _many(group: str, count: int | None = None) -> str:
    """`128 entries of largest magnitude`."""
    number = "" if count is None else f"{count} "
    words = {
        "superweight": "super weights",
        "top_magnitude": "largest entries",
        "activation_weighted": "activation-weighted entries",
        "random_inlier": "random inliers",
    }
    return number + words.get(group, group)


def _at_most(rows: Sequence[Row], rank: int) -> list[Row]:
    """The last row up to that rank."""
    below = [row for row in rows if int(row["rank"]) <= rank]
    return below[-1:]


def _methods(listed: list[Matrix]) -> str:
    if not listed or not listed[0].methods:
        return ""
    matrix, parts = listed[0], []
    families = list(dict.fromkeys(method.partition(":")[0] for method in matrix.methods))
    for family in ["svd", *families]:
        specs = ["svd"] if family == "svd" else [m for m in matrix.methods if m.partition(":")[0] == family]
        best: dict[str, Row] = {}
        for group in ("superweight", "top_magnitude", "activation_weighted"):
            rows = [row for spec in specs for row in matrix.curve(group, spec) if float(row["kept_ratio"]) <= KEPT]
            if rows:
                best[group] = max(rows, key=lambda row: float(row["kept_ratio"]))
        if best:
            row = next(iter(best.values()))
            name = "truncated SVD" if family == "svd" else method_name(str(row["method"]))
            told = [f"{percent(found['recovered_fraction'], 0)} of the {_many(group)}" for group, found in best.items()]
            parts.append(f"{name} at {percent(row['kept_ratio'], 0)} recovers {listing(told)}")
    if not parts:
        return ""
    return f"{matrix.name}, with at most {percent(KEPT, 0)} of the dense storage: {'; '.join(parts)}."


def _ablation(run: Run) -> list[str]:
    rows = rows_of(run, "ablation")
    dense = next((row for row in rows if row["group"] == "dense" and given(row, "perplexity")), None)
    if dense is None:
        return []
    about = (
        f"Ablation on {int(dense['windows'])} windows of {int(dense['window'])} tokens of {dense['text']}, dense "
        f"perplexity {fixed(dense['perplexity'], 2)} ± {fixed(dense.get('perplexity_stderr'), 2)}. "
    )
    found = effects(rows)
    if any(row["group"] == "superweight" and row["status"] == "none_found" for row in rows):
        about += "There is no super weight to zero. "
    whole = [effect for effect in found if not effect.where]
    said = [about + " ".join(f"Zeroing the {_effect(effect)}" for effect in whole)]
    for where in dict.fromkeys(effect.where for effect in found if effect.where):
        ours = [effect for effect in found if effect.where == where]
        told = listing([f"{effect.what} {_change(effect.change, effect.stderr)}" for effect in ours])
        said.append(f"Change of the loss by zeroing entries of {where}, nats: {told}{_random(ours[0])}.")
    return said


def _effect(effect: Effect) -> str:
    return (
        f"{effect.what} changes the loss by {_change(effect.change, effect.stderr)} nats (perplexity "
        f"{fixed(effect.row.get('perplexity'), 2)}){_random(effect)}."
    )


def _random(effect: Effect) -> str:
    if effect.random_change is None:
        return ""
    change = _change(effect.random_change, effect.random_stderr)
    return f"; as many random weights {change} (mean of {len(effect.random)} draws)"


def _change(value: float, stderr: float | None) -> str:
    """With as many decimals as its standard error bears."""
    if not stderr:
        return fixed(value, 4, signed=True)
    places = max(0, 1 - floor(log10(stderr)))
    return f"{fixed(value, places, signed=True)} ± {fixed(stderr, places)}"
