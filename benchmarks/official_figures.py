"""What the authors' code needs: the measured reference points that ours are compared with.

Their CUDA code (CuPy kernels), float32, on one H100, and their PyTorch code on 2 CPU cores; the paper's default model
and its variants, structures of flla_2015 (batches) and 12 cells of 68 to 152 atoms. Measured once, elsewhere: section 5
of the project's design. `against_official.py` measures both codes on one machine, and is the fairer comparison.
"""

from typing import NamedTuple


class OfficialFigure(NamedTuple):
    """Milliseconds of a training step and of an inference; `atoms` of the batch where known."""

    device: str
    variant: str
    workload: str
    atoms: int | None
    train_ms: float
    infer_ms: float
    train_peak_MiB: float | None = None


OFFICIAL = (
    OfficialFigure("H100", "default", "1", None, 32.8, 6.0),
    OfficialFigure("H100", "default", "128", 1435, 68.9, 26.0, 225.0),
    OfficialFigure("H100", "default", "256", None, 109.4, 44.7),
    OfficialFigure("H100", "default", "large_cells", None, 190.1, 65.3),
    OfficialFigure("H100", "simplified", "128", 1435, 30.1, 14.7),
    OfficialFigure("H100", "half_reciprocal", "128", 1435, 71.0, 29.8),
    OfficialFigure("2 CPU cores", "default", "16", 176, 13_600.0, 4_000.0),
)


def official_figure(machine: str, device: str, variant: str, workload: str) -> OfficialFigure | None:
    """The one figure that a measurement may be compared with: same variant, same batch, same kind of device."""
    kind = "2 CPU cores" if device == "cpu" else "H100" if any(name in machine for name in ("H100", "H200")) else None
    for figure in OFFICIAL:
        if (figure.device, figure.variant, figure.workload) == (kind, variant, workload):
            return figure
    return None


def times_faster(figure: OfficialFigure, mode: str, milliseconds: float, atoms: int) -> float:
    """Their time over ours: per atom where the number of atoms of their batch is known, else per batch."""
    theirs = figure.train_ms if mode == "train" else figure.infer_ms
    if figure.atoms is None:
        return theirs / milliseconds
    return (theirs / figure.atoms) / (milliseconds / atoms)
