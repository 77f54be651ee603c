"""Integrations with other libraries; those for trainers do not import the trainer."""

from __future__ import annotations

from typing import Any


def metrics(optimizer: Any) -> dict[str, float]:
    """Return what an optimizer knows about its run, as numbers by name, for any logger.

    Args:
        optimizer: an optimizer of this package, also inside the wrapper that accelerate or
            Lightning puts around it.

    Returns:
        ``steps``, ``lr`` of each parameter group (``lr/1``, ``lr/2``, ... after the first) and the
            ledger (``calls/grads``, ``calls/values``, ...; :class:`~anyorder.Calls` has them all).

    Example:
        >>> import anyorder, torch
        >>> from anyorder.integrations import metrics
        >>> x = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = anyorder.AdamW([x], lr=0.1)
        >>> loss = optimizer.step(lambda: (x ** 2).sum())
        >>> found = metrics(optimizer)
        >>> found["steps"], found["lr"], found["calls/grads"]
        (1.0, 0.1, 1.0)
    """
    inner = optimizer if hasattr(optimizer, "calls") else optimizer.optimizer
    rates = {
        f"lr/{index}" if index else "lr": float(group["lr"])
        for index, group in enumerate(inner.param_groups)
        if "lr" in group
    }
    calls = {f"calls/{name}": float(count) for name, count in inner.calls.to_dict().items()}
    return {"steps": float(inner.steps), **rates, **calls}
