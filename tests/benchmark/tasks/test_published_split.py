import dataclasses
import gzip
import json
import random
import zipfile

import numpy as np
import pytest

from torch_geometric_crystal.benchmark.published import leaderboard
from torch_geometric_crystal.benchmark.tasks import fold, fold_crystals, run_benchmark
from torch_geometric_crystal.benchmark.tasks.published_split import (
    JARVIS_TARGETS,
    MEGNET_TARGETS,
    jarvis_split,
    load_jarvis_task,
    load_megnet_task,
)
from torch_geometric_crystal.benchmark.tasks.summary import write_summary
from torch_geometric_crystal.data import to_structure
from torch_geometric_crystal.datasets import FLLA2015

NUMBER = 20


@pytest.fixture(scope="module")
def structures():
    dataset = FLLA2015(cache=False, pre_filter=small_cell, log=False)
    return [to_structure(dataset[k]) for k in range(NUMBER)]


def small_cell(data):
    return data.num_nodes <= 6


@pytest.fixture
def jarvis_file(structures, tmp_path):
    """JARVIS's layout, zipped; of the records, number 3 has no total energy and number 5 no hull."""
    records = []
    for k, structure in enumerate(structures):
        atoms = {
            "lattice_mat": structure.lattice.matrix.tolist(),
            "coords": structure.frac_coords.tolist(),
            "elements": [site.specie.symbol for site in structure],
            "abc": list(structure.lattice.abc),
            "angles": list(structure.lattice.angles),
            "cartesian": False,
            "props": [""] * len(structure),
        }
        record = {"jid": f"JVASP-{k}", "atoms": atoms, "formation_energy_peratom": -k / 10, "optb88vdw_bandgap": k / 5}
        record |= {"optb88vdw_total_energy": "na" if k == 3 else -k, "mbj_bandgap": "na" if k % 2 else k / 4}
        records.append(record | {"ehull": None if k == 5 else k / 100})
    path = tmp_path / "jdft_3d.json.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("jdft_3d.json", json.dumps(records))
    return path


@pytest.fixture
def megnet_file(structures, tmp_path):
    """MEGNet's own layout, with CIF texts and precomputed graphs, gzipped."""
    records = [
        {
            "material_id": f"mp-{k}",
            "structure": structure.to(fmt="cif"),
            "graph": {"atom": [1], "bond": [0.5], "index1": [0], "index2": [0]},
            "formation_energy_per_atom": -k / 10,
            "band_gap": k / 5,
            "K": k / 7,
        }
        for k, structure in enumerate(structures)
    ]
    path = tmp_path / "mp.2018.6.1.json.gz"
    path.write_bytes(gzip.compress(json.dumps(records).encode()))
    return path


def test_the_split_is_that_of_the_jarvis_tools():
    ids = list(np.arange(18172))
    random.seed(123)
    random.shuffle(ids)
    train, val, test = jarvis_split(18172)
    assert [train, val, test] == [ids[:14537], ids[-(1817 + 1817) : -1817], ids[-1817:]]


@pytest.mark.parametrize(
    ("number", "sizes", "target"),
    [
        (55723, None, JARVIS_TARGETS["formation_energy"]),
        (18172, None, JARVIS_TARGETS["mbj_bandgap"]),
        (55371, None, JARVIS_TARGETS["ehull"]),
        (69239, (60000, 5000, 4239), MEGNET_TARGETS["bandgap"]),
    ],
)
def test_full_data_give_the_published_sizes(number, sizes, target):
    assert tuple(len(part) for part in jarvis_split(number, sizes)) == target.sizes


def test_records_count_that_have_all_properties_of_their_comparison(jarvis_file):
    task = load_jarvis_task("formation_energy", jarvis_file)
    assert task.ids == tuple(f"JVASP-{k}" for k in range(NUMBER) if k != 3)
    assert task.values[:4].tolist() == [0.0, -0.1, -0.2, -0.4]
    assert len(load_jarvis_task("mbj_bandgap", jarvis_file).ids) == 10
    assert "JVASP-5" not in load_jarvis_task("ehull", jarvis_file).ids


def test_parts_are_cut_from_the_counted_records_and_validation_is_the_published_one(jarvis_file):
    task = load_jarvis_task("ehull", jarvis_file)
    order = list(range(19))
    random.Random(123).shuffle(order)
    split = task.split(0, seed=5)
    assert (split.train, split.val, split.test) == (tuple(order[:15]), tuple(order[-2:-1]), tuple(order[-1:]))


def test_another_release_says_so_and_has_no_published_errors_beside_it(jarvis_file):
    task = load_jarvis_task("opt_bandgap", jarvis_file)
    assert task.published_as == ""
    assert "ANOTHER RELEASE: 15 / 1 / 1 crystals where the published split has 44578 / 5572 / 5572" in task.statement


def test_the_published_sizes_have_the_published_errors_beside_them(jarvis_file, monkeypatch):
    fitting = dataclasses.replace(JARVIS_TARGETS["ehull"], sizes=(15, 1, 1))
    monkeypatch.setitem(JARVIS_TARGETS, "ehull", fitting)
    task = load_jarvis_task("ehull", jarvis_file)
    assert task.published_as == "jarvis_ehull"
    assert task.statement.endswith("by seed 123: the published split, 15 / 1 / 1")


