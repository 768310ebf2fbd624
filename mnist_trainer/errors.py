"""The two ways in which the program says no; `cli` turns them into a sentence on stderr and an exit code."""


class RequestError(ValueError):
    """What was asked for cannot be done as asked: a flag, a key, a file or the installation. Exit code 2.

    Raised before anything is written. Carries every problem that was found, a sentence each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class RunError(RuntimeError):
    """The run began and could not go on. Exit code 1."""
