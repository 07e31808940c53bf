"""Make a graph store slowly: arguments are the source, the folder and the seconds for each crystal."""

import sys
import time

from torch_geometric_crystal.datasets import write_graph_store
from torch_geometric_crystal.transforms import PeriodicRadiusGraph


class SlowGraph(PeriodicRadiusGraph):
    """Waits as long as the file ``seconds`` says, which is no part of the transform's settings."""

    def forward(self, data):
        time.sleep(float(sys.argv[3]))
        return super().forward(data)


if __name__ == "__main__":
    write_graph_store(sys.argv[1], sys.argv[2], SlowGraph(4.0), num_workers=0, shard_size=2, progress=False)
