"""`python -m diag` is `tdmoe-diag`."""

from diag.start import main

if __name__ == "__main__":
    main()
