"""Values of what users type: layer lists, projections, sizes, ranges. InputError names option and value."""

from __future__ import annotations

import re
from collections.abc import Sequence

from diag.declare.schedule import middle_out
from tdmoe.problems import InputError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def layers(
    text: str | None, available: Sequence[int], kind: str = "Mixture-of-Experts layer", option: str = "layers"
) -> list[int]:
    """`0,12,24-30` as sorted layer numbers, all of them such layers of the model; None means all."""
    if text is None:
        return list(available)
    chosen: set[int] = set()
    known = set(available)
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:\s*-\s*(\d{1,18}))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise InputError(
                option, text, f"{part.strip()!r} is neither a layer nor a range", "write for instance 0,12,24-30"
            )
        numbers = range(int(match[1]), int(match[2] or match[1]) + 1)
        for number in numbers[: len(known) + 1]:  # more than there are hold one that is none
            if number not in known:
                raise InputError(
                    option, text, f"layer {number} is not a {kind} of this model", f"it has {spans(available)}"
                )
        chosen.update(numbers)
    return sorted(chosen)


def schedule(text: str, available: Sequence[int]) -> str:
    """`middle-out:N` or `middle-out-code:N` as the text of --layers that means the same layers."""
    match = re.fullmatch(r"middle-out(-code)?:(\d{1,6})", text.strip())
    if not match:
        raise InputError(
            "schedule", text, "", "write middle-out:N, or middle-out-code:N for the order of the paper's code"
        )
    return spans(sorted(middle_out(available, int(match[2]), "code" if match[1] else "paper")))


def nested(text: str, available: Sequence[int]) -> list[str]:
    """Every set of layers of a `middle-out:N`, of 1 to N layers, each holding the one before."""
    schedule(text, available)
    name, _, count = text.strip().rpartition(":")
    return [schedule(f"{name}:{n}", available) for n in range(1, int(count) + 1)]


def spans(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 5] as "0-2,5"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def numbers(text: str) -> list[int]:
    """The layers of `spans`: "0-2,5" as [0, 1, 2, 5]."""
    ends = [part.partition("-") for part in text.split(",") if part]
    return [number for first, _, last in ends for number in range(int(first), int(last or first) + 1)]


def choices(option: str, text: str, allowed: Sequence[str]) -> list[str]:
    """A comma-separated subset, in the order of `allowed`."""
    asked = [part.strip() for part in text.split(",")]
    for part in asked:
        if part not in allowed:
            raise InputError(option, text, f"{part!r} is none of {', '.join(allowed)}", "give any of these")
    return [name for name in allowed if name in asked]


def ratios(option: str, text: str) -> list[float]:
    """`0.2,0.4` as fractions to remove, each more than 0 and less than 1, each once and in that order."""
    found: dict[float, None] = {}
    for part in text.split(","):
        value = float(part) if re.fullmatch(r"\s*(\d*\.\d{1,9}|\d{1,3})\s*", part) else -1.0
        if not 0.0 < value < 1.0:
            raise InputError(
                option, text, f"{part.strip()!r} is no fraction between 0 and 1", "write for instance 0.2,0.4"
            )
        found[value] = None
    return list(found)


def ratio(option: str, value: float) -> float:
    """A fraction to remove, more than 0 and less than 1."""
    if not 0.0 < value < 1.0:
        raise InputError(option, f"{value:g}", remedy="give a fraction to remove, more than 0 and less than 1")
    return value


def positive(option: str, text: str) -> list[float]:
    """`0.1,0.3` as positive numbers, each once, the smallest first."""
    found: set[float] = set()
    for part in text.split(","):
        value = float(part) if re.fullmatch(r"\s*\d{0,6}(\.\d{1,9})?\s*", part) and part.strip() else 0.0
        if value <= 0.0:
            raise InputError(option, text, f"{part.strip()!r} is no positive number", "write for instance 0.1,0.3")
        found.add(value)
    return sorted(found)


def size(option: str, text: str) -> int:
    """`4GB`, `512MiB`, `1.5 GB` or plain bytes, as bytes (GB = 10^9, GiB = 2^30)."""
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*", text)
    unit = UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or (count := int(float(match[1]) * unit)) < 1:
        raise InputError(option, text, "not a size", "write for instance 4GB, 512MiB or 1000000")
    return count


def fraction_range(option: str, text: str) -> tuple[float, float]:
    """`0.1:0.9` as fractions 0 <= low < high <= 1."""
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*:\s*(\d*\.?\d+)\s*", text)
    low, high = (float(match[1]), float(match[2])) if match else (1.0, 0.0)
    if not 0.0 <= low < high <= 1.0:
        raise InputError(option, text, "not a range of fractions 0 <= low < high <= 1", "write for instance 0.1:0.9")
    return low, high
