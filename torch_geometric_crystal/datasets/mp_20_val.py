"""Small cells of the Materials Project."""

from collections.abc import Mapping
from typing import ClassVar

from torch_geometric_crystal.datasets.bundled import BundledDataset


class MP20Val(BundledDataset):
    """Formation energy, band gap and energy above hull of 9,047 cells: the validation part of MP-20.

    Targets ``formation_energy_per_atom`` (eV/atom), ``band_gap`` (eV) and ``e_above_hull`` (eV/atom), of cells of at
    most 20 atoms in the Materials Project (Jain et al., 2013; CC BY 4.0), as selected and divided by Xie et al. (2022,
    arXiv:2110.06197).

    Split: ids sorted by the hexadecimal SHA-1 of the id; the first 7,247 train, the next 900 validation, the last
    900 test. The split, of the validation part alone, is this
    package's own. Arguments as `BundledDataset`.
    """

    file_name = "mp_20_val.json.gz"
    sha256 = "30b3ea11ac52de6bd56f0237ca84d45de0bb888786571e4c85e1755ff89ae384"
    units: ClassVar[Mapping[str, str]] = {
        "formation_energy_per_atom": "eV/atom",
        "band_gap": "eV",
        "e_above_hull": "eV/atom",
    }
    citation = (
        "A. Jain, S. P. Ong, G. Hautier, W. Chen, W. D. Richards, S. Dacek, S. Cholia, D. Gunter, D. Skinner, G. "
        "Ceder, K. A. Persson, Commentary: The Materials Project: A materials genome approach to accelerating "
        "materials innovation, APL Materials 1, 011002 (2013), doi:10.1063/1.4812323; T. Xie, X. Fu, O.-E. Ganea, "
        "R. Barzilay, T. Jaakkola, Crystal diffusion variational autoencoder for periodic material generation, "
        "ICLR (2022), arXiv:2110.06197"
    )
    split_sizes: ClassVar[Mapping[str, int]] = {"train": 7247, "val": 900, "test": 900}
