import json
import math
import zipfile

import numpy as np
import pytest

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets.readers.jarvis_json import JarvisSource


@pytest.fixture
def records(crystals):
    return [
        {
            "jid": f"JVASP-{k}",
            "atoms": {
                "lattice_mat": c.lattice.matrix.tolist(),
                "coords": c.frac_coords.tolist(),
                "elements": [site.specie.symbol for site in c],
                "abc": list(c.lattice.abc),
                "cartesian": False,
            },
            "formation_energy_peratom": 0.25 * k,
            "mbj_bandgap": "na" if k else 1.5,
        }
        for k, c in enumerate(crystals)
    ]


def write(tmp_path, records):
    path = tmp_path / "jdft_3d.json.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("jdft_3d.json", json.dumps(records))
    return path


def test_a_zipped_file_is_read_with_na_as_nan(tmp_path, records, crystals):
    source = JarvisSource(write(tmp_path, records), ["formation_energy_peratom", "mbj_bandgap"])
    entries = list(source)
    assert [entry.structure_id for entry in entries] == [f"JVASP-{k}" for k in range(6)]
    assert entries[0].targets == (0.0, 1.5)
    assert np.isnan(entries[1].targets[1])
    data = entries[5].load()
    assert np.allclose(data.pos, crystals[5].cart_coords, atol=1e-5)
    assert data.y.shape == (1, 2)


def test_without_a_choice_there_is_no_target(tmp_path, records):
    source = JarvisSource(write(tmp_path, records))
    assert source.target_names == ()
    assert "y" not in next(iter(source)).load()


def test_alignns_file_has_its_target(tmp_path, records):
    for record in records:
        record["target"] = 3.0
    source = JarvisSource(write(tmp_path, records))
    assert source.target_names == ("target",)
    assert next(iter(source)).load().y.tolist() == [[3.0]]


def test_pymatgen_dictionaries_under_structure_are_read(tmp_path, crystals):
    path = tmp_path / "records.json"
    path.write_text(json.dumps([{"material_id": "mp-1", "structure": crystals[0].as_dict()}, crystals[1].as_dict()]))
    entries = list(JarvisSource(path))
    assert [entry.structure_id for entry in entries] == ["mp-1", "1"]
    assert [entry.load().num_nodes for entry in entries] == [1, 2]


def test_a_record_without_a_usable_structure_is_named(tmp_path, records):
    records[1]["atoms"] = "gone"
    del records[2]["atoms"]
    entries = list(JarvisSource(write(tmp_path, records)))
    for k in (1, 2):
        with pytest.raises(InvalidStructureError, match=f"structure 'JVASP-{k}'"):
            entries[k].load()


def test_an_absent_target_is_named(tmp_path, records):
    with pytest.raises(ValueError, match="target: 'gap' is not in"):
        list(JarvisSource(write(tmp_path, records), "gap"))


@pytest.mark.parametrize("content", [[1, 2], "text", 3])
def test_another_layout_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match="expected a list of records"):
        list(JarvisSource(write(tmp_path, content)))


def test_the_fingerprint_changes_with_the_target(tmp_path, records):
    path = write(tmp_path, records)
    assert JarvisSource(path).fingerprint() != JarvisSource(path, "mbj_bandgap").fingerprint()


def written(path, records):
    path.write_text(json.dumps(records))
    return path


def test_a_list_of_targets_gives_one_for_each_element(tmp_path, salt):
    records = [{"jid": str(k), "atoms": salt.as_dict(), "target": value} for k, value in enumerate([[1, 2], "na", [3]])]
    path = written(tmp_path / "id_prop.json", records)
    source = JarvisSource(path)
    assert source.target_names == ("target_1", "target_2")
    first, missing, short = source
    assert first.targets == (1.0, 2.0)
    assert all(map(math.isnan, missing.targets))
    with pytest.raises(InvalidStructureError, match="its 'target' is not a list of 2 numbers, as in the first record"):
        short.load()
    assert [entry.targets for entry in list(JarvisSource(path, "target_2"))[:1]] == [(2.0,)]


def test_what_could_be_a_target_is_said(tmp_path, salt):
    record = {"jid": "a", "atoms": salt.as_dict(), "energy": 1.0, "forces": [[0, 0, 0]], "modes": [1, 2]}
    assert JarvisSource(written(tmp_path / "a.json", [record])).available_targets == ("energy", "modes")


def test_a_record_without_a_structure_is_named(tmp_path):
    (entry,) = JarvisSource(written(tmp_path / "a.json", [{"jid": "a", "target": 1.0}]))
    with pytest.raises(InvalidStructureError, match=r"structure 'a': its record has no structure \(atoms, structure\)"):
        entry.load()


def test_a_structure_may_be_the_text_of_a_cif_file(tmp_path, crystals):
    path = write(tmp_path, [{"material_id": "mp-1", "structure": crystals[0].to(fmt="cif"), "band_gap": 1.0}])
    (entry,) = JarvisSource(path, "band_gap")
    assert sorted(entry.load().z.tolist()) == sorted(crystals[0].atomic_numbers)


def test_a_structure_of_another_kind_is_a_fault_of_its_record(tmp_path):
    (entry,) = JarvisSource(write(tmp_path, [{"jid": "1", "atoms": 3, "target": 1.0}]))
    with pytest.raises(InvalidStructureError, match="neither a dictionary nor a CIF"):
        entry.load()
