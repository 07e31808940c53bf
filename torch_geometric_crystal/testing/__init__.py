"""Helpers to test layers and models of crystals: strict comparison, small crystals, and asserts of invariance.

For a model with a method `neighborhood`, ``assert_all_invariances(model)`` is the whole test; in double precision,
``assert_all_invariances(model.double(), small_crystals(torch.float64), rtol=1e-9)``.
"""

from torch_geometric_crystal.testing.changes import (
    change_basis,
    permute_atoms,
    rotate,
    supercell,
    translate,
    unwrap,
    wrap,
)
from torch_geometric_crystal.testing.comparison import assert_close_relative, relative_error
from torch_geometric_crystal.testing.crystals import small_crystals
from torch_geometric_crystal.testing.invariance import (
    CHANGES,
    assert_all_invariances,
    assert_batch_invariant,
    assert_invariant,
    crystal_outputs,
)

__all__ = [
    "CHANGES",
    "assert_all_invariances",
    "assert_batch_invariant",
    "assert_close_relative",
    "assert_invariant",
    "change_basis",
    "crystal_outputs",
    "permute_atoms",
    "relative_error",
    "rotate",
    "small_crystals",
    "supercell",
    "translate",
    "unwrap",
    "wrap",
]
