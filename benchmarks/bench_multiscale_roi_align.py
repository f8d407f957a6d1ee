"""RoI Align over a pyramid against torchvision: ``pytest benchmarks/bench_multiscale_roi_align.py``."""

import pytest


@pytest.mark.workloads("multiscale_roi_align", "forward")
def test_forward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("multiscale_roi_align", "backward")
def test_training_step(run, workload, setting):
    run(workload, setting)
