"""Figures of runs and reports, each drawn from plain data to a PNG."""
