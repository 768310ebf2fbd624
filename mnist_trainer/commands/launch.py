"""`mnist-trainer launch`: train with several processes on this machine."""

import os

from mnist_trainer.commands.request import Arguments, read_config
from mnist_trainer.distributed.cluster import free_ports, refuse_taken_port
from mnist_trainer.errors import RequestError, collected


def launch(arguments: Arguments) -> int:
    """Run `mnist-trainer launch`; return the exit code."""
    problems = [*arguments.problems]
    port = arguments.port
    if port:
        with collected(problems):
            refuse_taken_port(f"--port {port}", "127.0.0.1", port)
    if arguments.launched:
        with collected(problems):
            config = read_config(arguments.launched)  # report wrong settings once, before the processes start
            if arguments.workers and (problem := config.sharing_problem(arguments.workers)):
                problems.append(f"--workers {arguments.workers}: {arguments.workers} workers {problem}")
    if problems:
        raise RequestError(*problems)
    from mnist_trainer.distributed import launcher

    threads = os.environ.get("OMP_NUM_THREADS") or "1"
    return launcher.launch(arguments.rest, arguments.workers, arguments.servers, port or free_ports(1)[0], threads)
