"""What `superweights` says on stdout."""

from __future__ import annotations

from typing import Any

from diag.probes.superweights.run import SuperWeights


def told(work: SuperWeights) -> list[str]:
    """What was found, a line each."""
    lines = []
    for row in work.folder.rows("superweights"):
        if row["status"] == "none_found":
            spike = work.strongest()
            sizes = f"input {abs(spike['input_activation']):.3g}, output {abs(spike['output_activation']):.3g}"
            lines.append(
                f"{work.opened.name}: no super weight above {work.settings.threshold:g}; the strongest spike is at "
                f"{_place(spike)}: {sizes}"
            )
            continue
        lines.append(f"{work.opened.name}: {_place(row)} = {row['value']:.4g} ({row['status']})")
    return lines


def _place(row: dict[str, Any]) -> str:
    expert = "" if row["expert"] is None else f" expert {row['expert']}"
    return f"layer {row['layer']} {row['projection']}{expert} [{row['row']}, {row['column']}]"
