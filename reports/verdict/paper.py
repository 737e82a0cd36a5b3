"""Numbers of *Rethinking the Role of Tensor Decompositions in Post-Training LLM Compression* (arXiv 2606.03465v1).

Only what its tables and text print; its figures carry no numbers, so of TD-MoE and MoBE there is no perplexity, angle
or time to put beside a measured one. Every row names its table and line.
"""

from dataclasses import dataclass

TITLE = "Rethinking the Role of Tensor Decompositions in Post-Training LLM Compression"
MOE = "Qwen3-30B-A3B"  # whose exponents Table 1 has
RAW = "gpt-oss-20b"  # of which the text says that its perplexity on raw text is no signal
RAW_PERPLEXITY = {"wikitext2": 503.9, "c4": 269.9}  # appendix C.1, "Perplexity on GPT-OSS-20B", dense


@dataclass(frozen=True)
class Exponents:
    """A line of Table 1: sigma_i ~ i^-alpha of the three unfoldings; the range of i is not stated."""

    layer: int
    projection: str
    expert: float
    output: float
    input: float

    @property
    def source(self) -> str:
        return f"Table 1, layer {self.layer} / {self.projection}"


@dataclass(frozen=True)
class Storage:
    """A line of Table 3: one layer of LLaMA 2 7B; `saved` in per cent of all but the embeddings."""

    method: str
    target: str
    rank: int
    compression: float  # dense over stored, of the target
    saved: float

    @property
    def source(self) -> str:
        return f"Table 3, {self.method} {self.target}"


@dataclass(frozen=True)
class Tradeoff:
    """A line of Table 4, of the two numbers in a cell the first: without LoRA. Dense has no angle and no norm ratio."""

    model: str
    blocks: str
    method: str
    saved: float  # per cent
    wikitext2: float
    c4: float
    angle_deg: float | None
    norm_ratio: float | None

    @property
    def is_dense(self) -> bool:
        return self.method == "dense"

    @property
    def source(self) -> str:
        where = f", blocks {self.blocks}" if self.blocks else ""
        return f"Table 4, {self.model}{where}, {self.method}"


