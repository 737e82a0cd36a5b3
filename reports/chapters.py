"""Several runs on one page: their order, what each is called, and the prefix that keeps its anchors its own."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from reports.formats import counted, display
from reports.run import Run
from reports.sections import Section

_MOST = 2  # settings named to tell runs of one command apart
_LONGEST = 40  # characters of such a setting


@dataclass(frozen=True)
class Chapter:
    """One run as a part of the page. `place` is its index among the runs given, `differs` what sets it apart."""

    place: int
    run: Run
    section: Section
    prefix: str
    differs: str = ""

    @property
    def title(self) -> str:
        return self.section.title + (f" ({self.differs})" if self.differs else "")

    @property
    def done(self) -> str:
        """Number of its jobs that are done, in words."""
        done, jobs = sum(job["state"] == "done" for job in self.run["jobs"]), len(self.run["jobs"])
        return f"All {counted(jobs, 'job')} done" if done == jobs > 1 else f"{done} of {counted(jobs, 'job')} done"

    @property
    def file(self) -> str:
        """Beginning of the names of its files."""
        return f"{self.run['model']}-{self.prefix or self.run['command']}".rstrip("-")

    @property
    def name(self) -> str:
        """A short name: the command and what sets it apart."""
        return f"{self.run['command']}" + (f", {self.differs}" if self.differs else "")


@dataclass(frozen=True)
class Subject:
    """One model with its chapters."""

    name: str
    anchor: str
    chapters: Sequence[Chapter]


def prefixes(runs: Sequence[Run]) -> list[str]:
    """Beginnings of anchors and figures of each run: nothing for one run, otherwise its own slug.

    The slug is the command, before it the model where there are several, after it a number where that is not enough.
    """
    if len(runs) == 1:
        return [""]
    several = len({_subject(run) for run in runs}) > 1
    found: list[str] = []
    for run in runs:
        base = slug(f"{run['model']}-{run['command']}" if several else run["command"])
        number = 1
        while (name := f"{base}-" if number == 1 else f"{base}-{number}-") in found:
            number += 1
        found.append(name)
    return found


def slug(text: object) -> str:
    """The text as part of a file name or anchor: ASCII letters, digits, dot and dash."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", str(display(text))).strip("-.")[:80] or "run"


def setting(value: object) -> str:
    """A setting as text."""
    return ", ".join(setting(item) for item in value) if isinstance(value, list | tuple) else str(display(value))


def subjects(runs: Sequence[Run], sections: Sequence[Section], order: Sequence[str]) -> list[Subject]:
    """Models in the order given, their runs in the `order` of commands; `sections[i]` is that of `runs[i]`."""
    names, apart = prefixes(runs), _distinctions(runs)
    chapters = [
        Chapter(place, run, section, names[place], apart[place])
        for place, (run, section) in enumerate(zip(runs, sections, strict=True))
    ]
    grouped: dict[tuple[str, str], list[Chapter]] = {}
    for chapter in chapters:
        grouped.setdefault(_subject(chapter.run), []).append(chapter)
    alike = Counter(model for model, _ in grouped)
    return [
        Subject(
            name=model if alike[model] == 1 else f"{model}, fingerprint {fingerprint}",
            anchor=f"model-{number}",
            chapters=sorted(ours, key=lambda c: (order.index(c.run["command"]), c.place)),
        )
        for number, ((model, fingerprint), ours) in enumerate(grouped.items(), 1)
    ]


def _subject(run: Run) -> tuple[str, str]:
    return str(run["model"]), str(run["fingerprint"])


def _distinctions(runs: Sequence[Run]) -> list[str]:
    """Words that tell each run from others of its command and model: settings, seed or device, else its number."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, run in enumerate(runs):
        alike.setdefault((*_subject(run), run["command"]), []).append(place)
    found = [""] * len(runs)
    for places in alike.values():
        if len(places) > 1:
            facts = [_facts(runs[place]) for place in places]
            keys = [key for key in dict.fromkeys(k for f in facts for k in f) if len({f.get(key) for f in facts}) > 1]
            told = [", ".join(f"{key} {_short(f.get(key, ''))}" for key in keys[:_MOST]) for f in facts]
            for number, (place, text) in enumerate(zip(places, told, strict=True), 1):
                found[place] = text if told.count(text) == 1 else f"run {number}" + (f", {text}" if text else "")
    return found


def _facts(run: Run) -> dict[str, str]:
    return {
        name: setting(value) for name, value in {**run["config"], "seed": run["seed"], "device": run["device"]}.items()
    }


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
