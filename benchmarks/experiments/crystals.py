"""Crystals for trials: bundled sets, less of their training part, or one's own crystals and targets."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch_geometric.data import Data

from torch_geometric_crystal.benchmark.checkpoint import build_model
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.sources import PARTS, CrystalParts, load_parts, random_split
from torch_geometric_crystal.datasets.fingerprint import describe

_made: dict[tuple, dict[str, Data]] = {}  # crystals with graphs by data, targets and transform, then by name


def bundled_parts(
    config: RunConfig,
    train_size: int | None = None,
    keep: Callable[[Data], bool] | None = None,
    order_seed: int = 0,
    first: Mapping[str, int] | None = None,
) -> CrystalParts:
    """The data that the configuration names, in their own split, with the graphs of the configured model.

    Graphs are made for the crystals that count, and once in a process. Data without a split are cut by seed 0.

    Args:
        config: data, targets, model and its graph.
        train_size: train on so many crystals; a smaller number's are among a larger one's. None for all.
        keep: which crystals count, in all parts; None for all.
        order_seed: of the order in which `train_size` takes them; the same for all models, so that they compare.
        first: how many of a part's first crystals count, by part; all of those not named.

    Raises:
        ValueError: if there are not so many.
    """
    found = _load(config.data, config.targets)
    parts = {part: [data for data in found.parts[part] if keep is None or keep(data)] for part in PARTS}
    parts |= {part: parts[part][:number] for part, number in (first or {}).items()}
    if train_size is not None:
        available = len(parts["train"])
        if train_size > available:
            raise ValueError(f"train_size: expected at most {available}, the training part, received {train_size}")
        order = np.random.default_rng(order_seed).permutation(available)[:train_size]
        parts["train"] = [parts["train"][index] for index in sorted(order.tolist())]
    add_graph = graph_of(config)
    made = _made.setdefault((config.data, config.targets, describe(add_graph)), {})
    for members in parts.values():
        for data in members:
            if data.structure_id not in made:
                made[data.structure_id] = add_graph(copy.copy(data))
    with_graphs = {part: [made[data.structure_id] for data in members] for part, members in parts.items()}
    return CrystalParts(with_graphs, found.target_names, found.units)


def own_parts(
    config: RunConfig,
    crystals: Sequence[Data],
    target: str,
    unit: str,
    split_seed: int = 0,
    group: Sequence | None = None,
) -> CrystalParts:
    """One's own crystals (their `y` set), cut at random, with the graphs of the configured model.

    Args:
        config: model, its graph and the shares of the parts.
        crystals: without graphs.
        target: name of what `y` has.
        unit: its unit.
        split_seed: of the random cut: not the trial's seed, so that all trials have the same parts.
        group: a label for each crystal; crystals of one label come into one part. None: each for itself.
    """
    labels = list(range(len(crystals))) if group is None else list(group)
    names = list(dict.fromkeys(labels))
    split = random_split(len(names), config.val_fraction, config.test_fraction, split_seed)
    part_of = {names[index]: part for part in PARTS for index in split[part]}
    add_graph = graph_of(config)
    parts: dict[str, list[Data]] = {part: [] for part in PARTS}
    for data, label in zip(crystals, labels, strict=True):
        parts[part_of[label]].append(add_graph(data))
    return CrystalParts(parts, (target,), (unit,))


@functools.lru_cache(maxsize=2)
def _load(data: str, targets: tuple[str, ...]) -> CrystalParts:
    return load_parts(data, targets, None)


def graph_of(config: RunConfig) -> Callable[[Data], Data]:
    """The transform that makes the configured model's graph."""
    return build_model(config.model, dict(config.model_options)).neighborhood(**config.neighborhood)  # type: ignore[operator]
