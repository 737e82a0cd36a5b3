"""Seeded attacks on the command line: killed processes, mutated files, and a hub that answers wrongly.

make campaign SECONDS=600 SEED=0 JOBS=2                     # all of them
make campaign ONLY=kills SEED=0 CASE=17 KEEP=/tmp/case      # one case again, its folder kept

A case is one draw of one campaign: it follows from the seed, the campaign's name and its number alone. Its command must
end with the right numbers or with one short message. Anything else is a fault: a traceback, no end, a finished result
lost, a temporary file left behind, and numbers that differ without a word.
"""
