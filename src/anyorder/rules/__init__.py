"""Rules: the arithmetic that turns an estimate of the gradient into an update.

See :class:`~anyorder.rules.rule.Rule`. This package contains rules that several methods use; other
rules are in the file of their method.
"""

from __future__ import annotations

from anyorder.rules.rule import Rule

__all__ = ["Rule"]
