import re
import time
import warnings

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from pymatgen.symmetry.groups import SpaceGroup, sg_symbol_from_int_number

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets.readers import cif_limits
from torch_geometric_crystal.datasets.readers.cif_limits import is_symmetry_operation
from torch_geometric_crystal.datasets.readers.structure_file import crystal_from_cif

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture(scope="module")
def cif() -> str:
    """Salt with its 192 symmetry operations, in rows of two atoms."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib's
        return str(CifWriter(SALT, symprec=0.01))


def test_the_operations_of_all_space_groups_are_operations():
    for number in range(1, 231):
        for operation in SpaceGroup(sg_symbol_from_int_number(number)).symmetry_ops:
            assert is_symmetry_operation(operation.as_xyz_str())


@pytest.mark.parametrize("text", ["X,Y,Z", "1/2+x, 1/2-y, -z", "-x + 0.5, y+.25, 1*z", "x-y,x,z+5/6", "y,x,-z+0.333"])
def test_other_ways_of_writing_them_are_too(text):
    assert is_symmetry_operation(text)


@pytest.mark.parametrize(
    "text",
    ["", "foo", "x, y", "x, y, z, w", "x, x, z", "2x, 3y, z", "x/0, y, z", "x+y*z, y, z", "x**9, y, z", "x, y, nan",
     "x, y, z+1e9", "x, y, z, -1", "abs(x), y, z"],
)  # fmt: skip
def test_what_is_no_operation_is_refused(cif, text):
    assert not is_symmetry_operation(text)
    broken = re.sub(r"'-x, -y, z'", f"'{text}'", cif, count=1)
    assert broken != cif
    with pytest.raises(InvalidStructureError, match=r"structure 'a': its symmetry operation .* is none. Correct it to"):
        crystal_from_cif(broken, "a")


def test_the_sign_of_the_time_belongs_to_magnetic_operations_alone():
    assert is_symmetry_operation("x, y, z, -1", magnetic=True)
    assert not is_symmetry_operation("x, y, z, 2", magnetic=True)


def test_a_file_that_would_take_hours_is_refused_at_once(cif):
    row = next(line for line in cif.splitlines() if re.match(r"\s+Na\S*\s+Na", line))
    start = time.monotonic()
    with pytest.raises(
        InvalidStructureError, match=r"its 1002 rows of atoms and 192 symmetry operations give up to 192384"
    ):
        crystal_from_cif(cif.replace(row, "\n".join([row] * 1001)), "a")
    assert time.monotonic() - start < 10


def test_operations_are_those_of_the_space_group_where_none_are_listed(cif, monkeypatch):
    monkeypatch.setattr(cif_limits, "MAX_CANDIDATES", 300)
    head = "data_a\n_symmetry_space_group_name_H-M {name}\n" + "".join(
        f"_cell_length_{axis} 5.69\n_cell_angle_{angle} 90\n"
        for axis, angle in zip("abc", ("alpha", "beta", "gamma"), strict=True)
    )
    sites = (
        "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nNa 0 0 0\nCl .5 .5 .5\n"
    )
    with pytest.raises(InvalidStructureError, match="2 rows of atoms and 192 symmetry operations"):
        crystal_from_cif(head.format(name="'F m -3 m'") + sites, "a")
    assert crystal_from_cif(head.format(name="'P 1'") + sites, "a").num_nodes == 2


def test_a_file_with_its_symmetry_is_read(cif):
    assert crystal_from_cif(cif, "a").num_nodes == 8
