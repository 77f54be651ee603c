"""A byte-level language model of Python's standard library."""

from __future__ import annotations

import math
import sysconfig
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.problems.base import (
    Problem,
    ProblemError,
    device_of,
    evaluating,
    generator,
    require_choice,
    seeded,
)

# Single-file modules in every Python from 3.11 to 3.14. Of every ten, the fifth is for
# validation and the tenth for testing.
_LISTED = """
    _collections_abc _markupbase _pyio _strptime argparse ast base64 bdb calendar cmd
    code codecs compileall configparser contextlib copy csv dataclasses difflib dis
    doctest enum fileinput fractions ftplib functools getopt gettext glob gzip
    heapq imaplib inspect ipaddress linecache locale mailbox mimetypes modulefinder ntpath
    numbers operator optparse os pdb pickle pickletools pkgutil platform plistlib
    poplib posixpath pprint py_compile pyclbr pydoc queue random reprlib rlcompleter
    runpy sched selectors shelve shlex shutil smtplib socket socketserver statistics
    stringprep subprocess tabnanny tarfile tempfile textwrap threading timeit tokenize trace
    traceback tracemalloc types typing uuid wave weakref webbrowser zipapp
"""
MODULES = tuple(_LISTED.split())
VALIDATION = MODULES[4::10]
TEST = MODULES[9::10]
TRAINING = tuple(name for name in MODULES if name not in VALIDATION + TEST)


class Size(NamedTuple):
    """Shape of the model and its batches."""

    width: int
    layers: int
    heads: int
    batch_size: int
    context: int
    evaluated: int
    """Number of validation windows that ``evaluate`` uses."""


SIZES = {
    "tiny": Size(width=64, layers=2, heads=4, batch_size=16, context=64, evaluated=256),
    "small": Size(width=256, layers=6, heads=4, batch_size=32, context=64, evaluated=128),
}
# Bits per byte reached by AdamW at a learning rate of 3e-3 (tiny) and 3e-4 (small) in a few
# hundred steps; docs/problems.md has the measurements.
TARGETS = {"tiny": 3.3, "small": 3.2}
_BYTES = 256


