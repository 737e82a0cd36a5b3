"""Findings: super weights or the strongest spike, what a low rank keeps of entries, the loss without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from diag.declare.claim import Claim, Estimate, Evidence, Quantity, count, value
from diag.declare.column import Row
from diag.probes.superweights.columns import GROUPS, Matrix, matrices, place, spot
from diag.statistics.intervals import around
from diag.statistics.medians import given, where
from reports.theme import title

TITLE = "Super weights"
QUESTION = "Has the model super weights, does a low rank keep them, and what is lost without them?"

TOLD = 4  # super weights and matrices that are told in words
KEPT = 0.6  # storage at which methods are compared: 40 % removed
FOUND = Quantity("found", "Super weights found", "integer",
                 after="Input and output of one token have to exceed the threshold.")  # fmt: skip
WEIGHT = Quantity("weight", "Strongest super weights")
STRONGEST = Quantity("strongest_spike", "Strongest spike, the smaller magnitude of its input and output")
PUBLISHED = Quantity("published", "Published super weights that their spikes show", "integer", "share")
HALF = Quantity("half_rank", "Rank of a truncated SVD from which on half stay recovered, {group}",
                "integer")  # fmt: skip
STAYS = Quantity("stays_recovered", "Stay recovered where a truncated SVD still stores less than the matrix, {group}",
                 "percent")  # fmt: skip
RECOVERED = Quantity("recovered", "Recovered with at most 60 % of the storage kept, {group}", "percent")
DENSE = Quantity("perplexity", "Perplexity of the dense model", "perplexity")
ZEROED = Quantity("loss_change", "Change of the loss by zeroing weights, nats", "change")


def claims(tables: Mapping[str, Sequence[Row]]) -> list[Claim]:
    """The most important first."""
    listed = matrices(tables)
    told = [m for n, m in enumerate(listed) if n < TOLD or m.role == "control"]
    changed = list(_ablation(given(tables.get("ablation", ()), "group", "loss_change")))
    whole = [claim for claim in changed if claim.quantity == ZEROED]
    found = [*_found(tables), *_dense(tables.get("ablation", ())), *whole, *_recovery(told)]
    return [*found, *(_methods(listed[0]) if listed else ()), *changed[len(whole) :]]


def _found(tables: Mapping[str, Sequence[Row]]) -> Iterator[Claim]:
    rows = [row for row in tables.get("superweights", ()) if row.get("status") in ("found", "published", "none_found")]
    spikes = given(tables.get("spikes", ()), "input_activation", "output_activation")
    found, known = where(rows, status="found"), [row for row in rows if row.get("published") is True]
    if rows:
        quantity = FOUND
        if limits := given(spikes, "threshold"):
            quantity = replace(FOUND, after=f"{FOUND.after.removesuffix('.')}, {limits[0]['threshold']:g}.")
        yield value("", quantity, Evidence("superweights", "status", len(rows)), len(found))
    for row in found[:TOLD]:
        yield _spike(row, WEIGHT, "superweights", row["value"])
    if rows and not found and spikes:
        best = max(spikes, key=lambda row: (bool(row.get("same_token")), _strength(row)))
        yield _spike(best, STRONGEST, "spikes", _strength(best), share_of_the_output=best.get("output_share"))
    if known:
        yield count(PUBLISHED, Evidence("superweights", "published", len(known)), len(where(known, status="found")))


def _spike(row: Row, quantity: Quantity, table: str, number: float, **more: float | None) -> Claim:
    ends = {"input": row.get("input_activation"), "output": row.get("output_activation")}
    return value(spot(row), quantity, Evidence(table, "value", 1), number, **ends, **more)


def _strength(row: Row) -> float:
    return min(abs(float(row["input_activation"])), abs(float(row["output_activation"])))


def _recovery(told: Sequence[Matrix]) -> Iterator[Claim]:
    for group in GROUPS:
        for matrix in told:
            if rows := matrix.groups.get(group):
                ranks = {"all": matrix.rank_for(group, 1.0), "full_rank": matrix.full_rank}
                evidence = Evidence("entries", "stays_from_rank", len(rows), {**matrix.labels, "group": group})
                yield value(matrix.title, _of(HALF, group), evidence, matrix.rank_for(group, 0.5), **ranks)
    for group in GROUPS:
        for matrix in told:
            if cheap := [row for row in matrix.curve(group) if int(row["rank"]) <= int(matrix.dense_rank)]:
                evidence = Evidence("recovery", "stays_recovered_fraction", 1,
                                    {**matrix.labels, "group": group, "rank": cheap[-1]["rank"]})  # fmt: skip
                yield value(matrix.title, _of(STAYS, group), evidence, cheap[-1]["stays_recovered_fraction"])


def _dense(rows: Sequence[Row]) -> Iterator[Claim]:
    for row in given(where(rows, group="dense"), "perplexity"):
        subject = f"{row['windows']} windows of {row['window']} tokens of {row['text']}"
        yield Claim(subject, DENSE, interval_of(row, "perplexity"), {}, Evidence("ablation", "perplexity", 1))


def _methods(matrix: Matrix) -> Iterator[Claim]:
    """The SVD and every family of methods, each where it stores most but no more than KEPT."""
    families = matrix.families
    for group in GROUPS[:-1]:
        for ours in [[], *families.values()] if families else ():
            if fitting := [row for row in matrix.curve(group, *ours) if float(row["kept_ratio"]) <= KEPT]:
                best = max(fitting, key=lambda row: float(row["kept_ratio"]))
                evidence = Evidence("recovery", "recovered_fraction", 1, {
                    **matrix.labels, "group": group, "method": best["method"], "rank": best["rank"]})  # fmt: skip
                yield value(best["method"], _of(RECOVERED, group), evidence, best["recovered_fraction"],
                            kept=best["kept_ratio"])  # fmt: skip


def _of(quantity: Quantity, group: str) -> Quantity:
    """The quantity of a group of entries."""
    return replace(quantity, name=f"{quantity.name}_{group}", words=quantity.words.format(group=title(group)))


def _ablation(rows: Sequence[Row]) -> Iterator[Claim]:
    """Changes of the loss, of weights wherever they are first, then matrix by matrix."""
    for where_at in sorted(dict.fromkeys(map(place, rows)), key=bool):
        quantity = ZEROED
        if where_at:
            words = ZEROED.words.replace("weights", f"entries of {where_at}")
            quantity = replace(ZEROED, name=f"{ZEROED.name} of {where_at}", words=words)
        for row in rows:
            if place(row) == where_at and row["group"] not in ("dense", "random"):
                about = {key: row.get(key) for key in ("group", "layer", "projection", "expert")}
                change = interval_of(row, "loss_change")
                yield Claim(zeroed(row), quantity, change, {}, Evidence("ablation", "loss_change", 1, about))


def interval_of(row: Row, column: str) -> Estimate:
    """The value with its interval over windows."""
    ends = around(row[column], row.get(f"{column}_stderr"), int(row["windows"]) - 1)
    return Estimate(row[column], *ends)


def zeroed(row: Row) -> str:
    """Number of weights, and of what group, that were set to zero."""
    name = title(str(row["group"]))
    if row["group"] == "random_mean":
        return name
    one = f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")
    return f"{row['zeroed']} {one if row['zeroed'] == 1 else name}"
