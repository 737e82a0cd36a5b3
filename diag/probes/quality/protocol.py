"""Protocol from a text to windows whose losses are a perplexity: everything that changes the figure, stated.

A text is one string, tokenised once, and cut into windows of T tokens that start every S tokens (the stride), the
remainder dropped. Every window scores its last min(S, T - 1) tokens: with S = T windows do not overlap, and all tokens
but a window's first are scored; with S < T every scored token has at least T - S tokens of context, no token is scored
twice, and the text's first T - S are not scored, so that all windows weigh the same.

join   as-is: the string as it is; blank-lines: the lines of the raw text joined by a blank line, white lines empty,
       as "wikitext through datasets" does (Rethinking; it gives another number)
bos    none; text: one beginning-of-sequence token before the text; window: one at the head of every window, in place
       of its first token
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diag.inputs.windows import first, tokenised
from reports.formats import counted
from tdmoe.problems import InputError

JOINS = ("as-is", "blank-lines")
BOS = ("none", "text", "window")


@dataclass(frozen=True)
class Protocol:
    """`windows`: the first so many of the text, 0 for all of them."""

    window: int
    stride: int
    windows: int
    join: str = "as-is"
    bos: str = "none"

    def __post_init__(self) -> None:
        """InputError where values do not fit one another."""
        if not 1 <= self.stride <= self.window:
            raise InputError("stride", self.stride, f"a window has {self.window} tokens", f"give 1 to {self.window}")
        for option, value, known in (("join", self.join, JOINS), ("bos", self.bos, BOS)):
            if value not in known:
                raise InputError(option, value, remedy=f"give one of {', '.join(known)}")

    @property
    def scored(self) -> int:
        """Tokens of a window that are scored: its last ones."""
        return min(self.stride, self.window - 1)

    def cut(self, tokenizer: Any, text: str, name: str) -> Tensor:
        """(W, T). InputError where the text is shorter than one window or a token is missing."""
        content, needed = joined(text, self.join), self.window + (self.windows - 1) * self.stride
        ids = first(tokenizer, content, needed) if self.windows else tokenised(tokenizer, content)
        bos = tokenizer.bos_token_id
        if self.bos != "none" and bos is None:
            raise InputError("bos", self.bos, "the tokenizer has no beginning-of-sequence token", "give none")
        if self.bos == "text":
            ids = [bos, *ids]
        if len(ids) < self.window:
            raise InputError(
                "texts",
                name,
                f"holds {counted(len(ids), 'token')}, a window takes {self.window:,}",
                "give a longer text or a smaller --window",
            )
        ids_WT = torch.tensor(ids, dtype=torch.long).unfold(0, self.window, self.stride)
        ids_WT = ids_WT[: self.windows or None].clone()
        if self.bos == "window":
            ids_WT[:, 0] = bos
        return ids_WT

    def stated(self) -> str:
        """The protocol in words, for a table."""
        stride = "" if self.stride == self.window else f", stride {self.stride}"
        bos = {"none": "no BOS", "text": "one BOS before the text", "window": "BOS at the head of every window"}
        join = "text as it is" if self.join == "as-is" else "lines joined by blank lines"
        return f"{join}, windows of {self.window} tokens{stride}, {self.scored} of each scored, {bos[self.bos]}"


def joined(text: str, join: str) -> str:
    """The string that is tokenised."""
    if join == "as-is":
        return text
    return "\n\n".join(line if line.strip() else "" for line in io.StringIO(text))  # split at \n alone
