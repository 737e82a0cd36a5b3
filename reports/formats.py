"""Values to text: numbers in one style, and text from outside made harmless before it is escaped or drawn.

An absent value is an em dash, never a zero. Model names, error messages and settings come from files and users:
invisible and direction-changing characters become visible, and absolute paths lose their folders so that a page can
be shared without telling where it was made.
"""

import math
import re
import unicodedata
from dataclasses import dataclass

from reports.theme import title

EMPTY = "—"
_MINUS = "−"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_HOME = re.compile(r"(?<![\w/:.])(?:/home|/Users|/root|[A-Za-z]:\\Users)(?:[/\\][^\s/\\'\"<>:,;)]+)?(?![^\s'\"<>:,;)])")
_FOLDERS = re.compile(r"(?<![\w/:.<])(?:/(?:[^\s/'\"<>]+/)+|[A-Za-z]:\\(?:[^\s\\'\"<>]+\\)+)")


def fixed(value: float | None, places: int = 3, signed: bool = False) -> str:
    """A number with a fixed count of decimals: `fixed(-0.0471, 3)` is '−0.047'."""
    if value is None or math.isnan(value):
        return EMPTY
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    text = f"{value:{'+' if signed else ''}.{places}f}"
    if float(text) == 0 and not signed:
        text = text.lstrip("-")
    return text.replace("-", _MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """A number with significant digits; very large and very small ones as a power of ten."""
    if value is None or not math.isfinite(value):
        return fixed(value)
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", _MINUS)
    return text.replace("-", _MINUS)


def percent(value: float | None, places: int = 1) -> str:
    """A fraction as per cent: `percent(0.312)` is '31.2 %'."""
    text = fixed(None if value is None else 100 * value, places)
    return text if text == EMPTY else f"{text}\N{NO-BREAK SPACE}%"


def integer(value: float | None) -> str:
    """A count, without decimals."""
    return fixed(value, 0)


def counted(count: int, what: str) -> str:
    """`1 window`, `1,024 windows`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


@dataclass(frozen=True)
class Form:
    """Notation of one kind of number: decimals, or significant digits; times `factor`, with `unit` behind."""

    places: int | None = None
    digits: int = 3
    factor: float = 1.0
    unit: str = ""
    signed: bool = False


FORMS = {
    "": Form(),
    "integer": Form(places=0),
    "dimension": Form(places=1),  # effective ranks
    "factor": Form(places=2),  # so many times another
    "exponent": Form(places=3),
    "error": Form(places=3),
    "loss": Form(places=3),
    "change": Form(places=3, signed=True),
    "percent": Form(places=1, factor=100.0, unit="\N{NO-BREAK SPACE}%"),
    "points": Form(places=1, factor=100.0, signed=True),  # of per cent, of a difference of shares
    "angle": Form(places=1, unit="°"),
    "perplexity": Form(digits=4),
    "norm": Form(digits=4),
    "rough": Form(digits=2),
}
_MOST_PLACES = 4


def places_of(error: float | None) -> int:
    """Decimals that show two digits of an error."""
    return 3 if not error or error <= 0 else min(_MOST_PLACES, max(0, 1 - math.floor(math.log10(error))))


def words(value: object, form: str = "text") -> str:
    """Text as people read it: a method by its title, a `name` as it is, yes and no, others without underscores."""
    if value is None or value == "":
        return EMPTY
    if isinstance(value, bool):
        return "yes" if value else "no"
    said = str(value)
    return title(said) if form == "method" else said if form == "name" else said.replace("_", " ")


def measured(
    value: object,
    form: str = "",
    *,
    error: float | None = None,
    low: float | None = None,
    high: float | None = None,
    baseline: float | None = None,
) -> str:
    """A value of any table or claim as text; an absent one is a dash.

    With its standard error `0.266 ± 0.012`, with its interval `0.266 (0.210 to 0.322)`: all to two digits of the error
    or of half the interval, at most four decimals. With that of a baseline `0.152 (0.025)`.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return words(value, form)
    how = FORMS.get(form, FORMS[""])
    reach = error if error is not None else None if low is None or high is None else (high - low) / 2
    places = how.places if reach is None or not reach > 0 else places_of(how.factor * reach)

    def text(number: float | None, *, signed: bool = how.signed) -> str:
        if number is None or places is None:
            return significant(number, how.digits)
        return fixed(how.factor * number, places, signed=signed and round(how.factor * number, places) != 0)

    said = text(value)
    if error is not None:
        said += f" ± {text(error, signed=False)}"
    said += how.unit if said != EMPTY else ""
    if error is None and low is not None and high is not None:
        said += f" ({text(low)} to {text(high)})"
    return said if baseline is None else f"{said} ({text(baseline)}{how.unit})"


def size(count: int | None) -> str:
    """Bytes in GB of 10^9, or in MB below a tenth of one."""
    if count is None:
        return EMPTY
    return f"{count / 1e9:.1f} GB" if count >= 10**8 else f"{count / 1e6:.0f} MB"


def listing(parts: list[str]) -> str:
    """Words joined as in a sentence: 'a, b and c'."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def lead(sentence: str, limit: int = 100) -> tuple[str, str]:
    """A sentence up to its first colon, with it, if that is short and a clause by itself; and the rest."""
    head, colon, rest = sentence.partition(": ")
    clause = bool(colon) and len(head) <= limit and ". " not in head and head.count("(") == head.count(")")
    return (f"{head}:", f" {rest}") if clause else ("", sentence)


def without_folders(text: str) -> str:
    """The text with every absolute path cut down to its last component."""
    return _FOLDERS.sub("…/", _HOME.sub("…", text))


def visible(text: str) -> str:
    """The text with control, format (bidirectional, zero-width) and unpaired surrogate characters spelled out."""
    return "".join(
        f"⟨U+{ord(character):04X}⟩"
        if unicodedata.category(character) in {"Cc", "Cf", "Cs"} and character not in "\n\t"
        else character
        for character in text
    )


def display(value: object) -> object:
    """Text that a template prints for any value that it was handed: made harmless, numbers in our style."""
    if value is None:
        return EMPTY
    if hasattr(value, "__html__"):  # made by our own templates, already escaped
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return significant(value, 6)
    return visible(without_folders(str(value)))
