"""What came out against what is recorded: exactly where the same machine and libraries recorded it, else within LIMIT.

Last digits of floats follow from the instructions of a processor, the build of torch and the number of threads. Where
these are others, numbers may differ by LIMIT, relative to themselves or to the largest of their column, digests are
left out, and all other words must be equal. Of cases that are not `close`, such digits become large: rounding to bf16,
an expert chosen between two of nearly one score, the first steps of a training. Of their tables only the columns and
the number of rows are compared, of their texts the words.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from golden.cases import Case

RECORDED = Path(__file__).parent / "recorded"
FINGERPRINT = "fingerprint.json"
LIBRARIES = ("torch", "numpy", "scipy", "transformers", "safetensors", "powerlaw", "typer", "rich", "click")
LIMIT = 2e-4  # relative, in tables
PRINTED = 2e-3  # relative, in text: a last printed digit may be another
SHOWN = 6  # lines of a difference
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*)(?:\.\d+)?(?:e[-+]?\d+)?")
FRAMES = re.compile(r"[\u2500-\u257f]+|-{4,}")


@dataclass(frozen=True)
class Found:
    """`differences` by case; `exact` whether everything had to be the same."""

    differences: dict[str, list[str]]
    exact: bool
    cases: int

    @property
    def said(self) -> str:
        how = (
            "byte for byte" if self.exact else f"numbers within {LIMIT:g}, since recorded by another machine or version"
        )
        lines = [f"{self.cases} cases compared {how}: {len(self.differences)} differ"]
        for key, said in self.differences.items():
            lines += [key, *(f"  {line}" for line in said)]
        return "\n".join(lines)


def fingerprint() -> dict[str, str]:
    """What floats' last digits depend on."""
    import torch

    found = {name: version(name) for name in LIBRARIES}
    found |= {"machine": platform.machine(), "processor": _processor(), "threads": str(torch.get_num_threads())}
    return found | {"python": platform.python_version(), "capability": torch.backends.cpu.get_cpu_capability()}


def _processor() -> str:
    """Its name and model; two of one name may differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return ", ".join(said.get(key, "") for key in ("model name", "cpu family", "model", "stepping"))


def write_fingerprint(to: Path) -> None:
    (to / FINGERPRINT).write_text(json.dumps(fingerprint(), indent=1) + "\n", encoding="utf-8")


def recorded_fingerprint() -> dict[str, str]:
    found: dict[str, str] = json.loads((RECORDED / FINGERPRINT).read_text(encoding="utf-8"))
    return found


def compare(cases: Sequence[Case], ours: Path, recorded: Path = RECORDED) -> Found:
    """The cases in both folders."""
    one, other = (json.loads((folder / FINGERPRINT).read_text(encoding="utf-8")) for folder in (ours, recorded))
    exact = one == other
    found = {case.key: list(_differences(case, recorded / case.key, ours / case.key, exact)) for case in cases}
    return Found({key: said for key, said in found.items() if said}, exact, len(cases))


def _differences(case: Case, recorded: Path, ours: Path, exact: bool) -> Iterator[str]:
    before, after = ({p.relative_to(f).as_posix(): p for p in f.rglob("*") if p.is_file()} for f in (recorded, ours))
    if not before:
        yield "is not recorded: python -m golden --record"
        return
    for name in sorted(before.keys() | after.keys()):
        if name not in after or name not in before:
            yield f"{name}: {'is gone' if name in before else 'is new'}"
            continue
        one, other = (path[name].read_text(encoding="utf-8") for path in (before, after))
        if not _same(name, one, other, exact, case):
            yield from (f"{name}: {line}" for line in _shown(one, other))


def _same(name: str, one: str, other: str, exact: bool, case: Case) -> bool:
    if one == other or (exact and case.digests):
        return one == other
    limit = 0.0 if exact else LIMIT if case.close else math.inf
    if name.endswith(".csv"):
        return tables_close(one, other, limit)
    return not exact and texts_close(one, other, PRINTED if case.close else math.inf)


def _shown(one: str, other: str) -> list[str]:
    lines = list(difflib.unified_diff(one.splitlines(), other.splitlines(), lineterm="", n=0))[2:]
    lines = [line for line in lines if not line.startswith("@@")]
    rest = [f"... {len(lines) - SHOWN} lines more"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + rest


def tables_close(one: str, other: str, limit: float = LIMIT) -> bool:
    """Floats within `limit` of themselves or of the largest in their column, digests left out, other cells equal.

    Where the limit is infinite, only columns and the number of rows are compared.
    """
    before, after = (list(csv.reader(io.StringIO(text))) for text in (one, other))
    if len(before) != len(after) or before[0] != after[0] or [*map(len, before)] != [*map(len, after)]:
        return False
    for column, name in enumerate(before[0]):
        if "sha256" in name or math.isinf(limit):
            continue
        cells = [(a[column], b[column]) for a, b in zip(before[1:], after[1:], strict=True)]
        numbers = [_number(a) for a, _ in cells]
        scale = max((abs(n) for n in numbers if n is not None and math.isfinite(n)), default=0.0)
        if not all(_equal(a, b, limit, limit * scale) for a, b in cells):
            return False
    return True


def texts_close(one: str, other: str, limit: float = PRINTED) -> bool:
    """The same words, and numbers within `limit`; frames and where lines break do not matter."""
    before, after = (FRAMES.sub(" ", text) for text in (one, other))
    if NUMBER.sub("#", before).split() != NUMBER.sub("#", after).split():
        return False
    pairs = zip(NUMBER.findall(before), NUMBER.findall(after), strict=True)
    return all(_equal(a.replace(",", ""), b.replace(",", ""), limit, _last_digit(a)) for a, b in pairs)


def _last_digit(text: str) -> float:
    """What one more in the last printed digit is worth; nothing in whole numbers."""
    match = re.search(r"\.(\d+)(?:e([-+]?\d+))?$", text)
    return 1.01 * 10.0 ** (int(match[2] or 0) - len(match[1])) if match else 0.0


def _equal(one: str, other: str, relative: float, absolute: float) -> bool:
    if one == other:
        return True
    a, b = _number(one), _number(other)
    if a is None or b is None:
        return False
    return math.isinf(relative) or math.isclose(a, b, rel_tol=relative, abs_tol=absolute)


def _number(text: str) -> float | None:
    """The float; None of anything else, whole numbers too: counts and ranks are equal or wrong."""
    if not re.search(r"[.en]", text):
        return None
    try:
        return float(text)
    except ValueError:
        return None
