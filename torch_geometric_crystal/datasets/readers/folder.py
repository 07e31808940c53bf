"""A folder of structure files, with the targets in ``id_prop.csv``."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch_geometric_crystal.datasets.fingerprint import hash_file, hash_text
from torch_geometric_crystal.datasets.readers.structure_file import (
    crystal_from_file,
    is_structure_file,
    structure_stem,
)
from torch_geometric_crystal.datasets.source import (
    Entry,
    Source,
    as_names,
    check_names,
    faulty_entry,
    labelled_entry,
    parse_target,
    read_utf8,
)

TARGET_FILE = "id_prop.csv"


class FolderSource(Source):
    """A folder of CIF, POSCAR and xyz files, one structure each.

    Targets come from ``id_prop.csv`` beside them: rows of id and values, with or without a header; ids are file names
    with or without suffix; an empty value, or NaN, is a missing one. Its rows say which files are read, and in which
    order. Without that file all structure files are read, sorted by name, and have no targets.

    Args:
        folder: The folder.
        target: Columns of ``id_prop.csv`` to use, as its header calls them; without a header they are ``target``, or
            ``target_1``, ``target_2``, ... Default: all.

    Raises:
        NotADirectoryError: if there is no such folder.
        ValueError: when read, if a target is not there.
    """

    def __init__(self, folder: str | Path, target: str | Sequence[str] | None = None):
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise NotADirectoryError(f"no such folder: {self.folder}")
        super().__init__(self.folder.resolve().name)
        self.target = as_names(target)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Columns of ``id_prop.csv`` chosen as targets."""
        available, _ = self._table()
        if self.target is None:
            return available
        check_names(self.target, available, str(self.folder / TARGET_FILE))
        return self.target

    @property
    def available_targets(self) -> tuple[str, ...]:
        """All columns of ``id_prop.csv`` but the first."""
        return self._table()[0]

    def fingerprint(self) -> str:
        """Hash of the names and contents of all files and of the options."""
        parts = ["folder", repr(self.target)]
        table = self.folder / TARGET_FILE
        parts.append(hash_file(table) if table.is_file() else "")
        for path in self._files():
            parts += [path.name, hash_file(path)]
        return hash_text(*parts)

    def __iter__(self) -> Iterator[Entry]:
        files = self._files()
        if not files:
            raise ValueError(
                f"{self.folder}: no CIF, POSCAR or xyz file lies in this folder (folders within it are not searched). "
                "Give the folder that holds the files"
            )
        available, rows = self._table()
        if not (self.folder / TARGET_FILE).is_file():
            counts = Counter(structure_stem(path.name) for path in files)
            for path in files:
                stem = structure_stem(path.name)
                yield Entry(stem if counts[stem] == 1 else path.name, None, crystal_from_file, str(path))
            return
        by_name = {path.name: [path] for path in files}
        by_stem: dict[str, list[Path]] = {}
        for path in files:
            by_stem.setdefault(structure_stem(path.name), []).append(path)
        names = self.target_names
        columns = [available.index(name) for name in names]
        for row in rows:
            found, structure_id = by_name.get(row[0]) or by_stem.get(row[0], []), structure_stem(row[0])
            if len(by_stem.get(structure_id, [])) > 1:
                structure_id = row[0]  # the suffix tells two files apart
            yield self._entry(structure_id, row, len(available), columns, names, found)

    def _entry(
        self,
        structure_id: str,
        row: list[str],
        width: int,
        columns: list[int],
        names: tuple[str, ...],
        found: list[Path],
    ) -> Entry:
        if not found:
            return faulty_entry(
                structure_id, f"{TARGET_FILE} names it, but there is no such file", "Add the file or remove the row"
            )
        if len(found) > 1:
            files = ", ".join(path.name for path in found)
            return faulty_entry(structure_id, f"several files match ({files})", f"Give the suffix in {TARGET_FILE}")
        values = row[1:]
        if len(values) != width:
            return faulty_entry(
                structure_id, f"its row in {TARGET_FILE} has {len(row)} entries, not {width + 1}", "Correct the row"
            )
        return labelled_entry(structure_id, [values[k] for k in columns], names, crystal_from_file, str(found[0]))

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if is_structure_file(path) and path.is_file())

    def _table(self) -> tuple[tuple[str, ...], list[list[str]]]:
        """Names of the value columns, and the rows of ``id_prop.csv`` without the commas at their ends."""
        path = self.folder / TARGET_FILE
        if not path.is_file():
            return (), []
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(read_utf8(path), newline=""))]
        rows = [row for row in rows if any(row)]
        if not rows:
            raise ValueError(f"{path} is empty. Write rows of id and value, or remove it to read the files alone")
        self._check_commas(path, rows)
        # Commas at the end of any row are no columns; cells that are empty within the columns are missing values.
        width = max(column for row in rows for column, cell in enumerate(row) if cell)
        rows = [row[: width + 1] for row in rows]
        if self._is_header(rows[0]):
            return tuple(rows[0][1:]), rows[1:]
        return ("target",) if width == 1 else tuple(f"target_{k}" for k in range(1, width + 1)), rows

    def _check_commas(self, path: Path, rows: list[list[str]]) -> None:
        """Refuse a table whose columns are separated by something else."""
        names = {name for file in self._files() for name in (file.name, structure_stem(file.name))}
        if any(len(row) > 1 for row in rows) or any(row[0] in names for row in rows):
            return
        for separator, called in ((";", "semicolons"), ("\t", "tabs"), (" ", "spaces")):
            if all(separator in row[0] for row in rows):
                raise ValueError(f"{path}: its columns are separated by {called}. Separate them by commas")

    def _is_header(self, row: list[str]) -> bool:
        """Whether `row` has names of columns: texts that are no numbers, after what is no file's id."""
        stem = row[0]
        if any(stem in (path.name, structure_stem(path.name)) for path in self._files()):
            return False
        cells = [cell for cell in row[1:] if cell]
        return bool(cells) and not any(_is_value(cell) for cell in cells)


def _is_value(cell: str) -> bool:
    try:
        parse_target(cell)
    except ValueError:
        return False
    return True
