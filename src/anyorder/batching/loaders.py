"""Properties of data loaders that a controller needs, and checks of its arguments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sized
from typing import Any, cast

import torch.utils._pytree as pytree
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from anyorder.errors import AnyOrderError


class BatchingError(AnyOrderError, ValueError):
    """A loader, batch or setting that a controller does not support."""


def samples_in(batch: Any) -> int:
    """Samples in a micro-batch: the length of its first tensor."""
    for leaf in pytree.tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.dim():
            return leaf.shape[0]
    raise BatchingError(
        f"expected batches of tensors whose first axis counts samples, got {type(batch).__name__}"
    )


def population_of(loader: DataLoader[Any]) -> float:
    """Number of samples that the loader draws from without replacement; infinite if unknown."""
    if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        return math.inf
    sampler = loader.sampler
    plain = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, RandomSampler) and not sampler.replacement
    )
    return len(cast("Sized", sampler)) if plain else math.inf


def refuse_resampling(loader: DataLoader[Any]) -> None:
    """Raise :class:`BatchingError` unless new batches can be drawn from the loader's dataset."""
    reason = ""
    if isinstance(loader.dataset, IterableDataset):
        reason = "its dataset can only be read in its own order (IterableDataset)"
    elif loader.batch_size is None:
        reason = "it has no batch size (a batch sampler of its own, or batch_size=None)"
    if reason:
        raise BatchingError(
            f"how='resample' draws new batches from the loader's dataset, but {reason}; "
            "use how='accumulate', which groups the loader's own batches"
        )


def same_loader(loader: DataLoader[Any], batches: Iterable[list[int]]) -> DataLoader[Any]:
    """A copy of this loader that iterates over the specified batches of indices."""
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


def one_of(name: str, value: object, words: tuple[str, ...]) -> None:
    """Raise :class:`BatchingError` unless ``value`` is one of ``words``."""
    if value not in words:
        raise BatchingError(f"{name}: expected one of {', '.join(words)}; got {value!r}")


def above(least: float, **numbers: float) -> None:
    """Raise :class:`BatchingError` unless all ``numbers`` are numbers above ``least``."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > least:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BatchingError(f"{name}: expected a number > {least:g}, got {value!r}")


def whole(least: int, **numbers: int | None) -> None:
    """Raise :class:`BatchingError` unless all ``numbers`` are whole and at least ``least``."""
    for name, value in numbers.items():
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < least  # pyright: ignore[reportUnnecessaryIsInstance]
        ):
            raise BatchingError(f"{name}: expected a whole number >= {least}, got {value!r}")
