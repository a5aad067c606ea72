"""Errors of the user's input, shown as a line instead of a traceback."""


class ProblemError(ValueError):
    """Error with three parts: expected, received, what to do."""


class MissingData(ProblemError):  # noqa: N818
    """Missing data: names them, their folder and layout, and where to get them."""
