from budgets import Budget

BUDGETS = {
    # Blocks of 256 threads: 8 on a multiprocessor at 32 registers.
    "match_best_kernel<float>": Budget(32),
    "match_best_kernel<double>": Budget(40),
    "match_restore_kernel<float>": Budget(48),
    "match_restore_kernel<double>": Budget(48),
}
