"""MXNet's parameter server (ps-lite): this process as a worker of a job, or as one of its servers or its scheduler.

The servers add up the workers' gradients, and everything else that the workers must agree on goes the same way: what they have
scored, whether somebody wishes to stop, and at the beginning whether all were asked for the same. A process of ps-lite waits
for ever for one that has died. Here each sends a sign of life every second, and ends with a sentence when it has missed
the others' for as long as the job's patience.
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
from mnist_trainer.distributed.job import PORT, SCHEDULER, WORKER, WORKERS, Job, refuse_taken_port
from mnist_trainer.distributed.process_group import ProcessGroup
from mnist_trainer.errors import FAILED, WRONG_REQUEST, RequestError
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()

# Groups of processes, as ps-lite numbers them.
_THE_SCHEDULER, _ALL_OTHERS = 1, 2 + 4

# Keys below are those of the parameters.
_FIRST_KEY = 1_000_000

# Sums are filled up with zeros to a multiple of so many rows.
_ROWS_TOGETHER = 50


class WorkerGroup(ProcessGroup):
    """The workers of a job, seen from one of them; made by `join`.

    kvstore: of the type dist_sync, for `create_trainer`.
    """

    def __init__(self, job: Job, kvstore: Any, patience_seconds: float) -> None:
        self.job = job
        self.kvstore = kvstore
        self.rank = int(kvstore.rank)
        self.world_size = job.workers
        self.spelling = f"--workers {job.workers}" if job.launched_by else f"{WORKERS}={job.workers}"
        self._patience_seconds = patience_seconds
        self._keys: dict[int, int] = {}

    def all_gather(self, content: bytes) -> list[bytes]:
        """What each worker has given, of the same length on all of them, by rank. Waits for all."""
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
        """What each worker says, by rank. Waits for all."""
        content = text.encode()
        lengths = [struct.unpack("<Q", each)[0] for each in self.all_gather(struct.pack("<Q", len(content)))]
        longest = max(lengths)
        contents = self.all_gather(content.ljust(longest, b"\0")) if longest else [b""] * self.world_size
        return [each[:length].decode() for each, length in zip(contents, lengths, strict=True)]

    def all_reduce_sum(self, rows: Sequence[Sequence[float]]) -> list[Sequence[float]]:
        # Of few lengths, because each has an array on the servers. Added up here, by rank: a server adds what comes first.
        width = len(rows[0])
        padded = np.zeros((-(-len(rows) // _ROWS_TOGETHER) * _ROWS_TOGETHER, width))
        padded[: len(rows)] = rows
        parts = [np.frombuffer(each).reshape(padded.shape) for each in self.all_gather(padded.tobytes())]
        total: list[list[float]] = sum(parts[1:], parts[0])[: len(rows)].tolist()
        return list(total)

    def all_reduce_any(self, flag: bool) -> bool:
        return any(content != b"\0" for content in self.all_gather(bytes([flag])))

    @contextmanager
    def raising_together(self) -> Iterator[None]:
        """A RequestError that is raised within on one worker is raised on all, with what is wrong on any. Waits for all.

        Nothing within may wait for the others.
        """
        problems: Sequence[str] = ()
        try:
            yield
        except RequestError as error:
            problems = error.problems
        found = [json.loads(each) for each in self.all_gather_texts(json.dumps(problems))]
        if not any(found):
            return
        if all(each == found[0] for each in found):
            raise RequestError(*found[0])
        raise RequestError(*(f"worker {rank}: {problem}" for rank, each in enumerate(found) for problem in each))

    def require_same(self, settings: Mapping[str, Any]) -> None:
        """Raises RequestError on every worker when they have been asked for different things; names these. Waits for all."""
        text = json.dumps(settings, sort_keys=True, default=repr)
        digests = self.all_gather(hashlib.sha256(text.encode()).digest())
        if len(set(digests)) == 1:
            return
        told = [json.loads(each) for each in self.all_gather_texts(text)]
        raise RequestError(
            *(
                f"worker {rank} has {key} = {theirs.get(key)!r}, and worker 0 {told[0].get(key)!r}; "
                "all workers of a job are started with the same settings and data"
                for rank, theirs in enumerate(told)
                for key in sorted({*theirs, *told[0]})
                if theirs.get(key) != told[0].get(key)
            )
        )

    def shut_down(self) -> None:
        """Ends the job's servers and scheduler when all workers have come here; this one does nothing with them any more."""
        self.kvstore._barrier()  # as long as the chief draws its figures; those who wait watch for its signs of life
        _watch_ended.set()
        with _deadline(self._patience_seconds, "the end of the job did not come: a server or the scheduler is gone", FAILED):
            handle, self.kvstore.handle = self.kvstore.handle, None
            mx.base.check_call(mx.base._LIB.MXKVStoreFree(handle))  # its end is what the servers wait for