def test_graphs_are_made_of_the_right_structures(jarvis_file, structures, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    crystals = fold_crystals(load_jarvis_task("total_energy", jarvis_file), 0, tiny_config()).parts["train"]
    for crystal in crystals:
        k = int(crystal.structure_id.removeprefix("JVASP-"))
        assert crystal.z.tolist() == list(structures[k].atomic_numbers)
        assert crystal.y.item() == -k


@pytest.mark.filterwarnings("ignore::torch_geometric_crystal.datasets.StructureWarning")
@pytest.mark.parametrize("on_disk_from", [5, 1000])
def test_a_damaged_structure_stops_only_the_tasks_that_it_is_in(
    jarvis_file, tiny_config, tmp_path, monkeypatch, on_disk_from
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fold, "ON_DISK_FROM", on_disk_from)
    with zipfile.ZipFile(jarvis_file) as archive:
        records = json.loads(archive.read("jdft_3d.json"))
    records[3]["atoms"]["elements"][0] = "Xx"
    with zipfile.ZipFile(jarvis_file, "w") as archive:
        archive.writestr("jdft_3d.json", json.dumps(records))
    parts = fold_crystals(load_jarvis_task("total_energy", jarvis_file), 0, tiny_config()).parts
    assert [len(parts[name]) for name in ("train", "val", "test")] == [15, 1, 1]
    records[3]["optb88vdw_total_energy"] = -3
    with zipfile.ZipFile(jarvis_file, "w") as archive:
        archive.writestr("jdft_3d.json", json.dumps(records))
    with pytest.raises(ValueError, match=r"has no usable structure 'JVASP-3': .*Xx"):
        fold_crystals(load_jarvis_task("total_energy", jarvis_file), 0, tiny_config())


def test_megnets_own_file_is_read_with_its_cif_texts(megnet_file, structures):
    task = load_megnet_task("bandgap", megnet_file)
    assert (task.target, task.unit, len(task.ids)) == ("band_gap", "eV", NUMBER)
    for entry, structure in zip(task.entries(), structures, strict=True):
        assert sorted(entry.load().z.tolist()) == sorted(structure.atomic_numbers)


def test_megnets_own_order_is_not_taken_for_that_of_the_published_split(megnet_file, monkeypatch):
    monkeypatch.setitem(MEGNET_TARGETS, "e_form", dataclasses.replace(MEGNET_TARGETS["e_form"], sizes=(15, 3, 2)))
    task = load_megnet_task("e_form", megnet_file)
    assert [len(part) for part in (task.splits[0].train, task.splits[0].val, task.splits[0].test)] == [15, 3, 2]
    assert "whose order may be another one: not comparable" in task.statement
    assert task.published_as == ""


def test_moduli_take_their_split_from_a_file_of_names(megnet_file, tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["mp-4", "mp-2"], "val": ["mp-1"], "test": ["mp-9"]}))
    task = load_megnet_task("bulk_modulus", megnet_file, path)
    split = task.split(0)
    names = [[task.ids[k] for k in part] for part in (split.train, split.val, split.test)]
    assert names == [["mp-4", "mp-2"], ["mp-1"], ["mp-9"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["mp-1"], "val": ["mp-2"]}, "expected lists of names under train, val and test"),
        ({"train": ["mp-1"], "val": ["mp-2"], "test": ["mp-99"]}, "1 names have no record .* the first 'mp-99'"),
        ({"train": ["mp-1"], "val": ["mp-2"], "test": ["mp-1"]}, "a name stands in it twice"),
        ({"train": ["mp-1"], "val": [], "test": ["mp-2"]}, "a part is empty"),
    ],
)
def test_a_wrong_file_of_names_is_refused(megnet_file, tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_megnet_task("bulk_modulus", megnet_file, path)


def test_moduli_without_a_file_of_names_say_what_to_do(megnet_file):
    with pytest.raises(ValueError, match=r"bulk_modulus is given by names alone: .*--split-file"):
        load_megnet_task("bulk_modulus", megnet_file)


def test_wrong_files_and_targets_are_named(jarvis_file, megnet_file, tmp_path):
    with pytest.raises(ValueError, match="target: expected one of 'formation_energy'"):
        load_jarvis_task("colour", jarvis_file)
    with pytest.raises(ValueError, match=r"has no 'ehull'; it has material_id, structure"):
        load_jarvis_task("ehull", megnet_file)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_jarvis_task("ehull", tmp_path / "nothing.json")
    (tmp_path / "few.json").write_text(json.dumps([{"jid": "1", "mbj_bandgap": 1.0}]))
    with pytest.raises(ValueError, match="records: expected enough for a split, received 1"):
        load_jarvis_task("mbj_bandgap", tmp_path / "few.json")


def test_it_is_run_summarised_and_continued_like_any_task(jarvis_file, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    configs = [tiny_config(), tiny_config("mean")]
    records, complete = run_benchmark([lambda: load_jarvis_task("ehull", jarvis_file)], configs, tmp_path / "out")
    assert complete
    assert [record.parameters.get("validation") for record in records] == ["the published validation part", None]
    (summary,) = write_summary(tmp_path / "out")
    assert {score.how.split(",")[0] for score in summary.models} == {"one split"}
    assert (tmp_path / "out/comparison_jarvis_ehull.png").exists()


def test_every_target_has_its_published_table():
    names = [f"jarvis_{name}" for name in JARVIS_TARGETS] + [f"megnet_{name}" for name in MEGNET_TARGETS]
    for name in names:
        entries = leaderboard(name)
        assert len(entries) == 11
        assert all(np.isnan(entry.std) for entry in entries)
    best = leaderboard("jarvis_formation_energy")[0]
    assert (best.algorithm, best.mean) == ("CrystalFramer, max frames", 0.0263)
    assert {e.algorithm: e.mean for e in leaderboard("megnet_bulk_modulus")}["Crystalformer"] == 0.0377
