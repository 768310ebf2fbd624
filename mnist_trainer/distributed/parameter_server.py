"""MXNet's parameter server (ps-lite): runs this process as a worker, a server or the scheduler.

The servers sum the workers' gradients. The workers exchange everything else in the same way: scores, requests to stop, and at
the beginning the settings. By itself, a process of ps-lite waits forever for a process that has died. Here each process sends a
heartbeat every second, and ends with an error if the heartbeats of the others are missing for longer than the timeout.
"""

import ctypes
import hashlib
import json
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from mnist_trainer.console import say
from mnist_trainer.distributed.cluster import PORT, SCHEDULER, WORKER, WORKERS, Cluster, refuse_taken_port
from mnist_trainer.distributed.process_group import ProcessGroup
from mnist_trainer.errors import FAILED, WRONG_REQUEST, RequestError
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()

# The numbers of groups of processes in ps-lite.
_THE_SCHEDULER, _ALL_OTHERS = 1, 2 + 4

# Lower keys belong to the parameters.
_FIRST_KEY = 1_000_000

# Rows are padded with zeros to a multiple of this number, because each length occupies an array on the servers.
_ROW_MULTIPLE = 50


class WorkerGroup(ProcessGroup):
    """The workers of a cluster. Create it with `join`.

    Attributes:
        cluster: The cluster.
        kvstore: A store of the type dist_sync.
    """

    def __init__(self, cluster: Cluster, kvstore: Any, timeout_seconds: float) -> None:
        self.cluster = cluster
        self.kvstore = kvstore
        self.rank = int(kvstore.rank)
        self.world_size = cluster.workers
        self.world_size_setting = f"--workers {cluster.workers}" if cluster.launched_by else f"{WORKERS}={cluster.workers}"
        self._timeout_seconds = timeout_seconds
        self._keys: dict[int, int] = {}

    def all_gather(self, content: bytes) -> list[bytes]:
        """Gather the content of all workers. Waits for all of them.

        Args:
            content: The content of this worker. It must have the same length on all workers.

        Returns:
            The content of each worker, by rank.
        """
        # Each worker adds its row to the zeros of the others, which changes no bit. float32 represents two bytes exactly.
        padded = content + b"\0" * (len(content) % 2)
        own = np.zeros((self.world_size, len(padded) // 2), np.float32)
        own[self.rank] = np.frombuffer(padded, "<u2")
        length = own.shape[1]
        if length not in self._keys:
            self._keys[length] = _FIRST_KEY + len(self._keys)
            self.kvstore.init(self._keys[length], mx.nd.zeros(own.shape))
        shared = mx.nd.array(own)
        self.kvstore.pushpull(self._keys[length], shared)
        return [row.astype("<u2").tobytes()[: len(content)] for row in shared.asnumpy()]

    def all_gather_texts(self, text: str) -> list[str]:
        """Gather the text of all workers. Waits for all of them.

        Args:
            text: The text of this worker, of any length.

        Returns:
            The text of each worker, by rank.
        """
        content = text.encode()
        lengths = [struct.unpack("<Q", length)[0] for length in self.all_gather(struct.pack("<Q", len(content)))]
        longest = max(lengths)
        contents = self.all_gather(content.ljust(longest, b"\0")) if longest else [b""] * self.world_size
        return [padded[:length].decode() for padded, length in zip(contents, lengths, strict=True)]

    def all_reduce_sum(self, rows: Sequence[Sequence[float]]) -> list[Sequence[float]]:
        # Summed here in the order of the ranks. A server sums in the order of arrival, which changes the last bits.
        width = len(rows[0])
        padded = np.zeros((-(-len(rows) // _ROW_MULTIPLE) * _ROW_MULTIPLE, width))
        padded[: len(rows)] = rows
        parts = [np.frombuffer(part).reshape(padded.shape) for part in self.all_gather(padded.tobytes())]
        total: list[Sequence[float]] = sum(parts[1:], parts[0])[: len(rows)].tolist()
        return total

    def all_reduce_any(self, flag: bool) -> bool:
        return any(content != b"\0" for content in self.all_gather(bytes([flag])))

    @contextmanager
    def shared_errors(self) -> Iterator[None]:
        """Raise RequestError on all workers if the body raises it on any of them. Waits for all workers.

        The body must not wait for other workers.

        Raises:
            RequestError: The body raised it on some worker. The message has the problems of all workers.
        """
        problems: Sequence[str] = ()
        try:
            yield
        except RequestError as error:
            problems = error.problems
        found = [json.loads(text) for text in self.all_gather_texts(json.dumps(problems))]
        if not any(found):
            return
        if all(of_worker == found[0] for of_worker in found):
            raise RequestError(*found[0])
        raise RequestError(*(f"worker {rank}: {problem}" for rank, of_worker in enumerate(found) for problem in of_worker))

    def require_same(self, settings: Callable[[], Mapping[str, Any]]) -> None:
        """Raise RequestError on every worker if their settings differ. Waits for all workers.

        Args:
            settings: Returns the settings of this worker by name.

        Raises:
            RequestError: Settings differ. The message names them.
        """
        text = json.dumps(settings(), sort_keys=True, default=repr)
        digests = self.all_gather(hashlib.sha256(text.encode()).digest())
        if len(set(digests)) == 1:
            return
        gathered = [json.loads(settings_text) for settings_text in self.all_gather_texts(text)]
        raise RequestError(
            *(
                f"worker {rank} has {key} = {theirs.get(key)!r}, but worker 0 has {gathered[0].get(key)!r}; "
                "start all workers with the same settings and data"
                for rank, theirs in enumerate(gathered)
                for key in sorted({*theirs, *gathered[0]})
                if theirs.get(key) != gathered[0].get(key)
            )
        )

    def shut_down(self) -> None:
        """End the servers and the scheduler after all workers have called this method."""
        self.kvstore._barrier()  # the others wait while the first worker draws figures, and watch its heartbeats
        _watch_ended.set()
        with _deadline(self._timeout_seconds, "the servers and the scheduler did not end; one of them has died", FAILED):
            handle, self.kvstore.handle = self.kvstore.handle, None
            mx.base.check_call(mx.base._LIB.MXKVStoreFree(handle))  # the servers wait for this


def join(cluster: Cluster, timeout_seconds: float) -> WorkerGroup:
    """Join a cluster as a worker. Waits until all of its processes have joined.

    If a process does not join in time, this process ends with an error and exit code 2, because MXNet cannot be interrupted
    while it waits.

    Args:
        cluster: The cluster to join.
        timeout_seconds: The time to wait for the other processes, and later for their heartbeats.

    Returns:
        The group of all workers.

    Raises:
        RequestError: The scheduler does not answer.
    """
    _prepare()
    cluster.wait_for_scheduler(timeout_seconds)
    with _deadline(timeout_seconds, _not_all_came(cluster, timeout_seconds), WRONG_REQUEST):
        kvstore = mx.kv.create("dist_sync")
    _held.append(kvstore)
    _watch(_THE_SCHEDULER, kvstore, cluster, timeout_seconds)
    return WorkerGroup(cluster, kvstore, timeout_seconds)


def serve(cluster: Cluster, timeout_seconds: float) -> None:
    """Run a server or the scheduler of a cluster until the training ends.

    Args:
        cluster: The cluster, with the role of this process.
        timeout_seconds: The time to wait for the other processes, and later for their heartbeats.

    Raises:
        RequestError: The scheduler's port is in use, or the scheduler does not answer.
    """
    _prepare()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # MXNet does not return to Python before the end
    if cluster.role == SCHEDULER:
        refuse_taken_port(PORT, cluster.host, cluster.port)
    else:
        cluster.wait_for_scheduler(timeout_seconds)
    kvstore = mx.kv.create("dist_sync")
    _watch(_ALL_OTHERS if cluster.role == SCHEDULER else _THE_SCHEDULER, kvstore, cluster, timeout_seconds)
    mx.kvstore.kvstore_server.KVStoreServer(kvstore).run()
    _watch_ended.set()


def end_process(code: int) -> None:
    """End this process immediately if it belongs to a cluster. MXNet would wait for the others, which may have died.

    Args:
        code: The exit code.
    """
    if _is_in_cluster:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


_is_in_cluster = False
_watch_ended = threading.Event()

# Stores that must not be freed before `end_process`: MXNet waits for the other processes when it frees a store.
_held: list[Any] = []


def _prepare() -> None:
    global _is_in_cluster
    _is_in_cluster = True
    os.environ["PS_HEARTBEAT_INTERVAL"] = "1"  # in seconds; by default ps-lite sends no heartbeats
    os.environ.pop("DMLC_RANK", None)  # with this variable, ps-lite would ignore the rank from the scheduler
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)  # MXNet does not return to Python while it waits for other processes


def _watch(group: int, kvstore: Any, cluster: Cluster, timeout_seconds: float) -> None:
    """Start a thread that ends this process when heartbeats of a process of the group are missing."""
    threading.Thread(target=_watch_group, args=(group, kvstore.handle, cluster, timeout_seconds), daemon=True).start()


def _watch_group(group: int, handle: Any, cluster: Cluster, timeout_seconds: float) -> None:
    began = time.monotonic()
    has_begun = cluster.role == WORKER
    while not _watch_ended.wait(0.5):
        if not has_begun:
            # With a negative limit every process counts as late, but ps-lite counts none before all have joined.
            has_begun = _count_missed(handle, group, -1_000_000) > 0
            if not has_begun and time.monotonic() - began > timeout_seconds:
                _end(_not_all_came(cluster, timeout_seconds), WRONG_REQUEST)
        elif _count_missed(handle, group, _whole_seconds(timeout_seconds)) > 0:
            _end(_missed(group, handle, cluster, timeout_seconds), FAILED)


def _count_missed(handle: Any, group: int, seconds: int) -> int:
    """Return the number of processes of a group that have sent no heartbeat for a number of seconds."""
    count = ctypes.c_int()
    mx.base.check_call(mx.base._LIB.MXKVStoreGetNumDeadNode(handle, group, ctypes.byref(count), seconds))
    return count.value


def _whole_seconds(timeout_seconds: float) -> int:
    # Heartbeats come once a second, and ps-lite's clock has no finer steps.
    return max(2, round(timeout_seconds))


def _missed(group: int, handle: Any, cluster: Cluster, timeout_seconds: float) -> str:
    if group == _THE_SCHEDULER:
        return (
            f"{cluster.scheduler} has sent no heartbeat for {timeout_seconds:g} seconds, perhaps because a worker or a server "
            "has ended; this process ends too"
        )
    seconds = _whole_seconds(timeout_seconds)
    names = {f"server {rank}": 8 + 2 * rank for rank in range(cluster.servers)}
    names |= {f"worker {rank}": 9 + 2 * rank for rank in range(cluster.workers)}
    missed = [name for name, number in names.items() if _count_missed(handle, number, seconds)]
    return f"no heartbeat from {' and '.join(missed)} for {timeout_seconds:g} seconds; all processes end"


def _not_all_came(cluster: Cluster, timeout_seconds: float) -> str:
    return (
        f"{cluster.scheduler}: not all processes ({cluster.workers} workers, {cluster.servers} servers) joined within "
        f"{timeout_seconds:g} seconds; see the messages of the others"
    )


@contextmanager
def _deadline(seconds: float, sentence: str, code: int) -> Iterator[None]:
    """End the process with an error if the body does not finish in time."""
    timer = threading.Timer(seconds, _end, (sentence, code))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(sentence: str, code: int) -> None:
    say(sentence)
    end_process(code)
