"""Claims across runs: the gap of TD-MoE to MoBE, its causes, what predicts it, and what to use instead.

All is computed from the tables of finished runs (`reports.run`), model by model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from diag.declare.claim import Claim, Estimate, Evidence, Quantity
from diag.declare.column import View
from diag.verdict.alternatives import alternative_claims
from diag.verdict.causes import drift_claims, expert_claims, spectra_claims
from diag.verdict.columns import NOTE, TABLES, tabled, views
from diag.verdict.evaluations import pairs
from diag.verdict.figures import figures
from diag.verdict.gap import gap_claims, share_claims
from diag.verdict.models import Models, models_of
from diag.verdict.predictors import predictor_claims
from diag.verdict.subjects import Run, Subject, subjects
from reports.plots import Plot

SCHEMA = 1  # of verdict.json
UNFINISHED = Quantity(
    "unfinished", "Jobs that did not finish", "integer", "share", "All of the above holds for what was measured."
)
HEADLINES = ("gap", "no_gap", "share", "binding", "predictor_injected", "alternative")  # of a terminal


@dataclass(frozen=True)
class Verdict:
    """Everything said of one model: claims, and tables and figures below them."""

    subject: Subject
    claims: Sequence[Claim]
    views: Sequence[View]
    figures: Sequence[Plot]

    def as_dicts(self) -> list[dict[str, Any]]:
        """The claims as plain data; words begin with the model's name where there are several."""
        lead = self.subject.lead
        return [
            {"model": self.subject.name, **claim.as_dict(), "words": lead + claim.quantity.words}
            for claim in self.claims
        ]


def verdicts(runs: Sequence[Run]) -> list[Verdict]:
    """A verdict a model, in the order given."""
    found = []
    for subject in subjects(runs):
        models = models_of(subject)
        found.append(Verdict(subject, claims_of(subject, models), views(subject, models), figures(subject, models)))
    return found


def claims_of(subject: Subject, models: Models) -> list[Claim]:
    """Does it lose, how much of that is how it was run, why, what predicts it, what to use instead."""
    found = pairs(subject)
    ratio = found[0].ratio if found else None
    return [
        *gap_claims(found),
        *share_claims(subject, found),
        *spectra_claims(subject),
        *expert_claims(subject, ratio),
        *drift_claims(models.main(ratio)),
        *predictor_claims(subject),
        *alternative_claims(found),
        *_unfinished(subject),
    ]


def _unfinished(subject: Subject) -> Iterator[Claim]:
    jobs: dict[str, list[bool]] = {}
    for run in subject.runs:
        jobs.setdefault(str(run["command"]), []).extend(job["state"] == "done" for job in run["jobs"])
    for command, done in sorted(jobs.items()):
        if not all(done):
            lost = Estimate(done.count(False), of=len(done))
            yield Claim(f"{command}", UNFINISHED, lost, {}, Evidence("run.json", "jobs", len(done)))


__all__ = ["HEADLINES", "NOTE", "SCHEMA", "TABLES", "Verdict", "tabled", "verdicts"]
