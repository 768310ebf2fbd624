"""The progress bars of a comparison, on stderr."""

from typing import Any

from mnist_trainer.progress import progress_bar
from mnist_trainer.training.subprocesses import Ended, Progress, Training


class ComparisonBars:
    """A progress bar for all runs of a comparison, and one for each training; none if stderr is not a terminal."""

    def __init__(self, runs: int, *, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet
        self._whole = progress_bar("Runs", runs, is_quiet=is_quiet)
        self._bars: dict[Training, Any] = {}

    def __enter__(self) -> "ComparisonBars":
        return self

    def __call__(self, event: Progress | Ended) -> None:
        if event.training not in self._bars:
            done = event.iteration if isinstance(event, Progress) else 0  # above 0 in a resumed training
            title, total = event.training.title, event.training.iterations
            self._bars[event.training] = progress_bar(title, total, done=done, is_quiet=self._is_quiet)
        bar = self._bars[event.training]
        if isinstance(event, Progress):
            bar.update(event.iteration - bar.n)
            return
        bar.close()
        del self._bars[event.training]
        self._whole.update()

    def __exit__(self, *_: object) -> None:
        for bar in (*self._bars.values(), self._whole):
            bar.close()
