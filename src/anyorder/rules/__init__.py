"""Arithmetic that two or more methods share.

:mod:`~anyorder.rules.lion` holds the rules of the Lion family, :mod:`~anyorder.rules.kappa` the
convex functions its members descend by.
"""
