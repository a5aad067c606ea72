"""Evaluation at the end of each part of a run."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras_dsd as dsd
from recipes import arms, results
from recipes.chosen_keras import keras
from recipes.problems import ProblemError


class PartEnds(keras.callbacks.Callback):
    """Evaluates the model at the end of each part of a run, and stores the results."""

    def __init__(
        self,
        parts: list[arms.Part],
        evaluate: Callable[[Any], dict[str, float]],
        record: results.Record,
    ) -> None:
        super().__init__()
        self._ends = dict(zip(arms.ends_of(parts), parts, strict=True))
        self._evaluate = evaluate
        self._record = record
        self._seconds: list[float] = []
        self._last = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """The time to an epoch's first batch is not that of a step."""
        self._last = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Takes the time since the batch before."""
        now = time.perf_counter()
        if self._last:
            self._seconds.append(now - self._last)
        self._last = now

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Evaluates at the end of a part; in a sparse phase, with active masks."""
        if not math.isfinite(loss := (logs or {}).get("loss", 0.0)):
            raise ProblemError(
                f"Expected a loss that is a number. Received: loss={loss} in epoch {epoch + 1}. "
                f"The backup is of the previous epoch. Start again, in another --workdir, with a "
                f"smaller --learning_rate or without half precision."
            )
        part = self._ends.get(epoch + 1)
        if part is None:
            return
        metrics = self._evaluate(self.model)
        sparsity = dsd.report(self.model).sparsity
        seconds = statistics.median(self._seconds) if self._seconds else None
        self._record.end_part(
            part.name, epoch=epoch + 1, sparsity=sparsity, metrics=metrics, seconds_a_step=seconds
        )
        self._seconds = []
        shown = ", ".join(f"{key} {value:.2f} %" for key, value in metrics.items())
        place = f"{list(self._ends).index(epoch + 1) + 1} of {len(self._ends)}"
        print(f"End of part {place} with epoch {epoch + 1}: {shown}; {sparsity:.2%} zeros")
