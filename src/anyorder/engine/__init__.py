"""Runs update rules, eager or compiled with bitwise equal results, on state in any precision.

:mod:`~anyorder.engine.program` defines rules, :mod:`~anyorder.engine.engine` runs them,
:mod:`~anyorder.engine.kernels` compiles them, :mod:`~anyorder.engine.stretches` and
:mod:`~anyorder.engine.packing` lay out parameters and state in memory, and
:mod:`~anyorder.engine.formats` stores state in float32, bfloat16 or 8 bits.
"""

from __future__ import annotations

from anyorder.engine.engine import Engine, EngineError, Mode

__all__ = ["Engine", "EngineError", "Mode"]
