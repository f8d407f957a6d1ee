"""encode_masks and masks_to_rle beyond the case database: what COCO's tools read, and that they read it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from structops import ops
from structops.reference.encode_masks import run_lengths, run_text
from structops.reference.paste_masks import pack_bits
from structops.testing.cases.encode_masks import blobs, noise
from structops.testing.workloads.paste_masks import detections

MASKS = [
    ("blobs", lambda g: blobs(g, 4, 70, 90)),
    ("noise", lambda g: noise(g, 2, 33, 65)),
    ("nothing", lambda g: noise(g, 2, 5, 7, 0.0)),
    ("everything", lambda g: noise(g, 2, 5, 7, 2.0)),
    ("no-pixels", lambda g: noise(g, 2, 0, 7)),
    ("no-masks", lambda g: noise(g, 0, 5, 7)),
]


@pytest.fixture
def coco():
    return pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")


@pytest.mark.parametrize("draw", [d for _, d in MASKS], ids=[name for name, _ in MASKS])
def test_what_pycocotools_writes(place, coco, g, draw):
    masks = draw(g)
    wanted = [coco.encode(np.asfortranarray(mask.numpy().view(np.uint8))) for mask in masks]
    assert ops.masks_to_rle(masks.to(place)) == wanted
    assert ops.masks_to_rle(masks.to(torch.uint8).to(place)) == wanted
    assert ops.masks_to_rle(pack_bits(masks).to(place), width=masks.shape[2]) == wanted


def test_pasted_masks_read_back(coco, g):
    """From a detector's output to what its evaluation decodes, by bytes and by bits."""
    masks, boxes = detections(6, g)
    flags = ops.paste_masks(masks, boxes, (800, 1333))
    rle = ops.masks_to_rle(flags)
    assert rle == ops.masks_to_rle(ops.paste_masks(masks, boxes, (800, 1333), packed=True), width=1333)
    assert np.array_equal(coco.decode(rle).transpose(2, 0, 1), flags.numpy().view(np.uint8))
    assert coco.area(rle).tolist() == flags.sum((1, 2)).tolist()


def test_numbers_of_every_length_and_sign():
    """Decoded by the description of the format, not by its inverse here."""
    lengths = torch.tensor([0, 1, 15, 16, 31, 32, 2**20, 5, 2**31 - 2**21, 1, 2, 511, 512, 1, 16, 17])
    numbers, number, shift = [], 0, 0
    for character in run_text(lengths).tolist():
        number |= (character - 48 & 31) << shift
        shift += 5
        if not character - 48 & 32:
            numbers.append(number - (1 << shift) if character - 48 & 16 else number)
            number, shift = 0, 0
    for i in range(3, len(numbers)):
        numbers[i] += numbers[i - 2]
    assert numbers == lengths.tolist()


def test_runs_go_down_the_columns():
    mask = torch.tensor([[1, 0, 0], [1, 0, 1]], dtype=torch.bool)
    assert run_lengths(mask).tolist() == [0, 2, 3, 1]


def test_masks_of_any_strides(g):
    masks = blobs(g, 3, 40, 60)
    wanted = ops.masks_to_rle(masks)
    assert ops.masks_to_rle(masks.mT.contiguous().mT) == wanted
    assert ops.masks_to_rle(masks.repeat_interleave(2, 2)[..., ::2]) == wanted


def test_any_number_of_threads(g):
    masks = blobs(g, 40, 200, 300)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ops.masks_to_rle(masks))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]
