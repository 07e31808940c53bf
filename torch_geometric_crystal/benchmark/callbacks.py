"""What a training run tells the outside: progress for a bar, and requests to stop from signals."""

import signal
import threading
from types import FrameType, TracebackType


class Callback:
    """Is told how a training run goes. Override what is of interest."""

    def on_message(self, text: str) -> None:
        """Something that takes a while begins."""

    def on_start(self, epochs: int, epoch: int, max_time: float | None) -> None:
        """Training starts: `epoch` of `epochs` are done already; `max_time` is the limit in minutes."""

    def on_epoch_start(self, epoch: int, num_batches: int, done: int) -> None:
        """Epoch number `epoch` (from 1) starts with `num_batches` batches, of which `done` are done already."""

    def on_batch_end(self, epoch: int, seconds: float) -> None:
        """A batch is done, `seconds` after the start of training."""

    def on_epoch_end(self, row: dict[str, float], is_best: bool) -> None:
        """An epoch is done; `row` is its row of the history."""

    def on_end(self, reason: str) -> None:
        """Training ends; `reason` is that of :class:`~torch_geometric_crystal.benchmark.training.FitResult`."""


class StopRequest:
    """Turns the first SIGINT or SIGTERM into a request to stop; the second SIGINT interrupts at once.

    Use as a context; outside the main thread, where Python allows no signal handlers, it does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
