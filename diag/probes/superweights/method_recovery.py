"""Versions of a down projection that methods give back: cut from a compressed stack, or of a dense layer's own matrix.

A dense layer's matrix is compressed as a stack of one expert, in memory; methods that need statistics of its inputs are
left out there.

Legend: O outputs, I inputs, E experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diag.compression.factors import Factors, Recipe
from diag.probes.superweights.entry_recovery import Estimate
from tdmoe import forms, methods
from tdmoe.checkpoint.encodings import Plain
from tdmoe.compression.assemble import read_shard
from tdmoe.problems import InputError
from tdmoe.runtime.down_projections import Site

STRIP_ROWS = 1024


@dataclass(frozen=True)
class OneMatrix:
    """A WeightSource of a stack of one expert, and that stack."""

    W_OI: Tensor

    @property
    def stack(self) -> OneMatrix:
        return self

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        outputs, inputs = self.W_OI.shape
        return 1, outputs, inputs

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        return self.shape

    @property
    def row_mode(self) -> str:
        return "output"

    @property
    def encoding(self) -> Plain:
        return Plain(self.W_OI.dtype)

    @property
    def matrices(self) -> int:
        return 1

    def blocks(
        self, bounds: list[int], dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[int, Tensor]]:
        """The one expert."""
        yield 0, self.W_OI[None].to(device, dtype)

    def strips(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Iterator[Tensor]:
        """Rows by rows."""
        for W_RI in self.W_OI.split(STRIP_ROWS):
            yield W_RI.reshape(1, -1).to(device, dtype)


def of_stack(factors: Factors, site: Site) -> Estimate:
    """The expert's matrix as the factors of its stack give it back."""
    spec, tensors = read_shard(factors.folder, site.layer, site.projection)
    assert site.expert is not None, "only experts have a stack"
    made = forms.restore(spec, tensors).to(torch.float32)
    row = next(r for r in factors.rows if (r["layer"], r["projection"]) == (site.layer, site.projection))
    bits, kept = int(row["stored_bits"]), float(row["kept_ratio"])
    W_OI = made.members(site.expert, site.expert + 1)[0]
    return Estimate(
        factors.recipe.method, factors.recipe.ratio, str(row["ranks"]), bits, kept, W_OI, factors.calibration
    )


def of_matrix(W_OI: Tensor, recipes: Sequence[Recipe], device: str) -> tuple[list[Estimate], list[tuple[Recipe, str]]]:
    """A dense layer's matrix by each recipe, factors in its own dtype; and the recipes that do not apply, with why."""
    source, dense_bits = OneMatrix(W_OI), 8 * W_OI.nbytes
    found: list[Estimate] = []
    left_out: list[tuple[Recipe, str]] = []
    for recipe in recipes:
        method, options = methods.parse(recipe.method)
        if method.needs(options).statistics:
            left_out.append((recipe, "not_calibrated"))
            continue
        try:
            method.check(source.shape, options, recipe.ratio or 0.0)
            allotment = methods.Allotment(recipe.ratio or 0.0)
            factored = method.compress(source, options, allotment, None, device=device).to(W_OI.dtype)
        except InputError:
            left_out.append((recipe, "not_applicable"))
            continue
        bits, ranks = forms.stored_bits(factored), "x".join(map(str, factored.ranks))
        made_OI = factored.to(torch.float32).members(0, 1)[0].cpu()
        found.append(Estimate(recipe.method, recipe.ratio, ranks, bits, bits / dense_bits, made_OI))
    return found, left_out
