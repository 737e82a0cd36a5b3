"""Probe `attribution`: which change to TD-MoE closes how much of its gap to MoBE, at equal stored bits.

A ladder of single changes leads from TD-MoE as published to TD-MoE done right, another one from the one basis in which
MoBE and Tucker meet to MoBE. Every step is measured on the same windows of a held-out text in one walk with the dense
model: losses, and where the residual stream ends. Of every step

    gap_closed = (L_published - L_step) / (L_published - L_MoBE)

L the mean cross-entropy, MoBE the better of its presets, in each bootstrap sample of the windows too. How much of the
gap is how TD-MoE was run (`shares`) is told of the step that loses least, chosen on other windows than it is told on,
and first of all against MoBE with the changes that this step has. Since changes may depend on their order, Shapley
values share the same difference among TD-MoE's switches without one; and rank correlations say which error would have
predicted the losses.

Parts of a run are: a compressed model, whatever steps and coalitions it stands for; what is cut of a stack's modes
(`modes`); and the tables, which are computed from all of these.
"""

from __future__ import annotations

NAME = "attribution"
SHAPLEY = "attribution_shapley"
PREDICTORS = "attribution_predictors"
SHARES = "attribution_shares"
MEASURED = "measured"  # of a part: what the tables are computed from
VERSION = 3
STATISTICS_VERSION = 5  # of what is computed from the parts
COLUMNS = (
    *("step", "method", "ratio", "bits_saved", "weight_error", "functional_error", "operator_error", "angle_deg"),
    *("perplexity", "perplexity_stderr", "gap_closed", "gap_low", "gap_high", "status"),
    *("ladder", "projections", "ranks", "loss_nats", "loss_nats_stderr", "loss_difference_nats"),
    *("loss_difference_nats_stderr", "change_nats", "change_nats_stderr", "functional_error_expert"),
    *("mode_error_expert", "mode_error_output", "mode_error_input", "floor", "norm_ratio", "seconds"),
    *("text", "windows", "tokens", "calibration"),
    *("mobe_difference_nats", "mobe_difference_low", "mobe_difference_high", "bits_saved_of"),
)
SHAPLEY_COLUMNS = (
    *("switch", "text", "nats", "nats_low", "nats_high", "gap_share", "gap_share_low", "gap_share_high"),
    *("alone_nats", "last_nats", "orders", "coalitions", "windows", "status"),
)
PREDICTORS_COLUMNS = ("error", "response", "rank_correlation", "low", "high", "runs", "status")
SHARES_COLUMNS = (
    *("against", "step", "ladder", "step_first_half", "step_second_half", "mobe", "given", "not_given"),
    *("gap_nats", "gap_nats_low", "gap_nats_high", "gap_closed", "gap_low", "gap_high"),
    *("left_nats", "left_low", "left_high", "text", "windows", "status"),
)
TABLES = {
    NAME: COLUMNS,
    SHAPLEY: SHAPLEY_COLUMNS,
    PREDICTORS: PREDICTORS_COLUMNS,
    SHARES: SHARES_COLUMNS,
}