def join(job: Job, patience_seconds: float) -> WorkerGroup:
    """This process as a worker of the job, when all of its processes have come.

    patience_seconds: how long to wait for them, and for signs of life afterwards.

    Raises RequestError when the scheduler does not answer. When others do not come, the process ends with a sentence and
    exit code 2: MXNet, which waits for them, cannot be called back.
    """
    _prepare()
    job.wait_for_scheduler(patience_seconds)
    with _deadline(patience_seconds, _not_all_came(job, patience_seconds), WRONG_REQUEST):
        kvstore = mx.kv.create("dist_sync")
    _held.append(kvstore)
    _watch(_THE_SCHEDULER, kvstore, job, patience_seconds)
    return WorkerGroup(job, kvstore, patience_seconds)


def serve(job: Job, patience_seconds: float) -> None:
    """This process as a server of the job, or as its scheduler, up to the job's end.

    Raises RequestError when the scheduler's port is taken, or does not answer.
    """
    _prepare()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # MXNet does not come back to Python before the end
    if job.role == SCHEDULER:
        refuse_taken_port(PORT, job.host, job.port)
    else:
        job.wait_for_scheduler(patience_seconds)
    kvstore = mx.kv.create("dist_sync")
    _watch(_ALL_OTHERS if job.role == SCHEDULER else _THE_SCHEDULER, kvstore, job, patience_seconds)
    mx.kvstore.kvstore_server.KVStoreServer(kvstore).run()
    _watch_ended.set()


def end_process(code: int) -> None:
    """Ends this process at once, if it is one of a job. MXNet would wait for the others, which may be gone, on its way out."""
    if _is_in_job:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


_is_in_job = False
_watch_ended = threading.Event()

# MXNet frees a store by waiting for the others; one that is left behind by an error must not be freed before `end_process`.
_held: list[Any] = []


def _prepare() -> None:
    global _is_in_job
    _is_in_job = True
    os.environ["PS_HEARTBEAT_INTERVAL"] = "1"  # in seconds; by default ps-lite sends no signs of life
    os.environ.pop("DMLC_RANK", None)  # ps-lite's own, which would keep it from taking the rank that it is given


def _watch(group: int, kvstore: Any, job: Job, patience_seconds: float) -> None:
    """Has a thread end this process when one of the group is missed."""
    threading.Thread(target=_watch_group, args=(group, kvstore.handle, job, patience_seconds), daemon=True).start()


def _watch_group(group: int, handle: Any, job: Job, patience_seconds: float) -> None:
    began = time.monotonic()
    has_begun = job.role == WORKER
    while not _watch_ended.wait(0.5):
        if not has_begun:
            # Of nobody has there been a sign of life after the end of time; but before all have come nobody is counted.
            has_begun = _count_missed(handle, group, -1_000_000) > 0
            if not has_begun and time.monotonic() - began > patience_seconds:
                _end(_not_all_came(job, patience_seconds), WRONG_REQUEST)
        elif _count_missed(handle, group, _whole_seconds(patience_seconds)) > 0:
            _end(_missed(group, handle, job, patience_seconds), FAILED)


def _count_missed(handle: Any, group: int, seconds: int) -> int:
    """How many of a group have given no sign of life for so long."""
    count = ctypes.c_int()
    mx.base.check_call(mx.base._LIB.MXKVStoreGetNumDeadNode(handle, group, ctypes.byref(count), seconds))
    return count.value


def _whole_seconds(patience_seconds: float) -> int:
    # Signs of life come once a second, and ps-lite's clock knows no less.
    return max(2, round(patience_seconds))


def _missed(group: int, handle: Any, job: Job, patience_seconds: float) -> str:
    if group == _THE_SCHEDULER:
        return (
            f"{job.scheduler} has given no sign of life for {patience_seconds:g} seconds: it has ended, perhaps because "
            "a worker or a server has; this process ends too"
        )
    seconds = _whole_seconds(patience_seconds)
    names = {f"server {rank}": 8 + 2 * rank for rank in range(job.servers)}
    names |= {f"worker {rank}": 9 + 2 * rank for rank in range(job.workers)}
    missed = [name for name, number in names.items() if _count_missed(handle, number, seconds)]
    return f"no sign of life from {' and '.join(missed)} for {patience_seconds:g} seconds; the job ends"


def _not_all_came(job: Job, patience_seconds: float) -> str:
    return (
        f"{job.scheduler}: not all of the job's processes ({job.workers} workers, {job.servers} servers) have come within "
        f"{patience_seconds:g} seconds; see what the others say"
    )


@contextmanager
def _deadline(seconds: float, sentence: str, code: int) -> Iterator[None]:
    """Ends the process with a sentence when what is within has not come to its end."""
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
