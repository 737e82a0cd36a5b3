"""`tdmoe-diag compare`: everything that is measured of a model, as one experiment, and one page.

experiment.py   everything that an experiment says, as data
toml.py         the same as a file, read and written
presets.py      experiments to begin from
kinds.py        what each command does of it: a part
plan.py         an experiment checked: parts, the run folder
run.py          its parts carried out, and their tables put together
"""

NAME = "compare"
VERSION = 1
