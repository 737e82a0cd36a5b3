"""The page of `operator`: figures, tables and the answer in words."""
