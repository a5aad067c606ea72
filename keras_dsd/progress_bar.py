"""A progress bar on the terminal, by rich, which is imported only where one may be shown."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(shown: bool, total: int, done: int) -> Iterator[Callable[[str], None]]:
    """Shows how far something is, on stderr where that is a terminal, or in a notebook.

    Args:
        shown: Whether to show anything at all.
        total: Number of steps.
        done: How many of them were taken earlier.

    Yields:
        A function to call after each step, with a few words on it.
    """
    if not shown:
        yield lambda words: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        # Into a file, rich would write the bar as it ends.
        yield lambda words: None
        return
    text = TextColumn("{task.description}", markup=False)  # brackets in a path are no markup
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total, completed=done)
        yield lambda words: progress.update(task, advance=1, description=words)
