"""Errors of the user's input, shown as a line instead of a traceback."""


class ProblemError(ValueError):
    """Error with three parts: expected, received, what to do."""


class MissingData(ProblemError):  # noqa: N818
    """What was looked for is not there: says what, where, in which layout, where to get it."""
