from budgets import Budget, per_type

# Blocks of 1024 threads, of which one runs on a multiprocessor: more than 64 registers would not launch.
BUDGETS = {
    **per_type("top_k_part_kernel<FromMaps<{T}> >", Budget(64)),
    **per_type("top_k_sort_kernel<FromMaps<{T}> >", Budget(64)),
    **{f"top_k_part_kernel<FromParts<{key}> >": Budget(56) for key in ("unsigned int", "unsigned long long")},
    **{f"top_k_sort_kernel<FromParts<{key}> >": Budget(56) for key in ("unsigned int", "unsigned long long")},
    **{f"top_k_keys_kernel<{t}, int>": Budget(32) for t in ("__half", "__nv_bfloat16", "float")},
    "top_k_keys_kernel<double, long>": Budget(32),
}
