"""Selection of the weights to prune with their sparsities, and reasons for the other weights."""

import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from keras_dsd.algorithm import patterns
from keras_dsd.algorithm.patterns import NM, Block, Pattern, num_covered
from keras_dsd.algorithm.weight import SelectableWeight
from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid_type, shown

UNKNOWN_LAYER = "unknown layer type: give it a get_prunable_weights() method"
NOT_A_KERNEL = "not a kernel: biases, normalisation and depthwise weights stay dense"
LORA = "LoRA is enabled: kernel and low-rank factors are not pruned"
QUANTISED = "quantised: its values are not trained"
_ASK = "to prune it anyway, give its full path in a `sparsity` dict"
FROZEN = f"not trainable: {_ASK}"
PREPARES = "preprocessing layer: its state, such as a vocabulary, is not trained"
UNTRAINED = "trained by no optimizer: pruned weights would not regrow"
DEPTHWISE = f"depthwise kernel: {_ASK}"
NOT_LINEAR = f"not a linear map, by its name: {_ASK}"
NOT_LINEAR_BY_SHAPE = f"not a linear map, by its shape: {_ASK}"
EXCLUDED = "excluded"
NO_MATCH = "no pattern of `sparsity` matches"
ZERO_SPARSITY = "excluded: target sparsity 0"
ONE_LAYER = "outside the layer that was wrapped"
TOO_SMALL = "too small for a full block or group of the pattern"

# Requested by the user, or not trainable.
_LEFT_BY_USER = {FROZEN, UNTRAINED, LORA, QUANTISED, EXCLUDED, NO_MATCH, ZERO_SPARSITY, ONE_LAYER}

Sparsity = float | Mapping[str, float] | Callable[[Any], float]
# Names that `exclude` takes: functions of a model in `analysis.exclusions`.
EXCLUSIONS = ("convolutions", "embeddings", "first_conv", "published")
# Compared by identity: an explicit 0.3 with an N:M pattern is refused, the default is not.
DEFAULT_SPARSITY = float("0.3")


