"""A folder of CIF files, a small trained run, and a way to call the command line."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from torch_geometric_crystal.cli import main
from torch_geometric_crystal.data import make_crystal, to_structure

SMALL = [
    "--model-option",
    "channels=8",
    "--epochs",
    "2",
    "--batch-size",
    "6",
    "--averaging-epochs",
    "1",
    "--device",
    "cpu",
]


@pytest.fixture(scope="session")
def cif_folder(tmp_path_factory):
    """Twelve CIF files with one target each in id_prop.csv."""
    folder = tmp_path_factory.mktemp("cifs")
    generator = np.random.default_rng(0)
    lines = []
    for index in range(12):
        z = generator.choice([3, 8, 11, 17], size=2)
        length = generator.uniform(3.0, 4.0)
        crystal = make_crystal(z, [[0, 0, 0], [length / 2] * 3], length * np.eye(3), [True] * 3)
        to_structure(crystal).to(filename=str(folder / f"x{index:02d}.cif"))
        lines.append(f"x{index:02d},{z.mean()}")
    (folder / "id_prop.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Call ``tgcrystal`` with arguments; returns exit code, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tgcrystal", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return call


@pytest.fixture(scope="session")
def small_run(cif_folder, tmp_path_factory):
    """The folder of a small CGCNN run."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys,
            "argv",
            ["tgcrystal", "train", "--data", str(cif_folder), "--model", "cgcnn", "--output", str(folder), *SMALL],
        )
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return folder


@pytest.fixture
def small_flags():
    return SMALL
