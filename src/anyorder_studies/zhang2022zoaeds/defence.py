"""Denoisers in front of a frozen classifier of digits, trained through queries."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder import AdamW
from anyorder.nn import BlackBox, certified_accuracy, certify
from anyorder.problems import seeded
from anyorder_studies.contest import choose

SIGMA = 0.5
RADIUS = 0.25
CODE = 16
MU = 0.01
BATCH = 64
#: Trained in different ways; "none" is the bare classifier, "ae" the untrained autoencoder.
UNTRAINED = ("none", "ae")
TRAINED = ("zo_ae_ds", "zo_ae_rge", "zo_ds", "fo_ae_ds", "fo_ds")
METHODS = (*UNTRAINED, *TRAINED)
#: Queries per image and step of all methods that query: one in forward and 32 in backward.
QUERIES = 1 + 2 * CODE


class Images(NamedTuple):
    """Pixels in [0, 1] of shape ``(n, 64)`` and labels of shape ``(n,)``."""

    pixels: Tensor
    labels: Tensor


@cache
def images() -> tuple[Images, Images, Images]:
    """The digits of scikit-learn in a fixed order: 1,197 to train, 300 to tune, 300 to test."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = torch.tensor(pixels[order] / 16, dtype=torch.float32), torch.tensor(labels[order])
    ends = ((0, 1197), (1197, 1497), (1497, 1797))
    train, tune, test = (Images(x[a:b], y[a:b]) for a, b in ends)
    return train, tune, test


@cache
def classifier(seed: int) -> nn.Module:
    """The frozen classifier: a tanh network 64-64-10, trained on clean images."""
    train = images()[0]
    with seeded(seed):
        model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    optimizer = AdamW(model, lr=1e-2, weight_decay=0.0, engine="eager")
    draws = torch.Generator().manual_seed(seed)
    for _ in range(200):
        rows = torch.randint(len(train.labels), (BATCH,), generator=draws)
        x, y = train.pixels[rows], train.labels[rows]
        optimizer.step(lambda x=x, y=y: F.cross_entropy(model(x), y))
    return model.requires_grad_(False)


class Denoiser(nn.Module):
    """Add a learnt correction, which is zero at first, to the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 64)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Images of shape ``(n, 64)``."""
        return pixels + self.last(self.first(pixels).tanh())


@cache
def autoencoder() -> tuple[Tensor, Tensor]:
    """Principal components of the training images, ``(16, 64)``, and their mean, ``(64,)``."""
    pixels = images()[0].pixels
    mean = pixels.mean(0)
    return torch.linalg.svd(pixels - mean, full_matrices=False).Vh[:CODE], mean


def encoder() -> nn.Linear:
    """The encoder, trainable, as a layer from pixels to codes."""
    basis, mean = autoencoder()
    layer = nn.Linear(64, CODE)
    with torch.no_grad():
        layer.weight.copy_(basis)
        layer.bias.copy_(-basis @ mean)
    return layer


def box_of(method: str, seed: int) -> nn.Module:
    """What follows the defender's own layers: queries, or for the upper bounds derivatives."""
    scores = classifier(seed)

    def decoded(codes: Tensor) -> Tensor:
        basis, mean = autoencoder()
        return scores(codes @ basis + mean)

    settings: dict[str, Any] = {"mu": MU, "seed": seed}
    random: dict[str, Any] = {"law": "sphere", "directions": 2 * CODE, "difference": "forward"}
    if method == "zo_ae_ds":
        return BlackBox(decoded, **settings)
    if method == "zo_ae_rge":
        return BlackBox(decoded, **settings, **random)
    if method == "zo_ds":
        return BlackBox(scores, **settings, **random)
    return _Open(scores if method in ("none", "fo_ds") else decoded)


class _Open(nn.Module):
    """A function whose derivatives are known, as a layer."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        """Evaluate it."""
        return self.function(inputs)


def defence(method: str, seed: int) -> nn.Sequential:
    """The defender's layers and the box behind them, before training."""
    box = box_of(method, seed)
    if method == "none":
        return nn.Sequential(box)
    with seeded(seed):
        layers: list[nn.Module] = [] if method == "ae" else [Denoiser()]
    return nn.Sequential(*layers, *([] if method.endswith("o_ds") else [encoder()]), box)


