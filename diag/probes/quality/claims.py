"""Conclusions of quality: how much each compressed model adds to the loss, and what it takes from the accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import exp

from diag.declare.claim import Claim, Estimate, Evidence, Quantity, count, interval, value
from diag.declare.column import Row
from diag.declare.common_columns import model_name
from diag.declare.parse import numbers
from diag.probes.quality.columns import (
    ACCURACY_CHANGE,
    LOSS_CHANGE,
    METRIC,
    PERPLEXITY,
    datasets,
    is_dense,
    ordered,
)
from diag.statistics.medians import given, groups, where

TITLE = "Perplexity and zero-shot accuracy"
QUESTION = "What does compression add to the loss, and take from the accuracy, on the same windows and documents?"

DENSE = Quantity("dense", "The dense model")
LOSS = Quantity("dense_perplexity", "Perplexity of the dense model", "perplexity")
ACCURACY = Quantity("dense_accuracy", "Zero-shot accuracy of the dense model", "percent")
ADDED = Quantity("loss_difference", "Loss added, nats a token", "change")
CHANGED = Quantity("accuracy_difference", "Accuracy less the dense model's, points", "points")
CLEAR = Quantity(
    "clear_difference", "Accuracies that differ from it by more than two paired standard errors", pattern="share"
)
GROWTH = Quantity("growth", "Loss added by the largest set of layers, beside the smallest", "change")


def claims(tables: Mapping[str, Sequence[Row]]) -> list[Claim]:
    """The most important first: the first text and the accuracy, then the schedule and other texts."""
    rows = ordered(tables["quality"])
    dense = given(filter(is_dense, rows), "value")
    if rows and not dense:
        return [Claim("so nothing is compared with it", DENSE, Estimate(None))]
    texts, tasks = datasets(rows, PERPLEXITY), datasets(rows, METRIC)
    found = [Claim(row["dataset"], LOSS, _perplexity(row), {}, _from(row)) for row in where(dense, metric=PERPLEXITY)]
    for name in texts[:1]:
        found += _changes(rows, name, ADDED, LOSS_CHANGE)
    for row in (row for row in dense if row["dataset"] in tasks):
        found.append(Claim(row["dataset"], ACCURACY, _accuracy(row), {}, _from(row)))
    for name in tasks:
        found += [*_changes(rows, name, CHANGED, ACCURACY_CHANGE), *_clear(rows, name)]
    for name in texts[:1]:
        found += _growth(rows, name)
    for name in texts[1:]:
        found += _changes(rows, name, ADDED, LOSS_CHANGE)
    return found


def _perplexity(row: Row) -> Estimate:
    """Perplexity with the interval of its loss, so that it stays above 0."""
    if row.get("loss_nats_stderr") is None:
        return Estimate(row["value"])
    loss = interval(row["loss_nats"], row["loss_nats_stderr"])
    return Estimate(row["value"], exp(loss.low or 0.0), exp(loss.high or 0.0))


def _accuracy(row: Row) -> Estimate:
    found = interval(row["value"], row.get("stderr"))
    return Estimate(found.value, max(0.0, found.low or 0.0), min(1.0, found.high or 0.0)) if found.known else found


def _changes(rows: Sequence[Row], dataset: str, quantity: Quantity, column: str) -> Iterator[Claim]:
    """Changes of models with the largest set of layers, or with unknown layers; by ratio, then size."""
    known = given(where(rows, dataset=dataset), column)
    largest = max((row["compressed_layers"] for row in known), key=lambda layers: len(numbers(layers)), default="")
    sign = -1 if column == ACCURACY_CHANGE else 1
    for layers in dict.fromkeys((largest, "")):
        words = f"{quantity.words}, on {dataset}{layers and f', layers {layers}'}"
        ours = where(known, compressed_layers=layers)
        for row in sorted(ours, key=lambda row: (row.get("ratio") or 0.0, sign * row[column])):
            found = interval(row[column], row.get(f"{column}_stderr"))
            yield Claim(model_name(row), replace(quantity, words=words), found, {}, _from(row, column))


def _clear(rows: Sequence[Row], dataset: str) -> Iterator[Claim]:
    error = f"{ACCURACY_CHANGE}_stderr"
    if known := given(where(rows, dataset=dataset), ACCURACY_CHANGE, error):
        clear = sum(abs(row[ACCURACY_CHANGE]) > 2 * row[error] for row in known)
        yield count(CLEAR, Evidence("quality", ACCURACY_CHANGE, len(known), {"dataset": dataset}), clear)


def _growth(rows: Sequence[Row], dataset: str) -> Iterator[Claim]:
    known = [row for row in given(where(rows, dataset=dataset), LOSS_CHANGE) if row["compressed_layers"]]
    named = [{**row, "name": model_name(row), "size": len(numbers(row["compressed_layers"]))} for row in known]
    for name, ours in groups(named, "name").items():
        first, *_, last = sorted([*ours, ours[0]], key=lambda row: row["size"])
        if first["size"] < last["size"]:
            beside = {f"with_layers_{first['compressed_layers']}": first[LOSS_CHANGE]}
            yield value(name, GROWTH, _from(last, LOSS_CHANGE), last[LOSS_CHANGE], **beside)


def _from(row: Row, column: str = "value") -> Evidence:
    named = ("method", "ratio", "compressed_layers", "checkpoint", "dataset")
    return Evidence("quality", column, 1, {name: row.get(name) for name in named})
