"""What a command prints on stdout: plans, tables and lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from diag.declare import parse
from diag.jobs.session import Session
from diag.models import describe
from diag.models.catalog import HUB_IDS

if TYPE_CHECKING:
    from diag.compression.calibrating import Calibration
    from diag.compression.compress_run import Compression
    from diag.compression.compressing import Saved
    from diag.probes.injection.injecting import Injection

MIN_WIDTH = 100  # of a table when stdout is a pipe


def print_plan(session: Session) -> None:
    """--dry-run: every job with its shape, bytes to read and peak memory."""
    table = Table()
    for heading in ("job", "experts x output x input", "stored as", "read", "passes", "peak memory"):
        table.add_column(heading, justify="left" if heading == "job" else "right")
    for job, stack in session.stacks.items():
        plan = session.plans[job]
        shape, dtype = " x ".join(map(str, stack.shape)), stack.encoding.name
        table.add_row(
            job.key, shape, dtype, _bytes(plan.reads * stack.bytes_read), str(plan.reads), _bytes(plan.peak_bytes)
        )
    print(f"{session.model.name}: {session.request.command}, run folder {session.folder.path}")
    _stdout().print(table)
    total = sum(session.plans[job].reads * stack.bytes_read for job, stack in session.stacks.items())
    peak = max(plan.peak_bytes for plan in session.plans.values())
    _stdout().print(
        f"{len(session.stacks)} jobs, {_bytes(total)} to read, {_bytes(peak)} at the peak of a job, "
        f"on top of Python and torch;{_download_note(session)} nothing was run"
    )


def _download_note(session: Session) -> str:
    missing = session.missing()
    return f" {len(missing)} shards to download first, {_bytes(sum(missing.values()))};" if missing else ""


def print_injection_plan(injection: Injection) -> None:
    """--dry-run: the calibration, and what is injected where."""
    if injection.calibration is not None:
        print_calibration_plan(injection.calibration)
    settings, (windows, length) = injection.settings, injection.windows_WT.shape
    runs = len(injection.parts) * len(settings.designs) * len(settings.sizes)
    print(f"{injection.name}: injection, run folder {injection.folder.path}")
    print(
        f"{len(injection.sites)} sites, {len(injection.sources)} residuals, {len(settings.designs)} designs, "
        f"{len(settings.sizes)} sizes: {runs} runs over {windows} windows of {length} tokens, "
        f"{_bytes(injection.held_bytes)} of weights and residuals; nothing was run"
    )


def print_injection(injection: Injection) -> None:
    """The exponent of every error, alone and together with the others, site by site."""
    rows = injection.folder.rows("injection_contrasts")
    table = Table()
    table.add_column("injected into", no_wrap=True)
    table.add_column("error")
    for heading in ("rank correlation", "exponent alone", "R2", "exponent together"):
        table.add_column(heading, justify="right")
    for site in injection.sites:
        ours = [row for row in rows if (row["scope"], row["layer"], row["projection"]) == tuple(site.labels.values())]
        for row in (row for row in ours if row["statistic"] == "spearman"):
            same = {r["statistic"]: r for r in ours if r["error"] == row["error"] and r["design"] is None}
            cells = [_ranged(same.get(name)) for name in ("spearman", "exponent", "joint")]
            r2 = _number(same["exponent"]["r2"]) if "exponent" in same else ""
            table.add_row(site.name, str(row["error"]).replace("_", " "), cells[0], cells[1], r2, cells[2])
    print(
        f"{injection.name}: which error predicts the loss that drawn residuals add (95 % intervals); of compressed "
        "models attribution measures it"
    )
    _stdout().print(table)


def _ranged(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "" if row is None else str(row["status"])
    if row["low"] is None or row["high"] is None:
        return f"{row['value']:.2f}"
    return f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def print_compression_plan(compression: Compression) -> None:
    """--dry-run: what is made first, then the stacks."""
    if compression.calibration is not None:
        print_calibration_plan(compression.calibration)
    if compression.frontiers is not None:
        print_plan(compression.frontiers)
    print_plan(compression.session)


def print_calibration_plan(calibration: Calibration) -> None:
    """--dry-run: tokens, windows, layers and the size of the sums."""
    windows, length = calibration.windows_WT.shape
    print(f"{calibration.model.name}: calibrate, run folder {calibration.folder.path}")
    print(
        f"{windows} windows of {length} tokens, {len(calibration.layers)} layers, "
        f"{_bytes(calibration.sums_bytes)} of sums; nothing was run"
    )


def print_calibration(calibration: Calibration) -> None:
    """How many tokens the experts of each layer saw."""
    table = Table()
    for heading in ("layer", "routed tokens", "experts", "unseen", "least", "most"):
        table.add_column(heading, justify="right")
    for row in calibration.folder.rows("calibration"):
        columns = ("layer", "routed", "experts", "experts_unseen", "routed_least", "routed_most")
        table.add_row(*(str(row[column]) for column in columns))
    print(f"{calibration.model.name}: {calibration.windows_WT.numel():,} tokens of {calibration.settings.text}")
    _stdout().print(table)


def print_compression(session: Session, saved: Saved | None) -> None:
    """What every stack keeps and loses, and what that is of the whole model."""
    table = Table()
    columns = ("ranks", "kept_ratio", "weight_error", "functional_error", "operator_error")
    table.add_column("layer / projection")
    for heading in ("ranks", "kept", "weight error", "functional", "operator"):
        table.add_column(heading, justify="right")
    rows = session.folder.rows("compression")
    for row in rows:
        cells = [_number(row[column]) for column in columns]
        table.add_row(f"{row['layer']} / {row['projection']}", *cells)
    method = rows[0]["method"] if rows else ""
    print(f"{session.model.name}: {method}, errors relative to the stack's own norm")
    _stdout().print(table)
    if any(row["status"] == "not_measured" for row in rows):
        print("empty errors were not measured: --errors weight,functional,operator measures all, which takes longer")
    if saved is None:
        return
    if abs(saved.bits_saved - saved.bits_saved_bf16) < 1e-9:
        print(f"{saved.bits_saved:.1%} of the model's bits saved ({saved.bits_saved_of})")
        return
    print(f"{saved.bits_saved_bf16:.1%} of the bits of the model in bf16 saved ({saved.bits_saved_of})")
    sign, change = ("fewer", saved.bits_saved) if saved.bits_saved >= 0 else ("MORE", -saved.bits_saved)
    print(f"but it is quantised: {change:.1%} {sign} bits than it takes as it is")


def print_sensitivities(found: Mapping[int, float]) -> None:
    """Of layers, where they decided which were left dense."""
    if found:
        print("layer sensitivity: " + ", ".join(f"{layer} {value:.1f}" for layer, value in sorted(found.items())))


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def print_expert_modes(session: Session) -> None:
    """By stack and ratio: whether the expert mode binds, with intervals, and the published triples' errors."""
    table = Table()
    for heading in (
        "stack",
        "removed",
        "binding",
        "by cutting, %",
        "baseline",
        "price share",
        "least",
        "published",
    ):
        table.add_column(heading, justify="left" if heading == "stack" else "right", no_wrap=True)
    points = {
        (r["layer"], r["projection"], r["ratio"], r["expert_mode"]): r["metric_error"]
        for r in session.folder.rows("experts")
        if r["point"] == "headline" and r["allocation"] == "published"
    }
    for row in session.folder.rows("binding"):
        ours = row["layer"], row["projection"], row["ratio"]
        least = min((e for e in (row["error_preserve"], row["error_compress"]) if e is not None), default=None)
        published = " / ".join(_number(points.get((*ours, mode))) for mode in ("preserve", "compress"))
        null = "" if row["gain_null"] is None else f"{-100 * row['gain_null']:.1f}"
        cells = [row["binding"] or row["status"], _interval(row, "gain", -100, 1), null]
        cells.append(_interval(row, "price_share", 1, 2))
        removed = "" if ours[2] is None else f"{ours[2]:g}"
        table.add_row(f"{ours[0]} / {ours[1]}", removed, *cells, _number(least), published)
    print(
        f"{session.model.name}: what cutting experts changes of the least error at equal storage [95 % interval], with "
        "that of independent experts as the baseline; published errors are preserve / compress"
    )
    _stdout().print(table)


