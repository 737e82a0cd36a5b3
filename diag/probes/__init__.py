"""Why did the decomposition fail? One folder a probe (diag/declare/probe.py)."""
