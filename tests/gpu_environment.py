"""Check of the real GPU packages on a machine without a GPU, with every message that can occur there.

    python tests/gpu_environment.py [FOLDER]

The script creates a virtual environment in FOLDER (by default a temporary folder, which is removed at the end) and runs
scripts/setup_gpu.sh in it. It then runs MXNet's GPU build without a driver, and with a stub driver that it compiles. The stub
shows no GPU, shows a GPU for which MXNet 1.9.1 has no machine code, or is broken. The script downloads 2.1 GB and needs 6 GB of
disk space and g++, so it is not part of the tests. The README has the results of the last run.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

REMEDY = "check the output of nvidia-smi, or run with --device cpu"


class Environment:
    """A virtual environment and a folder with the stub driver.

    Attributes:
        folder: The folder that contains both; commands run in it.
        python: The interpreter of the virtual environment.
        driver: The folder with the stub driver.
        checks: The number of checks that have passed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "environment" / "bin" / "python"
        self.driver = folder / "driver"
        self.checks = 0

    def set_up(self) -> None:
        started = time.monotonic()
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(self.folder / "environment")], check=True)
            # Start with the CPU build, as in an environment that was set up with the commands of the README.
            install = [str(self.python), "-m", "pip", "install", "--quiet"]
            subprocess.run([*install, "--editable", str(REPOSITORY)], check=True)
            subprocess.run([*install, "--no-deps", "mxnet==1.9.1"], check=True)
        done = self.run("bash", str(REPOSITORY / "scripts" / "setup_gpu.sh"), str(self.python))
        # Its last command is `mnist-trainer doctor`, which finds no driver here.
        print(done.stdout)
        self.expect("setup_gpu.sh runs the doctor", done, 1, ["Problems found: 1."])
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

    def expect(self, case: str, done: subprocess.CompletedProcess[str], code: int, messages: list[str]) -> None:
        printed = done.stdout + done.stderr
        missing = [message for message in messages if message not in printed]
        if done.returncode != code or missing:
            sys.exit(f"{case}: exit code {done.returncode}, expected {code}; missing messages: {missing}\n{printed}")
        self.checks += 1
        print(f"{case}: as expected")
        for message in messages:
            print(f"    {message}")


def check(environment: Environment) -> None:
    environment.set_up()
    packages = environment.run(str(environment.python), "-m", "pip", "list")
    environment.expect("pip list", packages, 0, ["mxnet-cu112"])
    size = environment.run("du", "--summarize", "--block-size=1M", str(environment.folder / "environment")).stdout.split()[0]
    print(f"the environment takes {size} MB")

    no_driver = (
        "MXNet's GPU build needs NVIDIA's driver, and libcuda.so.1 is missing; install the driver, or replace MXNet's GPU build"
    )
    environment.expect("doctor without a driver", environment.program("doctor"), 1, [no_driver])
    environment.expect("train without a driver", environment.program("train", "--output", "run"), 2, [no_driver])

    no_gpu = f"NVIDIA's driver shows no GPU; {REMEDY}"
    environment.expect("doctor without a GPU", environment.program("doctor", shows="none"), 1, [no_gpu, "device cpu"])
    done = environment.program("train", "--device", "gpu", "--output", "run", shows="none")
    environment.expect("train on a missing GPU", done, 2, [f"--device gpu: {no_gpu}"])

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
    unusable = "GPU 0 fails at its first operation (CUDA: Check failed: e == cudaSuccess (36 vs. 0)"
    environment.expect("doctor with a GPU that CUDA cannot use", done, 1, [unusable])

    quick = ("train", "--epochs", "1", "--train-images", "640", "--test-images", "100", "--output")
    done = environment.program(*quick, "run-cpu", shows="none")
    environment.expect("train on auto without a GPU", done, 0, ["Device cpu", "Test accuracy"])
    silent = "MXNet's GPU build cannot train, even on the CPU, while CUDA does not respond (CUDA: Check failed"
    environment.expect(
        "train on auto with a driver that CUDA cannot use", environment.program(*quick, "run", shows="9.0"), 2, [silent]
    )
    print(f"{environment.checks} checks passed")


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
