"""How many blocks does Crystalformer need, and why does depth stop helping?

Models of 1 to 12 blocks on two bundled sets, all else equal: same width, epochs, batches and crystals. Beside the
error: minutes, the size of the gradients in the first and last block before and after training, and how alike the atoms
of a crystal become from block to block. At some depths also with layer norm, and with weights drawn without regard to
depth.

    python benchmarks/experiments/depth.py
    python benchmarks/experiments/depth.py --quick
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from collapse import measure_blocks
from crystals import bundled_parts
from depth_variants import VARIANTS
from experiment import read_experiment
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
    rows = run_trials(make_trials(experiment.settings), experiment.work, experiment.jobs)
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
        "minutes": over_seeds(rows, by, "minutes"),
        "similarity_last": over_seeds(rows, by, "similarity_last"),
        "gradient_ratio_start": over_seeds(rows, by, "gradient_ratio_start"),
        "gradient_ratio_end": over_seeds(rows, by, "gradient_ratio_end"),
        "less_than_reference": to_reference,
        "less_than_paper": to_paper,
    }


def draw(path: Path, figures: dict[str, Any]) -> None:
    """Error against blocks with the seeds, likeness of states from block to block, and gradients by block."""
    rows, sets = figures["rows"], list(figures["settings"]["data"])
    figure, (errors, alike, gradients) = panels(
        3, "Crystalformer by number of blocks: dots are seeds, lines their means"
    )
    styles = dict(zip(["paper", *figures["settings"]["variants"]], COLORS, strict=False))
    marks = dict(zip(sets, ("o", "s", "^"), strict=False))
    for (data, variant), values in relative_errors(rows).items():
        blocks = sorted(values)
        color = styles[variant] if data == sets[0] else COLORS[4]
        label = f"{data}" + ("" if variant == "paper" else f", {variant}")
        errors.plot(blocks, [sum(values[b]) / len(values[b]) for b in blocks], color=color, label=label)
        for block in blocks:
            errors.plot(
                [block] * len(values[block]), values[block], marks[data], color=color, markersize=3.5, alpha=0.6
            )
    errors.set(xlabel="blocks", ylabel="test MAE / that of the mean predictor", xscale="log", yscale="log")
    errors.set_xticks(figures["settings"]["blocks"], [str(b) for b in figures["settings"]["blocks"]])
    errors.minorticks_off()
    errors.legend(fontsize=7)
    for variant, color in styles.items():
        deepest = max(row["blocks"] for row in rows if row["variant"] == variant and row["data"] == sets[0])
        chosen = [r for r in rows if (r["data"], r["variant"], r["blocks"]) == (sets[0], variant, deepest)]
        name = f"{variant}, {deepest} blocks"
        for row in chosen:
            first = row is chosen[0]
            alike.plot(range(deepest + 1), row["similarity"], color=color, alpha=0.7, label=name if first else None)
            blocks = range(1, deepest + 1)
            for key, line in (("gradients_start", ":"), ("gradients_end", "-")):
                when = "before" if line == ":" else "after"
                label = f"{name}, {when} training" if first else None
                gradients.plot(blocks, row[key], line, color=color, alpha=0.7, label=label)
    alike.set(xlabel="block (0: embedding)", ylabel="mean cosine between atoms of a crystal")
    gradients.set(xlabel="block", ylabel="norm of the gradient in a block's weights", yscale="log")
    for panel in (alike, gradients):
        panel.legend(fontsize=7)
    save(figure, path)


def relative_errors(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[int, list[float]]]:
    """Errors over that of the mean predictor by set and variant, and by number of blocks."""
    shares = [row | {"share": row["test_mae"] / row["mean_mae"]} for row in rows]
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for (data, variant, blocks), values in grouped(shares, ["data", "variant", "blocks"], "share").items():
        found.setdefault((data, variant), {})[blocks] = values
    return found


if __name__ == "__main__":
    main()
