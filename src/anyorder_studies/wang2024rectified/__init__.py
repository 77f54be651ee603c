"""Rectified diffusion: retrain any diffusion model on its own pairs (Wang et al., 2024)."""

from anyorder_studies.wang2024rectified.distance import sliced_wasserstein
from anyorder_studies.wang2024rectified.schedules import (
    SCHEDULES,
    DiffusionError,
    Schedule,
    flow_schedule,
    sub_vp_schedule,
    vp_schedule,
)
from anyorder_studies.wang2024rectified.system import (
    Diffusion,
    Pairs,
    distil,
    first_order_defect,
    make_pairs,
    make_phases,
    rectify,
    train,
)

__all__ = [
    "SCHEDULES",
    "Diffusion",
    "DiffusionError",
    "Pairs",
    "Schedule",
    "distil",
    "first_order_defect",
    "flow_schedule",
    "make_pairs",
    "make_phases",
    "rectify",
    "sliced_wasserstein",
    "sub_vp_schedule",
    "train",
    "vp_schedule",
]
