"""Seconds of compilation in this process, which runs are not charged for."""

from __future__ import annotations

import math
import sys

from anyorder.engine.kernels import compile_seconds

#: The outermost phases in the timings of ``torch.compile``.
_PHASES = ("_compile.compile_inner", "backward._backward_impl")


def compiled() -> tuple[float, float]:
    """Return the wall-clock seconds of compilation in this process so far.

    Returns:
        Seconds for this library's rules, and for ``torch.compile`` including lazy backwards.
    """
    utils = sys.modules.get("torch._dynamo.utils")  # imported by torch.compile
    times = getattr(utils, "compilation_time_metrics", None)
    if not times:
        return compile_seconds(), 0.0
    return compile_seconds(), math.fsum(math.fsum(times.get(phase, ())) for phase in _PHASES)
