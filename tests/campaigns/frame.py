"""Seeded cases of campaigns in worker processes until the time is over; a verdict each; a summary of all."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from campaigns.pico import Bench, make_bench
from campaigns.tool import Fault

RIGHT, REFUSED, BROKEN = "right", "refused", "broken"
MOST_BROKEN = 3  # cases that failed in the campaign itself, before it gives up
AT_ONCE = 10**9  # cases, where only time limits their number


@dataclass(frozen=True)
class Verdict:
    """Of one case: what was done, how it ended, what was wrong with it; `points` as it counts in the summary."""

    done: str
    ended: str
    faults: list[Fault] = field(default_factory=list)
    points: int = 1
    command: str = ""


class Campaign(Protocol):
    """`share` is its part of the time."""

    name: str
    share: float

    def case(self, draw: random.Random, folder: Path) -> Verdict: ...


@dataclass(frozen=True)
class Judged:
    """A verdict with what makes it again."""

    campaign: str
    seed: int
    case: int
    done: str
    ended: str
    faults: list[tuple[str, str]]
    points: int
    command: str
    seconds: float

    @property
    def again(self) -> str:
        return f"make campaign ONLY={self.campaign} SEED={self.seed} CASE={self.case}"


Kinds = Mapping[str, Callable[[Bench], Campaign]]
Cases = Mapping[str, Sequence[int]]  # of each campaign


def run(
    kinds: Kinds, *, seed: int, seconds: float, jobs: int, cases: Cases | None, keep: Path | None = None
) -> list[Judged]:
    """All campaigns, one after the other, each for its share of the time or over these cases."""
    home = Path(tempfile.mkdtemp(prefix="tdmoe-"))
    try:
        bench = make_bench(home)
        workers = []
        for worker in range(jobs):
            log = home / f"worker-{worker}.jsonl"
            child = os.fork()
            if child == 0:
                _work(kinds, bench, log, seed, seconds, cases, worker, jobs, keep)
            workers.append((child, log))
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _ in workers]
        judged = [Judged(**json.loads(line)) for _, log in workers if log.exists() for line in log.open()]
        for code, (_, log) in zip(codes, workers, strict=True):
            if code:
                judged.append(_broken("frame", seed, -1, f"{log.name}: its worker ended with {code}"))
        return judged
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _work(
    kinds: Kinds,
    bench: Bench,
    log: Path,
    seed: int,
    seconds: float,
    cases: Cases | None,
    worker: int,
    jobs: int,
    keep: Path | None,
) -> None:
    """Every `jobs`-th case, in a forked process; never returns."""
    code = 1
    try:
        shares = 0.0
        with log.open("w", encoding="utf-8") as out:
            end = time.monotonic()
            for name, make in kinds.items():
                campaign = make(bench)
                shares += campaign.share
                end += seconds * campaign.share  # what one leaves, the next may use
                gc.freeze()  # a collection in a child would copy what is shared
                broken = 0
                for number in range(worker, AT_ONCE, jobs) if cases is None else cases[name][worker::jobs]:
                    if time.monotonic() > end or broken == MOST_BROKEN:
                        break
                    judged = judge(campaign, name, seed, number, bench.home / f"w{worker}", keep)
                    broken += judged.ended == BROKEN
                    out.write(json.dumps(asdict(judged)) + "\n")
                    out.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            os._exit(code)


def judge(campaign: Campaign, name: str, seed: int, number: int, home: Path, keep: Path | None = None) -> Judged:
    """One case, in a folder of its own that is gone afterwards unless it is to be kept."""
    folder = keep or home / f"c{number}"
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        verdict = campaign.case(random.Random(f"{seed} {name} {number}"), folder)
    except Exception:
        return _broken(name, seed, number, traceback.format_exc())
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    faults = [(kind, said.replace(str(folder), ".")) for kind, said in verdict.faults]
    taken = time.monotonic() - started
    return Judged(name, seed, number, verdict.done, verdict.ended, faults, verdict.points, verdict.command, taken)


def _broken(name: str, seed: int, number: int, said: str) -> Judged:
    return Judged(name, seed, number, "", BROKEN, [("campaign broken", said[-600:])], 0, "", 0.0)


def summary(judged: Iterable[Judged]) -> str:
    """A line a campaign, then a line for each kind of fault with one case of it."""
    by_name: dict[str, list[Judged]] = {}
    for each in judged:
        by_name.setdefault(each.campaign, []).append(each)
    lines = [f"{'campaign':<14}{'cases':>7}{'points':>8}{'right':>8}{'refused':>9}{'faulty':>8}{'cases/s':>9}"]
    for name, found in by_name.items():
        ends = Counter(each.ended for each in found)
        faulty = sum(bool(each.faults) for each in found)
        points, spent = sum(each.points for each in found), sum(each.seconds for each in found)
        lines.append(
            f"{name:<14}{len(found):>7}{points:>8}{ends[RIGHT]:>8}{ends[REFUSED]:>9}{faulty:>8}"
            f"{len(found) / max(spent, 1e-9):>9.2f}"
        )
    for name, found in by_name.items():
        kinds: dict[str, list[tuple[Judged, str]]] = {}
        for each in found:
            for kind, said in each.faults:
                kinds.setdefault(kind, []).append((each, said))
        for kind, examples in sorted(kinds.items()):
            first, said = examples[0]
            lines.append(f"{name}: {len(examples)} x {kind}, as case {first.case} ({first.done}): {said}")
    return "\n".join(lines)
