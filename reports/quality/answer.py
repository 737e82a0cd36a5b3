"""The answer in plain words, computed from the rows: nothing is said that a number does not support."""

from reports.formats import fixed, listing, percent, significant
from reports.quality.models import (
    ACCURACY,
    MACRO,
    PERPLEXITY,
    Difference,
    Measured,
    datasets,
    dense_of,
    difference,
)

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
    said += [_text(variants, dense, text) for text in texts]
    said += [_growth(variants, text) for text in texts[:1]]
    said.append(READING if variants and texts else "")
    said += [_tasks(variants, dense, tasks)]
    return [sentence for sentence in said if sentence]


def _dense(dense: Measured, texts: list[str]) -> str:
    parts = [
        f"{significant(row['value'], 5)} ± {significant(row.get('stderr'), 2)} on {text} "
        f"({row['samples']} windows, {row['tokens']} scored tokens)"
        for text in texts
        if (row := dense.rows.get(text)) is not None and row.get("value") is not None
    ]
    return f"Perplexity of the dense model: {listing(parts)}." if parts else ""


def _text(variants: list[Measured], dense: Measured, text: str) -> str:
    """The best and the worst of comparable ones: the largest layer set that all ratios and methods share."""
    found = [(model, d) for model in variants if (d := difference(model.rows.get(text))) is not None]
    if not found:
        return ""
    most = max(found, key=lambda pair: len_of(pair[0].layers))[0].layers
    found = [(model, d) for model, d in found if model.layers == most]
    said = []
    for ratio in dict.fromkeys(model.ratio for model, _ in found):
        ranked = sorted(((d.value, m.name, m, d) for m, d in found if m.ratio == ratio), key=lambda entry: entry[:2])
        best, worst = ranked[0], ranked[-1]
        part = f"{best[1]} changes the loss by {_nats(best[3])}, saving {percent(best[2].bits_saved)} of the bits"
        if worst is not best:
            part += f"; {worst[1]}, by {_nats(worst[3])}, saving {percent(worst[2].bits_saved)}"
            gap = worst[0] - best[0]
            stderrs = [entry[3].stderr or 0.0 for entry in (best, worst)]
            if gap > 2 * sum(stderrs):
                part += f" ({fixed(gap, 4)} nats more)"
            else:
                part += " (no clear difference)"
        said.append(part)
    where = f" (layers {most})" if most else ""
    return f"On {text}{where}: {'. '.join(said)}."


def _growth(variants: list[Measured], text: str) -> str:
    """Over growing sets of layers: the first and the last set of every method and ratio."""
    series: dict[str, list[tuple[int, Measured, Difference]]] = {}
    for model in variants:
        if model.layers and (d := difference(model.rows.get(text))) is not None:
            series.setdefault(model.name, []).append((len_of(model.layers), model, d))
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


def len_of(layers: str) -> int:
    """How many layers "0-2,5" names."""
    total = 0
    for part in layers.split(",") if layers else ():
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total
