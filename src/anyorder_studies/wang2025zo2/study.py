"""ZO2: memory, equality with MeZO, time, and what narrow storage costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

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
from anyorder_studies.wang2025zo2.memory import footprint
from anyorder_studies.wang2025zo2.runs import fine_tuned, side_by_side, times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABSTRACT = "abstract of arXiv:2503.12668"
#: 18 GB for 175 billion weights, which are 350 GB in 16 bits.
PAPER_RATIO = 18.0 / 350.0


@final
class ZO2Offloading(Study):
    """ZO2 fine-tunes with MeZO a model of which a few blocks are in memory (arXiv:2503.12668).

    Memory: a decoder with 96 blocks, as many as OPT-175B has, takes two steps in a process of its
    own, with MeZO and with ZO2 with its blocks in files. The memory is the largest resident set of
    the process during the steps less the one before the model was made, with an allocator that
    gives freed tensors back at once. It contains activations and noise. The paper measures the
    memory of a GPU and keeps blocks in host memory; here the memory is that of the host and the
    blocks are in files.

    Equality: a smaller decoder is trained by both, with the same seeds, and all weights are
    compared. Time: processor time of steps of ZO2, with blocks in host memory, over that of steps
    of MeZO, taken in turn. Without a GPU there are no transfers to overlap, so this is the cost of
    copying and of taking turns, not that of the paper's schedule.

    Narrow storage: the network with 2,410 weights of the study of MeZO, pretrained on upright
    digits, is fine-tuned on rotated ones with its two layers as blocks, kept in float32 and in
    float16, the paper's default for it. Step size and batches are the same; the step size is the
    one that was chosen for MeZO in that study. Updates of large models are much smaller in relation
    to their weights, so this is the easy case for narrow storage.
    """

    key: ClassVar[str] = "wang2025zo2"
    paper: ClassVar[int | None] = 12
    title: ClassVar[str] = "ZO2: fine-tuning with a few blocks in memory"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="memory_ratio",
            direction="lower",
            expected=PAPER_RATIO,
            threshold=1.0,
            tolerance=0.25,
            unit="bytes over bytes (memory during steps over all weights)",
            source=f"{ABSTRACT}: OPT-175B on an 18 GB GPU; its weights are 350 GB in 16 bits",
            text="Fine-tuning needs a twentieth of the memory of the weights.",
            central=True,
        ),
        Claim(
            quantity="weight_difference",
            direction="equal",
            expected=0.0,
            threshold=0.0,
            tolerance=1e-12,
            unit="parameter (largest difference to MeZO)",
            source=f"{ABSTRACT}: absolutely no accuracy loss compared to standard zeroth-order "
            "methods",
            text="The weights are those of MeZO.",
        ),
        Claim(
            quantity="time_ratio",
            direction="equal",
            expected=1.0,
            threshold=1.0,
            tolerance=0.1,
            unit="seconds over seconds (ZO2 over MeZO)",
            source=f"{ABSTRACT}: almost no additional time overhead",
            text="A step takes as long as one of MeZO.",
        ),
        Claim(
            quantity="narrow_gap",
            direction="equal",
            expected=0.0,
            threshold=0.0,
            tolerance=1.0,
            unit="points (blocks kept in float32 minus float16)",
            source=f"{ABSTRACT}: low-bit precision for transfers, and absolutely no accuracy loss",
            text="Keeping the blocks in float16 loses no accuracy.",
        ),
    )
    headline: ClassVar[str] = (
        "a model of 175 billion weights is fine-tuned on an 18 GB GPU, with almost no additional "
        f"time and no accuracy loss compared with standard zeroth-order methods ({ABSTRACT})"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "seeds": 2, "memory": {"width": 64, "layers": 4},
            "equality": {"width": 32, "layers": 3, "steps": 2},
            "time": {"width": 32, "layers": 3, "steps": 1}, "narrow": {"steps": 5, "lr": 1e-2},
        },
        "small": {
            "seeds": 3, "memory": {"width": 256, "layers": 96},
            "equality": {"width": 64, "layers": 12, "steps": 10},
            "time": {"width": 128, "layers": 12, "steps": 4},
            "narrow": {"steps": 1500, "lr": 1e-2},
        },
        "full": {
            "seeds": 5, "memory": {"width": 12288, "layers": 96},
            "equality": {"width": 2048, "layers": 24, "steps": 100},
            "time": {"width": 2048, "layers": 24, "steps": 20},
            "narrow": {"steps": 20_000, "lr": 1e-2},
            "need": "700 GB of disk space and some days on a CPU, or the paper's OPT models and an "
            "18 GB GPU in a host with 400 GB of memory",
        },
    }  # fmt: skip

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return four units per seed."""
        settings = self.settings(scale)
        for seed in range(settings["seeds"]):
            for part in ("equality", "time", "narrow", "memory"):
                yield {"part": part, "seed": seed, **settings[part]}

    def run(self, unit: Unit) -> Result:
        """Measure one part for one seed."""
        given = {name: value for name, value in unit.items() if name != "part"}
        if unit["part"] == "equality":
            return side_by_side(**given)
        if unit["part"] == "time":
            return times(**given)
        if unit["part"] == "narrow":
            full, narrow = (fine_tuned(storage, **given) for storage in (None, "float16"))
            return {"full": full, "narrow": narrow}
        found = {method: footprint(method, **given) for method in ("mezo", "zo2")}
        sizes = {method: each["process"] for method, each in found.items()}
        return {"weights": found["zo2"]["weights"], **sizes}

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Ratios and differences, paired by seed."""
        equality, spent, narrow, memory = (
            by_part(results, part) for part in ("equality", "time", "narrow", "memory")
        )
        weights = [r["weights"] for r in memory]
        zo2 = [r["zo2"] for r in memory]
        return {
            "memory_ratio": ratio_interval(zo2, weights),
            "weight_difference": exact(
                max(r["weight_difference"] for r in equality), len(equality)
            ),
            "time_ratio": ratio_interval(
                [r["seconds_zo2"] for r in spent], [r["seconds_mezo"] for r in spent]
            ),
            "narrow_gap": mean_interval(
                [r["full"]["after"] - r["narrow"]["after"] for r in narrow]
            ),
            "loss_difference": exact(max(r["loss_difference"] for r in equality), len(equality)),
            "reads_per_block_and_step": exact(max(r["reads"] for r in equality), len(equality)),
            "writes_per_block_and_step": exact(max(r["writes"] for r in equality), len(equality)),
            "memory_ratio_mezo": ratio_interval([r["mezo"] for r in memory], weights),
            "megabytes_weights": exact(weights[0] / 1e6),
            "megabytes_zo2": mean_interval([size / 1e6 for size in zo2]),
            "accuracy_before": mean_interval([r["full"]["before"] for r in narrow]),
            "accuracy_full": mean_interval([r["full"]["after"] for r in narrow]),
            "accuracy_narrow": mean_interval([r["narrow"]["after"] for r in narrow]),
        }

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Left: bytes. Right: accuracy by storage."""
        from anyorder_studies.wang2025zo2.picture import draw_memory_and_accuracy

        narrow = by_part(results, "narrow")
        return draw_memory_and_accuracy(
            by_part(results, "memory"), [r["full"] for r in narrow], [r["narrow"] for r in narrow]
        )


def by_part(results: Results, part: str) -> list[Result]:
    """The results of one part, ordered by seed."""
    return [result for unit, result in results if unit["part"] == part]
