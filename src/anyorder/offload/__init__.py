"""Fine-tunes models whose blocks do not fit into memory at once."""

from anyorder.offload.tensorfile import OffloadError
from anyorder.offload.zo2 import ZO2

__all__ = ["ZO2", "OffloadError"]
