"""The models of the study and their training."""

from __future__ import annotations

import math
from functools import cache

from torch import nn

from anyorder.compare.run.memory import state_bytes
from anyorder.model.embedding import StableEmbedding
from anyorder.problems import Problem, load
from anyorder.problems.base import seeded
from anyorder_studies.contest import choose, descend, digits_training_loss
from anyorder_studies.dettmers2021eightbit.formats import adamw
from anyorder_studies.study import Result

# Upper limit on losses, in nats: that of a uniform guess among ten digits or 256 bytes.
GUESS = {"digits": math.log(10.0), "lm": math.log(256.0), "lm_stable": math.log(256.0)}


@cache
def problem_of(model: str) -> Problem:
    """The problem on which a model is trained."""
    if model == "digits":
        return load("digits", batch_size=64)
    return load("stdlib-lm", size="tiny", attention="sdpa")


def build(model: str, seed: int) -> nn.Module:
    """A network with layers 64-256-256-10, or the transformer (or its stable variant)."""
    if model == "digits":
        with seeded(seed):
            return nn.Sequential(
                nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 10)
            )
    network = problem_of(model).build(seed)
    if model == "lm_stable":
        plain = network.get_submodule("embedding")
        assert isinstance(plain, nn.Embedding)
        with seeded(seed):
            stable = StableEmbedding(plain.num_embeddings, plain.embedding_dim)
        network.set_submodule("embedding", stable)
    return network


@cache
def tuned(model: str, contestant: str, steps: int, grid: tuple[float, ...], seeds: int) -> float:
    """The step size with the lowest loss: training loss on digits, otherwise validation loss."""
    key = "train_loss" if model == "digits" else "loss"
    return choose(grid, lambda lr, seed: trained(model, contestant, steps, lr, seed)[key], seeds)


@cache
def trained(model: str, contestant: str, steps: int, lr: float, seed: int) -> Result:
    """Train one network; losses in nats, ``unstable`` is 1.0 if it ends no better than a guess."""
    problem, network = problem_of(model), build(model, seed)
    optimizer = adamw(contestant, network, lr)
    ended = descend(problem, network, optimizer, steps=steps, seed=seed)
    judged = problem.evaluate(network)
    good = ended and judged["loss"] < GUESS[model]  # False for NaN
    found: Result = {
        "loss": judged["loss"] if good else GUESS[model],
        "unstable": float(not good),
        "state_bytes": state_bytes(optimizer),
    }
    if model == "digits":
        loss = digits_training_loss(network)
        found["train_loss"] = min(loss, GUESS[model]) if ended else GUESS[model]
        found["accuracy"] = judged["accuracy"] if ended else 0.1
    return found
