"""The one table of what is recorded: a name, what is typed after `tdmoe-diag`, and whether `make test` runs it too.

A case runs in an empty folder beside the models and texts of `world.py` and beside the folders of other cases: what its
line reads of these, as `../calibrate-mini/out`, is run before it.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Case(NamedTuple):
    """`kind` is the folder of recorded/ that it is in: run, dry-run, refused or help.

    Without `digests`, the bytes of what it writes may differ where the numbers do not. Where it is not `close`, numbers
    depend on the machine by more than their last digits.
    """

    kind: str
    name: str
    line: str
    cheap: bool = False
    digests: bool = True
    close: bool = True

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def folder(self) -> str:
        """Where it runs; other lines read those of runs."""
        return self.name if self.kind == "run" else f"{self.kind}-{self.name}"


COMMANDS = (
    *("compare", "spectra", "operator", "superweights", "experts", "quality", "drift", "injection", "attribution"),
    *("calibrate", "compress", "report", "models"),
)

# Beginnings of lines: on `mini` in English, on pico models in letters.
MINI_HELD = "--text ../english.txt --window 64"
MINI_CALIBRATED = "--calibration-text ../prose.txt --calibration-tokens 512"
HELD = "--text ../held-out.txt --window 16"
CALIBRATED = "--calibration-text ../calibration.txt --calibration-tokens 128"
ON_TEXT = "--text ../calibration.txt --tokens 256 --window 16"
QUIET = "--quiet --out out"
TO = f"--to to {QUIET}"

# By name: * is cheap, ~ is without digests, ^ is not close.
RUNS = (
    # spectra
    ("spectra-mini", f"spectra --model mini --layers 0,3 --projections gate,down --jackknife 2 {QUIET}"),
    ("spectra-qwen3*", f"spectra --model ../qwen3 --fit-range 0.1:0.9 {QUIET}"),
    ("spectra-gpt-oss", f"spectra --model ../gpt_oss --memory 6KB --layers 0-1 {QUIET}"),
    ("spectra-fp8", f"spectra --model ../fp8 --projections up {QUIET}"),
    ("spectra-loud", "spectra --model ../qwen3 --layers 2 --projections up"),
    # operator
    ("operator-mini", f"operator --model mini --layers 1 --projections up --ranks 0.25,0.5 --ratios 0.4 {QUIET}"),
    (
        "operator-qwen3*",
        "operator --model ../qwen3 --layers 0 --projections up --ranks 0.5 --methods tdmoe:whitening=none,svd,rtn "
        f"--ratios 0.4 --per-expert {QUIET}",
    ),
    (
        "operator-statistics",
        "operator --model ../qwen3 --layers 2 --projections gate,down --ranks 0.25,0.75 --methods tdmoe,svd_llm "
        f"--ratios 0.3 --statistics ../calibrate-qwen3/out {QUIET}",
    ),
    # superweights
    (
        "superweights-mini^",
        "superweights --model mini --text ../prose.txt --tokens 256 --window 64 --layers 0,1 --most 2 --entries 8 "
        "--ranks 4 --threshold 5 --methods rtn:bits=2,svd --ratios 0.4 --eval-text ../english.txt --eval-windows 2 "
        f"--draws 1 {QUIET}",
    ),
    (
        "superweights-qwen3^",
        "superweights --model ../qwen3 --prompt abc --text ../held-out.txt --tokens 32 --window 16 --threshold 0.5 "
        "--most 2 --entries 4 --ranks 3 --methods tdmoe:whitening=none,rtn:bits=2 --ratios 0.4,0.6 "
        f"--eval-text ../calibration.txt --eval-windows 2 --draws 2 {QUIET}",
    ),
    # experts
    (
        "experts-mini",
        f"experts --model mini --layers 2 --projections gate --ratios 0.4 --jackknife 2 --draws 1 {QUIET}",
    ),
    ("experts-qwen3", f"experts --model ../qwen3 --ratios 0.4 --jackknife 2 --draws 2 --projections up {QUIET}"),
    (
        "experts-gpt-oss",
        "experts --model ../gpt_oss --layers 1 --projections down --ratios 0.2,0.5 --jackknife 0 --draws 1 "
        f"--directions 0.3 --statistics ../calibrate-gpt-oss/out {QUIET}",
    ),
    # calibrate
    ("calibrate-mini", f"calibrate --model mini --text ../prose.txt --tokens 512 --window 64 --layers 0,2 {QUIET}"),
    ("calibrate-qwen3*", f"calibrate --model ../qwen3 {ON_TEXT} --per-expert all --outputs {QUIET}"),
    ("calibrate-gpt-oss", f"calibrate --model ../gpt_oss {ON_TEXT} --weighting gate_squared --per-expert down {QUIET}"),
    ("calibrate-builtin", "calibrate --model mini --tokens 128 --window 64 --layers 3 --quiet"),
    # compress
    (
        "compress-mini",
        f"compress --model mini --layers 1 --projections gate,down --text ../prose.txt --tokens 512 --window 64 {TO}",
    ),
    (
        "compress-mini-mobe^",
        "compress --model mini --method mobe:steps=4 --ratio 0.3 --layers 2 --projections up --text ../prose.txt "
        f"--tokens 512 --window 64 --errors weight {TO}",
    ),
    ("compress-tdmoe*", f"compress --model ../qwen3 --ratio 0.4 {ON_TEXT} --dense {TO}"),
    (
        "compress-tdmoe-published",
        "compress --model ../qwen3 --ratio 0.4 --whitening none --allocation published --decomposition hosvd "
        f"--expert-mode compress --tokens 0 {TO}",
    ),
    (
        "compress-tdmoe-inverse",
        f"compress --model ../qwen3 --ratio 0.3 --whitening both --whitening-direction inverse {ON_TEXT} {TO}",
    ),
    (
        "compress-joint",
        "compress --model ../qwen3 --method tdmoe:gate_up=joint,refit=expert --ratio 0.4 --projections gate,up "
        f"--statistics ../calibrate-qwen3/out {TO}",
    ),
    (
        "compress-across",
        f"compress --model ../qwen3 --ratio 0.4 --across global --frontier --objective weight {ON_TEXT} {TO}",
    ),
    (
        "compress-activation",
        f"compress --model ../qwen3 --ratio 0.4 --across activation {ON_TEXT} {TO}",
    ),
    ("compress-ratio-of-model", f"compress --model ../qwen3 --method svd --ratio 0.1 --ratio-of model --tokens 0 {TO}"),
    (
        "compress-mobe",
        f"compress --model ../qwen3 --method mobe:steps=4 --ratio 0.3 --schedule middle-out:1 {ON_TEXT} {TO}",
    ),
    (
        "compress-mobe-published^",
        "compress --model ../qwen3 --method mobe:preset=published,steps=3 --ratio 0.3 --projections gate,up "
        f"--tokens 0 {TO}",
    ),
    (
        "compress-d2-moe",
        "compress --model ../qwen3 --method d2_moe:mean=fisher --ratio 0.3 --projections gate,down "
        f"--statistics ../calibrate-qwen3/out {TO}",
    ),
    ("compress-moe-svd", f"compress --model ../qwen3 --method moe_svd --ratio 0.3 {ON_TEXT} {TO}"),
    (
        "compress-moe-svd-published~",  # a solve leaves 1e-17 where 0 is meant, or 2e-17
        f"compress --model ../qwen3 --method moe_svd:preset=published --ratio 0.3 {ON_TEXT} {TO}",
    ),
    ("compress-svd-llm", f"compress --model ../qwen3 --method svd_llm:moments=expert --ratio 0.3 {ON_TEXT} {TO}"),
    ("compress-rtn*", f"compress --model ../qwen3 --method rtn:bits=4,group=4 --tokens 0 --dense {TO}"),
    ("compress-rtn-channel", f"compress --model ../gpt_oss --method rtn:bits=3,scale=channel --tokens 0 {TO}"),
    ("compress-gpt-oss", f"compress --model ../gpt_oss --ratio 0.4 --layers 1 {ON_TEXT} --dense {TO}"),
    (
        "compress-fp8",
        f"compress --model ../fp8 --method svd --ratio 0.3 --projections gate,down --tokens 0 --dense {TO}",
    ),
    ("compress-identity", f"compress --model ../qwen3 --method identity --layers 0 --tokens 0 {TO}"),
    ("compress-mean", f"compress --model ../qwen3 --method mean --layers 0 --projections up --tokens 0 {TO}"),
    ("compress-cast", f"compress --model ../fp8 --method cast --layers 1 --tokens 0 {TO}"),
    ("compress-drop", f"compress --model ../qwen3 --method drop --layers 2 --projections down --tokens 0 {TO}"),
    # quality
    (
        "quality-mini^",
        "quality --model mini --texts ../english.txt --windows 3 --window 64 --methods tdmoe,rtn:bits=3 --ratios 0.4 "
        f"--layers 1,2 --projections gate,up {MINI_CALIBRATED} --task-data ../tasks --tasks piqa,winogrande --limit 2 "
        f"{QUIET}",
    ),
    (
        "quality-qwen3*",
        "quality --model ../qwen3 --texts ../held-out.txt --windows 2 --window 16 --methods tdmoe,rtn --ratios 0.3,0.5 "
        f"{CALIBRATED} {QUIET}",
    ),
    (
        "quality-compressed^",
        "quality --model ../qwen3 --texts ../held-out.txt,../other.txt --windows 3 --window 16 --stride 8 "
        f"--join blank-lines --bos none --dtype float32 --compressed ../compress-mobe/to,../compress-rtn/to {QUIET}",
    ),
    (
        "quality-gpt-oss",
        "quality --model ../gpt_oss --texts ../held-out.txt --windows 2 --window 16 --methods svd --ratios 0.4 "
        f"--schedule middle-out:1 {QUIET}",
    ),
    (
        "quality-builtin^",
        f"quality --model mini --texts wikitext2,enwik8 --windows 2 --window 64 --methods rtn {QUIET}",
    ),
    # drift
    (
        "drift-mini^",
        f"drift --model mini {MINI_HELD} --tokens 256 --methods tdmoe,svd_llm --ratios 0.4 --projections gate,up "
        f"--scope all {MINI_CALIBRATED} {QUIET}",
    ),
    (
        "drift-qwen3*",
        f"drift --model ../qwen3 {HELD} --tokens 64 --methods tdmoe,rtn --ratios 0.4 --scope one,all {CALIBRATED} "
        f"{QUIET}",
    ),
    (
        "drift-gpt-oss",
        f"drift --model ../gpt_oss {HELD} --tokens 64 --methods svd --ratios 0.4 --schedule middle-out:1 --scope all "
        f"{QUIET}",
    ),
    (
        "drift-compressed",
        f"drift --model ../qwen3 {HELD} --tokens 64 --compressed ../compress-mobe/to --dtype bfloat16 {QUIET}",
    ),
    # injection
    (
        "injection-mini^",
        f"injection --model mini {MINI_HELD} --tokens 128 --layers 1,2 --projections up --families flat,along "
        f"--methods rtn --sizes 0.1,0.3 --seeds 1 --scopes all --designs functional {MINI_CALIBRATED} {QUIET}",
    ),
    (
        "injection-qwen3^",
        f"injection --model ../qwen3 {HELD} --tokens 32 --families flat,along --methods rtn --sizes 0.1,0.3 --seeds 1 "
        f"--scopes all --designs frobenius --layers 0 --projections up {CALIBRATED} {QUIET}",
    ),
    (
        "injection-wide^",
        f"injection --model ../qwen3 {HELD} --tokens 32 --methods tdmoe,svd_llm --sizes 0.2,0.4 --seeds 1 --alone 2 "
        f"--apart --projections gate,down --statistics ../calibrate-qwen3/out {QUIET}",
    ),
    # attribution
    (
        "attribution-mini^",
        f"attribution --model mini {MINI_HELD} --windows 8 --ladder quick --mobe-steps 3 --fit-steps 3 --layers 1 "
        f"--projections up {MINI_CALIBRATED} {QUIET}",
    ),
    (
        "attribution-qwen3^",
        f"attribution --model ../qwen3 {HELD} --windows 8 --shapley 1 --mobe-steps 3 --fit-steps 3 --ratio 0.4 "
        f"--projections gate,up {CALIBRATED} {QUIET}",
    ),
    (
        "attribution-quick^",
        f"attribution --model ../qwen3 {HELD} --windows 8 --ladder quick --mobe-steps 3 --fit-steps 3 --ratio 0.4 "
        f"--layers 0 --projections up {CALIBRATED} {QUIET}",
    ),
    # compare and report
    ("compare-qwen3^", f"compare --config ../experiment.toml {QUIET}"),
    ("compare-flags", f"compare --config ../small.toml --methods svd,rtn:bits=3 --ratios 0.3 --layers 2 {QUIET}"),
    ("report-one", "report ../spectra-qwen3/out --out page.html"),
    ("report-several", "report ../spectra-qwen3/out ../drift-qwen3/out ../quality-qwen3/out ../attribution-quick/out"),
    ("report-compare", "report ../compare-qwen3/out --out page.html"),
    # models
    ("models-all*", "models"),
    ("models-mini*", "models --model mini"),
    ("models-gpt-oss*", "models --model ../gpt_oss"),
    ("models-fp8*", "models --model ../fp8"),
    ("models-compressed", "models --model ../compress-rtn/to"),
    ("models-refused*", "models --model ../empty"),
)

PLANNED = (  # with --dry-run
    ("spectra*", "spectra --model mini"),
    ("operator*", "operator --model ../gpt_oss --per-expert"),
    (
        "superweights*",
        "superweights --model ../qwen3 --text ../calibration.txt --eval-text ../held-out.txt --tokens 64",
    ),
    ("experts*", "experts --model ../fp8"),
    ("calibrate*", "calibrate --model ../qwen3 --text ../calibration.txt --tokens 64 --per-expert all"),
    ("compress", "compress --model mini --to to --text ../prose.txt --tokens 512 --window 64"),
    ("compress-across", "compress --model ../qwen3 --to to --text ../calibration.txt --tokens 64 --across global"),
    ("quality", f"quality --model ../qwen3 --texts ../held-out.txt --methods tdmoe,rtn --ratios 0.2,0.4 {CALIBRATED}"),
    ("drift", f"drift --model ../qwen3 --text ../held-out.txt --tokens 64 --methods tdmoe --ratios 0.4 {CALIBRATED}"),
    ("injection", f"injection --model ../gpt_oss {HELD} --tokens 64 {CALIBRATED}"),
    ("attribution", f"attribution --model ../qwen3 --text ../held-out.txt --windows 8 {CALIBRATED}"),
    ("compare", "compare --config ../experiment.toml"),
)

REFUSED = (
    # options of all commands
    ("layer-missing*", "spectra --model ../qwen3 --layers 1"),
    ("layer-no-number*", "spectra --model ../qwen3 --layers 0,x"),
    ("projection*", "spectra --model ../qwen3 --projections gate,upp"),
    ("memory-no-size*", "spectra --model ../qwen3 --memory lots"),
    ("memory-too-small*", "spectra --model ../qwen3 --memory 10"),
    ("device*", "spectra --model ../qwen3 --device gpu"),
    ("engine*", "spectra --model ../qwen3 --engine slurm"),
    ("seed*", "spectra --model ../qwen3 --seed -1"),
    ("option-unknown*", "spectra --model ../qwen3 --nope 1"),
    ("command-unknown*", "spektra --model ../qwen3"),
    ("model-not-given*", "spectra"),
    ("out-is-a-file*", "spectra --model ../qwen3 --out ../held-out.txt"),
    ("out-of-another-run*", "spectra --model ../qwen3 --out ../calibrate-qwen3/out"),
    ("dense-model*", "spectra --model ../dense"),
    # models
    ("model-unknown*", "spectra --model no-such-model"),
    ("model-not-cached*", "spectra --model some-org/some-model"),
    ("model-without-config*", "spectra --model ../empty"),
    ("model-cut*", "spectra --model ../cut"),
    ("model-lacks-a-tensor*", "spectra --model ../lacking"),
    ("model-nan", "spectra --model ../nan --out out"),
    # values of one command
    ("spectra-fit-range*", "spectra --model ../qwen3 --fit-range 0.9:0.1"),
    ("spectra-jackknife*", "spectra --model ../qwen3 --jackknife 1"),
    ("operator-ranks*", "operator --model ../qwen3 --ranks 0,1.5"),
    ("operator-statistics-not-there*", "operator --model ../qwen3 --statistics ../nowhere"),
    ("experts-directions*", "experts --model ../qwen3 --directions 0.6"),
    ("experts-whitening-without-statistics*", "experts --model ../qwen3 --whitening input"),
    ("experts-statistics-of-another-model*", "experts --model ../gpt_oss --statistics ../calibrate-qwen3/out"),
    ("superweights-window", "superweights --model ../qwen3 --text ../held-out.txt --window 65"),
    ("superweights-same-text", "superweights --model ../qwen3 --text ../held-out.txt --eval-text ../held-out.txt"),
    ("calibrate-text-not-there", "calibrate --model ../qwen3 --text nowhere.txt"),
    ("calibrate-too-few-tokens", "calibrate --model ../qwen3 --text ../calibration.txt --tokens 3"),
    ("compress-method*", "compress --model ../qwen3 --to to --method mobi"),
    ("compress-method-value*", "compress --model ../qwen3 --to to --method rtn:bits=99 --tokens 0"),
    ("compress-method-key*", "compress --model ../qwen3 --to to --method tdmoe:rank=3 --tokens 0"),
    ("compress-ratio*", "compress --model ../qwen3 --to to --ratio 1.2 --tokens 0"),
    ("compress-ratio-of-fixed-method*", "compress --model ../qwen3 --to to --method rtn:bits=4 --ratio 0.4"),
    ("compress-uncalibrated*", "compress --model ../qwen3 --to to --method svd_llm --ratio 0.4 --tokens 0"),
    ("compress-joint-without-up*", "compress --model ../qwen3 --to to --gate-up joint --projections gate --tokens 0"),
    ("compress-option-of-another-method*", "compress --model ../qwen3 --to to --method svd --allocation published"),
    (
        "compress-layers-and-schedule*",
        "compress --model ../qwen3 --to to --layers 0 --schedule middle-out:1 --tokens 0",
    ),
    ("compress-schedule*", "compress --model ../qwen3 --to to --schedule outwards --tokens 0"),
    ("compress-to-is-taken*", "compress --model ../qwen3 --to ../qwen3 --method rtn --tokens 0"),
    ("compress-tokenless-across*", "compress --model ../qwen3 --to to --across activation --whitening none --tokens 0"),
    ("quality-ratios", "quality --model ../qwen3 --methods tdmoe --ratios 0.4,1.0"),
    ("quality-on-calibration", f"quality --model ../qwen3 --texts ../calibration.txt --methods svd_llm {CALIBRATED}"),
    ("quality-tasks", "quality --model ../qwen3 --tasks no_such_task"),
    ("quality-compressed", "quality --model ../qwen3 --texts ../held-out.txt --compressed ../cut"),
    ("quality-stride", "quality --model ../qwen3 --texts ../held-out.txt --window 16 --stride 33"),
    ("drift-scope", "drift --model ../qwen3 --text ../held-out.txt --tokens 64 --methods rtn --scope two"),
    ("injection-design", f"injection --model ../qwen3 {HELD} --tokens 32 --designs nuclear {CALIBRATED}"),
    ("injection-sizes", f"injection --model ../qwen3 {HELD} --tokens 32 --sizes 0 {CALIBRATED}"),
    ("attribution-one-window", f"attribution --model ../qwen3 {HELD} --windows 1 {CALIBRATED}"),
    ("attribution-shapley", f"attribution --model ../qwen3 {HELD} --windows 8 --shapley some {CALIBRATED}"),
    ("compare-no-model*", "compare"),
    ("compare-config-not-there*", "compare --config nowhere.toml"),
    ("compare-config-entry*", "compare --config ../metods.toml"),
    ("compare-preset*", "compare --model ../qwen3 --preset quack"),
    ("report-no-run*", "report ../empty"),
    ("report-nothing*", "report"),
    ("models-revision*", "models --revision main"),
)


def _case(kind: str, name: str, line: str) -> Case:
    return Case(kind, name.rstrip("*~^"), line, "*" in name, "~" not in name, "^" not in name)


def _cases() -> tuple[Case, ...]:
    runs = [_case("run", name, line) for name, line in RUNS]
    planned = [_case("dry-run", name, f"{line} --dry-run") for name, line in PLANNED]
    refused = [_case("refused", name, line) for name, line in REFUSED]
    helped = [Case("help", name, f"{name} --help", cheap=True) for name in COMMANDS]
    return (*runs, *planned, *refused, Case("help", "tdmoe-diag", "--help", cheap=True), *helped)


CASES = _cases()


def needed(case: Case) -> list[Case]:
    """Runs whose folders a line reads, each after what it needs itself."""
    read = set(re.findall(r"\.\./([\w-]+)/", case.line))
    found = [other for other in CASES if other.folder in read]
    return [each for other in found for each in (*needed(other), other)]


def chosen(*, cheap: bool = False, only: str = "") -> list[Case]:
    """Those of `make test`, or those whose key holds `only`, or all; each after what it needs."""
    wanted: dict[Case, None] = {}
    for case in CASES:
        if only in case.key and (case.cheap or not cheap):
            wanted |= dict.fromkeys([*needed(case), case])
    return list(wanted)
