"""Numbers of *Rethinking the Role of Tensor Decompositions in Post-Training LLM Compression* (arXiv 2606.03465v1).

Only what its tables and text print (`diag/assets/published`); its figures carry no numbers, so of TD-MoE and MoBE there
is no perplexity, angle or time to put beside a measured one. exponents.csv is Table 1: sigma_i ~ i^-alpha of the three
unfoldings, the range of i is not stated. storage.csv is Table 3: one layer of LLaMA 2 7B; `saved` in per cent of all
but the embeddings. tradeoffs.csv is Table 4, of the two numbers in a cell the first: without LoRA.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from math import log
from statistics import median
from typing import Any

from diag.declare.column import Column, View
from diag.declare.common_columns import common
from diag.statistics.medians import given, middle
from diag.verdict.models import Compared, Models
from diag.verdict.subjects import Row, Subject, number, plain
from diag.verdict.texts import Text
from tdmoe.numerics.gram import MODES

MOE = "Qwen3-30B-A3B"  # whose exponents Table 1 has
RAW = "gpt-oss-20b"  # of which the text says that its perplexity on raw text is no signal
RAW_PERPLEXITY = {"wikitext2": 503.9, "c4": 269.9}  # appendix C.1, "Perplexity on GPT-OSS-20B", dense
_TEXTS = {"wikitext2": "WikiText-2", "c4": "C4"}  # what names of texts begin with
_WORDS = {"model", "blocks", "method", "target", "projection"}
_BITS, _ANGLE, _MODE = common("bits_saved", "angle_deg", "mode")
_NAME = Column("name", "model and method, measured or in the paper", "model and method", form="text")
_ADDED = Column("added", "loss above the dense model's", "above dense", "nats a token", "change", error="added_stderr")
_ADDED_STDERR = Column("added_stderr", "its paired standard error")


@cache
def published(table: str) -> tuple[dict[str, Any], ...]:
    """Rows of one of the tables; what a row does not have is None."""
    text = files("diag").joinpath(f"assets/published/{table}.csv").read_text(encoding="utf-8")
    return tuple(
        {k: v if k in _WORDS else None if v == "" else float(v) for k, v in row.items()}
        for row in csv.DictReader(text.splitlines())
    )


def published_views(subject: Subject, found: Models) -> Iterator[View]:
    """The paper's exponents, losses and storage beside the measured ones, as far as anything was measured."""
    if rows := given(subject.rows("spectra"), "alpha", "alpha_null"):
        yield _stack_by_stack(subject, rows) if subject.is_called(MOE) else _mode_by_mode(subject, rows)
    models = [
        model
        for ratio, layers in found.settings
        for model in found.shown(ratio, layers)
        if model.ratio == ratio and model.loss.bits_saved is not None and not model.loss.is_control
    ]
    if models:
        yield _tradeoffs(subject, found, models)
        yield _storage(subject, models)


