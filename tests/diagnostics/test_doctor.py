"""`doctor`: a working machine, broken data, threads and installations, and simulated GPUs."""

import os
import platform
import re
import resource
from pathlib import Path

import pytest
from conftest import Program
from requirements import hide_matplotlib

from mnist_trainer import plots, runtime
from mnist_trainer.cli import main
from mnist_trainer.data.mnist_files import DATA_DIR_VARIABLE, FILES
from mnist_trainer.diagnostics.doctor import Finding, examine
from mnist_trainer.diagnostics.environment import processor_name
from mnist_trainer.runtime import devices, import_mxnet, nvidia, package_version
from mnist_trainer.runtime.hardware import available_processors
from mnist_trainer.runtime.nvidia import DriverError, Gpu

mx = import_mxnet()
assert plots  # imported, so that a test can make it fail


@pytest.fixture(autouse=True)
def no_data_dir_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)


def findings(data_dir: Path) -> dict[str, Finding]:
    threads = int(os.environ["OMP_NUM_THREADS"])  # MXNet is loaded with this number
    return {finding.subject.strip(): finding for finding in examine(threads, data_dir)}


def states(output: str) -> dict[str, str]:
    """Return the lines of the table as subject → state."""
    rows = (
        re.fullmatch(r" *(device \w+(?::\d+)?|mxnet loads|[\w.-]+?\.gz|[\w-]+) *(.*)", line) for line in output.splitlines()
    )
    return {row.group(1): row.group(2) for row in rows if row}


@pytest.mark.slow
def test_a_working_machine_has_no_problems(new_program: Program, data_dir: Path) -> None:
    done = new_program("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "No problems found."
    assert "Problems found" not in done.stdout
    found = states(done.stdout)
    assert found["python"] == platform.python_version()
    assert found["processor"] == processor_name()
    for name in ("mxnet", "numpy", "pillow", "matplotlib", "tqdm", "setuptools"):
        assert found[name] == package_version(name)
    processors = available_processors()
    assert found["threads"] == f"{processors} of {processors} processors"
    assert found["mxnet loads"] == "yes"
    assert found["device cpu"] == "works"
    assert found["device gpu"].startswith("none: this MXNet is the CPU build; for a GPU run scripts/setup_gpu.sh")
    assert found["figures"] == "works"
    assert found["data"] == str(data_dir.resolve())
    for file in FILES:
        assert found[file.name] == f"SHA-256 {file.sha256[:16]}…"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "variables", "threads"),
    [
        pytest.param(["--threads", "3"], {}, 3, id="the flag"),
        pytest.param([], {"OMP_NUM_THREADS": "5"}, 5, id="the variable"),
        pytest.param(["--threads", "3"], {"OMP_NUM_THREADS": "abc"}, 3, id="the flag before an unreadable variable"),
    ],
)
def test_threads(arguments: list[str], variables: dict[str, str], threads: int, new_program: Program) -> None:
    done = new_program("doctor", *arguments, **variables)
    assert done.returncode == 0
    assert states(done.stdout)["threads"] == f"{threads} of {available_processors()} processors"


def test_an_unreadable_number_of_threads(program: Program) -> None:
    done = program("doctor", OMP_NUM_THREADS="abc")
    assert (done.returncode, done.stderr) == (1, "")
    assert states(done.stdout)["threads"] == "unknown"
    assert re.search(r"^problem: OMP_NUM_THREADS = 'abc': must be a whole number from 1 to 1024$", done.stdout, re.MULTILINE)
    assert re.search(r"\nProblems found: \d+\.\n$", done.stdout)
    assert states(done.stdout)[FILES[0].name].startswith("SHA-256"), "the rest is checked nevertheless"


def test_threads_that_are_set_too_late(data_dir: Path) -> None:
    loaded_with = int(os.environ["OMP_NUM_THREADS"])
    found = {finding.subject: finding for finding in examine(loaded_with + 1, data_dir)}
    other = loaded_with + 1
    assert found["threads"].state == "unknown"
    assert f"--threads {other}: MXNet is already loaded" in str(found["threads"].problem)
    assert [finding.subject for finding in found.values() if finding.problem] == ["threads"]


