"""Contract tests for methods, to run on your own method.

Example:
    In ``test_mine.py``, run by pytest::

        from anyorder.testing import MethodContract, Values, World
        from mine import Mine

        class TestMine(MethodContract):
            method = Mine

            def reference(self, values, world, steps, options):
                ...  # the paper's formulas, as loops over NumPy arrays
"""

from __future__ import annotations

from anyorder.testing.contract import MethodContract
from anyorder.testing.reference import Values, World

__all__ = ["MethodContract", "Values", "World"]
