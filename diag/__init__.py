"""diag: why did the decomposition fail? Probes, runs and the command line."""
