"""NMS against torchvision: ``pytest benchmarks/bench_nms.py``, or ``structops bench nms batched_nms``."""

import pytest


@pytest.mark.workloads("nms", "forward")
def test_nms(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("batched_nms", "forward")
def test_batched_nms(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("nms", "sweep")
def test_cost_against_number_of_boxes(run, workload, setting):
    run(workload, setting)
