"""The page of `superweights`: spikes, recovery curves, positions of entries, ablation and the answer in words."""
