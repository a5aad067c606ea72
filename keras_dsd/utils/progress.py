"""A progress bar on the terminal, by rich, which is imported only if a bar may be shown."""

import contextlib
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(
    shown: bool, total: int, done: int, *, after: float = 0.0
) -> Iterator[Callable[[str], None]]:
    """Shows a progress bar in a notebook, or on stderr if it is a terminal.

    Args:
        shown: If `False`, no bar is shown.
        total: Number of steps.
        done: Number of steps that are already done.
        after: Number of seconds before the bar is shown.

    Yields:
        A function to call with a text after each step.
    """
    if not shown:
        yield lambda text: None
        return
    from rich import progress as parts
    from rich.console import Console

    console, began = Console(stderr=True), time.monotonic()
    is_file = not (
        console.is_terminal or console.is_jupyter
    )  # rich would write the bar when it stops
    text = parts.TextColumn("{task.description}", markup=False)  # brackets in a path are not markup
    columns = (text, parts.BarColumn(), parts.MofNCompleteColumn(), parts.TimeRemainingColumn())
    progress = parts.Progress(*columns, console=console, disable=is_file)
    task = progress.add_task("", total=total, completed=done)

    def step(description: str) -> None:
        progress.update(task, advance=1, description=description)
        if time.monotonic() - began >= after:
            progress.start()  # no effect after the first call

    if not after:
        progress.start()
    try:
        yield step
    finally:
        progress.stop()
