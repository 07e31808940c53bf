"""How many blocks does Crystalformer need, and why does depth stop helping?

Models of 1 to 12 blocks on two bundled sets, all else equal: same width, epochs, batches and crystals. Beside the
error: minutes, the size of the gradients in the first and last block before and after training, and how alike the atoms
of a crystal become from block to block. At some depths also with layer norm, and with weights drawn without regard to
depth.

    python benchmarks/experiments/depth.py
    python benchmarks/experiments/depth.py --quick
"""

import csv
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from collapse import measure_blocks
from crystals import bundled_parts
from depth_variants import VARIANTS
from experiment import digits, read_experiment
from figures import COLORS, panels, save
from summary import grouped, over_seeds, paired_difference
from torch import nn
from trials import Trial, run_trials

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.sources import CrystalParts

REFERENCE = 4  # the paper's number of blocks


def main() -> None:
    """Run the experiment."""
    experiment = read_experiment(__file__, __doc__)
    trials = make_trials(experiment.settings)
    rows = run_trials(trials, experiment.work, experiment.jobs)
    for trial, row in zip(trials, rows, strict=True):
        row["train_loss"] = last_train_loss(experiment.work / trial.name)
    experiment.finish(rows, findings_of(rows, experiment.settings), draw)


def make_trials(settings: dict[str, Any]) -> list[Trial]:
    """A trial for each set, number of blocks, variant and seed."""
    unknown = set(settings["variants"]) - set(VARIANTS)
    if unknown:
        raise ValueError(f"variants: expected some of {VARIANTS}, received {sorted(unknown)}")
    first = next(iter(settings["data"]))
    wanted = [(data, blocks, "paper") for data in settings["data"] for blocks in settings["blocks"]]
    wanted += [(first, blocks, name) for name in settings["variants"] for blocks in settings["variant_blocks"]]
    return [make_trial(settings, *labels, seed) for seed in settings["seeds"] for labels in wanted]


def make_trial(settings: dict[str, Any], data: str, blocks: int, variant: str, seed: int) -> Trial:
    """One training run."""
    config = RunConfig.from_dict(
        {
            "data": data,
            "targets": [settings["data"][data]["target"]],
            "model": "depth-variant",
            "model_options": settings["model_options"] | {"num_blocks": blocks, "variant": variant},
            "neighborhood": settings["neighborhood"],
            "recipe": {name: settings[name] for name in ("epochs", "batch_size", "averaging_epochs")},
            "device": "cpu",
            "seed": seed,
        }
    )
    keep = partial(is_small, settings["max_atoms"])
    parts = partial(bundled_parts, train_size=settings["data"][data]["train_size"], keep=keep)
    labels = {"data": data, "blocks": blocks, "variant": variant, "seed": seed}
    return Trial(labels, config, parts, partial(measure, settings["measured"], seed))


def is_small(max_atoms: int | None, data: Any) -> bool:
    """Whether a crystal counts."""
    return max_atoms is None or data.num_nodes <= max_atoms


def measure(number: int, seed: int, model: nn.Module, parts: CrystalParts) -> dict[str, Any]:
    """States and gradients of a trained model, block by block, on `number` crystals."""
    torch.manual_seed(seed)  # the initial weights are those that the trial began with
    return measure_blocks(model, parts.parts["test"][:number], parts.parts["train"][:number])


def last_train_loss(folder: Path) -> float | None:
    """Mean absolute error in the training part, in standard deviations, while the last epoch ran."""
    with (folder / "history.csv").open(newline="") as history:
        return digits(float(list(csv.DictReader(history))[-1]["train_loss"]), 4)