TABLE_1 = (
    Exponents(0, "gate", 0.160, 0.075, 0.402),
    Exponents(0, "up", 0.187, 0.062, 0.358),
    Exponents(12, "gate", 0.047, 0.050, 0.197),
    Exponents(12, "up", 0.040, 0.045, 0.190),
    Exponents(24, "gate", 0.039, 0.053, 0.202),
    Exponents(24, "up", 0.025, 0.046, 0.195),
    Exponents(47, "gate", 0.052, 0.051, 0.142),
    Exponents(47, "up", 0.048, 0.051, 0.134),
)
TABLE_3 = (
    Storage("LASER", "MHA", 1024, 2.00, 0.51),
    Storage("Tucker", "MHA", 64, 240.49, 1.01),
    Storage("TT/head", "MHA", 64, 1.98, 0.50),
    Storage("LASER", "FFN", 1024, 2.92, 1.34),
    Storage("TT", "FFN", 64, 398.63, 2.04),
)
TABLE_4 = (
    Tradeoff("GPT-J 6B", "", "dense", 0.0, 8.86, 11.71, None, None),
    Tradeoff("GPT-J 6B", "14", "Tucker MHA", 1.1, 9.19, 12.01, 9.3, 0.99),
    Tradeoff("GPT-J 6B", "14", "TT FFN", 2.3, 9.32, 12.35, 14.9, 0.99),
    Tradeoff("GPT-J 6B", "14", "Tucker+TT", 3.4, 9.6, 12.57, 16.9, 0.98),
    Tradeoff("GPT-J 6B", "14", "TT all", 3.4, 9.62, 12.59, 16.9, 0.98),
    Tradeoff("GPT-J 6B", "14-15", "Tucker MHA", 2.3, 9.93, 12.57, 11.9, 0.98),
    Tradeoff("GPT-J 6B", "14-15", "TT FFN", 4.6, 10.31, 13.59, 18.5, 0.97),
    Tradeoff("GPT-J 6B", "14-15", "Tucker+TT", 6.9, 12.13, 15.2, 20.5, 0.97),
    Tradeoff("GPT-J 6B", "14-15", "TT all", 6.9, 12.41, 15.5, 20.5, 0.97),
    Tradeoff("GPT-J 6B", "14-16", "Tucker MHA", 3.4, 10.53, 13.28, 13.7, 0.98),
    Tradeoff("GPT-J 6B", "14-16", "TT FFN", 6.9, 12.06, 15.54, 21.5, 0.94),
    Tradeoff("GPT-J 6B", "14-16", "Tucker+TT", 10.3, 15.3, 18.41, 23.4, 0.94),
    Tradeoff("GPT-J 6B", "14-16", "TT all", 10.3, 15.93, 19.01, 23.4, 0.95),
    Tradeoff("GPT-J 6B", "14-17", "Tucker MHA", 4.6, 12.01, 13.79, 15.2, 0.97),
    Tradeoff("GPT-J 6B", "14-17", "TT FFN", 9.2, 14.49, 18.28, 24.1, 0.92),
    Tradeoff("GPT-J 6B", "14-17", "Tucker+TT", 13.7, 20.46, 22.77, 26.0, 0.92),
    Tradeoff("GPT-J 6B", "14-17", "TT all", 13.7, 21.8, 24.01, 26.0, 0.93),
    Tradeoff("GPT-J 6B", "14-18", "Tucker MHA", 5.7, 13.12, 14.92, 16.6, 0.98),
    Tradeoff("GPT-J 6B", "14-18", "TT FFN", 11.5, 17.73, 21.46, 26.4, 0.89),
    Tradeoff("GPT-J 6B", "14-18", "Tucker+TT", 17.2, 27.1, 28.26, 28.1, 0.9),
    Tradeoff("GPT-J 6B", "14-18", "TT all", 17.2, 29.39, 30.22, 28.2, 0.91),
    Tradeoff("GPT-J 6B", "14-19", "Tucker MHA", 6.9, 14.9, 16.04, 17.9, 0.98),
    Tradeoff("GPT-J 6B", "14-19", "TT FFN", 13.8, 21.05, 24.54, 28.5, 0.86),
    Tradeoff("GPT-J 6B", "14-19", "Tucker+TT", 20.6, 34.27, 34.16, 30.1, 0.87),
    Tradeoff("GPT-J 6B", "14-19", "TT all", 20.6, 37.25, 36.73, 30.1, 0.88),
    Tradeoff("GPT-J 6B", "14-20", "Tucker MHA", 8.0, 17.33, 17.56, 19.4, 0.98),
    Tradeoff("GPT-J 6B", "14-20", "TT FFN", 16.0, 26.31, 28.28, 30.5, 0.83),
    Tradeoff("GPT-J 6B", "14-20", "Tucker+TT", 24.1, 51.26, 48.09, 31.8, 0.85),
    Tradeoff("GPT-J 6B", "14-20", "TT all", 24.0, 54.84, 51.42, 31.8, 0.86),
    Tradeoff("LLaMA 2 7B", "", "dense", 0.0, 5.12, 6.63, None, None),
    Tradeoff("LLaMA 2 7B", "16", "Tucker MHA", 1.0, 5.28, 6.87, 17.1, 0.91),
    Tradeoff("LLaMA 2 7B", "16", "TT FFN", 2.0, 5.52, 7.01, 22.3, 0.93),
    Tradeoff("LLaMA 2 7B", "16", "Tucker+TT", 3.1, 5.61, 7.23, 26.5, 0.85),
    Tradeoff("LLaMA 2 7B", "16", "TT all", 3.1, 5.61, 7.23, 26.5, 0.85),
    Tradeoff("LLaMA 2 7B", "16-17", "Tucker MHA", 2.0, 5.52, 7.15, 19.7, 0.89),
    Tradeoff("LLaMA 2 7B", "16-17", "TT FFN", 4.1, 5.88, 7.56, 26.2, 0.9),
    Tradeoff("LLaMA 2 7B", "16-17", "Tucker+TT", 6.1, 6.24, 7.97, 30.5, 0.8),
    Tradeoff("LLaMA 2 7B", "16-17", "TT all", 6.1, 6.24, 7.97, 30.5, 0.8),
    Tradeoff("LLaMA 2 7B", "16-18", "Tucker MHA", 3.0, 5.76, 7.5, 21.7, 0.87),
    Tradeoff("LLaMA 2 7B", "16-18", "TT FFN", 6.1, 6.44, 8.33, 29.1, 0.87),
    Tradeoff("LLaMA 2 7B", "16-18", "Tucker+TT", 9.2, 6.98, 8.95, 33.5, 0.76),
    Tradeoff("LLaMA 2 7B", "16-18", "TT all", 9.2, 6.98, 8.95, 33.6, 0.76),
    Tradeoff("LLaMA 2 7B", "16-19", "Tucker MHA", 4.0, 6.03, 7.91, 23.5, 0.86),
    Tradeoff("LLaMA 2 7B", "16-19", "TT FFN", 8.2, 7.61, 9.59, 31.5, 0.84),
    Tradeoff("LLaMA 2 7B", "16-19", "Tucker+TT", 12.2, 7.85, 10.06, 36.0, 0.72),
    Tradeoff("LLaMA 2 7B", "16-19", "TT all", 12.2, 7.86, 10.06, 36.0, 0.72),
    Tradeoff("LLaMA 2 7B", "16-20", "Tucker MHA", 5.1, 6.65, 8.64, 25.3, 0.84),
    Tradeoff("LLaMA 2 7B", "16-20", "TT FFN", 10.2, 8.71, 10.99, 33.5, 0.81),
    Tradeoff("LLaMA 2 7B", "16-20", "Tucker+TT", 15.3, 9.94, 12.34, 38.3, 0.68),
    Tradeoff("LLaMA 2 7B", "16-20", "TT all", 15.3, 9.94, 12.35, 38.4, 0.68),
    Tradeoff("LLaMA 2 7B", "16-21", "Tucker MHA", 6.1, 6.93, 9.07, 26.7, 0.83),
    Tradeoff("LLaMA 2 7B", "16-21", "TT FFN", 12.3, 10.26, 12.51, 35.2, 0.79),
    Tradeoff("LLaMA 2 7B", "16-21", "Tucker+TT", 18.3, 12.45, 14.96, 40.4, 0.64),
    Tradeoff("LLaMA 2 7B", "16-21", "TT all", 18.3, 12.46, 14.97, 40.4, 0.64),
    Tradeoff("LLaMA 2 7B", "16-22", "Tucker MHA", 7.1, 7.45, 9.74, 28.1, 0.81),
    Tradeoff("LLaMA 2 7B", "16-22", "TT FFN", 14.3, 11.52, 14.14, 36.7, 0.76),
    Tradeoff("LLaMA 2 7B", "16-22", "Tucker+TT", 21.4, 17.6, 19.45, 42.2, 0.61),
    Tradeoff("LLaMA 2 7B", "16-22", "TT all", 21.4, 17.6, 19.44, 42.2, 0.61),
    Tradeoff("LLaMA 2 7B", "16-23", "Tucker MHA", 8.1, 7.78, 10.14, 29.4, 0.8),
    Tradeoff("LLaMA 2 7B", "16-23", "TT FFN", 16.3, 12.98, 15.77, 38.0, 0.74),
    Tradeoff("LLaMA 2 7B", "16-23", "Tucker+TT", 24.4, 25.44, 23.53, 43.8, 0.58),
    Tradeoff("LLaMA 2 7B", "16-23", "TT all", 24.4, 25.61, 23.59, 43.9, 0.58),
)
