"""The case database: one file per op, each with a tuple ``SPECS``."""
