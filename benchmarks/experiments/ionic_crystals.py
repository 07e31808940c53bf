"""Ionic crystals with charges by element, as they are, distorted, and as distorted supercells."""

import functools

import numpy as np
import torch
from coulomb import coulomb_energy
from torch_geometric.data import Data

from torch_geometric_crystal.data.elements import SYMBOLS
from torch_geometric_crystal.datasets import FLLA2015, MP20Val
from torch_geometric_crystal.transforms import Supercell

CHARGES = {
    **dict.fromkeys(("F", "Cl", "Br", "I"), -1.0),
    "O": -2.0,
    **dict.fromkeys(("Li", "Na", "K", "Rb", "Cs"), 1.0),
    **dict.fromkeys(("Be", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd"), 2.0),
    **dict.fromkeys(("B", "Al", "Ga", "In", "Sc", "Y", "La"), 3.0),
    **dict.fromkeys(("Si", "Ge", "Zr", "Hf"), 4.0),
    **dict.fromkeys(("P", "Ta"), 5.0),
}
"""Elements that have nearly always this charge beside oxygen and halogens."""
ANIONS = frozenset(symbol for symbol, charge in CHARGES.items() if charge < 0)


def charges_of(data: Data) -> np.ndarray | None:
    """The atoms' charges by element; None unless all are known, there is an anion, and they sum to zero."""
    symbols = [SYMBOLS[z - 1] for z in data.z.tolist()]
    if not set(symbols) <= set(CHARGES) or not ANIONS & set(symbols):
        return None
    charges = np.array([CHARGES[symbol] for symbol in symbols])
    return charges if charges.sum() == 0 else None


def distorted(data: Data, displacement: float, strain: float, generator: np.random.Generator) -> Data:
    """The crystal with atoms moved (normal, `displacement` A each way) and the cell strained (normal, each entry)."""
    new = data.clone()
    deformation = torch.from_numpy(np.eye(3) + generator.normal(scale=strain, size=(3, 3))).to(data.pos.dtype)
    moved = torch.from_numpy(generator.normal(scale=displacement, size=data.pos.shape)).to(data.pos.dtype)
    new.pos, new.cell = data.pos @ deformation + moved, data.cell @ deformation
    return new


def doubled(data: Data) -> Data:
    """The supercell of two cells along the shortest lattice vector."""
    shortest = int(data.cell[0].norm(dim=1).argmin())
    return Supercell([2 if axis == shortest else 1 for axis in range(3)])(data.clone())


@functools.lru_cache(maxsize=8)
def ionic_crystals(
    number: int, max_atoms: int, displacement: float, strain: float, screening_length: float, seed: int = 0
) -> tuple[list[Data], list[str]]:
    """Crystals of the bundled sets with their energies per atom as `y`, eV, and the name of each one's origin.

    Args:
        number: of crystals before distortion; of each there are three: as it is, distorted, and doubled and distorted.
        max_atoms: in the cell, before doubling.
        displacement: of the distorted ones' atoms, A.
        strain: of the distorted ones' cells.
        screening_length: of the interaction, A.
        seed: of the choice and the distortions.

    Raises:
        ValueError: if there are not so many.
    """
    found: dict[str, Data] = {}
    for dataset in (FLLA2015(log=False), MP20Val(log=False)):
        for data in dataset:
            if data.num_nodes <= max_atoms and charges_of(data) is not None:
                found.setdefault(str(data.structure_id), data)
    if number > len(found):
        raise ValueError(f"number: expected at most {len(found)} ionic crystals, received {number}")
    generator = np.random.default_rng(seed)
    crystals, origins = [], []
    for name in generator.permutation(sorted(found))[:number].tolist():
        original = found[name]
        copies = [original, distorted(original, displacement, strain, generator)]
        copies.append(distorted(doubled(original), displacement, strain, generator))
        for copy, data in enumerate(copies):
            new = Data(z=data.z, pos=data.pos, cell=data.cell, pbc=data.pbc, structure_id=f"{name}-{copy}")
            charges = charges_of(new)
            energy = coulomb_energy(new.pos.double().numpy(), new.cell[0].double().numpy(), charges, screening_length)  # type: ignore[arg-type]
            new.y = torch.tensor([[energy / new.num_nodes]], dtype=torch.float32)
            crystals.append(new)
            origins.append(name)
    return crystals, origins
