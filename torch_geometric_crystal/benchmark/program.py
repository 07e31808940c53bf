"""A trained model as a program of torch.export, in a file."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch_geometric.data import Batch

from torch_geometric_crystal.benchmark.prediction import make_graphs
from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.data import make_crystal
from torch_geometric_crystal.datasets.atomic_write import atomic_write
from torch_geometric_crystal.nn.export import export_crystalformer
from torch_geometric_crystal.nn.models import Crystalformer


def export_program(model: nn.Module, path: str | Path) -> None:
    """Write a Crystalformer for use without its code; :func:`torch.export.load` reads it.

    The program takes the tensors that :func:`torch_geometric_crystal.nn.export.export_inputs` names and returns the
    targets (B, T) in physical units, for any numbers of crystals, atoms and edges.

    Args:
        model: as :func:`~torch_geometric_crystal.benchmark.checkpoint.load_model` returns it.
        path: a file whose name ends in ``.pt2``.

    Raises:
        ValueError: for another model, or another ending.
    """
    path = Path(path)
    check_argument(path.suffix == ".pt2", "path", "a name that ends in .pt2", str(path))
    if not isinstance(model, Crystalformer):
        raise ValueError(f"model: expected a crystalformer, received {type(model).__name__!r}")
    dtype = next(model.parameters()).dtype
    pos = np.array([[0.0, 0.0, 0.0], [1.5, 1.5, 1.5]])
    example = make_crystal([1, 1], pos, 3.0 * np.eye(3), [True] * 3, dtype=dtype)
    batch = Batch.from_data_list(make_graphs(model, [example, example.clone()], num_workers=0))
    buffer = io.BytesIO()
    torch.export.save(export_crystalformer(model, batch), buffer)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
