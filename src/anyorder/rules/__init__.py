"""Rules: the arithmetic that turns an estimate of the gradient into a move.

:class:`~anyorder.rules.rule.Rule` says what belongs to one. The rules here are shared by several
methods; a rule that only one method uses lies in that method's file.
"""

from __future__ import annotations

from anyorder.rules.rule import Rule

__all__ = ["Rule"]
