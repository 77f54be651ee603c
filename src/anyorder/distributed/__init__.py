"""Training over slow links: workers exchange one byte per direction, and may come and go.

:class:`~anyorder.distributed.one_byte.OneByteMeZO` is the method,
:class:`~anyorder.distributed.coordinator.Coordinator` lets its workers join, leave and fail.
"""

from anyorder.distributed.coordinator import Coordinator
from anyorder.distributed.one_byte import OneByteMeZO

__all__ = ["Coordinator", "OneByteMeZO"]