class Selection:
    """Checked arguments of `apply`: a sparsity for each weight, by path, and the pattern.

    In a mapping from regular expressions to fractions, the first expression that `re.search` finds
    in the path counts. A weight with fraction 0 stays dense, and so does one without a match.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A fraction is outside [0, 1), a regular expression can't be compiled, `scope`
            is unknown, or `sparsity` or `scope="global"` is given with an `NM` pattern.
    """

    def __init__(
        self,
        sparsity: Sparsity = DEFAULT_SPARSITY,
        exclude: str | Sequence[str] = (),
        pattern: Pattern = None,
        scope: str = "layer",
    ) -> None:
        if not isinstance(pattern, Block | NM | None):
            expected = "to be None (single weights), Block(height, width) or NM(n, m)"
            raise invalid_type("pattern", pattern, expected, "Give one of these, such as NM(2, 4).")
        advice = "Give 'layer' to prune each tensor to its own sparsity, 'global' for one ranking."
        checks.choice("scope", scope, ("layer", "global"), advice)
        if isinstance(pattern, NM):
            _check_fixed(pattern, scope, sparsity)
        self.pattern = pattern
        self.scope = scope
        self.sparsity = pattern.sparsity if isinstance(pattern, NM) else _check_sparsity(sparsity)
        self.exclude = _check_exclude(exclude)
        named = tuple(self.sparsity) if isinstance(self.sparsity, Mapping) else ()
        # Regular expressions that have not matched any path so far.
        self.unmatched = named + self.exclude

    def see(self, paths: Iterable[str]) -> None:
        """Records the regular expressions that match one of `paths`."""
        seen = list(paths)
        self.unmatched = tuple(p for p in self.unmatched if not _finds(p, seen))

    def choose(
        self, weight: SelectableWeight, unless_named: str | None = None
    ) -> tuple[float, str | None]:
        """Returns the sparsity of one weight, and None; or 0.0 and the reason why it stays dense.

        `unless_named` is the reason why it stays dense unless its full path is given, such as
        `FROZEN`.

        Raises:
            TypeError: The `sparsity` callable does not return a number.
            ValueError: The `sparsity` callable returns a number outside [0, 1).
        """
        if unless_named is None and getattr(weight, "is_table_of_positions", False):
            unless_named = NOT_LINEAR
        paths = _paths_of(weight)
        self.see(paths)
        if any(_finds(pattern, paths) for pattern in self.exclude):
            return 0.0, EXCLUDED
        if isinstance(self.sparsity, Mapping):
            matches = (share for pattern, share in self.sparsity.items() if _finds(pattern, paths))
            sparsity = next(matches, None)
            if sparsity is None:
                return 0.0, NO_MATCH
            unless_named = None if self.names(weight) else unless_named
        elif callable(self.sparsity):
            sparsity = checks.fraction(f"sparsity({weight.path})", self.sparsity(weight))
        else:
            sparsity = self.sparsity
        if unless_named is not None:
            return 0.0, unless_named
        if self.pattern and not num_covered(weight.shape, self.pattern, weight.layout):
            return 0.0, TOO_SMALL
        return (sparsity, None) if sparsity else (0.0, ZERO_SPARSITY)

    def leaves_dense(self, path: str) -> bool:
        """Returns whether the arguments exclude a path, or a `sparsity` dict does not match it."""
        if isinstance(self.sparsity, Mapping):
            matches = (share for pattern, share in self.sparsity.items() if _finds(pattern, [path]))
            if not next(matches, 0.0):
                return True
        return any(_finds(pattern, [path]) for pattern in self.exclude)

    def names(self, weight: SelectableWeight) -> bool:
        """Returns whether `sparsity` has the full path, verbatim or as `exact` writes it."""
        given = self.sparsity if isinstance(self.sparsity, Mapping) else ()
        return any(path in given or exact(path) in given for path in _paths_of(weight))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments as plain values; None for a callable, which can't be serialized."""
        sparsity: Any = self.sparsity
        if isinstance(sparsity, Mapping):
            sparsity = dict(sparsity)
        elif callable(sparsity):
            sparsity = None
        layout = {"pattern": patterns.to_config(self.pattern), "scope": self.scope}
        return {"sparsity": sparsity, "exclude": list(self.exclude), **layout}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Selection":
        """Returns the selection of a config; one of a callable selects no further weights."""
        sparsity = {} if config["sparsity"] is None else config["sparsity"]
        pattern, scope = patterns.from_config(config.get("pattern")), config.get("scope", "layer")
        if isinstance(pattern, NM):
            sparsity = DEFAULT_SPARSITY
        return cls(sparsity, config["exclude"], pattern, scope)


def _paths_of(weight: SelectableWeight) -> tuple[str, ...]:
    """Returns the paths of a weight, with and without the model's own name."""
    return weight.path, getattr(weight, "short_path", weight.path)


def _finds(pattern: str, paths: Iterable[str]) -> bool:
    return any(re.search(pattern, path) for path in paths)


def exact(path: str) -> str:
    """Returns the regular expression that matches `path` and nothing longer.

    A verbatim path may match longer paths, and may not match itself: `c++/kernel` does not.
    """
    return f"^{re.escape(path)}$"


def _check_fixed(pattern: NM, scope: str, sparsity: Sparsity) -> None:
    """Checks that no other argument contradicts a pattern that fixes the sparsity."""
    if sparsity is not DEFAULT_SPARSITY:
        raise ValueError(
            f"Expected `sparsity` to be left out: the pattern {pattern} fixes it at "
            f"{pattern.sparsity:g}. Received: sparsity={shown(sparsity)} and pattern={pattern!r}. "
            f"Leave one of them out; `exclude` keeps weights dense."
        )
    if scope == "global":
        raise ValueError(
            f"Expected `scope` to be 'layer' with an N:M pattern, which ranks within each group. "
            f"Received: scope={scope!r} and pattern={shown(pattern)}. Leave `scope` out."
        )


