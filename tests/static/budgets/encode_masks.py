from budgets import Budget

# A lane reads a byte of each row, its neighbours the bytes beside: no wide loads. Blocks of 128, 8 on a multiprocessor.
BUDGETS = {
    "count_changes_kernel": Budget(40),
    "write_ends_kernel": Budget(48),
    "count_characters_kernel": Budget(24),
    "write_text_kernel": Budget(24),
}
