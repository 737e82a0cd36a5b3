"""The table of contents: what the page's links lead to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.chapters import Chapter, Subject
from reports.sections import Opening


@dataclass(frozen=True)
class Entry:
    """A link and those below it."""

    anchor: str
    title: str
    below: Sequence[Entry] = ()


def contents(subjects: Sequence[Subject], opening: Opening | None, *, incomplete: bool) -> list[Entry]:
    """Entries for what opens the page, then for every chapter with its parts, then for how it was made."""
    found = [Entry("unfinished", "Incomplete")] if incomplete else []
    chapters = [chapter for subject in subjects for chapter in subject.chapters]
    if len(chapters) == 1:
        return [*found, Entry("answer", "Answer"), *_parts(chapters[0]), Entry("method", "How this was measured")]
    if opening and opening.sentences:
        found.append(Entry("verdict", "Verdict"))
    if opening and opening.blocks:
        below = [Entry(f"verdict-{block.anchor}", block.title) for block in opening.blocks]
        found.append(Entry("comparison", "Comparison", below))
    for subject in subjects:
        ours = [Entry(f"{chapter.prefix}run", chapter.title, _parts(chapter)) for chapter in subject.chapters]
        if len(subjects) > 1:
            links = [Entry(entry.anchor, entry.title) for entry in ours]
            ours = [Entry(subject.anchor, subject.name, links)]
        found += ours
    return [*found, Entry("making", "How it was made")]


def _parts(chapter: Chapter) -> list[Entry]:
    section = chapter.section
    found = [Entry(chapter.prefix + block.anchor, block.title) for block in section.wide]
    return found + ([Entry(f"{chapter.prefix}details", section.tiles_title)] if section.tiles else [])
