"""The base class of all errors of this package."""


class AnyOrderError(Exception):
    """Base of all errors raised on purpose by this package.

    Each concrete class also derives from the built-in error a user would expect
    (``ValueError``, ``TypeError``, ``RuntimeError``), so both kinds of ``except`` work. Classes
    stand beside the code that raises them.
    """
