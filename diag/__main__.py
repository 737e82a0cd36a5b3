"""`python -m diag` is `tdmoe-diag`."""

from diag.cli import main

if __name__ == "__main__":
    main()
