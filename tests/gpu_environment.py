"""Sets up a GPU environment for real where there is no GPU: every package, and every sentence that can be met without one.

    python tests/gpu_environment.py [FOLDER]

Makes a virtual environment in FOLDER (default: a temporary one, which is removed), runs scripts/setup_gpu.sh in it, and then
MXNet's GPU build against a small driver that is compiled here: one that is not there, one that shows no GPU, one with a
GPU that MXNet 1.9.1 has no code for, and one that is broken. It downloads 2.1 GB and needs 6 GB of disk and g++. Too much for
every run of the tests; the README says what its last run found.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

RUN_ON = "check the output of nvidia-smi, or run with --device cpu"


class Environment:
    """A virtual environment, and a driver beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "environment" / "bin" / "python"
        self.driver = folder / "driver"
        self.checks = 0

    def set_up(self) -> None:
        started = time.monotonic()
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(self.folder / "environment")], check=True)
            # As somebody has it who has followed the README: with the CPU build.
            subprocess.run([self.python, "-m", "pip", "install", "--quiet", "--editable", str(REPOSITORY)], check=True)
        done = self.run("bash", str(REPOSITORY / "scripts" / "setup_gpu.sh"), str(self.python))
        # It ends with the doctor, who finds no driver here.
        print(done.stdout)
        self.expect("setup_gpu.sh ends with the doctor", done, 1, ["Problems found: 1."])
        print(f"set up in {time.monotonic() - started:.0f} s")
        self.driver.mkdir(exist_ok=True)
        source = REPOSITORY / "tests" / "stub_driver.cc"
        subprocess.run(["g++", "-shared", "-fPIC", str(source), "-o", str(self.driver / "libcuda.so.1")], check=True)

    def run(self, *command: str, shows: str | None = None) -> subprocess.CompletedProcess[str]:
        variables = os.environ | {"OMP_NUM_THREADS": "1"}
        if shows is not None:
            variables |= {"LD_LIBRARY_PATH": str(self.driver), "STUB_DRIVER": shows}
        return subprocess.run(command, env=variables, cwd=self.folder, capture_output=True, text=True, check=False)

    def program(self, *arguments: str, shows: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.python), "-m", "mnist_trainer", *arguments, shows=shows)

    def expect(self, what: str, done: subprocess.CompletedProcess[str], code: int, sentences: list[str]) -> None:
        said = done.stdout + done.stderr
        missing = [sentence for sentence in sentences if sentence not in said]
        if done.returncode != code or missing:
            sys.exit(f"{what}: exit code {done.returncode}, and not said: {missing}\n{said}")
        self.checks += 1
        print(f"{what}: as expected")
        for sentence in sentences:
            print(f"    {sentence}")


def check(environment: Environment) -> None:
    environment.set_up()
    packages = environment.run(str(environment.python), "-m", "pip", "check")
    environment.expect("pip check", packages, 0, ["No broken requirements found."])
    size = environment.run("du", "--summarize", "--block-size=1M", str(environment.folder / "environment")).stdout.split()[0]
    print(f"the environment takes {size} MB")

    no_driver = (
        "MXNet's GPU build needs NVIDIA's driver, and libcuda.so.1 is missing; install the driver, or replace MXNet's GPU build"
    )
    environment.expect("doctor without a driver", environment.program("doctor"), 1, [no_driver])
    environment.expect("train without a driver", environment.program("train", "--output", "run"), 2, [no_driver])

    no_gpu = f"NVIDIA's driver shows no GPU; {RUN_ON}"
    environment.expect("doctor without a GPU", environment.program("doctor", shows="none"), 1, [no_gpu, "device cpu"])
    done = environment.program("train", "--device", "gpu", "--output", "run", shows="none")
    environment.expect("train on a GPU that is not there", done, 2, [f"--device gpu: {no_gpu}"])

    name = "Stub GPU, compute capability 9.0"
    too_new = f"MXNet 1.9.1 has no machine code for GPU 0 ({name}): it supports only compute capability 5.0 to 8.9"
    environment.expect(
        "doctor with a GPU that is too new", environment.program("doctor", shows="9.0"), 1, [f"{name}: does not work", too_new]
    )
    done = environment.program("train", "--device", "gpu", "--output", "run", shows="9.0")
    environment.expect("train on a GPU that is too new", done, 2, [f"--device gpu: {too_new}"])

    broken = "NVIDIA's driver failed: cuInit returned error 999 (unknown error)"
    environment.expect("doctor with a broken driver", environment.program("doctor", shows="broken"), 1, [broken])

    done = environment.program("doctor", shows="8.6")
    unreached = "GPU 0 fails at its first operation (CUDA: Check failed: e == cudaSuccess (36 vs. 0)"
    environment.expect("doctor with a GPU that CUDA does not reach", done, 1, [unreached])

    quick = ("train", "--epochs", "1", "--train-images", "640", "--test-images", "100", "--output")
    done = environment.program(*quick, "run-cpu", shows="none")
    environment.expect("train on auto without a GPU", done, 0, ["Device cpu", "Test accuracy"])
    silent = "MXNet's GPU build cannot train, even on the CPU, while CUDA does not respond (CUDA: Check failed"
    environment.expect(
        "train on auto with a driver that CUDA does not reach", environment.program(*quick, "run", shows="9.0"), 2, [silent]
    )
    print(f"{environment.checks} checks, all as expected")


def main() -> None:
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1]).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        check(Environment(folder))
        return
    with tempfile.TemporaryDirectory() as name:
        check(Environment(Path(name)))


if __name__ == "__main__":
    main()
