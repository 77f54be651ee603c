"""Layers around code without derivatives, and certificates for classifiers that are only queried.

:class:`BlackBox` makes any callable a layer: forward evaluates it, backward estimates the
vector-Jacobian product from more evaluations. :func:`certify` computes radii within which the
prediction of a classifier under Gaussian noise cannot change.
"""

from anyorder.nn.blackbox import BlackBox, BlackBoxError
from anyorder.nn.smoothing import Certificate, certified_accuracy, certify

__all__ = ["BlackBox", "BlackBoxError", "Certificate", "certified_accuracy", "certify"]