def _interval(row: Mapping[str, Any], name: str, factor: float, places: int) -> str:
    """The value and its interval."""
    value, *ends = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return ""
    low_to_high = sorted(factor * end for end in ends) if None not in ends else []
    between = ", ".join(f"{end:.{places}f}" for end in low_to_high)
    return f"{factor * value:.{places}f}" + (f" [{between}]" if between else "")


def print_families() -> None:
    """Every family with a row, and every bare name that --model takes."""
    table = Table()
    for heading in ("family", "model_type", "experts on disk"):
        table.add_column(heading, overflow="fold")
    for row in describe.family_rows():
        table.add_row(*row)
    _stdout().print(table)
    print("Known names, and their hub ids:")
    for name, hub_id in HUB_IDS.items():
        print(f"  {name:<36} {hub_id}")


def print_description(name: str, description: describe.Description) -> None:
    """What is known of one checkpoint from its headers."""
    print(name)
    for what, value in describe.facts(description):
        print(f"  {what:<16} {value}")
    if not description.groups:
        return
    table = Table()
    for heading in ("projection", "layers", "experts x output x input", "stored as", "a stack"):
        table.add_column(heading, justify="left" if heading in ("projection", "layers") else "right")
    for group in description.groups:
        shape = " x ".join(map(str, group.shape))
        table.add_row(group.projection, parse.spans(group.layers), shape, group.encoding, _bytes(group.nbytes))
    _stdout().print(table)
    print(f"experts {_bytes(description.expert_bytes)} of {_bytes(description.total_bytes)} in all")


def print_lines(lines: Iterable[str]) -> None:
    """Plain lines on stdout, never wrapped."""
    for line in lines:
        print(line, flush=True)


def print_table(table: Table) -> None:
    """On stdout."""
    _stdout().print(table)


def _stdout() -> Console:
    console = Console(highlight=False, markup=False)
    return (
        console if console.is_terminal else Console(highlight=False, markup=False, width=max(MIN_WIDTH, console.width))
    )


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
