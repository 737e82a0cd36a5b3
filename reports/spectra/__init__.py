"""The page of `spectra`: figures, tables and the answer in words."""
