"""What `fit` measured, epoch after epoch, as whichever Keras returns it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from keras_dsd.utils import checks
from keras_dsd.utils.checks import shown

_NO_METRICS = {"lr", "learning_rate"}


class Logs(NamedTuple):
    """Values by name, of the epochs of one `fit`.

    Attributes:
        epochs: The epochs, counted from 0.
        given: The values of each name, as they were given.
    """

    epochs: list[int]
    given: dict[str, list[Any]]

    @property
    def metrics(self) -> list[str]:
        """The names of what was measured, each once, without `val_`."""
        names = dict.fromkeys(name.removeprefix("val_") for name in self.given)
        return [name for name in names if name not in _NO_METRICS and not name.startswith("dsd_")]

    def numbers(self, name: str) -> list[float]:
        """Returns the values of a name.

        Raises:
            TypeError: One is no number.
        """
        return [checks.as_float(f"history[{name!r}]", value) for value in self.given[name]]

    def ends(self, name: str) -> list[int]:
        """Returns how many epochs had been trained at each value of a name.

        What is measured at every n-th epoch, as with `validation_freq`, has as few values.

        Raises:
            ValueError: There are too few or too many for that.
        """
        num_values = len(self.given[name])
        every = len(self.epochs) // max(num_values, 1)
        ends = [epoch + 1 for epoch in self.epochs if every and (epoch + 1) % every == 0]
        if len(ends) != num_values:
            raise ValueError(
                f"Expected history[{name!r}] to have a value for each of {len(self.epochs)} "
                f"epochs, or for every n-th. Received: {num_values} values. Give what one fit "
                f"returned, or leave it out of `metrics`."
            )
        return ends


def read_logs(history: Any, needed: Sequence[str]) -> Logs:
    """Reads what `fit` returned, or its dict.

    Args:
        history: That. A dict has no epochs, and counts as beginning with the first.
        needed: Names that it is to have a value of for every epoch.

    Raises:
        TypeError: It is something else.
        ValueError: It has no epoch, or not what is needed.
    """
    logs = getattr(history, "history", history)
    if not isinstance(logs, Mapping):
        raise TypeError(
            f"Expected `history` to be what fit returned, or its dict of lists. Received: "
            f"history={shown(history)} of type {type(history).__name__}. Give one of the two."
        )
    given = {
        str(name): checks.items(f"history[{name!r}]", values)
        for name, values in checks.items("history", logs)
    }
    lengths = {name: len(values) for name, values in given.items()}
    epochs = getattr(history, "epoch", None) or range(lengths.get("dsd_phase", 0))
    if not epochs or any(lengths.get(name) != len(epochs) for name in needed):
        raise ValueError(
            f"Expected `history` to be of one epoch or more of a run with DSDSchedule, with "
            f"{' and '.join(needed)}. Received: history of {len(epochs)} epochs with these "
            f"numbers of values: {shown(lengths)}. Call fit with callbacks=[dsd.DSDSchedule(...)]."
        )
    return Logs(list(epochs), given)