def refuse_unmatched(selection: Selection, paths: Sequence[str]) -> None:
    """Raises ValueError if an expression matches none of `paths`: it is probably misspelt."""
    selection.see(paths)
    if selection.unmatched:
        pattern = selection.unmatched[0]
        argument = "exclude" if pattern in selection.exclude else "sparsity"
        raise ValueError(
            f"Expected every pattern of `{argument}` to match the path of a weight. "
            f"Received: {argument} with pattern={shown(pattern)}, which matches none of "
            f"{list(paths)}. Correct the pattern or leave it out."
        )


def rest_message(
    selection: Selection, name: str, num_selected: int, rest: Iterable[tuple[str, int, str]]
) -> str | None:
    """Returns a warning if less than half of a model's kernels is selected, or None.

    Weights that the user left dense do not count.

    Args:
        selection: The arguments of `apply`.
        name: Name of the model.
        num_selected: Number of values in the selected weights.
        rest: Path, number of values and reason of each other weight with two or more axes.
    """
    layers: dict[tuple[str, str], int] = {}
    for path, size, reason in rest:
        if reason not in _LEFT_BY_USER and not selection.leaves_dense(path):
            layer = path.rpartition("/")[0] or path, reason
            layers[layer] = layers.get(layer, 0) + size
    total = num_selected + sum(layers.values())
    if 2 * num_selected >= total:
        return None
    largest = sorted(layers, key=lambda layer: -layers[layer])
    texts = [f"{layer} with {layers[layer, why]:,} ({why})" for layer, why in largest[:3]]
    more = f"; and {len(largest) - 3} more" if len(largest) > 3 else ""
    return (
        f"Less than half of model={name!r} is selected: {num_selected:,} of {total:,} weights in "
        f"tensors of two or more axes, {num_selected / total:.2%}. The rest is in "
        f"{'; '.join(texts)}{more}, and stays dense in all phases. If this is intended, exclude "
        f"them: apply(model, exclude=[...]). report(model) lists all weights."
    )


def refuse_nothing(
    selection: Selection, name: str, reasons: Mapping[str, str | None], hint: str = ""
) -> None:
    """Raises ValueError if no weight of a model is selected, with the reasons."""
    because = "; ".join(sorted({reason for reason in reasons.values() if reason}))
    raise ValueError(
        f"Expected a model with weights to prune. Received: model={name!r} with "
        f"sparsity={shown(selection.sparsity)} and exclude={shown(selection.exclude)}, which "
        f"select none of {list(reasons)}{because and f' ({because})'}. Select at least one{hint}."
    )


def _check_sparsity(sparsity: Sparsity) -> Sparsity:
    if isinstance(sparsity, Mapping):
        found = {}
        for pattern, share in checks.items("sparsity", sparsity):
            _check_pattern("sparsity", pattern)
            found[pattern] = checks.fraction(f"sparsity[{shown(pattern)}]", share)
        return found
    if callable(sparsity):
        return sparsity
    if not isinstance(sparsity, numbers.Real):
        expected = (
            "to be a number in [0, 1), a dict from regular expressions on paths to such numbers, "
            "or a function of a weight"
        )
        hint = "Give 0.3 for 30 %, or a dict: {'dense': 0.3}."
        raise invalid_type("sparsity", sparsity, expected, hint)
    return checks.fraction("sparsity", sparsity)


def _check_exclude(exclude: str | Sequence[str]) -> tuple[str, ...]:
    names = ", ".join(map(repr, EXCLUSIONS))
    hint = f"Put a single expression in a list: exclude=['dense_1/']; or give a name: {names}."
    expected = "to be a list of regular expressions on paths"
    given = checks.listed("exclude", exclude, expected, hint)
    for pattern in given:
        _check_pattern("exclude", pattern)
    return tuple(given)


def _check_pattern(argument: str, pattern: object) -> None:
    if not isinstance(pattern, str):
        raise TypeError(
            f"Expected the patterns of `{argument}` to be regular expressions (str). "
            f"Received: pattern={shown(pattern)} of type {type(pattern).__name__}. Give a str."
        )
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"Expected the patterns of `{argument}` to be regular expressions. Received: "
            f"pattern={shown(pattern)} ({error}). Correct or escape it: re.escape(path)."
        ) from error
