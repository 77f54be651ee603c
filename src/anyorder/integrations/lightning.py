"""A mixin for ``LightningModule``: the point to evaluate and to save."""

from __future__ import annotations

import contextlib
import copy
from typing import Any


class AnswerMixin:
    """Validates and saves a ``LightningModule`` at the answer of its method, and leaves it there.

    Methods whose answer is the current point do not need this class.

    Example::

        class MyModule(AnswerMixin, LightningModule):
            ...
    """

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> Any:
        """Train at the training point, also after a checkpoint was loaded."""
        _call(self, "train")
        return super().on_train_batch_start(*args, **kwargs)  # type: ignore[misc]

    def on_validation_start(self) -> None:
        """Validate at the answer."""
        _call(self, "eval")
        super().on_validation_start()  # type: ignore[misc]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save weights at the answer, and optimizers that know that they are."""
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        module: Any = self
        trainer = module.trainer
        with contextlib.ExitStack() as stack:
            for optimizer in trainer.optimizers:
                if hasattr(optimizer, "answer"):
                    stack.enter_context(optimizer.answer())
            weights = trainer.strategy.lightning_module_state_dict()
            checkpoint["state_dict"] = copy.deepcopy(weights)
            if "optimizer_states" in checkpoint:
                states = map(trainer.strategy.optimizer_state, trainer.optimizers)
                checkpoint["optimizer_states"] = list(states)

    def on_train_end(self) -> None:
        """Leave the module at the answer."""
        _call(self, "eval")
        super().on_train_end()  # type: ignore[misc]


def _call(module: Any, name: str) -> None:
    """Call ``train`` or ``eval`` of the optimizers that have them."""
    for optimizer in module.trainer.optimizers:
        method = getattr(optimizer, name, None)
        if callable(method):
            method()
