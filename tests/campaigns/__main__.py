"""The campaigns as a command; exit code 0 where nothing was wrong, 1 otherwise."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is there: children are forked from a process of one thread
for offline in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[offline] = "1"

from campaigns import frame  # noqa: E402
from campaigns.checkpoints import Checkpoints  # noqa: E402
from campaigns.folders import Folders  # noqa: E402
from campaigns.hubs import Hubs  # noqa: E402
from campaigns.kills import Kills  # noqa: E402
from campaigns.running import Running  # noqa: E402

CAMPAIGNS = {kind.name: kind for kind in (Kills, Checkpoints, Running, Folders, Hubs)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="campaigns", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of all campaigns together (default: 600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (default: 2)")
    parser.add_argument("--only", default=",".join(CAMPAIGNS), help="campaigns, comma-separated (default: all)")
    parser.add_argument("--case", help="only these cases of each, as 17 or 0-9,30")
    parser.add_argument("--keep", type=Path, help="keep the folder of the one --case here")
    parser.add_argument("--failures", type=Path, default=Path("campaign-failures.jsonl"), help="file of failing cases")
    given = parser.parse_args(arguments)
    if unknown := set(given.only.split(",")) - set(CAMPAIGNS):
        parser.error(f"--only: there is no campaign {', '.join(sorted(unknown))}; give some of {', '.join(CAMPAIGNS)}")
    cases = None if given.case is None else numbers(given.case)
    chosen = {name: CAMPAIGNS[name] for name in given.only.split(",")}
    whole = sum(kind.share for kind in chosen.values())
    started = time.monotonic()
    judged = frame.run(
        chosen,
        seed=given.seed,
        seconds=given.seconds / whole,
        jobs=given.jobs if cases is None else min(given.jobs, len(cases)),
        cases=None if cases is None else dict.fromkeys(chosen, cases),
        keep=given.keep,
    )
    print(frame.summary(judged))
    faulty = [each for each in judged if each.faults]
    given.failures.write_text("".join(json.dumps({**asdict(each), "again": each.again}) + "\n" for each in faulty))
    print(f"{len(judged)} cases in {time.monotonic() - started:.0f} s, {len(faulty)} faulty (see {given.failures})")
    return 1 if faulty or not judged else 0


def numbers(text: str) -> list[int]:
    """0-3,7 as [0, 1, 2, 3, 7]."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


if __name__ == "__main__":
    sys.exit(main())
