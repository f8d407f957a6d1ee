"""The ops, as functions. Each runs on the backend that :func:`structops.backend` or the device chooses."""

from structops.ops.anchors import default_boxes, generate_anchors, yolo_grid
from structops.ops.box_coding import decode_boxes, encode_boxes
from structops.ops.box_convert import box_convert, clip_boxes
from structops.ops.box_iou import box_iou, complete_box_iou, distance_box_iou, generalized_box_iou
from structops.ops.box_iou_rotated import box_iou_rotated
from structops.ops.conv_transpose2d import conv_transpose2d
from structops.ops.encode_masks import encode_masks, masks_to_rle
from structops.ops.generate_proposals import generate_proposals
from structops.ops.heatmaps_to_keypoints import heatmaps_to_keypoints
from structops.ops.mask_head_predict import mask_head_predict
from structops.ops.mask_targets import mask_targets, polygon_mask_targets, polygon_tensors as polygon_tensors
from structops.ops.match_boxes import match_boxes
from structops.ops.matrix_nms import matrix_nms
from structops.ops.multiscale_roi_align import multiscale_roi_align
from structops.ops.nms import batched_nms, nms
from structops.ops.nms_1d import nms_1d
from structops.ops.nms_padded import nms_padded
from structops.ops.nms_rotated import batched_nms_rotated, nms_rotated
from structops.ops.paste_masks import paste_masks
from structops.ops.ps_roi_align import ps_roi_align
from structops.ops.ps_roi_pool import ps_roi_pool
from structops.ops.roi_align import roi_align
from structops.ops.roi_align_1d import roi_align_1d
from structops.ops.roi_align_rotated import roi_align_rotated
from structops.ops.roi_pool import roi_pool
from structops.ops.sample_matches import sample_matches
from structops.ops.select_detections import select_detections
from structops.ops.sigmoid_focal_loss import sigmoid_focal_loss
from structops.ops.soft_nms import soft_nms

__all__ = [
    "batched_nms",
    "batched_nms_rotated",
    "box_convert",
    "box_iou",
    "box_iou_rotated",
    "clip_boxes",
    "complete_box_iou",
    "conv_transpose2d",
    "decode_boxes",
    "default_boxes",
    "distance_box_iou",
    "encode_boxes",
    "encode_masks",
    "generalized_box_iou",
    "generate_anchors",
    "generate_proposals",
    "heatmaps_to_keypoints",
    "mask_head_predict",
    "mask_targets",
    "masks_to_rle",
    "match_boxes",
    "matrix_nms",
    "multiscale_roi_align",
    "nms",
    "nms_1d",
    "nms_padded",
    "nms_rotated",
    "paste_masks",
    "polygon_mask_targets",
    "polygon_tensors as polygon_tensors",
    "ps_roi_align",
    "ps_roi_pool",
    "roi_align",
    "roi_align_1d",
    "roi_align_rotated",
    "roi_pool",
    "sample_matches",
    "select_detections",
    "sigmoid_focal_loss",
    "soft_nms",
    "yolo_grid",
]
