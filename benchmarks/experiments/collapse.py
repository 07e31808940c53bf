"""What becomes of the atoms' states and of the gradients from block to block."""

from collections.abc import Sequence
from typing import Any

import torch
from experiment import digits
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.benchmark.checkpoint import build_model


def block_states(model: Any, batch: Data) -> list[Tensor]:
    """The atoms' states (N, C) before the first block and after each."""
    graph = model.gather(batch)
    states = [model.embedding(graph.z - 1)]
    for block in model.blocks:
        states.append(block(states[-1], graph)[0])
    return states


def similarity(x: Tensor, batch: Tensor) -> float:
    r"""Mean cosine of the angle between the states of two atoms of one crystal, over pairs and then over crystals.

    With unit vectors u of the n atoms of a crystal, the mean over pairs is :math:`(|\sum_i u_i|^2 - n) / (n^2 - n)`.
    Crystals of one atom are left out. It is 1 where all atoms of each crystal have the same state up to a factor.
    """
    unit = nn.functional.normalize(x.double(), dim=-1)
    count = torch.bincount(batch).double()
    total = unit.new_zeros(len(count), unit.size(1)).index_add_(0, batch, unit)
    several = count > 1
    mean = (total.square().sum(-1) - count) / (count.square() - count).clamp(min=1)
    return float(mean[several].mean())


def share_within(x: Tensor, batch: Tensor) -> float:
    """Share of the states' variance that lies within crystals, between 0 (atoms of a crystal are alike) and 1."""
    x = x.double()
    count = torch.bincount(batch).double().unsqueeze(-1)
    mean = x.new_zeros(len(count), x.size(1)).index_add_(0, batch, x) / count
    return float((x - mean[batch]).square().sum() / (x - x.mean(0)).square().sum())


def gradient_norms(model: Any, batch: Data) -> list[float]:
    """Norm of the gradient of the mean absolute error (standardised) in all weights of each block."""
    model.zero_grad()
    error = (model(batch) - batch.y) / model.normalization.std
    error.abs().nanmean().backward()
    norms = []
    for block in model.blocks:
        gradients = [p.grad for p in block.parameters() if p.grad is not None]
        norms.append(float(torch.stack([g.double().square().sum() for g in gradients]).sum().sqrt()))
    model.zero_grad()
    return norms


def measure_blocks(model: Any, test: Sequence[Data], train: Sequence[Data]) -> dict[str, Any]:
    """Columns of a trained model: similarity and share within crystals, block by block; gradients at start and end."""
    model.eval()
    batch = Batch.from_data_list(list(test))
    with torch.no_grad():
        states = block_states(model, batch)
    learned = Batch.from_data_list(list(train))
    initial: Any = build_model(model.card.model, model.card.model_options)
    initial.normalization.load_state_dict(model.normalization.state_dict())
    start, end = gradient_norms(initial.train(), learned), gradient_norms(model, learned)
    return {
        "similarity": [digits(similarity(x, batch.batch), 3) for x in states],
        "share_within": [digits(share_within(x, batch.batch), 3) for x in states],
        "gradients_start": [digits(norm, 3) for norm in start],
        "gradients_end": [digits(norm, 3) for norm in end],
        "similarity_last": digits(similarity(states[-1], batch.batch), 3),
        "gradient_ratio_start": digits(start[0] / start[-1], 3),
        "gradient_ratio_end": digits(end[0] / end[-1], 3),
    }
