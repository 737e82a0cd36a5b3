"""The page of `attribution`: which change to TD-MoE closes how much of its gap to MoBE, and what is left."""
