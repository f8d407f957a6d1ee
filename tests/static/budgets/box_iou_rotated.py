from budgets import Budget

# Nothing is fused: every backend rounds alike. (DFMA there is, in divisions.)
BUDGETS = {
    "rotated_boxes_kernel<float>": Budget(40, has="DADD"),
    "rotated_boxes_kernel<double>": Budget(40, has="DADD"),
    # 5 blocks of 128 threads; the double units are what they wait for.
    "box_iou_rotated_kernel<float>": Budget(96, has="DADD", wide_loads=1),
    "box_iou_rotated_kernel<double>": Budget(96, has="DADD", wide_loads=1),
    "box_iou_rotated_elementwise_kernel<float>": Budget(80, has="DADD"),
    "box_iou_rotated_elementwise_kernel<double>": Budget(80, has="DADD"),
}
