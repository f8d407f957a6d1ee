from budgets import Budget

KINDS = range(4)

# No wide loads: a pair reads nothing and writes four bytes.
BUDGETS = {
    # Blocks of 256: 6 on a multiprocessor at 40 registers, 4 at 64.
    **{f"box_iou_kernel<{k}, float>": Budget(40) for k in KINDS},
    **{f"box_iou_kernel<{k}, double>": Budget(64) for k in KINDS},
    **{f"box_iou_rows_kernel<{k}, float>": Budget(32) for k in KINDS},
    **{f"box_iou_rows_kernel<{k}, double>": Budget(48) for k in KINDS},
    # Blocks of 128: 8 on a multiprocessor at 64 registers.
    **{f"box_iou_backward_kernel<{k}, float>": Budget(64) for k in KINDS},
    **{f"box_iou_backward_kernel<{k}, double>": Budget(112 if k else 80) for k in KINDS},
    **{f"box_iou_rows_backward_kernel<{k}, float>": Budget(48) for k in KINDS},
    **{f"box_iou_rows_backward_kernel<{k}, double>": Budget(80 if k else 56) for k in KINDS},
    "box_iou_finish_kernel<float>": Budget(32),
    "box_iou_finish_kernel<double>": Budget(48),
    "box_ratios_kernel<float>": Budget(16),
    "box_ratios_kernel<double>": Budget(32),
}
