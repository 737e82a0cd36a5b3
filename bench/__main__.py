"""`make bench`: every benchmark in one run, printed and written to bench/RESULTS.md."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench import commands, mobe, one_stack, operator, results, superweights, tucker, whole_model, wide
from bench.machine import hardware, today

SECTIONS = {
    "stack": ("One stack of Qwen3-30B-A3B shape (128 x 768 x 2048, bf16)", one_stack),
    "tucker": ("Compressing one such stack at rho 0.4", tucker),
    "operator": ("Operator errors of one such stack's truncations", operator),
    "commands": ("Commands on one layer of Qwen3-30B-A3B shape (three stacks of 128 x 768 x 2048)", commands),
    "mobe": ("MoBE at rho 0.4: loss against time, published and fitted", mobe),
    "superweights": ("Recovery of entries of down projections of Qwen3-30B-A3B (2048 x 768)", superweights),
    "layers": ("Four layers of Qwen3-30B-A3B width (12 stacks, 4.8 GB)", whole_model),
    "wide": ("One stack of DeepSeek-V3 width (256 x 2048 x 7168, FP8)", wide),
}
PAGE = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="a section [default: all, and write the page]"
    )
    parser.add_argument("--tmp", type=Path, help="folder with 12 GB free [default: the system's]")
    options = parser.parse_args()
    sections = []
    for key in options.only or SECTIONS:
        title, benchmark = SECTIONS[key]
        with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
            figures = []
            print(f"{title}", flush=True)
            for figure in benchmark.run(Path(folder)):
                print("  " + figure.row(), flush=True)
                figures.append(figure)
        sections.append(results.section(title, figures))
    if not options.only:
        heading = f"# Benchmarks\n\n`make bench`, {today()}, on {hardware()}. All ratios are of figures of one run.\n"
        results.write(PAGE, heading, sections)


if __name__ == "__main__":
    main()
