from budgets import Budget

BUDGETS = {
    "sample_priorities_kernel": Budget(32),
    "sample_choose_kernel": Budget(32),
}
