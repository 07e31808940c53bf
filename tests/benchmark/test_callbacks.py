import os
import signal
import threading

import pytest

from torch_geometric_crystal.benchmark.callbacks import Callback, StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_becomes_a_request(number):
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested


def test_second_interrupt_is_immediate():
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_keep_their_hands_off_signals():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def enter():
        with StopRequest():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


def test_callback_takes_every_event():
    callback = Callback()
    callback.on_message("text")
    callback.on_start(3, 0, None)
    callback.on_epoch_start(1, 2, 0)
    callback.on_batch_end(1, 0.1)
    callback.on_epoch_end({"epoch": 1}, True)
    callback.on_end("finished")
