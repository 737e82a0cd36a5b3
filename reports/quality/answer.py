"""The answer in plain words, computed from the rows: nothing is said that a number does not support."""

from reports.formats import fixed, listing, percent
from reports.quality.models import (
    ACCURACY,
    MACRO,
    PERPLEXITY,
    Difference,
    Measured,
    datasets,
    dense_of,
    difference,
    with_error,
)
from reports.run import Row

_MOST = 6  # variants of one ratio in a sentence
READING = (
    "A difference is of the mean loss a token, in nats, on the same windows as the dense model: perplexity grows by "
    "the factor exp(difference). Its standard error is paired: what makes a text hard for both models is not in it."
)


def answer(listed: list[Measured]) -> list[str]:
    """Sentences for the top of the page, the most important first."""
    dense = dense_of(listed)
    texts, tasks = datasets(listed, PERPLEXITY), datasets(listed, ACCURACY)
    if dense is None or not any(row.get("value") is not None for row in dense.rows.values()):
        return ["The dense model was not measured, so this run answers nothing yet."]
    variants = [model for model in listed if not model.is_dense]
    said = [_dense(dense, texts)]
    order: list[str] = []
    for text in texts:
        sentence, order = _text(variants, text, order)
        said.append(sentence)
    said += [_growth(variants, text) for text in texts[:1]]
    said.append(READING if variants and texts else "")
    said += [_tasks(variants, dense, tasks)]
    return [sentence for sentence in said if sentence]


def _windows(row: Row) -> str:
    return "window" if row["samples"] == 1 else "windows"


def _dense(dense: Measured, texts: list[str]) -> str:
    parts = [
        f"{with_error(row)} on {text} ({row['samples']} {_windows(row)}, {row['tokens']} scored tokens)"
        for text in texts
        if (row := dense.rows.get(text)) is not None and row.get("value") is not None
    ]
    return f"Perplexity of the dense model: {listing(parts)}." if parts else ""


def _text(variants: list[Measured], text: str, before: list[str]) -> tuple[str, list[str]]:
    """What each variant adds to the loss, by ratio, over the largest set of layers; and their order by it.

    Where the order is that of `before`, the best and the worst are enough.
    """
    found = [(d.value, m.name, m, d) for m in variants if (d := difference(m.rows.get(text))) is not None]
    if not found:
        return "", before
    most = max((m.layers for _, _, m, _ in found), key=count_layers)
    found = sorted((entry for entry in found if entry[2].layers == most), key=lambda entry: entry[:2])
    order = [name for _, name, _, _ in found]
    where = f"On {text}" + (f", layers {most} compressed" if most else "")
    if order == before and len(found) > 2:
        ends = [f"{name} ({_nats(d)})" for _, name, _, d in (found[0], found[-1])]
        return f"{where}, the order of all {len(found)} is the same, from {ends[0]} to {ends[1]}.", order
    parts = []
    for ratio in sorted({m.ratio for _, _, m, _ in found}, key=lambda r: -1.0 if r is None else r):
        said = [_one(name, m, d) for _, name, m, d in found if m.ratio == ratio]
        parts.append(listing(said[:_MOST]) + (f" and {len(said) - _MOST} more" if len(said) > _MOST else ""))
    return f"{where}, the loss changes by (nats a token, saved bits in brackets): {'; '.join(parts)}.", order


def _one(name: str, model: Measured, found: Difference) -> str:
    return f"{name} {found.text(4)} ({percent(model.bits_saved)})"


def _growth(variants: list[Measured], text: str) -> str:
    """Over growing sets of layers: the first and the last set of every method and ratio."""
    series: dict[str, list[tuple[int, Measured, Difference]]] = {}
    for model in variants:
        if model.layers and (d := difference(model.rows.get(text))) is not None:
            series.setdefault(model.name, []).append((count_layers(model.layers), model, d))
    parts = []
    for name, line in series.items():
        ordered = sorted(line, key=lambda entry: entry[0])
        if len(ordered) > 1:
            first, last = ordered[0], ordered[-1]
            parts.append(
                f"{name} from {_nats(first[2])} with {first[0]} {'layer' if first[0] == 1 else 'layers'} to "
                f"{_nats(last[2])} with {last[0]}"
            )
    return f"Over the schedule, on {text}: {listing(parts)}." if parts else ""


def _tasks(variants: list[Measured], dense: Measured, tasks: list[str]) -> str:
    name = MACRO if MACRO in tasks else tasks[0] if tasks else ""
    row = dense.rows.get(name)
    if row is None or row.get("value") is None:
        return ""
    what = f"Zero-shot accuracy, {name} of {len(tasks) - 1} tasks" if name == MACRO else f"Zero-shot accuracy on {name}"
    said = f"{what}: dense {percent(row['value'])}"
    if row.get("stderr") is not None:
        said += f" ± {fixed(100 * row['stderr'], 1)}"
    found = [(d.value, m.name, m, d) for m in variants if (d := difference(m.rows.get(name))) is not None]
    if not found:
        return said + "."
    worst, best = min(found, key=lambda e: e[:2]), max(found, key=lambda e: e[:2])
    said += f"; {_points(best)}" + (f", and {_points(worst)}" if worst is not best else "")
    clear = sum(entry[3].clear for entry in found)
    return (
        f"{said}. {clear} of {len(found)} {'variant differs' if len(found) == 1 else 'variants differ'} from dense by "
        "more than two paired standard errors."
    )


def _nats(found: Difference) -> str:
    return f"{found.text(4)} nats"


def _points(entry: tuple[float, str, Measured, Difference]) -> str:
    _, name, model, found = entry
    where = f" (layers {model.layers})" if model.layers else ""
    return f"{name}{where} {found.points()} points"


def count_layers(layers: str) -> int:
    """How many layers "0-2,5" names."""
    total = 0
    for part in layers.split(",") if layers else ():
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total