class StdlibLM(Problem):
    """Predict the next byte of Python source text with a pre-norm transformer.

    The text is 89 modules of the standard library of the running Python, so no download
    is needed. Whole modules are assigned to training, validation and test. The text differs
    slightly between Python versions: compare numbers only within one version.

    The loss is the mean cross-entropy in nats per byte, the metric is the same in bits.
    ``evaluate`` uses a fixed, evenly spaced subset of the validation text, ``test`` a larger
    one of the test text.

    Args:
        size: ``"tiny"`` (0.14 million parameters) or ``"small"`` (4.9 million).
        attention: ``"math"`` writes attention as a plain softmax, which can be differentiated
            twice, so Hessian products work; it is the default for this reason. ``"sdpa"`` calls
            ``torch.nn.functional.scaled_dot_product_attention``: the same numbers from a fused
            kernel whose backward pass has no derivative on the CPU (PyTorch 2.13 raises
            ``RuntimeError``), so methods that use curvature fail with it.
        tied: Whether the output layer shares its matrix with the byte embedding.

    Raises:
        ProblemError: If an option has a wrong value or the library's source is not installed.
    """

    name = "stdlib-lm"
    metric = "bits_per_byte"
    schedule: ClassVar[Literal["constant", "cosine"]] = "cosine"

    def __init__(self, *, size: str = "tiny", attention: str = "math", tied: bool = False) -> None:
        """Check and store the options."""
        require_choice("size", size, tuple(SIZES), owner=self.name)
        require_choice("attention", attention, ("math", "sdpa"), owner=self.name)
        if not isinstance(tied, bool):  # pyright: ignore[reportUnnecessaryIsInstance] -- may come from text
            raise ProblemError(f"{self.name}: tied must be True or False; got {tied!r}.")
        self.size = SIZES[size]
        self.attention = attention
        self.tied = tied
        self.target = TARGETS[size]

    @cached_property
    def _training(self) -> Tensor:
        return _text(TRAINING)

    @cached_property
    def _validation(self) -> Tensor:
        return _windows(_text(VALIDATION), self.size.context, self.size.evaluated)

    def build(self, seed: int) -> nn.Module:
        """Return the transformer, with normally distributed weights."""
        with seeded(seed):
            return Transformer(self.size, attention=self.attention, tied=self.tied)

    def batch(self, seed: int, step: int) -> Tensor:
        """Return windows of training text, int64 of shape ``(batch_size, context + 1)``."""
        text, context = self._training, self.size.context
        starts = torch.randint(
            len(text) - context,
            (self.size.batch_size, 1),
            generator=generator(self.name, seed, step),
        )
        return text[starts + torch.arange(context + 1)].long()

    def outputs(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the logits of the next byte, ``(batch, context, 256)``."""
        return model(batch[:, :-1])

    def criterion(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """Return the mean cross-entropy of every byte given the previous bytes, in nats."""
        return F.cross_entropy(outputs.flatten(0, 1), batch[:, 1:].flatten())

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return loss and bits per byte on the fixed subset of the validation text."""
        device = device_of(model)
        with evaluating(model):
            losses = [
                self.loss(model, part.to(device)).item() * len(part)
                for part in torch.split(self._validation, 64)
            ]
        return _in_bits(sum(losses) / len(self._validation))

    def test_outputs(self, model: nn.Module) -> Tensor:
        """Return the loss of each window of a test subset four times as large.

        Returns:
            Mean cross-entropy in nats per byte, float64 of shape ``(windows,)``.
        """
        device = device_of(model)
        windows = _windows(_text(TEST), self.size.context, 4 * self.size.evaluated)
        losses: list[Tensor] = []
        with evaluating(model):
            for part in torch.split(windows.to(device), 64):
                scores = self.outputs(model, part).flatten(0, 1)
                each = F.cross_entropy(scores, part[:, 1:].flatten(), reduction="none")
                losses.append(each.double().view(len(part), -1).mean(1))
        return torch.cat(losses)

    def score(self, outputs: Tensor, rows: Tensor) -> dict[str, float]:
        """Return loss and bits per byte on these windows."""
        return _in_bits(outputs[rows.to(outputs.device)].mean().item())


def _in_bits(nats: float) -> dict[str, float]:
    return {"loss": nats, "bits_per_byte": nats / math.log(2)}


def _text(modules: tuple[str, ...]) -> Tensor:
    """Return the source of the modules, joined, as uint8 of shape ``(bytes,)``."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [folder / f"{name}.py" for name in modules]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ProblemError(
            f"problem 'stdlib-lm' reads the source of Python's standard library, but {folder} has "
            f"no {', '.join(missing)}. Use a Python that is installed with its source files."
        )
    content = b"\n".join(path.read_bytes().replace(b"\r\n", b"\n") for path in paths)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _windows(text: Tensor, context: int, count: int) -> Tensor:
    """Return ``count`` evenly spaced windows, int64 of shape ``(count, context + 1)``."""
    starts = torch.arange(count) * (len(text) - context - 1) // count
    return text[starts.unsqueeze(1) + torch.arange(context + 1)].long()


# --- Model -------------------------------------------------------------------------------------


class Transformer(nn.Module):
    """Pre-norm GPT over bytes: embeddings, blocks, a final norm and a linear head."""

    def __init__(self, size: Size, *, attention: str, tied: bool) -> None:
        """Build and initialise the layers; uses the global generator."""
        super().__init__()
        self.embedding = nn.Embedding(_BYTES, size.width)
        self.positions = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(Block(size, attention) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, _BYTES, bias=False)
        # At width 64 the usual standard deviation of 0.02 leaves some seeds on a plateau for
        # hundreds of steps. This one is close to 0.02 at width 768 and works for all seeds.
        std = 0.5 / math.sqrt(size.width)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            # Each block adds to the residual stream twice: keep its variance independent of depth.
            for layer in (block.attention.out, block.down):  # type: ignore[union-attr]
                nn.init.normal_(layer.weight, std=std / math.sqrt(2 * size.layers))  # type: ignore[arg-type]
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Map bytes of shape ``(batch, length)`` to logits of shape ``(batch, length, 256)``."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        stream = self.embedding(tokens) + self.positions(places)
        for block in self.blocks:
            stream = block(stream)
        return self.head(self.norm(stream))


class Block(nn.Module):
    """Attention and a two-layer MLP, each with a pre-norm and a residual connection."""

    def __init__(self, size: Size, attention: str) -> None:
        """Build the layers."""
        super().__init__()
        self.norm_1 = nn.LayerNorm(size.width)
        self.attention = Attention(size, attention)
        self.norm_2 = nn.LayerNorm(size.width)
        self.up = nn.Linear(size.width, 4 * size.width)
        self.down = nn.Linear(4 * size.width, size.width)

    def forward(self, stream: Tensor) -> Tensor:
        """Map ``(batch, length, width)`` to the same shape."""
        stream = stream + self.attention(self.norm_1(stream))
        return stream + self.down(F.gelu(self.up(self.norm_2(stream))))


class Attention(nn.Module):
    """Causal multi-head attention."""

    mask: Tensor

    def __init__(self, size: Size, kind: str) -> None:
        """Build the projections and the causal mask."""
        super().__init__()
        self.heads = size.heads
        self.kind = kind
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.out = nn.Linear(size.width, size.width)
        hidden = torch.ones(size.context, size.context, dtype=torch.bool).triu(1)
        self.register_buffer("mask", hidden, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, length, width)`` to the same shape."""
        batch, length, width = x.shape
        shape = (batch, length, 3, self.heads, width // self.heads)
        query, key, value = self.qkv(x).view(shape).permute(2, 0, 3, 1, 4)
        if self.kind == "sdpa":
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
            scores = scores.masked_fill(self.mask[:length, :length], -math.inf)
            mixed = scores.softmax(-1) @ value
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))
