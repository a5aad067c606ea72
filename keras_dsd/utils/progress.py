"""A progress bar on the terminal, by rich, which is imported only where one may be shown."""

import contextlib
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(
    shown: bool, total: int, done: int, *, after: float = 0.0
) -> Iterator[Callable[[str], None]]:
    """Shows how far something is, on stderr where that is a terminal, or in a notebook.

    Of `total` steps `done` were taken earlier. Nothing is shown in the first `after` seconds: what
    is over by then needs no bar. Yields a function to call after each step, with words on it.
    """
    if not shown:
        yield lambda words: None
        return
    from rich import progress as parts
    from rich.console import Console

    console, began = Console(stderr=True), time.monotonic()
    is_file = not (console.is_terminal or console.is_jupyter)  # rich would write the bar at its end
    text = parts.TextColumn("{task.description}", markup=False)  # brackets in a path are no markup
    columns = (text, parts.BarColumn(), parts.MofNCompleteColumn(), parts.TimeRemainingColumn())
    progress = parts.Progress(*columns, console=console, disable=is_file)
    task = progress.add_task("", total=total, completed=done)

    def step(words: str) -> None:
        progress.update(task, advance=1, description=words)
        if time.monotonic() - began >= after:
            progress.start()  # once started, it stays so

    if not after:
        progress.start()
    try:
        yield step
    finally:
        progress.stop()
