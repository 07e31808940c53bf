"""Lightning Fabric for a device and a number of processes."""

import warnings
from typing import Any

import torch

from torch_geometric_crystal.benchmark.processes import Place
from torch_geometric_crystal.checks import MissingDependencyError, check_argument


def make_fabric(device: str, precision: str, place: Place | None = None) -> Any:
    """Return the Lightning Fabric for a device name (``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``).

    Args:
        device: the name.
        precision: one of ``"32"``, ``"64"``, ``"bf16-mixed"``.
        place: of this process among several, which Fabric then connects (DDP; gloo on the CPU, NCCL on GPUs).

    Raises:
        MissingDependencyError: without lightning.
        ValueError: for a device that is unknown or not there.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lightning.fabric import Fabric
    except ImportError as error:
        raise MissingDependencyError("lightning", "train") from error

    kind, _, index = device.partition(":")
    check_argument(
        kind in ("auto", "cpu", "cuda", "mps") and (not index or (kind == "cuda" and index.isdigit())),
        "device", "auto, cpu, cuda, cuda:<number> or mps", device,
    )  # fmt: skip
    if (kind == "cuda" and not torch.cuda.is_available()) or (kind == "mps" and not torch.backends.mps.is_available()):
        raise ValueError(f"device: {device!r} is not available here; use --device cpu or auto")
    # A model and crystals in float64 pass through Fabric's "32-true" unchanged; its "64-true" would round the outputs.
    precision = {"32": "32-true", "64": "32-true"}.get(precision, precision)
    if place is None:
        return Fabric(accelerator=kind, devices=[int(index)] if index else 1, precision=precision)  # type: ignore[arg-type]
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if kind == "auto" else kind
    available = torch.cuda.device_count() if kind == "cuda" else place.size
    check_argument(kind != "mps", "devices", "1 on mps", place.size)
    check_argument(place.size <= available, "devices", f"at most the {available} GPUs that are here", place.size)
    fabric = Fabric(accelerator=kind, devices=place.size, strategy=_strategy(place), precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def _strategy(place: Place) -> Any:
    from lightning.fabric.plugins.environments import ClusterEnvironment
    from lightning.fabric.strategies import DDPStrategy

    class OneMachine(ClusterEnvironment):
        """Processes that are there already, on this machine."""

        creates_processes_externally = True
        main_address = "127.0.0.1"
        main_port = place.port

        @staticmethod
        def detect() -> bool:
            return False

        def world_size(self) -> int:
            return place.size

        def set_world_size(self, size: int) -> None:
            """The size is known."""

        def global_rank(self) -> int:
            return place.rank

        def set_global_rank(self, rank: int) -> None:
            """The rank is known."""

        def local_rank(self) -> int:
            return place.rank

        def node_rank(self) -> int:
            return 0

    # The first step shows which parameters have no gradient (ALIGNN's last edge features).
    return DDPStrategy(cluster_environment=OneMachine(), static_graph=True)
