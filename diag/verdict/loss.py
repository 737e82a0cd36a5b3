"""Losses that compression adds: rows of `quality` and of `attribution` in one form.

    d_1 - d_2,  half-width z (s_1 + s_2)

for two losses that are each paired with the dense model's on the same windows: |s_1 - s_2| <= s <= s_1 + s_2 whatever
their correlation, so the interval is never too narrow, and often far too wide. Where a table has the interval of two
losses paired with each other, that is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from diag.declare.claim import Estimate, Evidence, between
from diag.verdict.subjects import Row, has, number, plain
from reports.formats import listing
from reports.theme import order
from reports.theme import title as display_name

TDMOE, MOBE, RTN, DENSE = "tdmoe", "mobe", "rtn", "dense"
COMBINATION = "combination"  # a ladder of attribution: TD-MoE's switches together as they lose least
CONTROLS = ("identity", "cast", "mean", "drop")
PUBLISHED_RANKS = ("allocation=published", "allocation=published_every")
Z = 1.96  # of a normal distribution's central 95 %
NATS = "nats a token"
TOLERANCE = 0.005  # of the stored bits, within which storage counts as equal
_AS_PUBLISHED = ("whitening=none", "allocation=published", "decomposition=hosvd")
_OF_A_PRESET = {"preset", "steps", "groups", "alignment", "damping"}  # options that leave it one
_USUAL_BITS = "4"  # of RTN
_MOST_SWITCHES = 160  # characters; all of them take 115


@dataclass(frozen=True)
class Loss:
    """One model on one text; `ladder` and `step` are attribution's."""

    method: str
    ratio: float | None
    bits_saved: float | None
    layers: str
    checkpoint: str
    row: Row
    ladder: str = ""
    step: str = ""

    @property
    def family(self) -> str:
        """The method without its options."""
        return self.method.partition(":")[0]

    @property
    def options(self) -> list[str]:
        """The options of its spec."""
        return [option for option in self.method.partition(":")[2].split(",") if option]

    @property
    def is_dense(self) -> bool:
        """Tell whether it is the model as it is."""
        return self.family == DENSE and not self.checkpoint

    @property
    def is_published(self) -> bool:
        """TD-MoE as *Rethinking* ran it: no whitening, ranks that never look at the weights."""
        if self.family != TDMOE:
            return False
        return "whitening=none" in self.options and any(option in PUBLISHED_RANKS for option in self.options)

    @property
    def is_preset(self) -> bool:
        """MoBE as a whole: its sizes, nonlinearity and mixing are those of its preset."""
        return self.family == MOBE and {option.partition("=")[0] for option in self.options} <= _OF_A_PRESET

    @property
    def is_control(self) -> bool:
        """Tell whether it is no method but a yardstick."""
        return self.family in CONTROLS

    @property
    def measured(self) -> bool:
        """Tell whether its loss is known beside the dense model's."""
        return has(self.row, "loss_difference_nats")

    @property
    def damage(self) -> float:
        """Nats a token above dense; ask `measured` first."""
        return float(self.row["loss_difference_nats"])

    @property
    def stderr(self) -> float | None:
        """Standard error of the damage."""
        return number(self.row, "loss_difference_nats_stderr")

    @property
    def added(self) -> Estimate:
        """The damage with its interval."""
        return with_error(self.damage, self.stderr)

    @property
    def beyond_reference(self) -> Estimate | None:
        """Loss less that of attribution's reference MoBE, paired by window; None where the table has it not.

        Too few windows leave it without an interval.
        """
        found = number(self.row, "mobe_difference_nats")
        low, high = (number(self.row, f"mobe_difference_{end}") for end in ("low", "high"))
        return None if found is None else between(low, found, high, NATS)

    @property
    def is_reference(self) -> bool:
        """The MoBE that these are of: it differs from itself by nothing."""
        found = self.beyond_reference
        return self.family == MOBE and found is not None and {found.value, found.low, found.high} <= {0.0, None}

    @property
    def stored(self) -> float | None:
        """Share of the dense model's bits."""
        return None if self.bits_saved is None else 1 - self.bits_saved

    @property
    def perplexity(self) -> tuple[float | None, float | None]:
        """(perplexity, its standard error), of a row of either table."""
        names = ("perplexity", "perplexity_stderr") if "perplexity" in self.row else ("value", "stderr")
        value, stderr = (number(self.row, name) for name in names)
        return value, stderr

    @property
    def projections(self) -> frozenset[str]:
        """Projections that were compressed; none where they are not known."""
        return frozenset(part for part in str(self.row.get("projections") or "").split(",") if part)

    @property
    def where(self) -> str:
        """`gate, up and down`; nothing where they are not known."""
        return plain(listing(sorted(self.projections, key=order)))

    @property
    def stands_for(self) -> tuple[str, str, frozenset[str]]:
        """Key by which it is found when it is measured elsewhere."""
        return self.method, self.checkpoint, self.projections

    @property
    def title(self) -> str:
        """The method's name, with the folder that a checkpoint was in; TD-MoE's ladder by its steps."""
        if self.ladder in (TDMOE, COMBINATION) and self.step and not self.is_published:
            return f"TD-MoE, “{self._called}”"
        folder = f" ({plain(self.checkpoint)})" if self.checkpoint not in ("", self.method) else ""
        return plain(self._published if self.is_published else display_name(self.method)) + folder

    @property
    def spoken(self) -> str:
        """The title as a sentence has it: steps without their sign, rounding with its bits, what a run consists of."""
        if self.family == RTN:
            bits = next((part[5:] for part in self.options if part.startswith("bits=")), _USUAL_BITS)
            rest = ", ".join(["RTN", *(part for part in self.options if not part.startswith("bits="))])
            folder = f", {self.checkpoint}" if self.checkpoint not in ("", self.method) else ""
            return plain(f"rounding to {bits} bits ({rest}{folder})")
        if self.family == TDMOE and not (self.is_published or self.step):
            return f"TD-MoE ({self.how})"
        return self.title.replace("“+ ", "“") + self.consists

    @property
    def how(self) -> str:
        """Description of how TD-MoE was run, in few words: attribution's step, or the options."""
        if self.step:
            lead = {TDMOE: "steps up to", COMBINATION: "the"}.get(self.ladder, "step")
            return f"{lead} “{step_name(self._called)}”"
        return plain(", ".join(self.options)) if self.options else "default options"

    @property
    def consists(self) -> str:
        """` (exact ranks, core refit)`: the switches of a combination, all of them; of any other run nothing."""
        found = self.step.partition(":")[2].strip() if self.ladder == COMBINATION else ""
        return f" ({plain(found, _MOST_SWITCHES)})" if found else ""

    @property
    def reason(self) -> str:
        """Why it has no loss."""
        status = str(self.row.get("status") or "ok")
        return "not measured" if status == "ok" else status.replace("_", " ")

    def evidence(self, column: str = "loss_difference_nats", rows: int = 1) -> Evidence:
        """The row that a claim is of."""
        about = {"method": self.method, "ratio": self.ratio, "checkpoint": self.checkpoint, "step": self.step}
        table = "attribution" if self.ladder else "quality"
        return Evidence(table, column, rows, {name: value for name, value in about.items() if value not in (None, "")})

    @property
    def _published(self) -> str:
        """`TD-MoE as published`, and in what else it differs from that."""
        extras = [option for option in self.options if option not in _AS_PUBLISHED]
        if not any(option.startswith("decomposition=") for option in self.options):
            extras.append("default decomposition")
        return "TD-MoE as published" + (f" ({', '.join(extras)})" if extras else "")

    @property
    def _called(self) -> str:
        """Name of its step; a combination without what it is made of."""
        return plain(self.step.partition(":")[0] if self.ladder == COMBINATION else self.step)


def step_name(step: str) -> str:
    """A step without the sign of what adds to the one before it."""
    return plain(step).removeprefix("+ ")


def with_error(value: float, stderr: float | None) -> Estimate:
    """An estimate in nats from a standard error."""
    reach = None if stderr is None else Z * stderr
    return Estimate(value, unit=NATS) if reach is None else Estimate(value, value - reach, value + reach, NATS)


def difference(one: Loss, other: Loss) -> Estimate:
    """Difference of two losses of an evaluation: attribution's own where one of them is its reference MoBE.

    Elsewhere the interval holds whatever their correlation.
    """
    if other.is_reference and (found := one.beyond_reference) is not None:
        return found
    if one.is_reference and (found := other.beyond_reference) is not None:
        return found.turned
    known = one.stderr is not None and other.stderr is not None
    return with_error(one.damage - other.damage, (one.stderr or 0.0) + (other.stderr or 0.0) if known else None)


def stores_no_more(loss: Loss, limit: Loss | None) -> bool:
    """Tell whether it stores no more bits, within the tolerance; true where either is not known."""
    if limit is None or loss.stored is None or limit.stored is None:
        return True
    return loss.stored <= limit.stored * (1 + TOLERANCE)
