"""`mnist-trainer data …`: the MNIST files checked and fetched."""

from mnist_trainer.commands.request import Arguments
from mnist_trainer.errors import DONE, RequestError


def verify(arguments: Arguments) -> int:
    from mnist_trainer.mnist_files import FILES, files_problems, find_data_dir

    folder = find_data_dir(arguments.data_dir)
    if problems := files_problems(folder):
        raise RequestError(*problems)
    for file in FILES:
        print(f"{folder / file.name}: genuine, SHA-256 {file.sha256}")
    return DONE


def fetch(arguments: Arguments) -> int:
    from tqdm import tqdm

    from mnist_trainer.mnist_files import FILES, MIRRORS, fetch_file, file_problem, find_data_dir

    for mirror in arguments.mirror or ():
        if not mirror.startswith(("https://", "http://", "file://")):
            raise RequestError(f"--mirror {mirror}: write it as https://…, http://… or file://…")
    folder = find_data_dir(arguments.data_dir)
    missing = [file for file in FILES if file_problem(folder, file)]
    total = sum(file.size_bytes for file in missing)
    with tqdm(desc="MNIST", total=total, unit="B", unit_scale=True, disable=True if arguments.quiet else None) as bar:
        for file in missing:
            fetch_file(folder, file, tuple(arguments.mirror or MIRRORS), bar.update)
    for file in FILES:
        print(f"{folder / file.name}: {'fetched' if file in missing else 'was there'}, genuine")
    return DONE
