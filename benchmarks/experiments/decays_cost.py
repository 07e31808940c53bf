"""What a decay costs: images needed at a tolerance, and the time of a training step."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from decays_model import NEAR, DecayCrystalformer
from decays_profiles import DECAYS
from decays_truncation import certified_images, images_within
from experiment import digits
from torch import nn
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.nn import Crystalformer

LENGTH = 1.4 * 2**0.5
"""The longest that the model can learn, A."""
SPREAD = 1.5
"""Allowed spread of the logits, the library's default."""


def edges_needed(settings: dict[str, Any], crystals: Sequence[Data]) -> list[dict[str, Any]]:
    """Images for each atom, mean cutoff and largest certified share, for each decay and tolerance.

    The inverse power is counted twice: cut off, and with its exact rest, which needs the same images at any tolerance.
    """
    chosen = [crystals[index] for index in np.linspace(0, len(crystals) - 1, settings["edge_crystals"]).astype(int)]
    places = [(data.pos.double().numpy(), data.cell.double().numpy()[0]) for data in chosen]
    found = []
    for name in settings["decays"]:
        for tol in settings["tolerances"]:
            images = [certified_images(*place, DECAYS[name], LENGTH, tol, SPREAD) for place in places]
            found.append({"decay": name, "tol": tol} | _summary(images, places))
    if "inverse-power" in settings["decays"]:
        images = [images_within(*place, NEAR) for place in places]
        found.append({"decay": "inverse-power, exact rest", "tol": None} | _summary(images, places) | {"bound": None})
    return found


def _summary(images: list, places: list) -> dict[str, Any]:
    atoms = sum(len(pos) for pos, _ in places)
    return {
        "edges_per_atom": digits(sum(len(found.dist) for found in images) / atoms),
        "cutoff": digits(statistics.fmean(found.cutoff for found in images)),
        "bound": digits(max(found.bound for found in images)),
    }


def step_times(settings: dict[str, Any], crystals: Sequence[Data]) -> list[dict[str, Any]]:
    """Processor time of a forward and backward pass with each image an entry, and of the library's model."""
    chosen = [data.clone() for data in crystals[: settings["step_crystals"]]]
    models: dict[str, nn.Module] = {
        name: DecayCrystalformer(decay=name, **settings["model"]) for name in settings["decays"]
    }
    models["gaussian, library"] = Crystalformer(**settings["model"])
    found = []
    for name, model in models.items():
        options = {} if name.endswith("library") else {"merge": False}
        transform = model.neighborhood(tol=settings["tol"], **options)  # type: ignore[operator]
        batch = Batch.from_data_list([transform(data.clone()) for data in chosen])
        times = [_seconds(model, batch) for _ in range(settings["repeats"] + 2)][2:]
        edges = batch.edge_index.size(1) if name.endswith("library") else batch.shell_index.size(1)
        row = {"decay": name, "edges_per_atom": digits(edges / batch.num_nodes)}
        found.append(row | {"milliseconds": digits(1000 * statistics.median(times), 3)})
    return found


def _seconds(model: nn.Module, batch: Batch) -> float:
    start = time.process_time()  # of this process, whatever else the machine does
    model(batch).sum().backward()
    model.zero_grad()
    return time.process_time() - start
