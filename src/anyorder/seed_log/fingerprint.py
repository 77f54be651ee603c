"""Fingerprints of weights: which base a log belongs to, and whether a replay reached the end."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from anyorder.model.bits import hash_of
from anyorder.model.params import module_parameters, unwrapped
from anyorder.optimizer import Optimizer

#: A module, or tensors by name.
Weights = nn.Module | Mapping[str, Tensor]


def fingerprint(weights: Weights) -> bytes:
    """Return a hash of 32 bytes over names, shapes, dtypes and all bits of the weights.

    Args:
        weights: a module, whose parameters and persistent buffers count, or tensors by name. The
            order does not matter; wrappers around the module do not either.

    Example:
        >>> import torch
        >>> from anyorder.seed_log import fingerprint
        >>> fingerprint({"x": torch.zeros(2)}) == fingerprint({"x": torch.zeros(2)})
        True
        >>> fingerprint({"x": torch.zeros(2)}) == fingerprint({"x": torch.tensor([0.0, -0.0])})
        False
    """
    return hash_of(_all_of(weights))


def buffers_of(weights: Weights) -> bytes:
    """Return the fingerprint of the persistent buffers of a module."""
    found = _all_of(weights)
    if not isinstance(weights, nn.Module):
        return hash_of({})
    parameters = {name for name, _ in unwrapped(weights).named_parameters(remove_duplicate=False)}
    return hash_of({name: each for name, each in found.items() if name not in parameters})


def parameters_of(weights: Weights) -> dict[str, Tensor]:
    """Return the parameters by the names that optimizers know them by."""
    return dict(module_parameters(weights) if isinstance(weights, nn.Module) else weights)


def weights_of(optimizer: Optimizer) -> Weights:
    """Return what an optimizer changes: its module, or its parameters by name."""
    if optimizer.module is not None:
        return optimizer.module
    return {
        name: param
        for group in optimizer.param_groups
        for name, param in zip(group["param_names"], group["params"], strict=True)
    }


def _all_of(weights: Weights) -> Mapping[str, Tensor]:
    if not isinstance(weights, nn.Module):
        return weights
    found = unwrapped(weights).state_dict()
    return {name: each for name, each in found.items() if isinstance(each, Tensor)}
