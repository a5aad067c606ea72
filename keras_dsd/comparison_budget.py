"""Arms that were trained alike: with as many updates each, or what wins may have had more."""

from collections.abc import Iterable

from keras_dsd.comparison_arms import FIRST
from keras_dsd.comparison_result import Run


def check(runs: Iterable[Run]) -> None:
    """Checks that every arm made as many updates; the first dense phase alone made fewer.

    Args:
        runs: The arms trained so far.

    Raises:
        ValueError: One made others than another.
    """
    arms = [run for run in runs if run.arm != FIRST]
    for run in arms[1:]:
        if run.num_updates != arms[0].num_updates:
            both = [f"{each.num_updates} in arm {each.arm!r} of seed {each.seed}"
                    for each in (arms[0], run)]  # fmt: skip
            raise ValueError(
                f"Expected every arm to make as many updates. Received: {both[0]}, but {both[1]}. "
                f"See that the data are as long each time they are read, and that nothing ends fit "
                f"early."
            )
