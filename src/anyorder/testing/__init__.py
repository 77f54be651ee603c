"""The contract every method keeps, as tests that anybody can run on a method of their own.

Example:
    In ``test_mine.py``, run by pytest::

        from anyorder.testing import MethodContract
        from mine import Mine

        class TestMine(MethodContract):
            method = Mine
"""

from __future__ import annotations

from anyorder.testing.contract import MethodContract

__all__ = ["MethodContract"]
