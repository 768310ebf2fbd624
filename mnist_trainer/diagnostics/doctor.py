"""Checks the machine for everything that a run needs, and suggests remedies."""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mnist_trainer import memory, runtime
from mnist_trainer.errors import RequestError
from mnist_trainer.runtime import hardware, nvidia


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: The checked part.
        state: Its state.
        problem: The problem and its remedy; None if there is no problem.
    """

    subject: str
    state: str
    problem: str | None = None


def examine(threads: int | str = "auto", data_dir: Path | None = None, *, builds: bool = False) -> Iterator[Finding]:
    """Check the installation, the devices and the data one after the other, and load MXNet if possible.

    Args:
        threads: The number of threads, or "auto".
        data_dir: The folder of the MNIST files; None for the default.
        builds: True to build the fused operator if it is not built yet.

    Yields:
        The result of each check.
    """
    yield Finding("python", platform.python_version())
    problems = runtime.installation_problems()
    for name in (*runtime.mxnet_packages(), "numpy", "pillow", "matplotlib", "requests", "tqdm", "setuptools"):
        yield Finding(name, runtime.package_version(name) or "not installed")
    for broken in problems:
        yield Finding("installation", "broken", broken)
    try:
        chosen = hardware.choose_threads(threads)
        limit, too_low = memory.limit_mib(), runtime.memory_problem(chosen)
        yield Finding("memory limit", f"{limit:,} MiB" if limit else "none", too_low)
        if too_low:
            problems.append(too_low)
        else:
            runtime.prepare(threads)
        yield Finding("threads", f"{chosen} of {hardware.available_processors()} processors")
    except RequestError as error:
        yield Finding("threads", "unknown", str(error))
        chosen = 0
    if chosen and not problems:
        yield from _examine_mxnet(builds)
    if all(map(runtime.package_version, ("numpy", "pillow", "matplotlib"))):
        yield _examine_figures()
    if runtime.package_version("numpy"):
        yield from _examine_data(data_dir)


def _examine_mxnet(builds: bool) -> Iterator[Finding]:
    try:
        mx = runtime.import_mxnet()
    except RequestError as error:
        yield Finding("mxnet loads", "no", str(error))
        return
    from mnist_trainer.diagnostics.environment import processor_name
    from mnist_trainer.runtime import devices

    yield Finding("mxnet loads", "yes")
    yield Finding("processor", processor_name())
    try:
        devices.run_tiny_operation(mx.cpu())
        yield Finding("device cpu", "works")
    except mx.MXNetError as error:
        yield Finding("device cpu", "does not work", runtime.explain_mxnet_error(error))
    yield _examine_fused_backend(builds)
    yield from _examine_gpus()


def _examine_fused_backend(builds: bool) -> Finding:
    from mnist_trainer.model import native

    subject = "fused backend"
    if not builds and native.is_pending():
        return Finding(subject, "not built yet; the first training builds it, or run mnist-trainer doctor --build")
    if builds:
        native.build.forget_failures()
    unusable = native.problem()
    if not unusable:
        try:
            native.load()
        except RequestError as error:
            unusable = str(error)
    if unusable:
        return Finding(subject, f"not used: {unusable}", unusable if builds else native.misspelt_variable())
    wanted = os.environ.get(native.VARIABLE)
    setting = f", {native.VARIABLE}={wanted}" if wanted else ""
    return Finding(subject, f"can be used (kernels {native.kernels()}{setting}; built by {native.compiler()})")


def _examine_gpus() -> Iterator[Finding]:
    from mnist_trainer.runtime import devices

    if not devices.built_with_cuda():
        yield Finding("device gpu", f"none: {devices.gpu_problem(0)}")
        return
    try:
        gpus = nvidia.gpus()
    except nvidia.DriverError:
        gpus = []
    if not gpus:
        yield Finding("device gpu", "does not work", devices.gpu_problem(0))
    for number, gpu in enumerate(gpus):
        problem = devices.gpu_problem(number)
        yield Finding(f"device gpu:{number}", f"{gpu}: {'does not work' if problem else 'works'}", problem)


def _examine_figures() -> Finding:
    from mnist_trainer.figures import why
    from mnist_trainer.schedules import Constant

    try:
        from mnist_trainer import plots

        plots.png_of(plots.plot_schedules({"constant": (Constant(0.03), 10)}))
    except Exception as error:  # matplotlib raises exceptions of many types
        remedy = "fix the cause, or reinstall matplotlib: pip install --force-reinstall matplotlib"
        return Finding("figures", "does not work", f"no figure can be drawn ({why(error)}); {remedy}")
    return Finding("figures", "works")


def _examine_data(data_dir: Path | None) -> Iterator[Finding]:
    from mnist_trainer.data.mnist_files import FILES, file_problem, find_data_dir, is_there, path_of, sha256_of

    folder = find_data_dir(data_dir)
    yield Finding("data", os.path.realpath(folder))  # Path.resolve raises an error for a link to itself
    for file in FILES:
        problem, path = file_problem(folder, file), path_of(folder, file)
        wrong = "not the genuine file" if is_there(folder, file) else "missing"
        yield Finding(f"  {path.name}", wrong if problem else f"SHA-256 {sha256_of(path)[:16]}…", problem)
