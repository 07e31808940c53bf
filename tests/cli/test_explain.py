"""``tgcrystal explain`` writes its pictures and tables, and says what it cannot explain."""

import csv

import pytest
import torch
from pymatgen.core import Lattice, Structure

from torch_geometric_crystal.benchmark.checkpoint import ModelCard, save_checkpoint
from torch_geometric_crystal.nn import Crystalformer

SMALL = {"channels": 16, "num_blocks": 2, "num_heads": 2, "num_basis": 8}


@pytest.fixture
def rutile(tmp_path):
    path = tmp_path / "rutile.cif"
    sites = [[0, 0, 0], [0.305, 0.305, 0]]
    Structure.from_spacegroup("P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], sites).to(str(path), "cif")
    return path


def checkpoint(path, **arguments):
    """A Crystalformer with random weights, as it is saved after training."""
    torch.manual_seed(0)
    model = Crystalformer(**SMALL | arguments)
    card = ModelCard(
        model="crystalformer", model_options=model.config(), target_names=("gap",), units=("eV",), neighborhood={}
    )
    save_checkpoint(path, card, model.state_dict())
    return path


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_pictures_and_tables_are_written(run, rutile, tmp_path):
    folder = tmp_path / "attention"
    result = run("explain", checkpoint(tmp_path / "m.ckpt"), rutile, "--output", folder, "--min-weight", 0)
    assert result.code == 0
    assert "1 of 1 crystals, 6 atoms" in result.out
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures == {
        "atoms_rutile.png", "distance.png", "sigma.png", "species.png", "species_relative.png"
    }  # fmt: skip
    heads, weights = rows_of(folder / "heads.csv"), rows_of(folder / "weights.csv")
    assert [(row["block"], row["head"]) for row in heads] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    of_first = [float(row["block2_head1"]) for row in weights if row["atom"] == "0"]
    assert sum(of_first) == pytest.approx(1.0, abs=1e-6)
    bonded = [row for row in weights if row["atom"] == "0" and row["bond"] == "1"]
    assert {row["neighbor_element"] for row in bonded} == {"O"}
    assert len(bonded) == 6


def test_reciprocal_heads_have_a_table_of_pairs(run, rutile, tmp_path):
    model = checkpoint(tmp_path / "m.ckpt", domain="reciprocal", num_basis=0)
    result = run("explain", model, rutile, "--output", tmp_path / "a")
    assert result.code == 0
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"pairs.csv", "sigma.png"}


def test_a_bad_file_is_left_out_and_nothing_but_bad_files_is_an_error(run, rutile, tmp_path):
    bad = tmp_path / "bad.cif"
    bad.write_text("nothing")
    model = checkpoint(tmp_path / "m.ckpt")
    result = run("explain", model, bad, rutile, "--no-bonds", "--output", tmp_path / "a")
    assert result.code == 0
    assert "left out" in result.err
    assert "bad.cif" in result.err
    result = run("explain", model, bad, "--output", tmp_path / "b")
    assert result.code != 0
    assert "expected at least one crystal that can be used" in " ".join(result.err.split())
    assert not (tmp_path / "b").exists()


def test_other_models_are_refused(run, small_run, rutile, tmp_path):
    result = run("explain", small_run, rutile, "--output", tmp_path / "a")
    assert result.code != 0
    assert "expected a Crystalformer" in " ".join(result.err.split())
