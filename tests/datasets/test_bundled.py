import gzip
import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
import torch

from torch_geometric_crystal.datasets import (
    FLLA2015,
    Carbon24,
    CorruptFileError,
    Elastic2015,
    MatbenchPhonons,
    MP20Val,
    split_by_hash,
)
from torch_geometric_crystal.datasets.bundled import FILES, verified_file
from torch_geometric_crystal.datasets.matbench_phonons import k_folds

EXPECTED = {
    MatbenchPhonons: (1265, ("last phdos peak",), (912, 100, 253), "mb-phonons-0001"),
    FLLA2015: (3938, ("formation_energy_per_atom", "e_above_hull"), (3000, 438, 500), "mp-10"),
    Elastic2015: (1181, ("log10(K_VRH)", "log10(G_VRH)"), (941, 120, 120), "mp-10003"),
    Carbon24: (2032, ("energy_per_atom",), (1632, 200, 200), "C-148264-7891-51"),
    MP20Val: (9047, ("formation_energy_per_atom", "band_gap", "e_above_hull"), (7247, 900, 900), "mp-865981"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("bundled")


@pytest.mark.parametrize("dataset_class", EXPECTED, ids=lambda c: c.__name__)
def test_each_set_has_its_crystals_targets_split_units_and_citation(dataset_class, root):
    number, names, sizes, first = EXPECTED[dataset_class]
    dataset = dataset_class(root)
    assert len(dataset) == number
    assert dataset.target_names == names == tuple(dataset.units)
    assert dataset.errors == []
    assert dataset.structure_ids[0] == first
    assert dataset.y.shape == (number, len(names))
    assert not dataset.y.isnan().any()
    assert "doi:10." in dataset.citation
    split = dataset.split()
    assert list(split) == ["train", "val", "test"]
    assert tuple(len(part) for part in split.values()) == sizes
    assert sorted(k for part in split.values() for k in part) == list(range(number))


def test_targets_can_be_chosen(root):
    both = Elastic2015(root)
    dataset = Elastic2015(root, target="log10(G_VRH)")
    assert dataset.target_names == ("log10(G_VRH)",)
    assert torch.equal(dataset.y[:, 0], both.y[:, 1])


def test_an_unknown_target_is_refused(root):
    with pytest.raises(ValueError, match="target: expected some of"):
        Elastic2015(root, target="gap")


def test_the_first_values_are_those_of_the_file(root):
    with gzip.open(FILES / "elastic_2015.json.gz") as file:
        table = json.load(file)
    dataset = Elastic2015(root, dtype=torch.float64)
    assert dataset.y.tolist() == [row[1:] for row in table["data"]]
    assert dataset.structure_ids == table["index"]


def test_the_flla_split_follows_the_sha1_of_the_ids(root):
    dataset = FLLA2015(root)
    ordered = sorted(dataset.structure_ids, key=lambda i: hashlib.sha1(i.encode()).hexdigest())
    split = dataset.split()
    ids = dataset.structure_ids
    assert [ids[k] for part in ("train", "val", "test") for k in split[part]] == ordered
    assert len(set(split["train"]) | set(split["val"]) | set(split["test"])) == 3938


def test_the_split_does_not_depend_on_the_order_of_the_ids():
    ids = [f"s{k}" for k in range(20)]
    one = split_by_hash(ids, {"a": 15, "b": 5})
    other = split_by_hash(ids[::-1], {"a": 15, "b": 5})
    assert {ids[k] for k in one["b"]} == {ids[::-1][k] for k in other["b"]}


def test_a_part_of_a_set_has_no_split(root):
    with pytest.raises(ValueError, match="expected all 1181 structures, received 10"):
        Elastic2015(root)[:10].split()
    with pytest.raises(ValueError, match="all 1265 structures"):
        MatbenchPhonons(root)[:10].split()


def test_the_phonon_folds_are_those_of_the_benchmark(root):
    found = importlib.util.find_spec("matbench")
    if found is None or found.origin is None:
        pytest.skip("matbench is not installed")
    with (Path(found.origin).parent / "matbench_v0.1_validation.json").open() as file:
        official = json.load(file)["splits"]["matbench_phonons"]
    dataset = MatbenchPhonons(root)
    ids = dataset.structure_ids
    folds = dataset.folds
    assert len(folds) == len(official) == 5
    for number, fold in enumerate(folds):
        for part in ("train", "test"):
            assert [ids[k] for k in fold[part]] == official[f"fold_{number}"][part]


@pytest.mark.parametrize("number", [5, 12, 101])
def test_folds_are_those_of_scikit_learn(number):
    selection = pytest.importorskip("sklearn.model_selection")
    expected = selection.KFold(5, shuffle=True, random_state=18012019).split(list(range(number)))
    for fold, (train, test) in zip(k_folds(number), expected, strict=True):
        assert (fold["train"], fold["test"]) == (train.tolist(), test.tolist())


def test_a_fold_is_cut_into_training_validation_and_the_official_test_part(root):
    dataset = MatbenchPhonons(root)
    for number, fold in enumerate(dataset.folds):
        split = dataset.split(number, num_val=50)
        assert split["test"] == fold["test"]
        assert sorted(split["train"] + split["val"]) == fold["train"]
        assert len(split["val"]) == 50


@pytest.mark.parametrize(
    ("options", "name"), [({"fold": 5}, "fold"), ({"num_val": -1}, "num_val"), ({"num_val": 1012}, "num_val")]
)
def test_a_fold_or_size_out_of_range_is_named(root, options, name):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        MatbenchPhonons(root).split(**options)


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    content = bytearray((FILES / "elastic_2015.json.gz").read_bytes())
    content[1000] ^= 1
    (tmp_path / "elastic_2015.json.gz").write_bytes(bytes(content))
    monkeypatch.setattr("torch_geometric_crystal.datasets.bundled.FILES", tmp_path)
    with pytest.raises(CorruptFileError, match=r"elastic_2015.json.gz is damaged: .* Install .* again"):
        Elastic2015(tmp_path)
    with pytest.raises(CorruptFileError, match=r"flla_2015.json.gz is missing"):
        FLLA2015(tmp_path)


def test_a_good_file_passes():
    path = FILES / Carbon24.file_name
    assert verified_file(path, Carbon24.sha256) == path
