"""See the package."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before torch is there
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "NO_COLOR": "1"}
os.environ |= {"COLUMNS": "120", "TERMINAL_WIDTH": "120", "TERM": "dumb", "TZ": "UTC", "PYTHONHASHSEED": "0"}
for variable in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "HF_HUB_CACHE"):
    os.environ.pop(variable, None)

from golden import cases, compare  # noqa: E402
from golden.record import record  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="golden", description="Run recorded cases again and compare, or record them.")
    parser.add_argument("--record", action="store_true", help="rewrite what is recorded")
    parser.add_argument("--cheap", action="store_true", help="only what `make test` runs")
    parser.add_argument("--only", default="", help="only cases whose KIND/NAME holds this")
    parser.add_argument("--to", type=Path, help="write what came out here and compare nothing")
    given = parser.parse_args()
    chosen = cases.chosen(cheap=given.cheap, only=given.only)
    with tempfile.TemporaryDirectory() as scratch:
        home, to = Path(scratch, "home"), given.to or Path(scratch, "recorded")
        os.environ["HF_HOME"] = str(home / "hub")
        record(chosen, home, to)
        compare.write_fingerprint(to)
        if given.to:
            return 0
        if given.record:
            _keep(to, whole=set(chosen) == set(cases.CASES))
            return 0
        found = compare.compare(chosen, to)
    print(found.said)
    return 1 if found.differences else 0


def _keep(to: Path, *, whole: bool) -> None:
    """In place of what was recorded; where only some cases ran, the others stay."""
    if whole:
        shutil.rmtree(compare.RECORDED, ignore_errors=True)
    elif compare.fingerprint() != compare.recorded_fingerprint():
        sys.exit("recorded elsewhere: record all cases, without --only and --cheap")
    for said in sorted(to.glob("*/*/said.txt")):
        target = compare.RECORDED / said.parent.relative_to(to)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(said.parent, target)
    shutil.copy(to / compare.FINGERPRINT, compare.RECORDED / compare.FINGERPRINT)


if __name__ == "__main__":
    sys.exit(main())
