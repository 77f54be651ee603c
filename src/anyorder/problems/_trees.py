"""Trees of tensors, such as a batch: change or move every leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch

T = TypeVar("T")


def map_tree(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Return the tree with every leaf changed and its containers rebuilt.

    Containers are dicts and other mappings, lists, tuples, named tuples and dataclasses. An
    object with a ``to`` method counts as a leaf even if it is a container: it can move itself.
    """
    if callable(getattr(tree, "to", None)):
        return change(tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = (field.name for field in dataclasses.fields(tree) if field.init)
        changed = {name: map_tree(getattr(tree, name), change) for name in names}
        return dataclasses.replace(tree, **changed)
    if isinstance(tree, Mapping):
        mapping = cast(Any, tree)
        items = {key: map_tree(value, change) for key, value in mapping.items()}
        return items if type(mapping) is dict else type(mapping)(items)
    if isinstance(tree, tuple | list):
        sequence = cast(list[Any], tree)
        parts = [map_tree(part, change) for part in sequence]
        kind = cast(Any, sequence).__class__
        return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
    return change(tree)


def move(batch: T, device: torch.device | str) -> T:
    """Return the batch with every tensor in it on ``device``.

    Walks through dicts, lists, tuples, named tuples and dataclasses; any other object is
    moved by its ``to(device)`` if it has one, and is otherwise returned unchanged.
    """
    return cast(T, map_tree(batch, lambda leaf: leaf.to(device) if hasattr(leaf, "to") else leaf))
