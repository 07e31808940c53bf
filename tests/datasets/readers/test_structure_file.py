import json
import sys

import numpy as np
import pytest
from ase.io import write as ase_write
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

from torch_geometric_crystal.checks import InvalidStructureError, MissingDependencyError
from torch_geometric_crystal.datasets.readers import structure_file
from torch_geometric_crystal.datasets.readers.structure_file import (
    StructureFileWarning,
    crystal_from_cif,
    crystal_from_file,
    crystal_from_poscar,
    is_structure_file,
    structure_stem,
)

CELL = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
"""
SITES = """loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 1
"""
IDENTITY = "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n"
MOLECULE = """data_water
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_Cartn_x
_atom_site_Cartn_y
_atom_site_Cartn_z
O1 O 0 0 0
H1 H 0.96 0 0
"""
MAGNETIC_OPERATIONS = "loop_\n_space_group_symop_magn_operation.id\n_space_group_symop_magn_operation.xyz\n"
CALL = '[d for d in ().__class__.__mro__[1].__subclasses__() if d.__name__ == "BuiltinImporter"][0]'


def evil_cifs(sentinel: str) -> dict[str, str]:
    """CIFs that would make the file `sentinel` if the field were evaluated."""
    run = f'{CALL}.load_module("os").system("touch {sentinel}")'
    opened = f"open('{sentinel}','w')"
    moments = "loop_\n_atom_site_moment.label\n_atom_site_moment.crystalaxis_x\nNa1 1\n"
    magnetic = f"_space_group_magn.number_BNS 62.448\n_space_group_magn.name_BNS \"P n' m a'\"\n{moments}"
    transform = "_space_group_magn.transform_BNS_Pp_abc"
    return {
        "published": f"{CELL}{transform} 'a,b,{run};0,0,0'\n{magnetic}{SITES}",
        "plain_call": f'{CELL}{transform} "a,b,{opened};0,0,0"\n{magnetic}{SITES}',
        "parent": f"{CELL}_parent_space_group.child_transform_Pp_abc 'a,b,{run};0,0,0'\n{magnetic}{SITES}",
        "endless_power": f"{CELL}{transform} 'a,b,9**9**9**9*c;0,0,0'\n{magnetic}{SITES}",
        "symmetry": f'{CELL}loop_\n_symmetry_equiv_pos_as_xyz\n"x,y,z"\n"{opened},y,z"\n{SITES}',
        "magnetic_symmetry": f'{CELL}{MAGNETIC_OPERATIONS}1 x,y,z,+1\n2 "{opened},y,z,+1"\n{moments}{SITES}',
        "occupancy": CELL + IDENTITY + SITES.replace("0 0 0 1", f'0 0 "{opened}" 1'),
    }


@pytest.mark.parametrize("kind", list(evil_cifs("")))
def test_a_cif_that_tries_to_run_code_is_refused_and_runs_nothing(tmp_path, kind):
    sentinel = tmp_path / "executed"
    (tmp_path / "evil.cif").write_text(evil_cifs(str(sentinel))[kind])
    with pytest.raises(InvalidStructureError, match="structure 'evil'"):
        crystal_from_file(tmp_path / "evil.cif", "evil")
    assert not sentinel.exists()


def test_an_honest_magnetic_cif_is_read():
    moments = "loop_\n_atom_site_moment.label\n_atom_site_moment.crystalaxis_x\nNa1 1\n"
    operations = f"{MAGNETIC_OPERATIONS}1 x,y,z,+1\n_parent_space_group.child_transform_Pp_abc 'a,b,2c;0,0,1/2'\n"
    assert crystal_from_cif(CELL + operations + moments + SITES, "magnet").z.tolist() == [11]


def test_an_old_pymatgen_is_refused(monkeypatch):
    monkeypatch.setattr(structure_file, "pymatgen_version", lambda: "2024.1.27")
    with pytest.raises(ImportError, match=r"CVE-2024-23346.*pymatgen>=2024.2.20"):
        crystal_from_cif(CELL + SITES, "any")


@pytest.fixture
def quartz() -> Structure:
    lattice = Lattice.hexagonal(4.913, 5.405)
    return Structure.from_spacegroup("P3_221", lattice, ["Si", "O"], [[0.465, 0, 2 / 3], [0.415, 0.272, 0.786]])


def assert_same(data, structure):
    assert sorted(data.z.tolist()) == sorted(structure.atomic_numbers)
    assert np.allclose(data.cell[0], structure.lattice.matrix, atol=1e-5)
    found = Structure(structure.lattice, data.z.tolist(), data.pos.numpy(), coords_are_cartesian=True)
    assert np.allclose(found.distance_matrix.sum(), structure.distance_matrix.sum(), rtol=1e-5)


def test_a_cif_is_read_as_pymatgen_wrote_it(tmp_path, quartz):
    CifWriter(quartz).write_file(tmp_path / "quartz.cif")
    assert_same(crystal_from_file(tmp_path / "quartz.cif", "quartz"), quartz)


def test_the_symmetry_of_a_cif_is_applied():
    bcc = "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'x+1/2,y+1/2,z+1/2'\n"
    data = crystal_from_cif(CELL + bcc + SITES, "bcc")
    assert sorted(data.pos.tolist()) == [[0, 0, 0], [2, 2, 2]]


@pytest.mark.parametrize("name", ["POSCAR", "CONTCAR_relaxed", "quartz.vasp", "quartz.poscar"])
def test_a_poscar_is_read(tmp_path, quartz, name):
    quartz.to_file(tmp_path / name, fmt="poscar")
    assert_same(crystal_from_file(tmp_path / name, "quartz"), quartz)


def test_an_extended_xyz_is_read_as_a_crystal(tmp_path, quartz):
    ase_write(tmp_path / "quartz.xyz", AseAtomsAdaptor.get_atoms(quartz), format="extxyz")
    data = crystal_from_file(tmp_path / "quartz.xyz", "quartz")
    assert_same(data, quartz)
    assert data.pbc.all()


@pytest.mark.parametrize("columns", ["species:S:1:tags:I:1:pos:R:3", "species:S:1:tags:I:1:forces:R:3:pos:R:3"])
def test_an_extended_xyz_without_a_cell_is_read_by_its_columns(tmp_path, columns):
    extra = "7 0 0 9 " if "forces" in columns else "7 "
    text = f"2\nProperties={columns} energy=-1.0\nO {extra}0 0 0\nH {extra}0 0 0.97\n"
    (tmp_path / "oh.xyz").write_text(text)
    data = crystal_from_file(tmp_path / "oh.xyz", "oh")
    assert data.z.tolist() == [8, 1]
    assert (data.pos[1] - data.pos[0]).tolist() == pytest.approx([0, 0, 0.97])
    assert not data.pbc.any()


def test_a_plain_xyz_is_read_as_a_molecule(tmp_path):
    Molecule(["O", "H"], [[0, 0, 0], [0, 0, 0.97]]).to_file(str(tmp_path / "oh.xyz"))
    data = crystal_from_file(tmp_path / "oh.xyz", "oh")
    assert not data.pbc.any()
    assert data.z.tolist() == [8, 1]


def test_a_pymatgen_json_is_read(tmp_path, quartz):
    (tmp_path / "quartz.json").write_text(json.dumps(quartz.as_dict()))
    assert_same(crystal_from_file(tmp_path / "quartz.json", "quartz"), quartz)


def test_ase_reads_what_pymatgen_cannot():
    data = crystal_from_cif(MOLECULE, "water")
    assert data.z.tolist() == [8, 1]
    assert not data.pbc.any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable CIF file"),
        ("some text", "not a readable CIF file"),
        (CELL + SITES[:-9], "not a readable CIF file .*pymatgen: .*; ASE: "),
        (CELL + IDENTITY + SITES + "Cl1 Cl 0.5 0.5\n", "not a readable CIF file"),
        (CELL.replace("_cell_length_b 4\n", "") + SITES, "not a readable CIF file"),
        (CELL + IDENTITY + SITES.replace("0 0 0 1", "0 0 0 0.5"), "site 0 is disordered"),
        (CELL + IDENTITY + SITES + "K1 K 0 0 0 0.5\n", "not a readable CIF file|disordered"),
        (CELL + SITES + (CELL + SITES).replace("data_x", "data_y"), "holds 2 structures"),
        (CELL.replace("length_a 4", "length_a 0") + SITES, "structure 'bad'"),
    ],
    ids=["empty", "text", "cut_in_loop", "cut_in_row", "no_b", "partial", "shared", "two", "flat"],
)
@pytest.mark.filterwarnings("ignore::torch_geometric_crystal.datasets.readers.structure_file.StructureFileWarning")
def test_a_cif_that_is_not_one_crystal_is_refused(text, message):
    with pytest.raises(InvalidStructureError, match=message) as caught:
        crystal_from_cif(text, "bad")
    assert caught.value.structure_id == "bad"


def test_a_formula_that_does_not_match_the_sites_is_reported():
    text = CELL + "_chemical_formula_sum 'Na Cl'\n" + IDENTITY + SITES
    with pytest.warns(StructureFileWarning, match="structure 'odd'"):
        assert crystal_from_cif(text, "odd").z.tolist() == [11]


def test_a_poscar_without_elements_is_refused():
    text = "comment\n1.0\n4 0 0\n0 4 0\n0 0 4\n1 1\ndirect\n0 0 0\n0.5 0.5 0.5\n"
    with pytest.raises(InvalidStructureError, match="names no elements"):
        crystal_from_poscar(text, "old")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("POSCAR", "comment\n1.0\n4 0 0\n", "not a readable POSCAR"),
        ("a.xyz", "2\ncomment\nH 0 0 0\n", "not a readable xyz"),
        ("a.xyz", '2\nLattice="4 0 0 0 4 0 0 0 4"\nH 0 0 0\n', "not a readable extended XYZ file .ASE"),
        ("a.json", "{", "not a readable JSON"),
    ],
)
def test_other_damaged_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidStructureError, match=f"structure 'bad': {message}"):
        crystal_from_file(tmp_path / name, "bad")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidStructureError, match=r"absent.cif cannot be read \(No such file"):
        crystal_from_file(tmp_path / "absent.cif", "absent")


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.cif", "a"), ("mp-1.2.CIF", "mp-1.2"), ("POSCAR_3", "POSCAR_3"), ("POSCAR-a.vasp", "POSCAR-a"), ("b.xyz", "b")],
)
def test_names_of_structure_files_are_known(tmp_path, name, stem):
    assert is_structure_file(tmp_path / name)
    assert structure_stem(name) == stem


@pytest.mark.parametrize("name", ["id_prop.csv", "atom_init.json", "notes.txt", "cif"])
def test_other_files_are_not(tmp_path, name):
    assert not is_structure_file(tmp_path / name)


def test_an_extended_xyz_without_ase_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.xyz").write_text('1\nLattice="4 0 0 0 4 0 0 0 4"\nH 0 0 0\n')
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"torch_geometric_crystal\[ase\]"):
        crystal_from_file(tmp_path / "a.xyz", "a")


def test_a_cif_that_pymatgen_cannot_read_says_so_without_ase(monkeypatch):
    monkeypatch.setitem(sys.modules, "ase.io", None)
    with pytest.raises(InvalidStructureError, match="ASE: not installed"):
        crystal_from_cif(MOLECULE, "water")
