"""`mnist-trainer data …`: check or fetch the MNIST files."""

import shlex

from mnist_trainer.commands.request import Arguments
from mnist_trainer.console import print_lines
from mnist_trainer.errors import DONE, RequestError


def verify(arguments: Arguments) -> int:
    """Run `mnist-trainer data verify`; return the exit code."""
    from mnist_trainer.data.mnist_files import FILES, files_problems, find_data_dir

    folder = find_data_dir(arguments.data_dir)
    if problems := files_problems(folder):
        raise RequestError(*problems)
    for file in FILES:
        print_lines(f"{folder / file.name}: genuine, SHA-256 {file.sha256}")
    return DONE


def fetch(arguments: Arguments) -> int:
    """Run `mnist-trainer data fetch`; return the exit code."""
    from mnist_trainer.data.mnist_files import (
        FILES,
        MIRRORS,
        difference,
        fetch_files,
        find_data_dir,
        is_there,
        other_folder,
    )
    from mnist_trainer.progress import progress_bar

    for mirror in arguments.mirror or ():
        if not mirror.startswith(("https://", "http://", "file://")):
            raise RequestError(f"--mirror {mirror}: write it as https://…, http://… or file://…")
    folder = find_data_dir(arguments.data_dir)
    wanted = {file: problem for file in FILES if (problem := difference(folder, file))}
    in_the_way = [problem for file, problem in wanted.items() if is_there(folder, file)]
    if in_the_way and not arguments.force:
        other = f"choose another folder, such as --data-dir {shlex.quote(other_folder(folder))}"
        remedy = f"{other}, or add --force to replace it and keep a copy"
        raise RequestError(*(f"{problem}; nothing was downloaded; {remedy}" for problem in in_the_way))
    total = sum(file.size_bytes for file in wanted)
    with progress_bar("MNIST", total, unit="B", is_quiet=arguments.quiet) as bar:
        copies = fetch_files(folder, list(wanted), arguments.mirror or MIRRORS, bar.update)
    for file in FILES:
        kept = f"; the replaced one is now {copies[file.name]}" if file.name in copies else ""
        print_lines(f"{folder / file.name}: {'fetched' if file in wanted else 'was there'}, genuine{kept}")
    return DONE
