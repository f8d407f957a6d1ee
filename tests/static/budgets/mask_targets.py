from budgets import Budget

BUDGETS = {
    # Blocks of 128, positions in double: 4 on a multiprocessor.
    "mask_targets_kernel<unsigned char, float>": Budget(104, has="DADD"),
    "mask_targets_kernel<unsigned char, double>": Budget(104, has="DADD"),
    "mask_targets_kernel<float, float>": Budget(104, has="DADD"),
    "mask_targets_kernel<double, double>": Budget(104, has="DADD"),
    # Blocks of 128, in double: 7 on a multiprocessor.
    "polygon_mask_targets_kernel<float>": Budget(72),
    "polygon_mask_targets_kernel<double>": Budget(72),
}
