from budgets import Budget

# Latency is all they have: a launch of 20 blocks. 8 blocks of 256 threads at 32 registers, 6 at 40.
BUDGETS = {
    **{f"proposal_codes_kernel<{t}, float>": Budget(32) for t in ("__half", "__nv_bfloat16", "float")},
    **{f"proposal_boxes_kernel<{t}, float>": Budget(32) for t in ("__half", "__nv_bfloat16", "float")},
    "proposal_codes_kernel<double, double>": Budget(32),
    "proposal_boxes_kernel<double, double>": Budget(40),
    "gather_proposals_kernel<float>": Budget(24),
    "gather_proposals_kernel<double>": Budget(24),
}
