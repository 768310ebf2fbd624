"""MXNet's parameter server (ps-lite): this process as a worker, as a server or as the scheduler.

The servers add up the workers' gradients. Everything else that the workers must agree on goes the same way: scores, requests to
stop, and at the beginning the settings. A process of ps-lite waits for ever for one that has died. Here each process sends a
heartbeat every second, and ends with an error when it has missed the others' for as long as the timeout.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from mnist_trainer.console import say
from mnist_trainer.distributed.cluster import PORT, SCHEDULER, WORKER, WORKERS, Cluster, refuse_taken_port
from mnist_trainer.distributed.process_group import ProcessGroup
from mnist_trainer.errors import FAILED, WRONG_REQUEST, RequestError
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()

# Groups of processes, as ps-lite numbers them.
_THE_SCHEDULER, _ALL_OTHERS = 1, 2 + 4

# Keys below are those of the parameters.
_FIRST_KEY = 1_000_000

# Sums are padded with zeros to a multiple of this many rows.
_ROW_MULTIPLE = 50


class WorkerGroup(ProcessGroup):
    """The workers of a cluster; made by `join`.

    Attributes:
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
        """Return the content of each worker, by rank. It has the same length on all of them. Waits for all."""
        # Each adds its own to the zeros of the others, which changes no bit; two bytes are a whole number, which float32 holds.
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
        """Return the text of each worker, by rank. Waits for all."""
        content = text.encode()
        lengths = [struct.unpack("<Q", length)[0] for length in self.all_gather(struct.pack("<Q", len(content)))]
        longest = max(lengths)
        contents = self.all_gather(content.ljust(longest, b"\0")) if longest else [b""] * self.world_size
        return [padded[:length].decode() for padded, length in zip(contents, lengths, strict=True)]

    def all_reduce_sum(self, rows: Sequence[Sequence[float]]) -> list[Sequence[float]]:
        # Of few lengths, because each has an array on the servers. Added up here, by rank: a server adds what comes first.
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
        """Raise a RequestError on all workers if the body raises one on any of them; name the problems of all. Waits for all.

        The body must not wait for the others.
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

    def require_same(self, settings: Mapping[str, Any]) -> None:
        """Raise RequestError on every worker when their settings differ; name these. Waits for all."""
        text = json.dumps(settings, sort_keys=True, default=repr)
        digests = self.all_gather(hashlib.sha256(text.encode()).digest())
        if len(set(digests)) == 1:
            return
        gathered = [json.loads(settings_text) for settings_text in self.all_gather_texts(text)]
        raise RequestError(
            *(
                f"worker {rank} has {key} = {theirs.get(key)!r}, and worker 0 {gathered[0].get(key)!r}; "
                "all workers are started with the same settings and data"
                for rank, theirs in enumerate(gathered)
                for key in sorted({*theirs, *gathered[0]})
                if theirs.get(key) != gathered[0].get(key)
            )
        )

    def shut_down(self) -> None:
        """End the servers and the scheduler after all workers have called this."""
        self.kvstore._barrier()  # while the first draws its figures; the others wait and watch for its heartbeats
        _watch_ended.set()
        with _deadline(self._timeout_seconds, "the servers and the scheduler did not end: one of them is gone", FAILED):
            handle, self.kvstore.handle = self.kvstore.handle, None
            mx.base.check_call(mx.base._LIB.MXKVStoreFree(handle))  # its end is what the servers wait for


def join(cluster: Cluster, timeout_seconds: float) -> WorkerGroup:
    """Join a cluster as a worker, when all of its processes have come.

    When others do not come, this process ends with an error and exit code 2: MXNet, which waits for them, cannot be
    interrupted.

    Args:
        cluster: The cluster to join.
        timeout_seconds: How long to wait for the other processes, and for heartbeats afterwards.

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
    """Run a server of a cluster, or its scheduler, until the end.

    Raises:
        RequestError: The scheduler's port is taken, or the scheduler does not answer.
    """
    _prepare()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # MXNet does not come back to Python before the end
    if cluster.role == SCHEDULER:
        refuse_taken_port(PORT, cluster.host, cluster.port)
    else:
        cluster.wait_for_scheduler(timeout_seconds)
    kvstore = mx.kv.create("dist_sync")
    _watch(_ALL_OTHERS if cluster.role == SCHEDULER else _THE_SCHEDULER, kvstore, cluster, timeout_seconds)
    mx.kvstore.kvstore_server.KVStoreServer(kvstore).run()
    _watch_ended.set()


