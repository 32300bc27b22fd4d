"""One job in several processes: started, listened to and ended by one that takes no part in the work. Imports no torch.

Lightning would run the command line again for each device, and kill everything where one of them fails. Here processes
are given what they need by the one that was started, which keeps the run's record true whatever happens to them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NamedTuple

from vae.common import signals
from vae.common.signals import SIGNALS, Interrupted

GRACE = 20.0  # seconds for the other processes to notice that one has failed


class Failure(NamedTuple):
    """Why a process has failed. The first one is the cause of the others, which miss it."""

    when: float  # on the clock that all processes share
    error: Exception


def run_processes(count: int, function: Callable[..., object], *arguments: Any) -> None:
    """Call `function(*arguments, rank, count)` in `count` processes, which Lightning takes for those of one job.

    What the first one logs is logged here, and what goes wrong first is raised here. Ctrl+C and SIGTERM are passed on;
    a second one ends the processes at once.
    """
    work = pickle.dumps((function, arguments))
    processes: dict[Connection, BaseProcess] = {}
    received: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        if received:
            raise Interrupted(signum)
        received.append(signum)
        for process in processes.values():
            process.terminate()

    try:
        _start(processes, count)
        with _handling(dict.fromkeys(SIGNALS, pass_on)):
            for pipe in processes:
                with suppress(ConnectionError):  # the process has ended, as `_listen` will see
                    pipe.send_bytes(work)
            _listen(processes)
    except Exception:
        if not received:
            raise
    finally:
        for process in processes.values():
            process.kill()
            process.join()
    if received:
        raise Interrupted(received[0])


def _start(processes: dict[Connection, BaseProcess], count: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    level = logging.getLogger().level
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # They inherit that Ctrl+C is ignored, until they are out of the terminal's reach.
    with _handling({signal.SIGINT: signal.SIG_IGN}):
        for rank in range(count):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_enter, args=(theirs, level, port, rank, count))
            process.name = _name(rank, count)
            process.start()
            theirs.close()  # so that ours ends with the process
            processes[ours] = process


def _listen(processes: Mapping[Connection, BaseProcess]) -> None:
    """Log what the processes log until all have ended, then raise what went wrong first."""
    failures: list[Failure] = []
    running = list(processes)
    while running and (ready := wait(running, GRACE if failures else None)):
        for pipe in ready:
            assert isinstance(pipe, Connection)
            try:
                said = pipe.recv()
            except (EOFError, ConnectionError):
                running.remove(pipe)
                said = _end(processes[pipe])
            if isinstance(said, logging.LogRecord):
                logging.getLogger(said.name).handle(said)
            elif said is not None:
                failures.append(said)
    if failures:
        raise min(failures, key=lambda failure: failure.when).error


def _end(process: BaseProcess) -> Failure | None:
    """What is wrong with the end of a process that says nothing more."""
    process.join()
    if not process.exitcode:
        return None
    how = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"exit status {process.exitcode}"
    # Before all that others could say: whatever kills a process gives it no time to speak.
    return Failure(0.0, RuntimeError(f"{process.name} ended with {how}"))


@contextmanager
def _handling(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """Signals are handled so while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


# In the processes -----------------------------------------------------------------------------------------------------


def _enter(pipe: Connection, level: int, port: int, rank: int, count: int) -> None:
    os.setsid()  # Ctrl+C reaches the process at the terminal alone, which passes it on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    logging.basicConfig(level=level, handlers=[logging.NullHandler() if rank else _Teller(pipe)])
    if rank:
        warnings.simplefilter("ignore")
    signals.listen()
    try:
        # Only now: this imports Lightning, which looks for a log to write to.
        function, arguments = pickle.loads(pipe.recv_bytes())
        signals.heed()
        function(*arguments, rank, count)
    except Interrupted:
        pass  # known to the process that passed it on
    except Exception as error:
        note = f"in {_name(rank, count)}:\n{traceback.format_exc()}"
        pipe.send(Failure(time.perf_counter(), _portable(error, note)))
    # Without tearing down the interpreter, which takes a second and sometimes aborts in gloo's threads.
    sys.stdout.flush()
    os._exit(0)


def _name(rank: int, count: int) -> str:
    return f"process {rank + 1} of {count}"


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _portable(error: Exception, note: str) -> Exception:
    """The error, or its likeness where it cannot be pickled, with a note of the traceback that pickling loses."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error


class _Teller(logging.Handler):
    """Sends what is logged to the process that listens."""

    def __init__(self, pipe: Connection):
        super().__init__()
        self.pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        # Made plain, because arguments and tracebacks cannot always be pickled.
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        self.pipe.send(record)
