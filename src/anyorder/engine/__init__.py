"""Runs rules: eagerly or compiled, with the same bits, over state in any precision.

:mod:`~anyorder.engine.program` says what a rule is, :mod:`~anyorder.engine.engine` runs it,
:mod:`~anyorder.engine.kernels` compiles it, :mod:`~anyorder.engine.stretches` and
:mod:`~anyorder.engine.packing` lay parameters and state out in memory, and
:mod:`~anyorder.engine.formats` stores state in float32, bfloat16 or 8 bits.
"""

from __future__ import annotations

from anyorder.engine.engine import Engine, EngineError, Mode

__all__ = ["Engine", "EngineError", "Mode"]
