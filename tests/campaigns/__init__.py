"""Seeded attacks on the command line: killed processes, mutated files, and a hub that answers wrongly.

python -m campaigns --seconds 600 --seed 0 --jobs 2 [--only kills,hub] [--case 17]      (in tests/; `make campaign`)

A case is one draw of one campaign: it follows from the seed, the campaign's name and its number alone. Its command must
end with the right numbers or with one short message. Anything else is a fault: a traceback, no end, a finished result
lost, a temporary file left behind, and numbers that differ without a word.
"""
