"""Mixins for ``transformers.Trainer`` and its subclasses: closures, and the point to evaluate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class ClosureMixin:
    """Gives the optimizer of a ``Trainer`` closures, so that every method runs in it.

    ``Trainer`` calls ``backward`` and then ``optimizer.step()``, which is enough for methods that
    only need gradients. With this mixin ``training_step`` passes closures instead, one per
    micro-batch of ``gradient_accumulation_steps``, and ``backward`` is left to the method.

    ``max_grad_norm`` and ``fp16`` belong to Trainer's own ``backward`` and have no effect; use the
    options ``clip_norm`` of the method and ``bf16`` of ``TrainingArguments``. Logged gradient norms
    are 0. In several processes answers are averaged over all of them, unless the method was made
    with a ``process_group`` of its own.

    Example::

        class MyTrainer(ClosureMixin, Trainer):
            pass

        trainer = MyTrainer(model, args, train_dataset=data, optimizers=(MeZO(model), None))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._closures: list[Callable[[], Tensor]] = []

    def closure(
        self, model: Any, inputs: Mapping[str, Any], num_items_in_batch: Any = None
    ) -> Callable[[], Tensor]:
        """Return the closure of one micro-batch, by default around ``compute_loss``.

        Methods that need a :class:`~anyorder.Composite` need a class that returns one here.

        Args:
            model: the model, in the wrappers of its processes.
            inputs: what the data collator returned, on the device of the model.
            num_items_in_batch: labels in all micro-batches of the step; None if not counted.
        """
        trainer: Any = self
        mean = trainer.compute_loss_func is None and not (
            trainer.model_accepts_loss_kwargs and num_items_in_batch is not None
        )
        # A loss divided by the items of all micro-batches is a part of the sum, not of the mean.
        parts = 1 if mean else trainer.current_gradient_accumulation_steps

        def loss() -> Tensor:
            with trainer.compute_loss_context_manager():
                found = trainer.compute_loss(
                    model, dict(inputs), num_items_in_batch=num_items_in_batch
                )
            return found * parts

        return loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Collect closures; with the last micro-batch take the step and return its loss."""
        trainer: Any = self
        model.train()
        trainer.optimizer.train()
        inputs = trainer._prepare_inputs(inputs)
        self._closures.append(self.closure(model, inputs, num_items_in_batch))
        if not trainer.accelerator.sync_gradients:
            return torch.zeros((), device=trainer.args.device)
        closures, self._closures = self._closures, []
        optimizer = trainer.optimizer.optimizer  # inside accelerate's wrapper
        if trainer.accelerator.num_processes > 1 and optimizer.process_group is None:
            optimizer.process_group = torch.distributed.group.WORLD
        loss = optimizer.step(closures if len(closures) > 1 else closures[0])
        _skip_next_step(optimizer)
        return loss


class AnswerMixin:
    """Saves the model of a ``Trainer`` at the answer of its method, and leaves it there.

    ``Trainer`` itself shows the answer only while it evaluates. Methods whose answer is the current
    point do not need this class.

    Example::

        class MyTrainer(AnswerMixin, Trainer):
            pass
    """

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as ``Trainer`` does; afterwards the model holds the answer."""
        trainer: Any = self
        found = super().train(*args, **kwargs)  # type: ignore[misc]
        best = trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint
        if not best:  # that was saved at the answer
            _show_answer(trainer)
        return found

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save the model at the answer; the next training step goes on from the training point."""
        _show_answer(self)
        super().save_model(*args, **kwargs)  # type: ignore[misc]


def _show_answer(trainer: Any) -> None:
    show = getattr(trainer.optimizer, "eval", None)
    if callable(show):
        show()


def _skip_next_step(optimizer: Any) -> None:
    """Ignore one call of ``step``, the one with which Trainer follows ``training_step``."""
    before = vars(optimizer).get("step")  # a scheduler's, if it was made for the bare optimizer

    def step(closure: None = None) -> None:
        del optimizer.step
        if before is not None:
            optimizer.step = before

    optimizer.step = step