def nearest(saved: float) -> list[dict[str, Any]]:
    """The line of every model and method of Table 4 whose savings, in per cent, are nearest."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in published("tradeoffs"):
        key = line["model"], line["method"]
        if line["method"] != "dense" and (
            key not in found or abs(line["saved"] - saved) < abs(found[key]["saved"] - saved)
        ):
            found[key] = line
    return list(found.values())


def _stack_by_stack(subject: Subject, rows: Sequence[Row]) -> View:
    ours = {(row["layer"], row["projection"], row["mode"]): row for row in rows}
    lines = []
    for line in published("exponents"):
        for mode in MODES:
            row = ours.get((line["layer"], line["projection"], mode), {"status": "not_measured"})
            alpha, paper = number(row, "alpha"), line[mode]
            name = f"Table 1, layer {line['layer']:g} / {line['projection']}"
            difference = None if alpha is None else alpha - paper
            lines.append({**row, "name": name, "mode": mode, "paper": paper, "difference": difference})
    columns = [
        _NAME.but(label="layer / projection"),
        _MODE,
        Column("alpha", "measured exponent", "measured", form="exponent", baseline="alpha_null"),
        Column("alpha_null", "exponent of a Gaussian stack", form="exponent"),
        Column("paper", "the paper's", form="exponent"),
        Column("difference", "measured less the paper's", form="change"),
    ]
    caption = "Exponents alpha of sigma_i ~ i^-alpha of the same model; the paper does not state its fit range"
    return View(subject.anchor("published-exponents"), subject.title("The paper's exponents and the measured ones"),
                caption, columns, lines, ("name",), "mode", folded=True)  # fmt: skip


def _mode_by_mode(subject: Subject, rows: Sequence[Row]) -> View:
    lines: list[Row] = []
    for mode in MODES:
        ours = [row for row in rows if row["mode"] == mode and row["projection"] in ("gate", "up")]
        theirs = [float(line[mode]) for line in published("exponents")]
        for name, values in (("measured", [float(row["alpha"]) for row in ours]), (f"{MOE}, paper", theirs)):
            line = {"mode": mode, "of": name, "null": middle(ours, "alpha_null") if name == "measured" else None}
            if values:
                line |= {"median": median(values), "least": min(values), "most": max(values)}
            lines.append(line)
    columns = [_MODE, Column("of", "whose exponents", form="text")]
    columns += [Column(name, f"{name} over stacks", form="exponent") for name in ("median", "least", "most")]
    columns.append(Column("null", "median of Gaussian stacks", "baseline", form="exponent"))
    caption = (
        f"Exponents alpha of sigma_i ~ i^-alpha of gate and up; the paper's are of {MOE}, another model: Table 1, "
        "8 stacks, without a baseline"
    )
    return View(subject.anchor("published-exponents"), subject.title("The paper's exponents and the measured ones"),
                caption, columns, lines, folded=True)  # fmt: skip


def _tradeoffs(subject: Subject, found: Models, models: Sequence[Compared]) -> View:
    texts = {name: _text(found, models, name) for name in _TEXTS}
    lines: list[Row] = []
    for model in models:
        about = {"name": _measured(subject, model), "bits_saved": model.loss.bits_saved}
        end = model.end or {}
        about |= {name: end.get(name) for name in ("angle_deg", "norm_ratio")}
        for name, text in texts.items():
            loss = None if text is None else model.losses.get(text)
            line = {**about, "text": _TEXTS[name], "status": "not_measured"}
            if loss is not None:
                added = {"added": loss.damage, "added_stderr": loss.stderr} if loss.measured else {}
                line |= {"perplexity": loss.perplexity[0], **added}
            lines.append(line)
    lines += _raw() if subject.is_called(RAW) else []
    dense = {line["model"]: line for line in published("tradeoffs") if line["method"] == "dense"}
    for theirs in nearest(median(100 * (model.loss.bits_saved or 0.0) for model in models)):
        where = f", blocks {theirs['blocks']}" if theirs["blocks"] else ""
        own = {"name": f"paper: Table 4, {theirs['model']}{where}, {theirs['method']}"}
        own |= {"bits_saved": theirs["saved"] / 100, **{k: theirs[k] for k in ("angle_deg", "norm_ratio")}}
        for name, text_name in _TEXTS.items():
            above = log(theirs[name] / dense[theirs["model"]][name])
            lines.append({**own, "text": text_name, "perplexity": theirs[name], "added": above})
    columns = [
        _NAME, _BITS, _ANGLE, Column("norm_ratio", "norm over the dense model's", form="factor"),
        Column("text", "text", form="text"), Column("perplexity", "perplexity", form="perplexity"), _ADDED,
        _ADDED_STDERR,
    ]  # fmt: skip
    names = ", ".join(found.names[text] for text in texts.values() if text is not None)
    caption = (
        f"Perplexity{f', measured on {names},' if names else ''} and nats a token above the dense model; of the "
        "paper's Table 4 the line of every model and method whose savings are nearest, without LoRA. Its models are "
        "other, dense ones: they say how large such numbers are, not which method is better"
    )
    title = subject.title("The paper's losses and angles and the measured ones")
    keys = ("name", "bits_saved", "angle_deg", "norm_ratio")
    return View(subject.anchor("published-losses"), title, caption, columns, lines, keys, "text", folded=True)


def _raw() -> list[Row]:
    about = {"name": f"paper: appendix C.1, {RAW}, dense", "bits_saved": 0.0, "angle_deg": 0.0, "norm_ratio": 1.0}
    return [{**about, "text": _TEXTS[name], "perplexity": value} for name, value in RAW_PERPLEXITY.items()]


def _storage(subject: Subject, models: Sequence[Compared]) -> View:
    lines: list[Row] = [
        {
            "name": _measured(subject, model),
            "target": plain(str(model.loss.row.get("projections") or "").replace(",", ", ")),
            "local": 1 / median(model.shares) if model.shares else None,
            "bits_saved": model.loss.bits_saved,
            "status": "ok" if model.shares else "not_measured",
        }
        for model in models
    ]
    for line in published("storage"):
        name = f"paper: Table 3, {line['method']} {line['target']}, rank {line['rank']:g}"
        about = {"name": name, "target": line["target"], "local": line["compression"]}
        lines.append({**about, "bits_saved": line["saved"] / 100})
    columns = [
        _NAME, Column("target", "what is compressed", "compressed", form="text"),
        Column("local", "dense over stored bits of that", "dense over stored, of that", form="factor"), _BITS,
    ]  # fmt: skip
    caption = "Storage; the paper's: Table 3, single layers of LLaMA 2 7B, another model"
    return View(subject.anchor("published-storage"), subject.title("The paper's storage and the measured one"), caption,
                columns, lines, folded=True)  # fmt: skip


def _measured(subject: Subject, model: Compared) -> str:
    return f"{subject.name}, measured: {model.name}"


def _text(found: Models, models: Sequence[Compared], name: str) -> Text | None:
    """The text whose name begins so that most models were read on by one protocol."""
    able = [text for text in found.texts if text.name.startswith(name)]
    return max(able, key=lambda text: sum(text in model.losses for model in models), default=None)
