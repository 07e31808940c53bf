"""Asserts that a model gives a crystal the same output however the crystal is described."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.testing.changes import (
    change_basis,
    permute_atoms,
    rotate,
    supercell,
    translate,
    unwrap,
    wrap,
)
from torch_geometric_crystal.testing.comparison import assert_close_relative
from torch_geometric_crystal.testing.crystals import small_crystals

Change = Callable[[Data], Data]

CHANGES: Mapping[str, Change] = MappingProxyType(
    {
        "rotation": rotate,
        "translation": translate,
        "permutation": permute_atoms,
        "another basis": change_basis,
        "supercell": supercell,
        "wrapping": wrap,
        "unwrapping": unwrap,
    }
)
"""The descriptions of one crystal between which a model of crystals should not distinguish."""


def crystal_outputs(model: nn.Module, crystals: Sequence[Data], neighborhood: Change | None = None) -> Tensor:
    """Return the outputs of a model in evaluation mode on one batch of crystals, (B, ...); its mode is put back.

    Args:
        model: takes a :class:`~torch_geometric.data.Batch`, returns one row per crystal.
        crystals: without a graph.
        neighborhood: makes the graph of a crystal. By default ``model.neighborhood()``.

    Raises:
        AssertionError: if the model does not return one row per crystal.
    """
    transform = cast(Callable[[], Change], model.neighborhood)() if neighborhood is None else neighborhood
    batch = Batch.from_data_list([transform(crystal) for crystal in crystals])
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            output = model(batch)
    finally:
        model.train(training)
    if not isinstance(output, Tensor) or output.dim() == 0 or output.size(0) != len(crystals):
        received = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise AssertionError(f"model: expected one row for each of {len(crystals)} crystals, received {received}")
    return output


def assert_invariant(
    model: nn.Module,
    data: Data,
    change: Change,
    rtol: float = 1e-5,
    neighborhood: Change | None = None,
    name: str | None = None,
) -> None:
    """Fail unless the model gives a crystal and the changed crystal the same output.

    Args:
        model: see :func:`crystal_outputs`.
        data: a crystal; its graph, if it has one, is not used.
        change: makes another description of the crystal, such as :func:`rotate`; or whatever should not matter.
        rtol: largest error relative to the largest output.
        neighborhood: see :func:`crystal_outputs`.
        name: what is changed, for the message.

    Raises:
        AssertionError: if the outputs differ.
    """
    expected = crystal_outputs(model, [data], neighborhood)
    actual = crystal_outputs(model, [change(data)], neighborhood)
    label = name if name is not None else getattr(change, "__name__", repr(change))
    assert_close_relative(actual, expected, rtol, f"{label} of {data.get('structure_id', 'a crystal')}")


def assert_batch_invariant(
    model: nn.Module, crystals: Sequence[Data], rtol: float = 1e-5, neighborhood: Change | None = None
) -> None:
    """Fail unless the model gives each crystal the same output alone, in a batch of all, and in the batch in reverse.

    Args:
        model: see :func:`crystal_outputs`.
        crystals: two or more.
        rtol: largest error relative to the largest output of the crystal alone.
        neighborhood: see :func:`crystal_outputs`.

    Raises:
        AssertionError: if the outputs differ.
        ValueError: with fewer than two crystals.
    """
    if len(crystals) < 2:
        raise ValueError(f"crystals: expected two or more, received {len(crystals)}")
    together = crystal_outputs(model, crystals, neighborhood)
    backwards = crystal_outputs(model, list(reversed(crystals)), neighborhood).flip(0)
    for position, crystal in enumerate(crystals):
        alone = crystal_outputs(model, [crystal], neighborhood)
        label = f"batching of {crystal.get('structure_id', f'crystal {position}')}"
        assert_close_relative(together[position : position + 1], alone, rtol, label)
        assert_close_relative(backwards[position : position + 1], alone, rtol, f"{label} in reverse")


def assert_all_invariances(
    model: nn.Module,
    crystals: Sequence[Data] | None = None,
    rtol: float = 1e-5,
    neighborhood: Change | None = None,
) -> None:
    """Fail unless the output is the same under every change in :data:`CHANGES` and however crystals are batched.

    Args:
        model: see :func:`crystal_outputs`.
        crystals: by default :func:`~torch_geometric_crystal.testing.small_crystals`.
        rtol: largest error relative to the largest output.
        neighborhood: see :func:`crystal_outputs`.

    Raises:
        AssertionError: if an output differs.
    """
    chosen = small_crystals() if crystals is None else crystals
    for name, change in CHANGES.items():
        for crystal in chosen:
            assert_invariant(model, crystal, change, rtol, neighborhood, name)
    assert_batch_invariant(model, chosen, rtol, neighborhood)
