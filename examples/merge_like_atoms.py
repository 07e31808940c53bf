"""Atoms that look alike computed once: the same outputs and gradients from a part of the graph.

In a symmetric crystal many atoms see the same surroundings, and so have the same state in every layer.
``model.neighborhood(merge_tolerance=1e-4)`` keeps one of each kind and counts the others. One sees how many atoms and
edges of some crystals are kept, a supercell and a crystal without symmetry among them, and how far output and gradients
of the weights then lie from those on the whole graphs: no further than float32 rounds.

The weights are random: the outputs are those of no real material.

    python examples/merge_like_atoms.py
"""

import argparse

import torch
from pymatgen.core import Lattice, Structure
from torch import Tensor
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.data import from_structure
from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.transforms import RandomPerturb


def crystals() -> dict[str, Data]:
    """Crystals of much symmetry, of little, and of none."""
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    return {
        "rock salt, 8 atoms": from_structure(salt),
        "its supercell, 3 x 3 x 3": from_structure(salt * (3, 3, 3)),
        "rutile": from_structure(rutile),
        "rutile, atoms displaced": RandomPerturb(0.1, seed=0)(from_structure(rutile)),
    }


def output_and_gradients(model: Crystalformer, graphs: list[Data]) -> tuple[Tensor, Tensor]:
    """Outputs (B,), and the gradient of their sum by all weights, flat."""
    model.zero_grad()
    output = model(Batch.from_data_list(graphs)).squeeze(-1)
    output.sum().backward()
    return output.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    size = {"channels": 32, "num_blocks": 2, "num_heads": 4, "num_basis": 16} if arguments.quick else {}
    model = Crystalformer(**size)
    whole, merged = model.neighborhood(), model.neighborhood(merge_tolerance=1e-4)

    found = crystals()
    everything = [whole(crystal.clone()) for crystal in found.values()]
    kept = [merged(crystal.clone()) for crystal in found.values()]
    print(f"{'':26}  {'atoms':>12}  {'edges':>16}")
    for name, before, after in zip(found, everything, kept, strict=True):
        atoms, edges = f"{after.num_nodes} of {before.num_nodes}", f"{after.num_edges} of {before.num_edges}"
        print(f"{name:26}  {atoms:>12}  {edges:>16}")

    output, gradients = output_and_gradients(model, everything)
    same_output, same_gradients = output_and_gradients(model, kept)
    print(f"\noutputs on whole graphs:  {'  '.join(f'{value:.6f}' for value in output.tolist())}")
    print(f"outputs on merged graphs: {'  '.join(f'{value:.6f}' for value in same_output.tolist())}")
    difference, largest = (same_gradients - gradients).abs().max(), gradients.abs().max()
    print(f"largest difference of the gradients, relative to the largest: {difference / largest:.1e}")


if __name__ == "__main__":
    main()
