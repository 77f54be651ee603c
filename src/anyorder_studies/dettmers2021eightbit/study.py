"""AdamW with 8-bit and 32-bit state, and without the dynamic table or the blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch

from anyorder.problems.base import generator
from anyorder_studies.dettmers2021eightbit.formats import CONTESTANTS, rounding_error
from anyorder_studies.dettmers2021eightbit.training import trained, tuned
from anyorder_studies.study import (
    Claim,
    Measurement,
    Result,
    Results,
    Study,
    Unit,
    exact,
    mean_interval,
    ratio_interval,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
# Contestants on each model; the last model is the transformer with a stable embedding.
MODELS: Mapping[str, tuple[str, ...]] = {
    "digits": tuple(CONTESTANTS),
    "lm": tuple(CONTESTANTS),
    "lm_stable": ("float32", "dynamic_2048"),
}
BLOCKS = (256, 2048, 0)  # 0: one scale for all
# Natural logarithms of the second moments in the table of errors: 99 % lie within 6.7 decades.
SPREAD = 3.0


@final
class EightBitState(Study):
    """Optimizer state in 8 bits: a table that is dense near zero, and a scale per block of values.

    AdamW trains a network with layers 64-256-256-10 on digits and a byte-level transformer with
    0.14 million weights on Python source, with its two buffers in float32, bfloat16 and 8 bits. The
    claim is that 8-bit state needs no new tuning, so the step size is selected for float32 only,
    out of five half a decade apart, and used for all formats; initial weights and batches are equal
    too. On digits, which are cheap, each format is also tuned separately.

    Two parts are then removed: *linear* has equidistant levels instead of the dynamic table,
    *tensor* has one scale for a whole matrix instead of one for 2,048 values. The library's format
    does not round positive second moments to zero, the paper's does; *unguarded* omits this too.
    All formats keep matrices below 4,096 elements in 32 bits. A run that diverges or ends worse
    than a uniform guess counts as a uniform guess, and as unstable. Matrices here have at most
    65,536 elements, far fewer than those of the paper's models, for which it reports that blocks
    are needed.

    In a first run the guarded format with one scale per matrix was better than float32 on the
    language model. The claims were not changed; the unguarded dynamic table was added for that
    model, which is the paper's comparison: `unguarded_block_ratio`, outside the claims.

    The table of errors needs no training: positive numbers whose logarithm is normal with standard
    deviation 3 are written and read once, unguarded.
    """

    key: ClassVar[str] = "dettmers2021eightbit"
    paper: ClassVar[int | None] = 73
    title: ClassVar[str] = "8-bit state: as good as 32-bit without tuning?"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="perplexity_ratio",
            direction="equal",
            expected=1.0,
            threshold=1.0,
            tolerance=0.02,
            unit="x (8-bit in blocks of 2,048 over float32, validation perplexity)",
            source="abstract of arXiv:2110.02861: 32-bit performance without changes of the "
            "hyper-parameters; tables 1 and 3 (read in a public summary): perplexity 9.0 and 9.0 "
            "at 1.5 billion weights, 16.8 and 16.7 at 209 million. The tolerance is a fifth of "
            "what leaving out blocks costs there",
            text="With the step size of float32, 8-bit state models language as well.",
            central=True,
        ),
        Claim(
            quantity="accuracy_ratio",
            direction="equal",
            expected=1.0,
            threshold=1.0,
            tolerance=0.01,
            unit="x (8-bit in blocks of 2,048 over float32, validation accuracy)",
            source="table 1 (read in a public summary): ResNet-50 on ImageNet, 77.2 % with 8-bit "
            "momentum and 77.1 % with 32 bits",
            text="With the step size of float32, 8-bit state classifies images as well.",
        ),
        Claim(
            quantity="state_ratio",
            direction="lower",
            expected=0.25,
            threshold=1.0,
            tolerance=0.08,
            unit="bytes over bytes (8-bit in blocks of 2,048 over float32, language model)",
            source="section 1 (read in a public summary): Adam's state takes 2 bytes per weight "
            "instead of 8. Scales and small tensors come on top: 0.27 at most",
            text="State takes about a quarter of the memory.",
        ),
        Claim(
            quantity="table_ratio",
            direction="higher",
            expected=253.0 / 18.6,
            threshold=1.0,
            tolerance=0.1,
            unit="x (linear over dynamic table, one scale per matrix, perplexity)",
            source="table 3 (read in a public summary): 253.0 against 18.6 at 209 million weights",
            text="Without the dynamic table, 8-bit state does worse.",
        ),
        Claim(
            quantity="block_ratio",
            direction="higher",
            expected=18.6 / 16.8,
            threshold=1.0,
            tolerance=0.05,
            unit="x (one scale per matrix over one per 2,048 values, perplexity)",
            source="table 3 (read in a public summary): 18.6 against 16.8 at 209 million weights",
            text="Without blocks, 8-bit state does worse.",
        ),
        Claim(
            quantity="block_error_ratio",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (blocks of 2,048 over one scale for all, median relative error)",
            source="abstract of arXiv:2110.02861: blocks give high precision (no figure)",
            text="Blocks lower the error of rounding.",
        ),
    )
    headline: ClassVar[str] = (
        "the performance of 32-bit optimizer states with 8 bits, without changes of the hyper- "
        "parameters (abstract of arXiv:2110.02861, first result; language modelling comes first "
        "in its list)"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "seeds": 2, "tuning_seeds": 1, "grid": 1, "digits": 10, "lm": 3,
            "numbers": 1 << 14, "draws": 1,
        },
        "small": {
            "seeds": 4, "tuning_seeds": 1, "grid": 5, "digits": 200, "lm": 150,
            "numbers": 1 << 18, "draws": 8,
        },
        "full": {
            "seeds": 10, "tuning_seeds": 2, "grid": 5, "digits": 3000, "lm": 50_000,
            "numbers": 1 << 24, "draws": 8,
            "need": "a transformer of 1.5 billion weights on 100 billion words, as in the paper: "
            "about a GPU year for each format; with the models here, a day on one core",
        },
    }  # fmt: skip

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return units per model, contestant and seed, and per table, block size and seed."""
        settings = self.settings(scale)
        middle = (len(GRID) - settings["grid"]) // 2
        grid = GRID[middle : middle + settings["grid"]]
        for seed in range(settings["seeds"]):
            for linear in (False, True):
                for block in BLOCKS:
                    yield {
                        "model": "none", "linear": linear, "block": block, "seed": seed,
                        "numbers": settings["numbers"], "draws": settings["draws"],
                    }  # fmt: skip
            for model in MODELS:
                for contestant in MODELS[model]:
                    yield {
                        "model": model,
                        "contestant": contestant,
                        "seed": seed,
                        "steps": settings["digits" if model == "digits" else "lm"],
                        "grid": grid,
                        "tuning_seeds": settings["tuning_seeds"],
                    }

    def run(self, unit: Unit) -> Result:
        """Measure rounding errors, or train with the step size that is best for float32."""
        if unit["model"] == "none":
            return _rounded(unit)
        model, contestant, steps = unit["model"], unit["contestant"], unit["steps"]
        tuning = (steps, tuple(unit["grid"]), unit["tuning_seeds"])
        lr = tuned("digits" if model == "digits" else "lm", "float32", *tuning)
        found = {**trained(model, contestant, steps, lr, unit["seed"]), "lr": lr}
        if model == "digits":
            own = tuned(model, contestant, *tuning)
            again = trained(model, contestant, steps, own, unit["seed"])
            found |= {"own_lr": own, "own_train_loss": again["train_loss"]}
        return found

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Ratios to float32, paired by seed; means over seeds of errors and unstable runs."""
        measured: dict[str, Measurement] = {}
        for model in MODELS:
            found = runs_on(results, model)
            for contestant, runs in found.items():
                measured |= _against(found["float32"], runs, f"{contestant}_{model}")
        lm = runs_on(results, "lm")
        perplexity = {name: [math.exp(r["loss"]) for r in runs] for name, runs in lm.items()}
        measured["perplexity_ratio"] = measured["perplexity_ratio_dynamic_2048_lm"]
        measured["accuracy_ratio"] = measured["accuracy_ratio_dynamic_2048_digits"]
        measured["state_ratio"] = measured["state_ratio_dynamic_2048_lm"]
        tensor = perplexity["dynamic_tensor"]
        measured["table_ratio"] = ratio_interval(perplexity["linear_tensor"], tensor)
        measured["block_ratio"] = ratio_interval(tensor, perplexity["dynamic_2048"])
        measured["table_ratio_2048"] = ratio_interval(
            perplexity["linear_2048"], perplexity["dynamic_2048"]
        )
        measured["unguarded_block_ratio"] = ratio_interval(
            perplexity["dynamic_tensor_unguarded"], perplexity["dynamic_2048_unguarded"]
        )
        errors = errors_by_format(results)
        for (table, block), runs in errors.items():
            name = f"{table}_{block or 'tensor'}"
            measured[f"error_{name}"] = mean_interval(runs["error"])
            measured[f"lost_{name}"] = mean_interval(runs["lost"])
        measured["block_error_ratio"] = ratio_interval(
            errors["dynamic", 2048]["error"], errors["dynamic", 0]["error"]
        )
        chosen = {"digits": runs_on(results, "digits")["float32"][0], "lm": lm["float32"][0]}
        grid = next(u["grid"] for u, _ in results if u["model"] != "none")
        for model, run in chosen.items():
            measured[f"lr_{model}"] = exact(run["lr"])
        edges = sum(run["lr"] in (grid[0], grid[-1]) for run in chosen.values())
        measured["lr_at_edge"] = exact(edges)
        return measured

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Plot perplexities by format, and rounding errors by table and block."""
        from anyorder_studies.dettmers2021eightbit.picture import draw_formats

        return draw_formats(runs_on(results, "lm"), measurements)


