"""Box coding against torchvision's coders: ``structops bench decode_boxes encode_boxes``."""

import pytest


@pytest.mark.workloads("decode_boxes", "forward")
def test_decode(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("decode_boxes", "backward")
def test_decode_backward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("encode_boxes", "forward")
def test_encode(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("encode_boxes", "backward")
def test_encode_backward(run, workload, setting):
    run(workload, setting)
