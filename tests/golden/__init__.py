"""What every command writes and says, recorded: the test of changes that may not change a number.

python -m golden                 # run every case again and compare with recorded/, as `make golden`
python -m golden --record        # rewrite recorded/, as `make golden RECORD=1`: read what changes
python -m golden --only drift    # some cases

It knows the product by its command line alone, so that no renamed module changes it.
"""