def runs_on(results: Results, model: str) -> dict[str, list[Result]]:
    """The results on a model by contestant, ordered by seed."""
    return {
        name: [r for u, r in results if u["model"] == model and u["contestant"] == name]
        for name in MODELS[model]
    }


def errors_by_format(results: Results) -> dict[tuple[str, int], dict[str, list[float]]]:
    """Rounding errors of all seeds and draws, by table and block."""
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for unit, result in results:
        if unit["model"] == "none":
            table = "linear" if unit["linear"] else "dynamic"
            lists = found.setdefault((table, unit["block"]), {"error": [], "lost": []})
            for key, values in lists.items():
                values += result[key]
    return found


def _rounded(unit: Unit) -> Result:
    """Rounding errors for several draws of log-normal numbers; equal seeds give equal draws."""
    found: Result = {"error": [], "lost": []}
    for draw in range(unit["draws"]):
        made = generator(EightBitState.key, unit["seed"], draw)
        values = (SPREAD * torch.randn(unit["numbers"], generator=made)).exp()
        error, lost = rounding_error(unit["linear"], unit["block"], values)
        found["error"].append(error)
        found["lost"].append(lost)
    return found


def _against(base: list[Result], runs: list[Result], name: str) -> dict[str, Measurement]:
    """The results of a contestant and their ratios to those of float32."""

    def ratio(key: str) -> Measurement:
        return ratio_interval([r[key] for r in runs], [r[key] for r in base])

    unstable = sum(r["unstable"] for r in runs) / len(runs)
    measured = {f"unstable_{name}": exact(unstable, len(runs))}
    if "accuracy" in runs[0]:
        measured[f"accuracy_{name}"] = mean_interval([r["accuracy"] for r in runs])
        measured[f"own_lr_{name}"] = exact(runs[0]["own_lr"])
    else:
        measured[f"perplexity_{name}"] = mean_interval([math.exp(r["loss"]) for r in runs])
    if runs is base:
        return measured
    measured[f"state_ratio_{name}"] = exact(runs[0]["state_bytes"] / base[0]["state_bytes"])
    if "accuracy" in runs[0]:
        measured[f"accuracy_ratio_{name}"] = ratio("accuracy")
        measured[f"train_loss_ratio_{name}"] = ratio("train_loss")
        measured[f"own_train_loss_ratio_{name}"] = ratio("own_train_loss")
    else:
        values, bases = ([math.exp(r["loss"]) for r in each] for each in (runs, base))
        measured[f"perplexity_ratio_{name}"] = ratio_interval(values, bases)
    return measured
