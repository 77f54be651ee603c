"""Seconds spent on compiling in this process: a run is not charged for them."""

from __future__ import annotations

import math
import sys

from anyorder.engine.kernels import compile_seconds

#: What torch.compile calls the outermost phases in its own record of times.
_PHASES = ("_compile.compile_inner", "backward._backward_impl")


def compiled() -> tuple[float, float]:
    """Wall-clock seconds of compiling in this process so far.

    Returns:
        Those of this library's rules, and those of ``torch.compile``, lazy backwards included.
    """
    utils = sys.modules.get("torch._dynamo.utils")  # not there: nothing was compiled with it
    times = getattr(utils, "compilation_time_metrics", {})
    return compile_seconds(), math.fsum(math.fsum(times.get(phase, ())) for phase in _PHASES)
