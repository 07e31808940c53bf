"""The crystals that all benchmarks run on, declared once.

* Batches: the first crystals of the training part of flla_2015, in the order of their hashes (2 to 25 atoms each).
* Large cells: the crystals of elastic_2015 with 68 to 152 atoms, of which there are exactly 12 (1,072 atoms).
* Supercells: the first crystal of the training part of flla_2015 (5 atoms), its shortest axis multiplied in turn.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.datasets import FLLA2015, Elastic2015
from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.transforms import Supercell

LARGE_CELL_ATOMS = (68, 152)
NUM_LARGE_CELLS = 12

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "simplified": {"num_basis": 0},
    "half_reciprocal": {"domain": "multihead"},
}
"""Arguments of Crystalformer: the paper's model, without value position encoding, with half of its heads in reciprocal
space."""


def real_crystals(number: int) -> list[Data]:
    """The first crystals of the training part of flla_2015; once through, it begins again."""
    crystals = _training_crystals()
    return [crystals[index % len(crystals)].clone() for index in range(number)]


@cache
def _training_crystals() -> list[Data]:
    with tempfile.TemporaryDirectory() as folder:
        dataset = FLLA2015(root=folder, log=False)
        return [dataset[index] for index in dataset.split()["train"]]


def large_cells() -> list[Data]:
    """The 12 crystals of elastic_2015 with 68 to 152 atoms.

    Raises:
        RuntimeError: if there are not 12 of them.
    """
    smallest, largest = LARGE_CELL_ATOMS
    with tempfile.TemporaryDirectory() as folder:
        found = [data for data in Elastic2015(root=folder, log=False) if smallest <= data.num_nodes <= largest]
    if len(found) != NUM_LARGE_CELLS:
        raise RuntimeError(f"elastic_2015: expected {NUM_LARGE_CELLS} cells of 68 to 152 atoms, found {len(found)}")
    return found


def supercell(atoms: int) -> Data:
    """The smallest supercell of at least `atoms` atoms."""
    primitive = real_crystals(1)[0]
    repeats = [1, 1, 1]
    while primitive.num_nodes * repeats[0] * repeats[1] * repeats[2] < atoms:
        lengths = primitive.cell[0].norm(dim=1) * torch.tensor(repeats)
        repeats[int(lengths.argmin())] += 1
    return Supercell(repeats)(primitive)


def crystals_of(workload: str) -> list[Data]:
    """The crystals of a workload: a number of crystals such as "128", or "large_cells"."""
    return large_cells() if workload == "large_cells" else real_crystals(int(workload))


def batch_of(crystals: Sequence[Data], transform: Callable[[Data], Data], device: str = "cpu") -> Data:
    """Crystals with their graphs, as one batch on a device."""
    return Batch.from_data_list([transform(data.clone()) for data in crystals]).to(device)


def initialised_model(variant: str = "default", device: str = "cpu", seed: int = 0) -> Crystalformer:
    """A Crystalformer with random weights that has seen its first batch, which its decay takes its statistics from.

    Fresh weights are so small that an error in the attention would hardly be seen in the output; these are enlarged.
    """
    torch.manual_seed(seed)
    model = Crystalformer(**VARIANTS[variant])
    enlarge_weights(model, embedding="embedding.weight", encoding="value_encoding")
    with torch.no_grad():
        model.train()(batch_of(real_crystals(8), model.neighborhood()))
    return model.to(device)


@torch.no_grad()
def enlarge_weights(model: nn.Module, embedding: str, encoding: str) -> None:
    """Make every part of a model matter: embedding times 10, W^E times 8, biases normal with a deviation of 0.1.

    Args:
        model: a fresh model, changed in place.
        embedding, encoding: how the names of the parameters concerned end.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(embedding):
            parameter.mul_(10.0)
        elif name.endswith(encoding):
            parameter.mul_(8.0)
        elif name.endswith("bias"):
            parameter.normal_(std=0.1)


def describe(batch: Data) -> dict[str, int]:
    """Crystals, atoms, edges and waves of a batch."""
    counts = {"crystals": batch.num_graphs, "atoms": batch.num_nodes}
    if "edge_index" in batch:
        counts["edges"] = batch.num_edges
    if "wave_vector" in batch:
        counts["waves"] = batch.wave_vector.size(0)
    return counts


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW in its fused form on what is trained, with a rate so small that the model stays what it is."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(parameters, lr=1e-5, fused=True)


def training_step(model: nn.Module, run: Callable[[Data], Tensor], batch: Data) -> Callable[[], None]:
    """One step of training: gradients to zero, forward, L1 loss, backward, AdamW.

    Args:
        model: whose parameters are trained.
        run: from a batch to the outputs: the model, or a compiled form of it.
        batch: the batch.
    """
    optimizer = make_optimizer(model)

    def step() -> None:
        if not model.training:
            model.train()
        optimizer.zero_grad()
        run(batch).abs().mean().backward()
        optimizer.step()

    return step


def inference(model: nn.Module, run: Callable[[Data], Tensor], batch: Data) -> Callable[[], None]:
    """The outputs, without gradients."""

    def infer() -> None:
        if model.training:
            model.eval()
        with torch.inference_mode():
            run(batch)

    return infer
