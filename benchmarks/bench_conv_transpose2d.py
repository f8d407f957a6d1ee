"""Transposed convolution against torch: ``pytest benchmarks/bench_conv_transpose2d.py``, or ``structops bench``."""

import pytest


@pytest.mark.workloads("conv_transpose2d", "forward")
def test_forward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("conv_transpose2d", "backward")
def test_forward_and_backward(run, workload, setting):
    run(workload, setting)
