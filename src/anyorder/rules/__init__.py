"""Arithmetic that two or more methods share.

:mod:`~anyorder.rules.lion` holds the rules of the Lion family, :mod:`~anyorder.rules.kappa` the
convex functions its members descend by, :mod:`~anyorder.rules.polar` the nearest matrix with
orthonormal columns.
"""
