from budgets import Budget

# By kind: values, flags, packed. Blocks of 256: at 72 registers three on a multiprocessor; nobody waits for a store.
BUDGETS = {
    "paste_masks_kernel<float, 0>": Budget(64, has="FFMA"),
    "paste_masks_kernel<float, 1>": Budget(72, has="FFMA"),
    "paste_masks_kernel<float, 2>": Budget(64, has="FFMA"),
    "paste_masks_kernel<double, 0>": Budget(64, has="DFMA"),
    "paste_masks_kernel<double, 1>": Budget(80, has="DFMA"),
    "paste_masks_kernel<double, 2>": Budget(72, has="DFMA"),
}
