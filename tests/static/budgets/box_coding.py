from budgets import Budget

# Blocks of 256. No wide loads: nothing says that boxes begin at a multiple of 16 bytes.
BUDGETS = {
    **{f"coding_arguments_kernel<{decode}, float>": Budget(24) for decode in ("true", "false")},
    "coding_arguments_kernel<true, double>": Budget(32),
    "coding_arguments_kernel<false, double>": Budget(48),
    **{f"code_boxes_kernel<{decode}, float>": Budget(28) for decode in ("true", "false")},
    **{f"code_boxes_kernel<{decode}, double>": Budget(40) for decode in ("true", "false")},
    **{f"code_boxes_backward_kernel<{decode}, float>": Budget(56) for decode in ("true", "false")},
    **{f"code_boxes_backward_kernel<{decode}, double>": Budget(80) for decode in ("true", "false")},
}
