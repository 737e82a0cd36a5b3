"""The `experts` command: expert-mode ablation and similarity of experts."""
