"""Crystalformer as a :class:`torch.export.ExportedProgram` on plain tensors, for use without the model's code."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as settings
from torch_geometric.data import Data

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.nn.crystal_graph import crystal_pointers
from torch_geometric_crystal.nn.models.crystalformer import Crystalformer
from torch_geometric_crystal.ops import use_backend

REAL_FIELDS = ("edge_index", "edge_dist")
"""What heads in real space need of a batch, beside `z` and `ptr`."""

RECIPROCAL_FIELDS = ("pos", "cell", "wave_vector", "num_wave_vectors")
"""What heads in reciprocal space need."""


def export_crystalformer(model: Crystalformer, batch: Data, backend: str = "blocked") -> torch.export.ExportedProgram:
    """Export a model in evaluation mode. The numbers of atoms, edges, crystals and waves stay free (from torch 2.7 on,
    one of each is allowed; an older torch wants at least two).

    The program takes :func:`export_inputs` of any batch as keyword arguments and returns the targets (B, T). Save it
    with :func:`torch.export.save`; a process that loads it needs to import ``torch_geometric_crystal.ops`` alone, where
    the program's operators are. The weights are part of the program, which runs on the device of `batch`.

    Args:
        model: its mode is left as it is.
        batch: an example; with at least two crystals of two atoms, since a size of one would be taken for a constant.
        backend: of the attention operations, fixed in the program: ``"blocked"`` runs anywhere.

    Raises:
        ValueError: if the batch is too small, or lacks the graph.
        RuntimeError: if the backend cannot run here.
    """
    inputs = export_inputs(model, batch)
    num_crystals, num_atoms = inputs["ptr"].numel() - 1, inputs["z"].numel()
    check_argument(
        num_crystals > 1 and num_atoms > 1, "batch", "an example of at least two crystals", (num_crystals, num_atoms)
    )
    training = model.training
    dynamic = {name: dict.fromkeys(_free_axes(name), torch.export.Dim.AUTO) for name in inputs}
    model.eval()
    try:
        with use_backend(backend), torch.no_grad(), _sizes_of_one_are_free():
            return torch.export.export(_OnTensors(model), (), inputs, dynamic_shapes=dynamic, strict=False)
    finally:
        model.train(training)


def export_inputs(model: Crystalformer, data: Data) -> dict[str, Tensor]:
    """The tensors of a batch, or of a single crystal, that an exported program takes, by name.

    Raises:
        ValueError: if a field is missing, or atoms are merged.
    """
    check_argument("atom_multiplicity" not in data, "data", "all atoms of each crystal", "merged ones")
    fields = [
        *(REAL_FIELDS if model.has_real_heads else ()),
        *(RECIPROCAL_FIELDS if model.has_reciprocal_heads else ()),
    ]
    missing = [field for field in fields if field not in data]
    check_argument(not missing, "data", f"crystals with {' and '.join(fields)}; apply model.neighborhood()", missing)
    return {"z": data.z, "ptr": crystal_pointers(data)} | {field: data[field].detach() for field in fields}


def _sizes_of_one_are_free() -> AbstractContextManager:
    """Have sizes of 0 and 1 treated like all others, where this torch can."""
    name = "backed_size_oblivious"
    return settings.patch(**{name: True}) if hasattr(settings, name) else nullcontext()  # type: ignore[attr-defined]


class _OnTensors(nn.Module):
    def __init__(self, model: Crystalformer):
        super().__init__()
        self.model = model

    def forward(
        self,
        z: Tensor,
        ptr: Tensor,
        edge_index: Tensor | None = None,
        edge_dist: Tensor | None = None,
        pos: Tensor | None = None,
        cell: Tensor | None = None,
        wave_vector: Tensor | None = None,
        num_wave_vectors: Tensor | None = None,
    ) -> Tensor:
        batch = torch.searchsorted(ptr[1:], torch.arange(z.numel(), device=z.device), right=True)
        data = Data(z=z, ptr=ptr, batch=batch, edge_index=edge_index, edge_dist=edge_dist, pos=pos, cell=cell)
        data.wave_vector, data.num_wave_vectors = wave_vector, num_wave_vectors
        return self.model(data)


def _free_axes(name: str) -> tuple[int, ...]:
    return (1,) if name == "edge_index" else (0,)
