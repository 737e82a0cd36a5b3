"""Defaults of settings that several commands, experiments and the library share: one a meaning, declared here."""

from tdmoe.stacks import families

ALL_PROJECTIONS = ",".join(families.PROJECTIONS)
CALIBRATION_TEXT = "c4-calibration"
CALIBRATION_TOKENS = 262_144  # 128 windows of 2048 tokens, the usual number
MEMORY = "4GB"
MEMORY_BYTES = 4_000_000_000
