"""Messages of a run: the learning rate of a phase in words."""

from collections.abc import Sequence


def learning_rate_text(learning_rates: Sequence[float], is_scheduled: bool, factor: float) -> str:
    """Describes the learning rate of a phase that multiplies `learning_rates` by `factor`."""
    if is_scheduled:
        times = "" if factor == 1.0 else f"{factor:g} times "
        return f"learning rate: {times}what its schedule says"
    scaled = (f"{rate * factor:.6g}" for rate in dict.fromkeys(learning_rates))
    return f"learning rate {', '.join(scaled)}"
