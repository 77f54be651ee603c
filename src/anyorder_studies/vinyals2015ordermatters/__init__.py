"""Sets as inputs and as outputs of sequence models (Vinyals, Bengio and Kudlur, 2015)."""

from anyorder_studies.vinyals2015ordermatters.inputs import (
    OrderError,
    PointerModel,
    SetEncoder,
)
from anyorder_studies.vinyals2015ordermatters.outputs import (
    ChainModel,
    best_order,
    order_log_prob,
    order_search_loss,
    sample_order,
    set_log_prob,
)
from anyorder_studies.vinyals2015ordermatters.star import StarModel

__all__ = [
    "ChainModel",
    "OrderError",
    "PointerModel",
    "SetEncoder",
    "StarModel",
    "best_order",
    "order_log_prob",
    "order_search_loss",
    "sample_order",
    "set_log_prob",
]