def end_process(code: int) -> None:
    """End this process at once, if it is one of a cluster: MXNet would wait at its end for the others, which may be gone."""
    if _is_in_cluster:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


_is_in_cluster = False
_watch_ended = threading.Event()

# MXNet frees a store by waiting for the others; one that is left behind by an error must not be freed before `end_process`.
_held: list[Any] = []


def _prepare() -> None:
    global _is_in_cluster
    _is_in_cluster = True
    os.environ["PS_HEARTBEAT_INTERVAL"] = "1"  # in seconds; by default ps-lite sends no heartbeats
    os.environ.pop("DMLC_RANK", None)  # ps-lite's own, which would keep it from taking the rank that it is given


def _watch(group: int, kvstore: Any, cluster: Cluster, timeout_seconds: float) -> None:
    """Start a thread that ends this process when a process of the group is missed."""
    threading.Thread(target=_watch_group, args=(group, kvstore.handle, cluster, timeout_seconds), daemon=True).start()


def _watch_group(group: int, handle: Any, cluster: Cluster, timeout_seconds: float) -> None:
    began = time.monotonic()
    has_begun = cluster.role == WORKER
    while not _watch_ended.wait(0.5):
        if not has_begun:
            # No heartbeat is as late as this; but no process is counted before all have come.
            has_begun = _count_missed(handle, group, -1_000_000) > 0
            if not has_begun and time.monotonic() - began > timeout_seconds:
                _end(_not_all_came(cluster, timeout_seconds), WRONG_REQUEST)
        elif _count_missed(handle, group, _whole_seconds(timeout_seconds)) > 0:
            _end(_missed(group, handle, cluster, timeout_seconds), FAILED)


def _count_missed(handle: Any, group: int, seconds: int) -> int:
    """Return the number of processes of a group that have sent no heartbeat for this many seconds."""
    count = ctypes.c_int()
    mx.base.check_call(mx.base._LIB.MXKVStoreGetNumDeadNode(handle, group, ctypes.byref(count), seconds))
    return count.value


def _whole_seconds(timeout_seconds: float) -> int:
    # Heartbeats come once a second, and ps-lite's clock has no finer steps.
    return max(2, round(timeout_seconds))


def _missed(group: int, handle: Any, cluster: Cluster, timeout_seconds: float) -> str:
    if group == _THE_SCHEDULER:
        return (
            f"{cluster.scheduler} has sent no heartbeat for {timeout_seconds:g} seconds: it has ended, perhaps because "
            "a worker or a server has; this process ends too"
        )
    seconds = _whole_seconds(timeout_seconds)
    names = {f"server {rank}": 8 + 2 * rank for rank in range(cluster.servers)}
    names |= {f"worker {rank}": 9 + 2 * rank for rank in range(cluster.workers)}
    missed = [name for name, number in names.items() if _count_missed(handle, number, seconds)]
    return f"no heartbeat from {' and '.join(missed)} for {timeout_seconds:g} seconds; all processes end"


def _not_all_came(cluster: Cluster, timeout_seconds: float) -> str:
    return (
        f"{cluster.scheduler}: not all processes ({cluster.workers} workers, {cluster.servers} servers) have come within "
        f"{timeout_seconds:g} seconds; see the messages of the others"
    )


@contextmanager
def _deadline(seconds: float, sentence: str, code: int) -> Iterator[None]:
    """End the process with an error when the code within has not ended in time."""
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
