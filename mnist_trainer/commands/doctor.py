"""`mnist-trainer doctor`: check the installation and the devices, and suggest remedies."""

from mnist_trainer.commands.request import Arguments
from mnist_trainer.console import print_lines
from mnist_trainer.errors import DONE, FAILED


def doctor(arguments: Arguments) -> int:
    """Run `mnist-trainer doctor`; return the exit code."""
    from mnist_trainer.diagnostics.doctor import examine

    problems = []
    for finding in examine(arguments.threads, arguments.data_dir, builds=arguments.build):
        print_lines(f"{finding.subject:32}{finding.state}")
        if finding.problem:
            problems.append(finding.problem)
    print_lines(*(f"problem: {problem}" for problem in problems))
    print_lines(f"Problems found: {len(problems)}." if problems else "No problems found.")
    return FAILED if problems else DONE
