"""Super weights that are published: (layer, row, column) of the dense down projections of known models.

Yu et al. 2024, "The Super Weight in Large Language Models", Table 2. Fine-tuned versions keep those of their base.
"""

from __future__ import annotations

import re

PUBLISHED: dict[str, tuple[tuple[int, int, int], ...]] = {
    r"llama-?2-7b": ((1, 2533, 7890),),
    r"llama-?3-8b": ((1, 788, 2427), (1, 1384, 2427), (1, 4062, 2427)),
    r"llama-7b": ((2, 3968, 7003),),
    r"llama-13b": ((2, 2231, 2278), (2, 2231, 6939)),
    r"llama-30b": ((3, 5633, 12817), (3, 5633, 17439), (10, 5633, 14386)),
    r"mistral-7b": ((1, 2070, 7310),),
    r"olmo-1b": ((1, 1764, 1710), (2, 1764, 8041)),
    r"olmo-7b": ((1, 269, 7467), (2, 269, 8275), (7, 269, 453), (24, 269, 2300)),
    r"phi-?3-mini": (
        *((2, 525, 808), (2, 1693, 808), (2, 1113, 808)),
        *((4, 525, 2723), (4, 1113, 2723), (4, 1693, 2723)),
    ),
}


def published(model: str) -> tuple[tuple[int, int, int], ...]:
    """Super weights of the model of that name; nothing where none are known."""
    return next((found for name, found in PUBLISHED.items() if re.search(rf"\b{name}\b", model.lower())), ())