def test_a_wrong_flag_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--threads", "0"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mnist-trainer: --threads 0: must be ")


def test_broken_data(program: Program, tmp_path: Path, data_dir: Path) -> None:
    broken = tmp_path / "mnist"
    broken.mkdir()
    for file in FILES[1:3]:
        (broken / file.name).symlink_to(data_dir / file.name)
    (broken / FILES[3].name).write_bytes(b"short")
    done = program("doctor", "--data-dir", broken)
    assert (done.returncode, done.stderr) == (1, "")
    *_, missing, short, last = done.stdout.splitlines()
    assert missing.startswith(f"problem: {broken / FILES[0].name}: expected a file of 9,912,422 bytes, found none; ")
    assert short.startswith(f"problem: {broken / FILES[3].name}: expected 4,542 bytes, found 5; ")
    for problem in (missing, short):
        assert f"mnist-trainer data fetch --data-dir {broken}-genuine to" in problem
    assert last == "Problems found: 2."
    found = states(done.stdout)
    assert found["data"] == str(broken)
    assert [found[file.name].split(" ")[0] for file in FILES] == ["missing", "SHA-256", "SHA-256", "not"]


def test_a_data_folder_that_is_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    found = findings(tmp_path / "loop")
    assert found["data"].problem is None
    assert all("symbolic links" in str(found[file.name].problem) for file in FILES)


def test_data_of_the_variable(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))
    found = list(examine(int(os.environ["OMP_NUM_THREADS"])))
    assert Finding("data", str(tmp_path)) in found
    assert len([finding for finding in found if finding.problem]) == len(FILES)
    assert not [finding for finding in findings(data_dir).values() if finding.problem]


@pytest.mark.parametrize("broken", ["import", "drawing"])
def test_figures_that_cannot_be_drawn(broken: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **_more: object) -> None:
        raise LookupError("no such font")

    if broken == "import":
        hide_matplotlib(monkeypatch)
    else:
        monkeypatch.setattr("mnist_trainer.plots.Figure.savefig", fail)
    found = findings(data_dir)
    assert [subject for subject, finding in found.items() if finding.problem] == ["figures"]
    assert found["figures"].state == "does not work"
    problem = str(found["figures"].problem)
    assert ("matplotlib cannot be imported" if broken == "import" else "no such font") in problem
    assert "pip install" in problem


def test_a_broken_installation(new_program: Program, tmp_path: Path, repository: Path) -> None:
    for name, version in (("mxnet-cu112", "1.9.1"), ("numpy", "1.22.4")):
        info = tmp_path / "packages" / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    done = new_program("doctor", PYTHONPATH=f"{repository}{os.pathsep}{tmp_path / 'packages'}")
    assert (done.returncode, done.stderr) == (1, "")
    found = states(done.stdout)
    assert (found["mxnet"], found["mxnet-cu112"], found["numpy"]) == ("1.9.1", "1.9.1", "1.22.4")
    assert "mxnet loads" not in found, "it is not attempted"
    assert done.stdout.splitlines()[-3:] == [
        "problem: mxnet and mxnet-cu112 are installed together and overwrite each other's files; "
        "pip uninstall -y mxnet mxnet-cu112, then install one of them with pip install --no-deps",
        'problem: numpy 1.22.4 is too old; pip install "numpy>=1.23,<3"',
        "Problems found: 2.",
    ]


def test_a_library_that_does_not_load(new_program: Program, tmp_path: Path) -> None:
    (tmp_path / "libmxnet.so").write_bytes(b"")
    done = new_program("doctor", MXNET_LIBRARY_PATH=str(tmp_path / "libmxnet.so"))
    assert (done.returncode, done.stderr) == (1, "")
    found = states(done.stdout)
    assert found["mxnet loads"] == "no"
    assert "device cpu" not in found
    assert done.stdout.splitlines()[-2:] == [
        f"problem: MXNet cannot be loaded ({tmp_path / 'libmxnet.so'}: file too short); "
        "reinstall it: pip install --force-reinstall --no-deps mxnet==1.9.1",
        "Problems found: 1.",
    ]
    assert FILES[0].name in found, "the rest is checked nevertheless"