def findings_of(rows: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Errors over seeds, and differences to the paper's number of blocks and to its variant with intervals."""
    confidence = settings["confidence"]
    to_reference, to_paper = [], []
    for data in settings["data"]:
        others = [blocks for blocks in settings["blocks"] if blocks != REFERENCE]
        for blocks in others if REFERENCE in settings["blocks"] else []:
            first = {"data": data, "variant": "paper", "blocks": blocks}
            to_reference.append(paired_difference(rows, first, first | {"blocks": REFERENCE}, confidence=confidence))
    first_set = next(iter(settings["data"]))
    for variant in settings["variants"]:
        for blocks in settings["variant_blocks"]:
            first = {"data": first_set, "blocks": blocks, "variant": variant}
            to_paper.append(paired_difference(rows, first, first | {"variant": "paper"}, confidence=confidence))
    by = ["data", "variant", "blocks"]
    return {
        "test_mae": over_seeds(rows, by),
        "train_loss": over_seeds(rows, by, "train_loss"),
        "minutes": over_seeds(rows, by, "minutes"),
        "similarity_last": over_seeds(rows, by, "similarity_last"),
        "gradient_ratio_start": over_seeds(rows, by, "gradient_ratio_start"),
        "gradient_ratio_end": over_seeds(rows, by, "gradient_ratio_end"),
        "less_than_reference": to_reference,
        "less_than_paper": to_paper,
    }


def draw(path: Path, figures: dict[str, Any]) -> None:
    """Errors of test and training against blocks with the seeds; likeness of states and gradients, block by block."""
    rows, settings = figures["rows"], figures["settings"]
    first = next(iter(settings["data"]))
    styles = dict(zip(["paper", *settings["variants"]], COLORS, strict=False))
    figure, (errors, training, alike, gradients) = panels(
        4, "Crystalformer by number of blocks: dots are seeds, lines their means", width=4.2
    )
    shares = [row | {"share": row["test_mae"] / row["mean_mae"]} for row in rows]
    for panel, value in ((errors, "share"), (training, "train_loss")):
        draw_by_depth(panel, shares, value, first, styles)
        panel.set(xlabel="blocks", xscale="log")
        panel.set_xticks(settings["blocks"], [str(blocks) for blocks in settings["blocks"]])
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
    errors.legend(fontsize=7)
    errors.set(ylabel="test MAE / that of the mean predictor")
    training.set(ylabel="training MAE, standard deviations")
    draw_by_block(alike, gradients, [row for row in rows if row["data"] == first], styles)
    alike.set(xlabel="block (0: embedding)", ylabel="mean cosine, atoms of a crystal")
    gradients.set(xlabel="block", ylabel="norm of a block's gradient", yscale="log")
    gradients.set_title("dotted: before training, solid: after", fontsize=8)
    alike.legend(fontsize=7)
    save(figure, path)


def draw_by_depth(panel: Any, rows: list[dict[str, Any]], value: str, first: str, styles: dict[str, str]) -> None:
    """One line for each set and variant; sets other than the first are grey squares."""
    lines: dict[tuple[str, str], dict[int, list[float]]] = {}
    for (data, variant, blocks), values in grouped(rows, ["data", "variant", "blocks"], value).items():
        lines.setdefault((data, variant), {})[blocks] = values
    for (data, variant), points in lines.items():
        color, mark = (styles[variant], "o") if data == first else (COLORS[4], "s")
        depths = sorted(points)
        means = [statistics.fmean(points[blocks]) for blocks in depths]
        panel.plot(depths, means, color=color, label=data if variant == "paper" else f"{data}, {variant}")
        for blocks in depths:
            panel.plot([blocks] * len(points[blocks]), points[blocks], mark, color=color, markersize=3.5, alpha=0.6)


def draw_by_block(alike: Any, gradients: Any, rows: list[dict[str, Any]], styles: dict[str, str]) -> None:
    """The deepest models of each variant, a line for each seed."""
    for variant, color in styles.items():
        deepest = max(row["blocks"] for row in rows if row["variant"] == variant)
        name = f"{variant}, {deepest} blocks"
        for row in rows:
            if (row["variant"], row["blocks"]) == (variant, deepest):
                alike.plot(range(deepest + 1), row["similarity"], color=color, alpha=0.7, label=name)
                gradients.plot(range(1, deepest + 1), row["gradients_start"], ":", color=color, alpha=0.7)
                gradients.plot(range(1, deepest + 1), row["gradients_end"], color=color, alpha=0.7)
                name = None


if __name__ == "__main__":
    main()
