"""Mixture of basis experts: sizes within a budget, the published training, and a second-order fit of the same form."""
