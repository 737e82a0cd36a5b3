"""The verdict: five sentences a model, each computed from the tables, and what the runs lack."""

from collections.abc import Sequence

from reports.formats import counted, listing
from reports.run import Run
from reports.verdict.arenas import all_duels
from reports.verdict.causes import causes
from reports.verdict.inflicted import inflicted
from reports.verdict.instead import instead
from reports.verdict.loses import loses
from reports.verdict.predictor import predictor
from reports.verdict.subjects import Subject, subjects


def sentences(runs: Sequence[Run]) -> list[str]:
    """Of every model in turn."""
    return [sentence for subject in subjects(runs) for sentence in of_model(subject)]


def of_model(subject: Subject) -> list[str]:
    """Does it lose, how much of that was self-inflicted, what the spectra say, what predicts it, what to do instead."""
    found = all_duels(subject)
    ratio = found[0].ratio if found else None
    said = [
        loses(found), inflicted(subject, found), causes(subject, ratio), predictor(subject), instead(found),
        _incomplete(subject),
    ]  # fmt: skip
    return [subject.lead + sentence for sentence in said if sentence]


def _incomplete(subject: Subject) -> str:
    lost = [
        f"{gone} of {counted(jobs, 'job')} of {command}" for command, (gone, jobs) in sorted(subject.unfinished.items())
    ]
    if not lost:
        return ""
    return f"Incomplete: {listing(lost)} did not finish; all of the above holds for what was measured."
