"""Formation energies of Faber, Lindmaa, von Lilienfeld and Armiento."""

from collections.abc import Mapping
from typing import ClassVar

from torch_geometric_crystal.datasets.bundled import BundledDataset


class FLLA2015(BundledDataset):
    """Formation energy and energy above hull, 3,938 crystals of the Materials Project (Faber et al., 2015).

    Targets in eV/atom: ``formation_energy_per_atom`` and ``e_above_hull``. From doi:10.1002/qua.24917.

    Split: ids sorted by the hexadecimal SHA-1 of the id; the first 3,000 train, the next 438 validation, the last
    500 test. Arguments as `BundledDataset`.
    """

    file_name = "flla_2015.json.gz"
    sha256 = "a7b34a5a231e3a0b6bc6ec4628e9b9b21cdd4e579ee9e1c6f5caaa551e8a3052"
    units: ClassVar[Mapping[str, str]] = {"formation_energy_per_atom": "eV/atom", "e_above_hull": "eV/atom"}
    citation = (
        "F. Faber, A. Lindmaa, O. A. von Lilienfeld, R. Armiento, Crystal structure representations for machine "
        "learning models of formation energies, International Journal of Quantum Chemistry 115, 1094 (2015), "
        "doi:10.1002/qua.24917"
    )
    split_sizes: ClassVar[Mapping[str, int]] = {"train": 3000, "val": 438, "test": 500}
