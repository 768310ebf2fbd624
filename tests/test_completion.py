"""Completion scripts, each run by its shell."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import parsers, refused, run

from mnist_trainer.config.loading import bundled_configs
from mnist_trainer.config.optimizers import OPTIMIZERS

PARSERS = parsers()

_BASH = """
source ./script
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_mnist_trainer
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

_ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "source ./script; PS1=; print source''d"
zpty -r shell out '*sourced*'
zpty -w -n shell $'{line}\\t'
zpty -r shell out {expected}
print -r -- "$out"
"""


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"needs {shell}")


def script(shell: str, folder: Path) -> None:
    code, out, err = run("completion", shell)
    assert (code, err) == (0, "")
    (folder / "script").write_text(out, encoding="utf-8")


def completed_by(shell: str, source: str, folder: Path) -> list[str]:
    ended = subprocess.run(
        [shell, "-c", source], cwd=folder, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert ended.stderr == ""
    return ended.stdout.splitlines()


CASES = [
    ("", "", sorted(name for name in PARSERS if name and " " not in name)),
    ("schedules", "", ["find", "list", "plot", "show"]),
    ("train", "--sch", ["--schedule", "--scheduler-mode"]),
    ("train --epochs 3", "--dry", ["--dry-run"]),
    ("train --schedule", "WarmR", ["WarmRestarts"]),
    ("train --optimizer", "", sorted(OPTIMIZERS)),
    ("compare --modes", "m", ["manual"]),
    ("compare", "one", ["one-cycle"]),
    ("schedules plot", "Lin", ["Linear"]),
    ("completion", "", ["bash", "fish", "zsh"]),
]


@pytest.mark.process
@pytest.mark.parametrize(("before", "current", "expected"), CASES)
def test_bash_completes(before: str, current: str, expected: list[str], tmp_path: Path) -> None:
    script("bash", tmp_path)
    words = shlex.join(["mnist-trainer", *before.split(), current])
    assert sorted(completed_by("bash", _BASH.format(words=words), tmp_path)) == expected


@pytest.mark.process
def test_bash_completes_values_after_an_equals_sign_and_the_command_that_is_launched(tmp_path: Path) -> None:
    script("bash", tmp_path)
    for words, expected in (
        ("mnist-trainer train --schedule = Cosi", ["Cosine", "CosineAnnealing"]),
        ("mnist-trainer launch --workers 2 -- train --ep", ["--epochs"]),
    ):
        assert completed_by("bash", _BASH.format(words=words), tmp_path) == expected
    (tmp_path / "tutored.toml").write_text("")
    found = completed_by("bash", _BASH.format(words="mnist-trainer train --config tuto"), tmp_path)
    assert set(found) == {"tutored.toml", *(name for name in bundled_configs() if name.startswith("tuto"))}


@needs("fish")
@pytest.mark.process
@pytest.mark.parametrize(("before", "current", "expected"), CASES)
def test_fish_completes(before: str, current: str, expected: list[str], tmp_path: Path) -> None:
    script("fish", tmp_path)
    line = " ".join(["mnist-trainer", *before.split(), current])
    found = completed_by("fish", f"source ./script; complete -C{shlex.quote(line)}", tmp_path)
    assert sorted({word.partition("\t")[0] for word in found} - {"script"}) == expected


@needs("zsh")
@pytest.mark.process
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mnist-trainer train --schedule WarmR", "WarmRestarts"),
        ("mnist-trainer comple", "completion"),
        ("mnist-trainer train --epo", "--epochs"),
    ],
)
def test_zsh_completes(line: str, expected: str, tmp_path: Path) -> None:
    script("zsh", tmp_path)
    assert expected in "\n".join(completed_by("zsh", _ZSH.format(line=line, expected=f"'*{expected}*'"), tmp_path))


def test_every_flag_is_in_every_script() -> None:
    for shell in ("bash", "zsh", "fish"):
        out = run("completion", shell).out
        for parser in PARSERS.values():
            for action in parser._actions:
                for flag in action.option_strings:
                    spelling = f"-l {flag[2:]} " if shell == "fish" else flag
                    assert not flag.startswith("--") or spelling in out


def test_another_shell_is_refused() -> None:
    (message,) = refused("completion", "csh")
    assert "bash, zsh, fish" in message
