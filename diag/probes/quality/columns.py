"""The table of `quality`, and how people read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diag.declare.column import Column, Columns, Row, View
from diag.declare.common_columns import common
from diag.statistics.medians import given, where

PERPLEXITY, METRIC = "perplexity", "acc"
MACRO = "macro average"
DENSE = "dense"
LOSS_CHANGE, ACCURACY_CHANGE = "loss_difference_nats", "accuracy_difference"

TABLES = {
    "quality": Columns(
        *common("method", "ratio", "compressed_layers", "bits_saved"),
        Column("dataset", "text, task, or the tasks' macro average", "data set", form="name"),
        Column("metric", "perplexity, or acc: share of the documents that are answered rightly", form="text"),
        Column("value", "perplexity or accuracy", error="stderr", why=("overflow",)),
        Column("stderr", "its standard error over windows or documents"),
        Column("samples", "windows or documents", "windows or documents", form="integer"),
        *common("status"),
        Column("loss_nats", "mean next-token cross-entropy", "loss", "nats a token", "loss", "loss_nats_stderr"),
        Column("loss_nats_stderr", "standard error of loss_nats"),
        Column(LOSS_CHANGE, "loss less the dense model's on the same windows", "less dense", "nats a token", "change",
               "loss_difference_nats_stderr"),
        Column("loss_difference_nats_stderr", "standard error of that difference, paired by window"),
        Column(ACCURACY_CHANGE, "accuracy less the dense model's on the same documents", "less dense", "points",
               "points", "accuracy_difference_stderr"),
        Column("accuracy_difference_stderr", "standard error of that difference, paired by document"),
        Column("tokens", "tokens that are scored", "scored tokens", form="integer"),
        *common("projections", "checkpoint"),
        Column("bits_saved_bf16", "bits saved of the same model in bf16", "bits saved of bf16", form="percent"),
        *common("protocol", "calibration", "bits_saved_of", "variant"),
    )
}  # fmt: skip
_QUALITY = TABLES["quality"]


def views(tables: Mapping[str, Sequence[Row]]) -> list[View]:
    """Perplexity and accuracy, a line a model; what was measured on what."""
    rows = ordered(tables["quality"])
    folders = ("checkpoint",) if any(row["checkpoint"] not in ("", row["method"]) for row in rows) else ()
    keys = ("method", "ratio", "compressed_layers", *folders, "bits_saved")
    found = []
    for name, title, metric, form, change in (
        ("perplexity", "Perplexity", PERPLEXITY, "perplexity", LOSS_CHANGE),
        ("accuracy", "Zero-shot accuracy", METRIC, "percent", ACCURACY_CHANGE),
    ):
        columns = _QUALITY.pick(*keys, "dataset", "value", "stderr", change, f"{change}_stderr")
        shown = [column.but(label=name, form=form) if column.name == "value" else column for column in columns]
        ours = where(rows, metric=metric)
        caption = f"{title} and the difference to the dense model, ± standard errors, the difference's paired"
        found.append(View(name, title, caption, shown, ours, keys, "dataset"))
    about = list({row["dataset"]: row for row in reversed(rows)}.values())
    told = _QUALITY.pick("dataset", "metric", "samples", "tokens", "protocol")
    found.append(View("protocol", "Protocol", "What was measured on what", told, about[::-1], folded=True))
    return [view for view in found if view.rows] or found[:1]


def ordered(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Dense first, then by bits saved; of each model the macro average before its tasks. Words are never None."""
    told = [{**row, **{c: row.get(c) or "" for c in ("compressed_layers", "checkpoint")}} for row in rows]
    return sorted(
        told,
        key=lambda row: (
            not is_dense(row), row.get("bits_saved") or 0.0, row["method"], row.get("ratio") or 0.0,
            row["dataset"] != MACRO,
        ),
    )  # fmt: skip


def is_dense(row: Row) -> bool:
    """Tell whether it is of the model as it is."""
    return bool(row["method"] == DENSE and not row.get("checkpoint"))


def datasets(rows: Iterable[Row], metric: str) -> list[str]:
    """Texts, or the macro average of the tasks, or the tasks where there is none."""
    found = list(dict.fromkeys(row["dataset"] for row in given(where(rows, metric=metric), "value")))
    return [MACRO] if MACRO in found else found
