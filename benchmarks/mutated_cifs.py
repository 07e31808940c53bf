"""Damaged CIF files through prediction: no crash, no hang, a reason for each file, good files predicted, in order.

    python benchmarks/mutated_cifs.py                     2,000 files
    python benchmarks/mutated_cifs.py --number 50000 --seed 1

Real crystals of flla_2015 are written as CIF, half of them with their symmetry, and damaged by a seeded generator in
one of the ways of `DAMAGES`. A model with random weights predicts the folder. Writes how many files of each damage were
predicted, and the reasons for the others, to results/mutated_cifs.json.
"""

import argparse
import json
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from provenance import record

from torch_geometric_crystal.benchmark.checkpoint import build_model
from torch_geometric_crystal.benchmark.prediction import FileRow, predict_files

BAD_NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "1e300",
    "-1",
    "0",
    "1e-8",
    "1e9",
    "?",
    ".",
    "abc",
    "(3)",
    "1,5",
    "--2",
    "1e",
    "0x1",
)
NUMBER = re.compile(r"(?<=\s)-?\d+\.\d+")
SYMMETRY = re.compile(r"'[^'\n]*[xX][^'\n]*,[^'\n]*'")
LENGTH = re.compile(r"(_cell_length_[abc]\s+)\S+")
ANGLE = re.compile(r"(_cell_angle_\w+\s+)\S+")
ODD_SYMMETRY = (
    "'x, y'", "'foo'", "'x+y*z, y, z'", "'x/0, y, z'", "'2x, 3y, z'", "'__import__(\"os\").abort(), y, z'", "''",
    "'x, y, z, w'", "'-x+1/2, y+1e9, nan'", "'x**99**99, y, z'", "'x, y, z",
)  # fmt: skip
ODD_SPECIES = ("Xx", "D", "Zz9", "", "H2O", "Fe3+", "X", "Ünobtainium", "Fe,Ni", "?", "Og", "-", "Na+-", "1")
ODD_TEXT = ("é", "ℝ³", "\u202e", "\x00", "\ufeff", "\U0001d4c1", "\r", "\x1b[2J", "ß" * 1000)
LARGEST = 1000
"""Copies of an atom."""


def _atom_lines(lines: list[str]) -> list[int]:
    return [k for k, line in enumerate(lines) if re.match(r"\s+[A-Z][a-z]?\S*\s+\S+\s+\d", line)]


def _choose(rng: np.random.Generator, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _replace(rng: np.random.Generator, text: str, pattern: re.Pattern, new: str, all_of_them: bool = False) -> str:
    found = list(pattern.finditer(text))
    if not found:
        return text
    for match in reversed(found if all_of_them else [_choose(rng, found)]):
        text = text[: match.start()] + match.expand(new) + text[match.end() :]
    return text


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\")


def nothing(rng: np.random.Generator, text: str) -> str:
    """No damage."""
    return text


def truncated(rng: np.random.Generator, text: str) -> str:
    """The file ends early."""
    return text[: int(rng.integers(len(text)))]


def wrong_number(rng: np.random.Generator, text: str) -> str:
    """A number is not one, or absurd."""
    for _ in range(int(rng.integers(1, 4))):
        text = _replace(rng, text, NUMBER, _choose(rng, BAD_NUMBERS))
    return text


def tiny_cell(rng: np.random.Generator, text: str) -> str:
    """One or all lengths of the cell are tiny."""
    value = 10.0 ** rng.uniform(-9, -0.3)
    return _replace(rng, text, LENGTH, rf"\g<1>{value:.3g}", bool(rng.integers(2)))


def huge_cell(rng: np.random.Generator, text: str) -> str:
    """One or all lengths of the cell are huge."""
    value = 10.0 ** rng.uniform(2, 15)
    return _replace(rng, text, LENGTH, rf"\g<1>{value:.6g}", bool(rng.integers(2)))


def odd_angles(rng: np.random.Generator, text: str) -> str:
    """Angles that no cell has, or that leave it no volume."""
    value = _choose(rng, (0, 180, 360, -90, 1e-3, 179.9999, 120, 150, 1e9))
    return _replace(rng, text, ANGLE, rf"\g<1>{value}", bool(rng.integers(2)))


def odd_symmetry(rng: np.random.Generator, text: str) -> str:
    """A symmetry operation that is none."""
    return _replace(rng, text, SYMMETRY, _literal(_choose(rng, ODD_SYMMETRY)))


def disorder(rng: np.random.Generator, text: str) -> str:
    """Occupancies other than 1."""
    value = _choose(rng, ("0.5", "0", "2", "nan", "-1", "0.333(2)", "?"))
    return _replace(rng, text, re.compile(r"\b1(\.0)?(?=\s*$)", re.MULTILINE), value, bool(rng.integers(2)))


def odd_species(rng: np.random.Generator, text: str) -> str:
    """An element that is none."""
    lines = text.split("\n")
    places = _atom_lines(lines)
    if places:
        place = _choose(rng, places)
        lines[place] = re.sub(r"^(\s+)\S+", r"\g<1>" + _literal(_choose(rng, ODD_SPECIES)), lines[place])
    return "\n".join(lines)


def duplicated_atoms(rng: np.random.Generator, text: str) -> str:
    """Atoms are there several times, up to a thousand times."""
    lines = text.split("\n")
    places = _atom_lines(lines)
    if places:
        place, copies = _choose(rng, places), int(LARGEST ** rng.random())
        lines[place:place] = [lines[place]] * copies
    return "\n".join(lines)


def scattered_atoms(rng: np.random.Generator, text: str) -> str:
    """Up to two hundred atoms at random places of a small cell."""
    lines = text.split("\n")
    places = _atom_lines(lines)
    if places:
        place, copies = _choose(rng, places), int((LARGEST / 5) ** rng.random())
        parts = lines[place].split()
        rows = ["  " + " ".join([*parts[:3], *(f"{x:.6f}" for x in rng.random(3)), "1"]) for _ in range(copies)]
        lines[place:place] = rows
    return "\n".join(lines)


def odd_text(rng: np.random.Generator, text: str) -> str:
    """Characters beyond ASCII."""
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(len(text)))
        text = text[:place] + _choose(rng, ODD_TEXT) + text[place:]
    return text


