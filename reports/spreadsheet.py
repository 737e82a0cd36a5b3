"""Text from outside as a cell of a CSV file that spreadsheets open: one that they took for a formula could act."""

import re

_FORMULA = re.compile("[=+@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH COMMERCIAL AT}-]")
_AMOUNT = re.compile(
    r"[+\-−]?[0-9](?:[0-9.,⁰¹²³⁴⁵⁶⁷⁸⁹⁻+\-−±–%°×∞() \N{NO-BREAK SPACE}]| to )*"
)  # no word, so no function
_STEP = re.compile(r"\+ [\w .,:-]+")  # as steps of an attribution are called: neither function nor command


def cell(text: str) -> str:
    """A cell's text, behind an apostrophe if it may begin a formula; amounts and steps stay."""
    harmless = _AMOUNT.fullmatch(text) or _STEP.fullmatch(text)
    return f"'{text}" if _FORMULA.match(text) and not harmless else text
