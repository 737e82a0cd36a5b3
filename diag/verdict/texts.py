"""Protocols from a text to losses: only losses of one protocol are comparable.

A text is its name, the number of its windows, and how they were read: joined, cut, scored, begun, in which type of
weights. Runs that say the same share it; a run that does not say all of it has one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diag.verdict.evaluations import Evaluation
from diag.verdict.subjects import Subject, plain
from reports.formats import counted

_WEIGHTS = " weights"  # what the part of a protocol that names their type ends with


@dataclass(frozen=True)
class Text:
    """`protocol` is in words, part by part; `run` is set where it is not known, and names the run."""

    name: str
    windows: int | None
    protocol: tuple[str, ...] = ()
    run: str = ""


def text_of(subject: Subject, one: Evaluation) -> Text:
    """The text that the losses of an evaluation are of."""
    found = _attribution(subject, one) if one.attributed else _quality(one)
    return Text(one.text, one.windows, found, "" if found else subject.called(one.run))


def names_of(texts: Sequence[Text]) -> dict[Text, str]:
    """The name of each, and where another one has it too, what tells the two apart."""
    return {text: _name(text, [other for other in texts if other.name == text.name]) for text in texts}


def _quality(one: Evaluation) -> tuple[str, ...]:
    """Protocol as the table of `quality` states it."""
    stated = next((str(loss.row["protocol"]) for loss in one.losses if loss.row.get("protocol")), "")
    return tuple(part for part in stated.removeprefix(f"{one.text}: ").split(", ") if part)


def _attribution(subject: Subject, one: Evaluation) -> tuple[str, ...]:
    """Protocol in the words of `quality`: texts are taken as they are, without overlap and without added tokens."""
    config = subject.runs[one.run]["config"]
    window, dtype = config.get("window"), config.get("dtype")
    if not isinstance(window, int) or not isinstance(dtype, str):
        return ()
    said = ("text as it is", f"windows of {window} tokens", f"{window - 1} of each scored", "no BOS")
    return (*said, f"{dtype}{_WEIGHTS}")


def _name(text: Text, alike: Sequence[Text]) -> str:
    told = []
    if len({other.windows for other in alike}) > 1:
        told.append("windows unknown" if text.windows is None else counted(text.windows, "window"))
    common = set(text.protocol).intersection(*(other.protocol for other in alike if other.protocol))
    told += [plain(part.removesuffix(_WEIGHTS)) for part in text.protocol if part not in common]
    told += [plain(text.run)] if text.run and len(alike) > 1 else []
    return plain(text.name) + (f" ({', '.join(told)})" if told else "")