def lost_lines(rng: np.random.Generator, text: str) -> str:
    """Lines are gone, or in another order."""
    lines = text.split("\n")
    if rng.random() < 0.3:
        rng.shuffle(lines)
    return "\n".join(line for line in lines if rng.random() > 0.1)


def several_blocks(rng: np.random.Generator, text: str) -> str:
    """The file holds two structures, or half of a second one."""
    return text + "\n" + text[: int(rng.integers(len(text) + 1))]


def unclosed(rng: np.random.Generator, text: str) -> str:
    """A text field that does not end."""
    lines = text.split("\n")
    lines.insert(int(rng.integers(len(lines))), _choose(rng, (";", "'", '"', "loop_", "data_", "loop_\n_a\n_b\n1")))
    return "\n".join(lines)


def flipped_bytes(rng: np.random.Generator, text: str) -> bytes:
    """Some bytes have changed."""
    content = bytearray(text.encode())
    for place in rng.integers(len(content), size=int(rng.integers(1, 20))):
        content[place] = int(rng.integers(256))
    return bytes(content)


def garbage(rng: np.random.Generator, text: str) -> bytes:
    """No CIF at all: nothing, noise, or the text in UTF-16."""
    return _choose(rng, (b"", b"\n" * 1000, rng.bytes(100_000), text.encode("utf-16"), b"PK\x03\x04" + rng.bytes(100)))


DAMAGES: tuple[Callable[[np.random.Generator, str], str | bytes], ...] = (
    nothing, truncated, wrong_number, tiny_cell, huge_cell, odd_angles, odd_symmetry, disorder, odd_species,
    duplicated_atoms, scattered_atoms, odd_text, lost_lines, several_blocks, unclosed, flipped_bytes, garbage,
)  # fmt: skip


def real_cifs(number: int) -> list[str]:
    """Crystals of flla_2015 as the text of CIF files, every other with its symmetry operations."""
    from pymatgen.io.cif import CifWriter

    from torch_geometric_crystal.data import to_structure
    from torch_geometric_crystal.datasets import FLLA2015

    dataset = FLLA2015(log=False)
    chosen = range(0, len(dataset), len(dataset) // number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            str(CifWriter(to_structure(dataset[k]), symprec=0.01 if position % 2 else None))
            for position, k in enumerate(chosen)
        ][:number]


def write_damaged(folder: Path, number: int, seed: int) -> dict[str, str]:
    """Write damaged CIF files into a folder; the damage of each by its name, in the order of the names."""
    rng = np.random.default_rng(seed)
    texts = real_cifs(40)
    damages = {}
    for index in range(number):
        damage = DAMAGES[index % len(DAMAGES)]
        content = damage(rng, _choose(rng, texts))
        name = f"{index:06d}"
        (folder / f"{name}.cif").write_bytes(content if isinstance(content, bytes) else content.encode())
        damages[name] = damage.__name__
    return damages


def predict_damaged(model_name: str, number: int, seed: int, num_workers: int | None = 0) -> tuple[dict, list[FileRow]]:
    """Damages by name, and the rows of prediction, of a folder of damaged files."""
    small: dict[str, Any] = {"channels": 16, "num_blocks": 1} if model_name == "crystalformer" else {"channels": 8}
    model = build_model(model_name, {} if model_name == "alignn" else small)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        damages = write_damaged(Path(folder), number, seed)
        rows = predict_files(model, folder, batch_by="atoms", batch_size=256, device="cpu", num_workers=num_workers)
    return damages, rows


def reason(row: FileRow) -> str:
    """The kind of a row's error: its beginning, with numbers and names left out."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "...", row.error)
    text = re.sub(r"[-+]?\d[\d.e+-]*", "#", text)
    return re.split(r"[.:;(]\s", text)[0][:70].strip()


def main() -> None:
    """Run, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=["crystalformer", "cgcnn", "alignn"], default="crystalformer")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    damages, rows = predict_damaged(options.model, options.number, options.seed, options.workers)
    seconds = time.perf_counter() - start
    by_damage: dict[str, Counter] = {damage.__name__: Counter() for damage in DAMAGES}
    for row in rows:
        by_damage[damages[row.structure_id]]["predicted" if row.values else reason(row)] += 1
    for name, counts in by_damage.items():
        print(f"{name}: {sum(counts.values())} files, {counts['predicted']} predicted")
        for text, count in counts.most_common():
            if text != "predicted":
                print(f"    {count:5d}  {text}")
    in_order = [row.structure_id for row in rows] == list(damages)
    told = all(bool(row.values) != bool(row.error) for row in rows)
    figures = {"model": options.model, "files": len(rows), "seed": options.seed, "seconds": round(seconds, 1)}
    figures |= {"in_order": in_order, "prediction_or_reason": told, "by_damage": by_damage}
    print(json.dumps({key: value for key, value in figures.items() if key != "by_damage"}))
    print(record("mutated_cifs", figures, options.output))


if __name__ == "__main__":
    main()
