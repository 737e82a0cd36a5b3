"""tdmoe: how the experts of a Mixture-of-Experts language model are read, measured and compressed.

Imports neither torch nor transformers: every module imports what it needs.
"""

__version__ = "0.1.0"
