"""The last stage of detectors against torchvision's: ``pytest benchmarks/bench_select_detections.py``."""

import pytest


@pytest.mark.workloads("select_detections", "forward")
def test_select_detections(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("select_detections", "sweep")
def test_cost_against_number_of_images(run, workload, setting):
    run(workload, setting)
