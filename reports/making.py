"""How the runs of a page were made: versions, seeds, devices, commands, settings, and what did not finish."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.chapters import Chapter, setting
from reports.formats import EMPTY
from reports.tables import Cell, Table, pairs

Job = Mapping[str, object]


@dataclass(frozen=True)
class Method:
    """What explains how a command measures: a template, under its title."""

    anchor: str
    title: str
    template: str


@dataclass(frozen=True)
class Making:
    """What the page says of the making of its chapters."""

    chapters: Sequence[Chapter]

    @property
    def jobs(self) -> int:
        return sum(len(chapter.run["jobs"]) for chapter in self.chapters)

    @property
    def unfinished(self) -> list[tuple[Chapter, Job]]:
        """Jobs whose values are missing from the page."""
        return [(c, job) for c in self.chapters for job in c.run["jobs"] if job["state"] != "done"]

    @property
    def remarks(self) -> list[tuple[Chapter, Job]]:
        """Finished jobs that left a word."""
        return [
            (c, job) for c in self.chapters for job in c.run["jobs"] if job["state"] == "done" and job.get("message")
        ]

    @property
    def runs(self) -> Table:
        """One line a run."""
        headings = ("run", "model", "model fingerprint", "device", "seed", "started", "jobs done")
        return Table("The runs of this page", headings, [_line(chapter) for chapter in self.chapters])

    @property
    def versions(self) -> Table:
        """Package by package, one column for all runs that agree on every one."""
        columns: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for chapter in self.chapters:
            found = tuple(sorted((str(k), str(v)) for k, v in chapter.run["versions"].items()))
            columns.setdefault(found, []).append(chapter.name)
        packages = sorted({name for found in columns for name, _ in found})
        lines = [[Cell(name), *(Cell(dict(found).get(name, EMPTY)) for found in columns)] for name in packages]
        headings = ["all runs"] if len(columns) == 1 else ["; ".join(names) for names in columns.values()]
        return Table("Versions", ["package", *headings], lines)

    @property
    def methods(self) -> list[Method]:
        """One for each command."""
        found: dict[str, Method] = {}
        for chapter in self.chapters:
            section = chapter.section
            found.setdefault(section.method, Method(f"method-{chapter.run['command']}", section.title, section.method))
        return list(found.values())

    def settings(self, chapter: Chapter) -> Table:
        """What was asked of a run."""
        return pairs("Settings", ("setting", "value"), _as_text(dict(sorted(chapter.run["config"].items()))))

    def circumstances(self, chapter: Chapter) -> Table:
        """Of which model, where and with what a run was made."""
        run = chapter.run
        facts = {"model": run["model"], "model fingerprint": run["fingerprint"], "device": run["device"]}
        facts |= {"seed": run["seed"], "started": run["started"], "layout of the run": f"version {run['schema']}"}
        versions = {f"version of {name}": version for name, version in sorted(run["versions"].items())}
        return pairs("Circumstances", ("what", "value"), _as_text(facts) | _as_text(versions))


def _line(chapter: Chapter) -> list[Cell]:
    run = chapter.run
    done = sum(job["state"] == "done" for job in run["jobs"])
    texts = (chapter.name, run["model"], run["fingerprint"], run["device"], run["seed"], run["started"])
    return [*(Cell(setting(text)) for text in texts), Cell(f"{done} of {len(run['jobs'])}")]


def _as_text(values: Mapping[str, object]) -> dict[str, str]:
    return {str(name): setting(value) for name, value in values.items()}
