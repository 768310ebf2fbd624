"""`mnist-trainer data …`: check, fetch or import the files of a data set."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_trainer.commands.request import Arguments
from mnist_trainer.console import print_lines
from mnist_trainer.errors import DONE, RequestError
from mnist_trainer.toml import to_toml

if TYPE_CHECKING:
    from mnist_trainer.data.mnist_files import MnistFile


def verify(arguments: Arguments) -> int:
    """Run `mnist-trainer data verify`; return the exit code."""
    from mnist_trainer.data import own_files
    from mnist_trainer.data.files import find_data_dir
    from mnist_trainer.data.mnist_files import PUBLISHED, files_problems, path_of, sha256_of

    folder = find_data_dir(arguments.name, arguments.data_dir)
    if arguments.name not in PUBLISHED:
        print_lines(*to_toml({"data": own_files.describe(folder, arguments.name)}).splitlines())
        return DONE
    published = PUBLISHED[arguments.name]
    if problems := files_problems(folder, published):
        raise RequestError(*problems)
    for path in (path_of(folder, file) for file in published):
        print_lines(f"{path}: genuine, SHA-256 {sha256_of(path)}")
    return DONE


def fetch(arguments: Arguments) -> int:
    """Run `mnist-trainer data fetch`; return the exit code."""
    from mnist_trainer.data.files import find_data_dir
    from mnist_trainer.data.mnist_files import ADDRESSES, PUBLISHED, fetch_files
    from mnist_trainer.progress import progress_bar

    for mirror in arguments.mirror or ():
        if not mirror.startswith(("https://", "http://", "file://")):
            raise RequestError(f"--mirror {mirror}: write it as https://…, http://… or file://…")
    name = arguments.name
    if name not in PUBLISHED:
        known = ", ".join(PUBLISHED)
        remedy = f"copy its four files to {find_data_dir(name)}, with the names of MNIST's"
        if name == "emnist-digits":
            remedy += "; https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip has them"
        raise RequestError(f"--name {name}: only {known} can be downloaded; {remedy}")
    folder = find_data_dir(name, arguments.data_dir)

    def fetch_wanted(wanted: Sequence["MnistFile"]) -> dict[str, str]:
        total = sum(file.size_bytes for file in wanted)
        with progress_bar(name, total, unit="B", is_quiet=arguments.quiet) as bar:
            return fetch_files(folder, wanted, arguments.mirror or ADDRESSES[name], bar.update)

    return _complete(folder, PUBLISHED[name], arguments.force, "downloaded", lambda file: "fetched", fetch_wanted)


def import_files(arguments: Arguments) -> int:
    """Run `mnist-trainer data import`; return the exit code."""
    from mnist_trainer.data.mnist_files import FILES, find_data_dir, place_files
    from mnist_trainer.data.packings import find_mnist

    folder = find_data_dir(arguments.data_dir)
    found = find_mnist(arguments.source)

    def import_wanted(wanted: Sequence["MnistFile"]) -> dict[str, str]:
        if missing := [file.name for file in wanted if file not in found.contents]:
            there = f"found {', '.join(file.name for file in found.contents)}, but not" if found.contents else "does not hold"
            again = "mnist-trainer data fetch --data-dir DIR downloads all four"
            raise RequestError(*found.remarks, f"{arguments.source}: {there} {', '.join(missing)}; {again}")
        return place_files(folder, wanted, found.contents.__getitem__)

    return _complete(
        folder, FILES, arguments.force, "imported", lambda file: f"imported from {found.places[file]}", import_wanted
    )


def _complete(
    folder: Path,
    files: Sequence["MnistFile"],
    force: bool,
    done: str,
    describe: Callable[["MnistFile"], str],
    complete: Callable[[Sequence["MnistFile"]], dict[str, str]],
) -> int:
    """Make a folder hold the four genuine files, and print where each is from.

    Args:
        folder: The folder.
        files: The four files.
        force: True to replace files that are not genuine.
        done: What happens to files, for messages: "downloaded" or "imported".
        describe: Returns where a file is from.
        complete: Writes the files that are not there, as `place_files` does.

    Returns:
        The exit code.

    Raises:
        RequestError: Files that are not genuine would be replaced.
    """
    from mnist_trainer.data.mnist_files import difference, is_there, other_folder

    wanted = {file: problem for file in files if (problem := difference(folder, file))}
    in_the_way = [problem for file, problem in wanted.items() if is_there(folder, file)]
    if in_the_way and not force:
        other = f"choose another folder, such as --data-dir {shlex.quote(other_folder(folder))}"
        remedy = f"{other}, or add --force to replace it and keep a copy"
        raise RequestError(*(f"{problem}; nothing was {done}; {remedy}" for problem in in_the_way))
    copies = complete(list(wanted))
    for file in files:
        kept = f"; the replaced one is now {copies[file.name]}" if file.name in copies else ""
        print_lines(f"{folder / file.name}: {describe(file) if file in wanted else 'was there'}, genuine{kept}")
    return DONE
