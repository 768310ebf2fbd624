"""The progress bars of a comparison, on stderr."""

from typing import Any

from mnist_trainer.progress import progress_bar
from mnist_trainer.training.subprocesses import Ended, Progress, Training


class ComparisonBars:
    """A progress bar for all runs of a comparison, and one for each training; none if stderr is not a terminal."""

    def __init__(self, runs: int, iterations: int, *, is_quiet: bool = False) -> None:
        """Show the bar for all runs.

        Args:
            runs: The number of runs to train.
            iterations: The number of their iterations together.
            is_quiet: True to show nothing.
        """
        self._is_quiet = is_quiet
        self._runs, self._ended = runs, 0
        self._whole = progress_bar(f"Runs 0/{runs}", iterations, is_quiet=is_quiet)
        self._bars: dict[Training, Any] = {}
        self._iterations: dict[Training, int] = {}

    def __enter__(self) -> "ComparisonBars":
        return self

    def __call__(self, event: Progress | Ended) -> None:
        if event.training not in self._bars:
            done = event.iteration if isinstance(event, Progress) else 0  # above 0 in a resumed training
            title, total = event.training.title, event.training.iterations
            self._bars[event.training] = progress_bar(title, total, done=done, is_quiet=self._is_quiet)
        bar = self._bars[event.training]
        iteration = event.iteration if isinstance(event, Progress) else event.training.iterations
        self._whole.update(iteration - self._iterations.get(event.training, 0))
        self._iterations[event.training] = iteration
        if isinstance(event, Progress):
            bar.update(event.iteration - bar.n)
            return
        bar.close()
        del self._bars[event.training]
        self._ended += 1
        self._whole.set_description_str(f"Runs {self._ended}/{self._runs}")

    def __exit__(self, *_: object) -> None:
        for bar in (*self._bars.values(), self._whole):
            bar.close()
