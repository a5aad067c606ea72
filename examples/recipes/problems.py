"""What is told in a line, and not as a traceback: it is nothing of the program's."""


class ProblemError(ValueError):
    """Says what was expected, what was received, and what to do."""


class MissingData(ProblemError):  # noqa: N818
    """What was looked for is not there: says what, where, in which layout, where to get it."""
