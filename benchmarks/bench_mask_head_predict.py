"""The mask head's last layers against torch's: ``pytest benchmarks/bench_mask_head_predict.py``."""

import pytest


@pytest.mark.workloads("mask_head_predict", "forward")
def test_forward(run, workload, setting):
    run(workload, setting)
