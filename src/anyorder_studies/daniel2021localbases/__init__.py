"""Local reduced-order bases by clustering simulations by angle (Daniel et al., 2021)."""

from anyorder_studies.daniel2021localbases.system import (
    Clustering,
    Efficiency,
    LocalBases,
    LocalBasesError,
    angle_dissimilarity,
    choose_clusters,
    efficiency_criterion,
    euclidean_dissimilarity,
    kmedoids,
    pod,
    projection_error,
)

__all__ = [
    "Clustering",
    "Efficiency",
    "LocalBases",
    "LocalBasesError",
    "angle_dissimilarity",
    "choose_clusters",
    "efficiency_criterion",
    "euclidean_dissimilarity",
    "kmedoids",
    "pod",
    "projection_error",
]
