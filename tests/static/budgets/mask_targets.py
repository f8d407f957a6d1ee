from budgets import Budget

BUDGETS = {
    # Blocks of 256, positions in double: 3 on a multiprocessor at 80 registers.
    "mask_targets_kernel<unsigned char, float>": Budget(96, has="DADD"),
    "mask_targets_kernel<unsigned char, double>": Budget(96, has="DADD"),
    "mask_targets_kernel<float, float>": Budget(96, has="DADD"),
    "mask_targets_kernel<double, double>": Budget(96, has="DADD"),
}
