"""The base class of all errors of this package."""


class AnyOrderError(Exception):
    """Base class of all errors that this package raises deliberately.

    Each concrete class also derives from the built-in error a user would expect
    (``ValueError``, ``TypeError``, ``RuntimeError``), so both kinds of ``except`` work. Each class
    is defined next to the code that raises it.
    """
