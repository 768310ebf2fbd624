"""`mnist-trainer launch`: a training by several processes of this machine."""

import os

from mnist_trainer.commands.request import Arguments, read_config
from mnist_trainer.distributed.cluster import MAX_PROCESSES, free_ports, refuse_taken_port
from mnist_trainer.errors import RequestError


def launch(arguments: Arguments) -> int:
    problems = [*arguments.problems]
    problems += [
        f"--{name}: {number} is not a whole number from 1 to {MAX_PROCESSES}"
        for name in ("workers", "servers")
        if not 1 <= (number := getattr(arguments, name)) <= MAX_PROCESSES
    ]
    port = arguments.port
    if port is not None and not 1 <= port <= 65_535:
        problems.append(f"--port: {port} is not a whole number from 1 to 65535")
    elif port is not None:
        try:
            refuse_taken_port(f"--port {port}", "127.0.0.1", port)
        except RequestError as error:
            problems += error.problems
    train = arguments.launched
    try:
        config = read_config(train)  # so that what is wrong is said once, before any process is there to say it
        if problem := config.sharing_problem(arguments.workers):
            problems.append(f"--workers {arguments.workers}: {arguments.workers} workers {problem}")
    except RequestError as error:
        problems += error.problems
    if problems:
        raise RequestError(*problems)
    from mnist_trainer.distributed import launcher

    threads = os.environ.get("OMP_NUM_THREADS") or "1"
    return launcher.launch(arguments.rest, arguments.workers, arguments.servers, port or free_ports(1)[0], threads)
