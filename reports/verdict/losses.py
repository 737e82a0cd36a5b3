"""What compression adds to the loss: rows of `quality` and of `attribution` in one form."""

from dataclasses import dataclass

from reports.intervals import Estimate, Z, between, of
from reports.methods import is_control, method_name
from reports.run import Row, given
from reports.tables import status_of
from reports.verdict.subjects import plain

TDMOE, MOBE, RTN = "tdmoe", "mobe", "rtn"
COMBINATION = "combination"  # a ladder of attribution: TD-MoE's switches together as they lose least
DENSE = "dense"
PUBLISHED_RANKS = ("allocation=published", "allocation=published_every")
_AS_PUBLISHED = ("whitening=none", "allocation=published", "decomposition=hosvd")
_OF_A_PRESET = {"preset", "steps", "groups", "alignment", "damping"}  # options that leave it one
_USUAL_BITS = "4"  # of RTN
_MOST_SWITCHES = 160  # characters; all of them take 115
TOLERANCE = 0.005  # of the stored bits, within which storage counts as equal


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
        return [option for option in self.method.partition(":")[2].split(",") if option]

    @property
    def is_dense(self) -> bool:
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
        return is_control(self.family)

    @property
    def measured(self) -> bool:
        return given(self.row, "loss_difference_nats")

    @property
    def damage(self) -> float:
        """Nats a token above dense; ask `measured` first."""
        return float(self.row["loss_difference_nats"])

    @property
    def stderr(self) -> float | None:
        found = self.row.get("loss_difference_nats_stderr")
        return None if found is None else float(found)

    @property
    def added(self) -> Estimate:
        return of(self.damage, self.stderr)

    @property
    def beyond_reference(self) -> Estimate | None:
        """Its loss less that of attribution's reference MoBE, paired by window; None where the table has it not.

        Too few windows leave it without an interval.
        """
        if not given(self.row, "mobe_difference_nats"):
            return None
        low, high = (self.row.get(f"mobe_difference_{end}") for end in ("low", "high"))
        return between(low, float(self.row["mobe_difference_nats"]), high)

    @property
    def is_reference(self) -> bool:
        """The MoBE that these are of: it differs from itself by nothing."""
        found = self.beyond_reference
        return self.family == MOBE and found in (Estimate(0.0, 0.0, 0.0), Estimate(0.0))

    @property
    def stored(self) -> float | None:
        """Share of the dense model's bits."""
        return None if self.bits_saved is None else 1 - self.bits_saved

    @property
    def title(self) -> str:
        """The method's name, with the folder that a checkpoint was in; TD-MoE's ladder by its steps."""
        if self.ladder in (TDMOE, COMBINATION) and self.step and not self.is_published:
            return f"TD-MoE, “{self._called}”"
        folder = f" ({plain(self.checkpoint)})" if self.checkpoint not in ("", self.method) else ""
        return plain(self._published if self.is_published else method_name(self.method)) + folder

    @property
    def spoken(self) -> str:
        """The title as a sentence has it: steps without their sign, rounding with its bits."""
        if self.family == RTN:
            bits = next((part[5:] for part in self.options if part.startswith("bits=")), _USUAL_BITS)
            rest = ", ".join(["RTN", *(part for part in self.options if not part.startswith("bits="))])
            folder = f", {self.checkpoint}" if self.checkpoint not in ("", self.method) else ""
            return plain(f"rounding to {bits} bits ({rest}{folder})")
        return self.title.replace("“+ ", "“")

    @property
    def projections(self) -> frozenset[str]:
        """That were compressed; none where they are not known."""
        return frozenset(part for part in str(self.row.get("projections") or "").split(",") if part)

    @property
    def stands_for(self) -> tuple[str, str, frozenset[str]]:
        """What is compared when it is measured elsewhere."""
        return self.method, self.checkpoint, self.projections

    @property
    def _published(self) -> str:
        """`TD-MoE as published`, and in what else it differs from that."""
        extras = [option for option in self.options if option not in _AS_PUBLISHED]
        if not any(option.startswith("decomposition=") for option in self.options):
            extras.append("default decomposition")
        return "TD-MoE as published" + (f" ({', '.join(extras)})" if extras else "")

    @property
    def _called(self) -> str:
        """Its step; a combination without what it is made of."""
        return plain(self.step.partition(":")[0] if self.ladder == COMBINATION else self.step)

    @property
    def how(self) -> str:
        """How TD-MoE was run, in few words: attribution's step, or the options."""
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
        return status_of(self.row) or "not measured"


def step_name(step: str) -> str:
    """Without the sign of what adds to the step before it."""
    return plain(step).removeprefix("+ ")


def difference(one: Loss, other: Loss) -> Estimate:
    """Of two losses of an arena, nats a token: attribution's own where one of them is its reference MoBE.

    Elsewhere the interval holds whatever their correlation.
    """
    if other.is_reference and (found := one.beyond_reference) is not None:
        return found
    if one.is_reference and (found := other.beyond_reference) is not None:
        return found.turned
    value = one.damage - other.damage
    if one.stderr is None or other.stderr is None:
        return Estimate(value)
    half = Z * (one.stderr + other.stderr)
    return Estimate(value, value - half, value + half)


def stores_no_more(loss: Loss, limit: Loss | None) -> bool:
    """Within the tolerance; true where either is not known."""
    if limit is None or loss.stored is None or limit.stored is None:
        return True
    return loss.stored <= limit.stored * (1 + TOLERANCE)


def perplexity(loss: Loss) -> float | None:
    """Of a row of either table."""
    column = "perplexity" if "perplexity" in loss.row else "value"
    return float(loss.row[column]) if given(loss.row, column) else None
