"""Benchmarks in pytest-benchmark; installed as ``structops.benchmarks`` and run by ``structops bench``."""
