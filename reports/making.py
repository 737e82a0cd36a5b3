"""The making of a page's runs: versions, seeds, devices, commands, settings, and what did not finish."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.chapters import Chapter, setting
from reports.formats import EMPTY, size
from reports.run import Run
from reports.tables import Cell, Table, pairs

Job = Mapping[str, object]
WHOLE = "the whole run"
MEMORY_OF = {False: "of the process", True: "of the GPU, as torch allocated it"}


@dataclass(frozen=True)
class Method:
    """Explanation of how a command measures: HTML, under its title."""

    anchor: str
    title: str
    text: str
    columns: Sequence[Table] = ()


@dataclass(frozen=True)
class Making:
    """Part of the page on the making of its chapters; `missing` are jobs that left none."""

    chapters: Sequence[Chapter]
    missing: Sequence[Job] = ()

    @property
    def jobs(self) -> int:
        """Number of jobs that there should be."""
        return sum(len(chapter.run["jobs"]) for chapter in self.chapters) + len(self.missing)

    @property
    def unfinished(self) -> list[tuple[str, Job]]:
        """Jobs whose values are missing from the page, each after the name of its run."""
        return [("", job) for job in self.missing] + [pair for pair in self._named() if pair[1]["state"] != "done"]

    @property
    def shares(self) -> list[tuple[str, int, int]]:
        """Name of each run with unfinished jobs, how many they are, and of how many."""
        found = [
            (c.name, sum(job["state"] != "done" for job in c.run["jobs"]), len(c.run["jobs"])) for c in self.chapters
        ]
        return [share for share in [*found, ("no run folder", len(self.missing), len(self.missing))] if share[1]]

    @property
    def remarks(self) -> list[tuple[str, Job]]:
        """Oddities of whole runs, what was other than asked of them, and finished jobs that left a word."""
        alone = len(self.chapters) == 1
        notes: list[tuple[str, Job]] = [
            ("" if alone else chapter.name, {"key": WHOLE, "message": note})
            for chapter in self.chapters
            for note in chapter.run.get("notes") or ()
        ]
        return notes + [pair for pair in self._named() if pair[1]["state"] == "done" and pair[1].get("message")]

    def _named(self) -> list[tuple[str, Job]]:
        alone = len(self.chapters) == 1
        return [("" if alone else chapter.name, job) for chapter in self.chapters for job in chapter.run["jobs"]]

    @property
    def runs(self) -> Table:
        """One line a run."""
        columns = {"model": "model", "model fingerprint": "fingerprint", "device": "device", "seed": "seed"}
        lines = [
            [
                Cell(c.name),
                *(Cell(setting(c.run[key])) for key in columns.values()),
                *(Cell(_when(c.run)), _peak(c.run), Cell(c.done)),
            ]
            for c in self.chapters
        ]
        return Table("The runs of this page", ["run", *columns, "started", "peak memory", "jobs"], lines)

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
            anchor = f"method-{chapter.run['command']}"
            found.setdefault(section.method, Method(anchor, section.title, section.method, section.columns))
        return list(found.values())

    def settings(self, chapter: Chapter) -> Table:
        """Settings that were asked of a run."""
        return pairs("Settings", ("setting", "value"), _as_text(dict(sorted(chapter.run["config"].items()))))

    def circumstances(self, chapter: Chapter) -> Table:
        """Model of a run, where it was made and with what."""
        run = chapter.run
        facts = {"model": run["model"], "model fingerprint": run["fingerprint"], "device": run["device"]}
        facts |= {"seed": run["seed"], "started": run["started"], "layout of the run": f"version {run['schema']}"}
        peak = _peak(run)
        facts |= {f"peak memory {MEMORY_OF[_on_cuda(run)]}": peak.note or peak.text}
        versions = {f"version of {name}": version for name, version in sorted(run["versions"].items())}
        return pairs("Circumstances", ("what", "value"), _as_text(facts) | _as_text(versions))


def _on_cuda(run: Run) -> bool:
    return str(run["device"]).startswith("cuda")


def _peak(run: Run) -> Cell:
    """Peak memory of the device that a run computed on, or of its process."""
    found = size(run.get("peak_memory_bytes"))
    return Cell(found, "not known" if found == EMPTY else "")


def _when(run: Run) -> str:
    """The time without fractions, with its zone in words where that is UTC."""
    return setting(run["started"]).replace("T", " ", 1).replace("+00:00", " UTC")


def _as_text(values: Mapping[str, object]) -> dict[str, str]:
    return {str(name): setting(value) for name, value in values.items()}
