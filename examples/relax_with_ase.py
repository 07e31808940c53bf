"""Learn energies, then relax a crystal with ASE.

A model that was trained on energies alone has forces and stress, too: the derivatives of the energy. Here the energies
are those of ASE's EMT potential for copper, strained and with displaced atoms, so that one can check what the model
made of them. One sees its error on crystals kept apart, its forces beside those of EMT, and a distorted crystal relaxed
by ASE's BFGS with its cell, once with the model and once with EMT: the energies, and the volumes that they end at.

    python examples/relax_with_ase.py
    python examples/relax_with_ase.py --crystals 600 --epochs 200
"""

import argparse

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from torch_geometric_crystal.ase import CrystalCalculator
from torch_geometric_crystal.estimators import CrystalRegressor

SMALL = {"channels": 32, "num_blocks": 1, "num_heads": 4, "num_basis": 64, "basis_range": 6.0, "r0": 0.8}


def distorted_copper(generator: np.random.Generator, strain: float = 0.06, displacement: float = 0.15) -> Atoms:
    """Cubic copper under a random strain, its four atoms displaced at random (A)."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    amounts = generator.uniform(-strain, strain, size=(3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + (amounts + amounts.T) / 2), scale_atoms=True)
    atoms.positions += generator.normal(scale=displacement * generator.random(), size=(4, 3))
    return atoms


def emt_energy(atoms: Atoms) -> float:
    """Energy per atom, eV."""
    return EMT().get_potential_energy(atoms) / len(atoms)


def relax(atoms: Atoms, calculator: object, steps: int) -> Atoms:
    """Relaxed atoms and cell."""
    atoms = atoms.copy()
    atoms.calc = calculator
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.02, steps=steps)
    return atoms


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 crystals, 40 epochs")
    parser.add_argument("--crystals", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    number, epochs = (60, 40) if arguments.quick else (arguments.crystals, arguments.epochs)
    generator = np.random.default_rng(arguments.seed)

    crystals = [distorted_copper(generator) for _ in range(number + 20)]
    energies = np.array([emt_energy(atoms) for atoms in crystals])
    regressor = CrystalRegressor(
        model_options=SMALL,
        neighborhood={"tol": 1e-2},
        epochs=epochs,
        batch_size=8,
        lr=5e-3,
        recipe={"averaging_epochs": epochs // 5},
        seed=arguments.seed,
        device="cpu",
    )
    regressor.fit(crystals[:-20], energies[:-20])
    errors = np.abs(regressor.predict(crystals[-20:]) - energies[-20:])
    print(f"{number} energies learned; error on 20 others {1e3 * errors.mean():.1f} meV/atom, ", end="")
    print(f"their standard deviation {1e3 * energies[-20:].std():.1f} meV/atom")

    calculator = CrystalCalculator(regressor.model_, energy="per_atom", unit="eV", device="cpu")
    start = crystals[-1]
    start.calc = calculator
    forces, expected = start.get_forces(), EMT().get_forces(start)
    print("\nforces, eV/A           model                          EMT")
    for row, other in zip(forces.tolist(), expected.tolist(), strict=True):
        print("   ", *(f"{value:9.3f}" for value in row), "  ", *(f"{value:9.3f}" for value in other))

    print("\n                       start    relaxed")
    for name, engine in (("model", calculator), ("EMT", EMT())):
        start.calc = engine
        end = relax(start, engine, steps=20 if arguments.quick else 60)
        print(f"{name:5s} energy, eV     {start.get_potential_energy():9.3f}  {end.get_potential_energy():9.3f}")
        print(f"{name:5s} volume, A^3    {start.get_volume():9.2f}  {end.get_volume():9.2f}")


if __name__ == "__main__":
    main()
