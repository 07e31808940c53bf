"""All-carbon cells found by random search."""

from collections.abc import Mapping
from typing import ClassVar

from torch_geometric_crystal.datasets.bundled import BundledDataset


class Carbon24(BundledDataset):
    """Energy per atom of 2,032 all-carbon cells: the validation part of Carbon-24.

    Target ``energy_per_atom`` in eV/atom. Found by ab initio random structure searching at 10 GPa (Pickard, 2020,
    doi:10.24435/materialscloud:2020.0026/v1), as selected and divided by Xie et al. (2022, arXiv:2110.06197).

    Split: ids sorted by the hexadecimal SHA-1 of the id; the first 1,632 train, the next 200 validation, the last
    200 test. The split, of the validation part alone, is this
    package's own. Arguments as `BundledDataset`.
    """

    file_name = "carbon_24_val.json.gz"
    sha256 = "9d849174002bfe9ce8f4ec8788724265b9107c34ca41d73701ab6d58a173eb31"
    units: ClassVar[Mapping[str, str]] = {"energy_per_atom": "eV/atom"}
    citation = (
        "C. J. Pickard, AIRSS data for carbon at 10 GPa and the C+N+H+O system at 1 GPa, Materials Cloud Archive "
        "(2020), doi:10.24435/materialscloud:2020.0026/v1; T. Xie, X. Fu, O.-E. Ganea, R. Barzilay, T. Jaakkola, "
        "Crystal diffusion variational autoencoder for periodic material generation, ICLR (2022), "
        "arXiv:2110.06197"
    )
    split_sizes: ClassVar[Mapping[str, int]] = {"train": 1632, "val": 200, "test": 200}
