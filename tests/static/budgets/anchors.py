from budgets import Budget

# 8 blocks of 256 threads on a multiprocessor. Offsets and centres round before they are added: no FFMA where no
# division makes one.
TYPES = {"__half": "float", "__nv_bfloat16": "float", "float": "float", "double": "double"}
BUDGETS = {
    **{
        f"grid_rows_kernel<AnchorRow<{maths}, {t}, Round<{t}> > >": Budget(32, lacks="DFMA")
        for t, maths in TYPES.items()
    },
    **{
        f"grid_rows_kernel<PointRow<{maths}, {t}, {columns}> >": Budget(32, lacks="DFMA")
        for t, maths in TYPES.items()
        for columns in (2, 4)
    },
    **{f"grid_rows_kernel<DefaultBoxRow<{t}> >": Budget(32) for t in ("float", "double")},
}
