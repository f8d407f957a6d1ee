"""Position-sensitive RoI Pool, in the shapes of position-sensitive RoI Align."""

from __future__ import annotations

from structops.reference import ps_roi_pool as definition
from structops.testing.workloads.ps_roi_align import Pooling, all_workloads

POOL = Pooling(
    "ps_roi_pool",
    (),
    definition.ps_roi_pool,
    lambda low, high, shape, extent: definition.axis_means(low, high, 1 / shape.stride, shape.pooled, extent),
)

WORKLOADS = all_workloads(POOL)
