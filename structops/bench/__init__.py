"""What stands behind ``structops bench`` and the files of ``benchmarks/``.

``machine``: the machine and its limits; ``measure``: one workload against its peer; ``results``: reading, comparing
and printing what was measured; ``pictures`` and ``report``: showing it. Only the last two need matplotlib.
"""
