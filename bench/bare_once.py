"""Stacks factorised once by the library, in a process of its own, with nothing measured and nothing written.

python -m bench.bare_once MODEL METHOD PROJECTIONS RATIO STATISTICS RESULT.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tdmoe.numerics.threads import sleep_while_waiting

MEMORY = 4_000_000_000


def main() -> None:
    sleep_while_waiting()
    from diag.compression.calibrated import statistics_of
    from tdmoe import methods
    from tdmoe.checkpoint.reader import Checkpoint
    from tdmoe.stacks import joint
    from tdmoe.stacks.architecture import architecture

    model, spec, projections, ratio, statistics, result = sys.argv[1:]
    method, options = methods.parse(spec)
    names = ["gate_up"] if "gate_up=joint" in spec else projections.split(",")
    started = time.perf_counter()
    with Checkpoint(Path(model)) as checkpoint:
        for name in names:
            stack = joint.open_named(checkpoint, architecture(checkpoint.config), 0, name)
            known = statistics_of(statistics, stack) if method.needs(options).statistics else None
            reader = joint.reader(stack, MEMORY)
            method.compress(reader, options, methods.Allotment(float(ratio)), known, device="cpu")
    Path(result).write_text(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
