"""Forces and stress of a model by autograd, beside finite differences.

The model's distances are functions of positions and cell, so the derivative of its energy with respect to both is one
call of ``torch.autograd.grad``. One sees the forces on the atoms of a distorted crystal and the stress on its cell,
from autograd and from moving each atom and straining the cell by hand, and how well they agree. The finite differences
build the graph anew for each displaced crystal, so agreement also shows that edges come and go without a jump.

The weights are random: the numbers are those of no real material.

    python examples/forces_by_autograd.py
"""

import argparse
from collections.abc import Callable

import torch
from pymatgen.core import Lattice, Structure
from torch import Tensor
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.data import from_structure
from torch_geometric_crystal.nn import Crystalformer

TOLERANCE = 1e-8
STEP = 1e-4  # A for positions, without unit for strains


def energy(model: Crystalformer, data: Data) -> Tensor:
    """Energy of one crystal, eV: the model gives it per atom."""
    return model(Batch.from_data_list([data])).sum() * data.num_nodes


def forces_and_stress(model: Crystalformer, data: Data) -> tuple[Tensor, Tensor, Tensor]:
    """Energy (eV), forces (N, 3) in eV/A and stress (3, 3) in eV/A^3 of a crystal with its graph."""
    strain = torch.zeros(3, 3, dtype=data.pos.dtype, requires_grad=True)
    deformation = torch.eye(3, dtype=data.pos.dtype) + (strain + strain.T) / 2
    pos = data.pos.clone().requires_grad_()
    deformed = data.clone()
    deformed.pos = pos @ deformation
    deformed.cell = data.cell @ deformation
    total = energy(model, deformed)
    slope, strain_slope = torch.autograd.grad(total, [pos, strain])
    return total.detach(), -slope, strain_slope / data.cell[0].det().abs()


def central_difference(function: Callable[[float], Tensor]) -> Tensor:
    """Derivative of `function` at zero."""
    with torch.no_grad():
        return (function(STEP) - function(-STEP)) / (2 * STEP)


def moved(data: Data, atom: int, axis: int, distance: float) -> Data:
    """The crystal with one atom moved."""
    result = data.clone()
    result.pos[atom, axis] += distance
    return result


def strained(data: Data, row: int, column: int, amount: float) -> Data:
    """The crystal under a symmetric strain."""
    strain = torch.zeros(3, 3, dtype=data.pos.dtype)
    strain[row, column] += amount / 2
    strain[column, row] += amount / 2
    deformation = torch.eye(3, dtype=data.pos.dtype) + strain
    result = data.clone()
    result.pos, result.cell = data.pos @ deformation, data.cell @ deformation
    return result


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    size = {"channels": 32, "num_blocks": 2, "num_heads": 4, "num_basis": 16} if arguments.quick else {}
    model = Crystalformer(**size).double().eval()
    add_graph = model.neighborhood(tol=TOLERANCE)

    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    crystal = from_structure(rutile, structure_id="rutile", dtype=torch.float64)
    crystal.pos += 0.05 * torch.randn_like(crystal.pos)

    total, forces, stress = forces_and_stress(model, add_graph(crystal.clone()))
    by_hand = torch.stack(
        [
            -central_difference(lambda step, a=a, x=x: energy(model, add_graph(moved(crystal, a, x, step))))
            for a in range(crystal.num_nodes)
            for x in range(3)
        ]
    ).view(-1, 3)
    stress_by_hand = (
        torch.stack(
            [
                central_difference(lambda step, i=i, j=j: energy(model, add_graph(strained(crystal, i, j, step))))
                for i in range(3)
                for j in range(3)
            ]
        ).view(3, 3)
        / crystal.cell[0].det().abs()
    )

    print(f"energy {total:.6f} eV\n\nforces, eV/A           autograd                       finite differences")
    for row, other in zip(forces.tolist(), by_hand.tolist(), strict=True):
        print("   ", *(f"{value:12.3e}" for value in row), "  ", *(f"{value:12.3e}" for value in other))
    print("\nstress, eV/A^3         autograd                       finite differences")
    for row, other in zip(stress.tolist(), stress_by_hand.tolist(), strict=True):
        print("   ", *(f"{value:12.3e}" for value in row), "  ", *(f"{value:12.3e}" for value in other))
    print(f"\nlargest difference, relative to the largest entry: forces {relative(forces, by_hand):.1e}, ", end="")
    print(f"stress {relative(stress, stress_by_hand):.1e}; sum of the forces {forces.sum(0).abs().max():.1e} eV/A")


def relative(value: Tensor, expected: Tensor) -> float:
    """Largest difference over largest entry."""
    return float((value - expected).abs().max() / expected.abs().max())


if __name__ == "__main__":
    main()