def trained(method: str, lr: float, seed: int, epochs: int) -> tuple[nn.Sequential, dict[str, Any]]:
    """Train on noisy images to say what the classifier says about the clean ones.

    Args:
        method: One of :data:`METHODS`; the untrained ones are returned as they are.
        lr: Step size of Adam.
        seed: Seed of classifier, denoiser, batches, noise and directions.
        epochs: Passes over the training images.

    Returns:
        The defence, and ``noisy`` (accuracy on noisy tuning images) and ``queries`` (per training
        image), before the first and after each epoch.
    """
    model, train = defence(method, seed), images()[0]
    curve: dict[str, Any] = {"noisy": [noisy_accuracy(model)], "queries": [0.0]}
    if method in UNTRAINED:
        return model, curve
    targets = classifier(seed)(train.pixels).argmax(1)
    optimizer = AdamW(model, lr=lr, weight_decay=0.0, engine="eager")
    draws = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        before = _queries(model)
        for rows in torch.randperm(len(targets), generator=draws).split(BATCH):
            noise = SIGMA * torch.randn(len(rows), 64, generator=draws)
            x, y = train.pixels[rows] + noise, targets[rows]
            optimizer.step(lambda x=x, y=y: F.cross_entropy(model(x), y))
        asked = (_queries(model) - before) / len(targets)
        curve["queries"].append(curve["queries"][-1] + asked)
        curve["noisy"].append(noisy_accuracy(model))
    return model, curve


def _queries(model: nn.Sequential) -> int:
    """Queries of the box so far; none if its derivatives are known."""
    box = model[-1]
    return box.calls.values if isinstance(box, BlackBox) else 0


@torch.no_grad()
def noisy_accuracy(model: nn.Module) -> float:
    """Accuracy on the tuning images with one draw of noise each, the same for all models."""
    tune = images()[1]
    noise = torch.randn(tune.pixels.shape, generator=torch.Generator().manual_seed(1))
    return float((model(tune.pixels + SIGMA * noise).argmax(1) == tune.labels).float().mean())


@cache
def tuned(method: str, grid: tuple[float, ...], epochs: int, seeds: int, tuning: int) -> float:
    """The step size with the highest final accuracy on noisy tuning images."""

    def score(lr: float, seed: int) -> float:
        return -trained(method, lr, seed, epochs)[1]["noisy"][-1]

    return choose(grid, score, seeds, tuning=tuning)


def certified(model: nn.Module, count: int, samples: int, seed: int) -> dict[str, float]:
    """Standard and certified accuracy of the smoothed defence, in percent.

    Args:
        model: The defence.
        count: Number of test images.
        samples: Noisy copies per image; 100 more select the class.
        seed: Seed of the noise.
    """
    test = images()[2]
    found = certify(
        lambda x: model(x).argmax(1), test.pixels[:count], sigma=SIGMA, samples=samples, seed=seed
    )
    labels = test.labels[:count]
    return {
        "standard": 100 * certified_accuracy(found, labels),
        "certified": 100 * certified_accuracy(found, labels, RADIUS),
    }


def cosine(method: str, seed: int) -> float:
    """Mean cosine between a box's estimate and the derivative, for 64 noisy images.

    The loss is the cross-entropy to what the classifier says about the clean images.
    """
    clean = images()[0].pixels[:BATCH]
    targets = classifier(seed)(clean).argmax(1)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    inputs = clean + SIGMA * noise
    if "ae" in method:
        inputs = encoder()(inputs)

    def gradient(name: str) -> Tensor:
        x = inputs.detach().requires_grad_()
        (found,) = torch.autograd.grad(F.cross_entropy(box_of(name, seed)(x), targets), x)
        return found

    truth = gradient(method.replace("zo", "fo").replace("rge", "ds"))
    return float(F.cosine_similarity(gradient(method), truth, dim=1).mean())
