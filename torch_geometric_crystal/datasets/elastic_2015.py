"""Elastic moduli of de Jong and others."""

from collections.abc import Mapping
from typing import ClassVar

from torch_geometric_crystal.datasets.bundled import BundledDataset


class Elastic2015(BundledDataset):
    """Bulk and shear moduli, 1,181 inorganic crystals (de Jong et al., 2015).

    Targets: ``log10(K_VRH)`` and ``log10(G_VRH)``, decimal logarithms of the Voigt-Reuss-Hill averages in GPa: the
    quantities of Matbench's log_kvrh and log_gvrh, but not those tasks. From doi:10.1038/sdata.2015.9.

    Split: ids sorted by the hexadecimal SHA-1 of the id; the first 941 train, the next 120 validation, the last
    120 test. The split is this package's own. Arguments as `BundledDataset`.
    """

    file_name = "elastic_2015.json.gz"
    sha256 = "6521cea9ae4121afe4133d0018b04824c773859665f5ac0f47ef618559c0eac9"
    units: ClassVar[Mapping[str, str]] = {"log10(K_VRH)": "log10(GPa)", "log10(G_VRH)": "log10(GPa)"}
    citation = (
        "M. de Jong, W. Chen, T. Angsten, A. Jain, R. Notestine, A. Gamst, M. Sluiter, C. K. Ande, S. van der "
        "Zwaag, J. J. Plata, C. Toher, S. Curtarolo, G. Ceder, K. A. Persson, M. Asta, Charting the complete "
        "elastic properties of inorganic crystalline compounds, Scientific Data 2, 150009 (2015), "
        "doi:10.1038/sdata.2015.9"
    )
    split_sizes: ClassVar[Mapping[str, int]] = {"train": 941, "val": 120, "test": 120}