NO_KERNEL_ERROR = "ErrStr:no kernel image is available for execution on the device"


A100, H100 = Gpu("NVIDIA A100", (8, 0)), Gpu("NVIDIA H100", (9, 0))
CAPABLE, TOO_NEW = "NVIDIA A100, compute capability 8.0", "NVIDIA H100, compute capability 9.0"


@pytest.mark.parametrize(
    ("there", "errors", "expected"),
    [
        pytest.param([A100], {}, {"device gpu:0": (f"{CAPABLE}: works", None)}, id="one that works"),
        pytest.param(
            [A100, A100],
            {1: NO_KERNEL_ERROR},
            {
                "device gpu:0": (f"{CAPABLE}: works", None),
                "device gpu:1": (f"{CAPABLE}: does not work", "has no machine code for GPU 1"),
            },
            id="one of two",
        ),
        pytest.param(
            [H100],
            {},
            {
                "device gpu:0": (
                    f"{TOO_NEW}: does not work",
                    f"no machine code for GPU 0 ({TOO_NEW}): it supports only compute capability",
                )
            },
            id="one that is too new",
        ),
        pytest.param([], {}, {"device gpu": ("does not work", "NVIDIA's driver shows no GPU")}, id="none"),
        pytest.param(
            DriverError("no answer"),
            {},
            {"device gpu": ("does not work", "no answer; check the output of nvidia-smi")},
            id="no driver",
        ),
    ],
)
def test_the_gpu_build(
    there: list[Gpu] | Exception,
    errors: dict[int, str],
    expected: dict[str, tuple[str, str | None]],
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def show() -> list[Gpu]:
        if isinstance(there, Exception):
            raise there
        return there

    tried: list[object] = []

    def run(context: object) -> None:
        tried.append(context)
        for number, error in errors.items():
            if context == mx.gpu(number):
                raise mx.MXNetError(error)

    monkeypatch.setattr(devices, "built_with_cuda", lambda: True)
    monkeypatch.setattr(nvidia, "gpus", show)
    monkeypatch.setattr(devices, "run_tiny_operation", run)
    found = findings(data_dir)
    assert {subject for subject in found if subject.startswith("device gpu")} == set(expected)
    for subject, (state, problem) in expected.items():
        assert found[subject].state == state
        assert (problem is None) == (found[subject].problem is None)
        assert problem is None or problem in str(found[subject].problem)
    assert found["device cpu"].state == "works"
    capable = [number for number, gpu in enumerate(there) if gpu == A100] if isinstance(there, list) else []
    assert tried == [mx.cpu(), *map(mx.gpu, capable)]


def test_missing_packages(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "package_version", lambda name: None if name == "tqdm" else package_version(name))
    found = findings(data_dir)
    assert found["tqdm"].state == "not installed"
    assert found["numpy"].state == package_version("numpy")


def test_doctor_prints_a_problem_once(program: Program) -> None:
    done = program("doctor", OMP_NUM_THREADS="abc")
    assert done.stdout.count("problem: ") == 1


def test_columns_do_not_touch(program: Program) -> None:
    assert f"{FILES[0].name} SHA-256" in re.sub(" +", " ", program("doctor").stdout)


def test_a_limit_on_the_address_space_that_is_too_low(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings(data_dir)["memory limit"].state == "none"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (900 * 2**20, resource.RLIM_INFINITY))
    found = findings(data_dir)
    assert found["memory limit"].state == "900 MiB"
    assert [finding.subject for finding in found.values() if finding.problem] == ["memory limit"]
    assert "ulimit -v" in str(found["memory limit"].problem)
    assert "mxnet loads" not in found
