"""Benchmarks: `make bench` writes bench/RESULTS.md, `make gpu` checks and times a GPU. Never part of the tests."""
