"""Writes the tables in docs/results.md and draws its figure, out of what the studies found.

The prose is written by hand. A table has the name of a task, or is `summary`, `tried` or
`tried-vgg`.

    python benchmarks/studies/page.py
"""

import math
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import app

sys.path.append(str(pathlib.Path(__file__).parents[1]))

import filling
from verdicts import best_variant, of_each_variant

from keras_dsd.analysis.comparison.arms import DSD, FIRST
from keras_dsd.analysis.comparison.compare import load
from keras_dsd.analysis.comparison.result import BEST, LAST, Comparison, Gain
from keras_dsd.analysis.comparison.statistics import mean_and_sd
from keras_dsd.analysis.evaluation import BETTER
from keras_dsd.utils.figures import new_figure

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "results.md"
FIGURE = PAGE.parent / "figures" / "studies" / "gains.png"
RESULTS = pathlib.Path(__file__).parent / "results"
_MINUS = "\N{MINUS SIGN}"
Found = Mapping[str, Comparison]
Study = tuple[dict[str, Any], Found]


def main(argv: list[str]) -> None:
    del argv
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(text, RESULTS), encoding="utf-8")
    studies = read_all(RESULTS)
    draw({name: studies[name] for name in filling.names_in(text) if name in studies}, FIGURE)


def filled(page: str, results: pathlib.Path) -> str:
    """Returns a page with its tables written anew.

    Args:
        page: The page.
        results: The folder of the tasks' files.

    Raises:
        ValueError: A task has no table on the page.
    """
    studies = read_all(results)
    names = filling.names_in(page)
    if missing := set(studies) - set(names):
        raise ValueError(
            f"Expected a table for each task. Received: none for {sorted(missing)}. Write a line "
            f"<!-- NAME --> and a line <!-- end --> where it is to be."
        )

    def table(name: str) -> str:
        if name == "summary":
            return summary({n: studies[n] for n in names if n in studies})
        if name.startswith("tried"):
            return tried(read_all(results / name))
        return of_task(*studies[name]) if name in studies else "Not measured yet.\n"

    return filling.filled(page, table)


def read_all(folder: pathlib.Path) -> dict[str, Study]:
    """Returns, for each task of a folder, what its file says of it, and each variant's comparison.

    Seeds that lack an arm do not count, nor do tasks with fewer than two seeds.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        identity, runs = load(path)
        trained: dict[int, set[str]] = {}
        for run in runs:
            trained.setdefault(run.seed, set()).add(run.arm)
        whole = {seed for seed, arms in trained.items() if arms >= set(identity["arms"])}
        if len(whole) > 1:
            of_whole = [run for run in runs if run.seed in whole]
            found[path.stem] = identity, of_each_variant(identity, of_whole)
    return found


def summary(studies: Mapping[str, Study]) -> str:
    """Returns the table of all tasks, each with its best control and its best variant."""
    lines = [
        "| Task | seeds | best control | its result | best variant | its result "
        "| best in its last phase | gain | 95 % interval | p | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (identity, found) in studies.items():
        variant = best_variant(found)
        comparison = found[variant]
        gain = comparison.gain(BEST)
        lines.append(
            f"| [{name}](#{name}), {identity['metric']} | {len(comparison.seeds)} | "
            f"{gain.control} | {_spread(comparison.tests(gain.control))} | {variant} | "
            f"{_spread(comparison.tests(DSD))} | {_at_the_end(comparison, identity, variant)} | "
            f"{_gain(gain)} | {_word(gain)} |"
        )
    return "\n".join(lines) + "\n"


def draw(studies: Mapping[str, Study], path: pathlib.Path) -> None:
    """Draws the gain of each task's best variant, as a share of its control, with its interval."""
    figure, axes = new_figure(8, 1 + 0.24 * len(studies))
    axes.axvline(0, color="black", linewidth=0.8)
    labels = []
    for place, (name, (_, found)) in enumerate(studies.items()):
        comparison = found[best_variant(found)]
        gain = comparison.gain(BEST)
        share = 100 / np.mean(comparison.tests(gain.control))
        mean, _, low, high, _ = gain.paired
        colour = {"better": "tab:green", "worse": "tab:red"}.get(_word(gain).strip("*"), "tab:gray")
        axes.plot([low * share, high * share], [place, place], color=colour)
        axes.plot(mean * share, place, "o", color=colour)
        labels.append(f"{name} ({len(comparison.seeds)} seeds)")
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel(
        "gain over the best control, in percent of its result; right of 0, DSD is better"
    )
    axes.grid(axis="x", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def of_task(identity: Mapping[str, Any], found: Found) -> str:
    """Returns what a task is, and the table of its arms."""
    any_one = next(iter(found.values()))
    gains = {variant: comparison.gain(BEST) for variant, comparison in found.items()}
    control = next(iter(gains.values())).control
    shorter = [run.num_updates for run in any_one.runs if run.arm == FIRST and run.num_updates]
    lines = [
        f"{identity['words']}, batches of {identity['batch size']}. "
        f"Learning rates: {identity['arms']['llr']}. Every arm: {any_one.num_updates:,} updates"
        + (f", `{FIRST}` {shorter[0]:,}" if shorter else "")
        + f". {identity['metric'].capitalize()}, mean ± standard deviation of "
        f"{len(any_one.seeds)} seeds; {BETTER[identity['mode']]}. Keras {identity['keras']}.",
        "",
        "| arm | validation, best epoch | test, last epoch | test, best epoch | best in its last "
        f"phase | gain, last epoch | gain over `{control}`, best epoch | 95 % interval | p "
        "| verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in dict.fromkeys(run.arm for run in any_one.runs if run.arm != DSD):
        lines.append(f"| `{arm}` | {_values(any_one, arm)} | | | | | | |")
    for variant, comparison in found.items():
        last = comparison.gain(LAST)
        lines.append(
            f"| **{variant}** | {_values(comparison, DSD)} | "
            f"{_at_the_end(comparison, identity, variant)} | {_signed(last.paired.mean)} over "
            f"`{last.control}` | {_gain(gains[variant])} | {_word(gains[variant])} |"
        )
    return "\n".join(lines) + "\n"


def _values(comparison: Comparison, arm: str) -> str:
    validation = [run.chosen_on(BEST) for run in comparison.runs if run.arm == arm]
    tests = (comparison.tests(arm, when) for when in (LAST, BEST))
    return " | ".join(map(_spread, (validation, *tests)))


def _at_the_end(comparison: Comparison, identity: Mapping[str, Any], variant: str) -> str:
    """Returns of how many seeds the best epoch is one after the weights returned for good."""
    lengths = re.findall(r"(?:dense|sparse) for (\d+) epoch", identity["arms"][variant])
    begin = sum(map(int, lengths[:-1]))
    best = [run.best_epoch >= begin for run in comparison.runs if run.arm == DSD]
    return f"{sum(best)} of {len(best)}"


def tried(studies: Mapping[str, Study]) -> str:
    """Returns the table of what was tried, on validation data; `nothing` comes first."""
    lines = [
        "| what is changed | seeds | best control | its result | `sparse 0.7` | DSD 0.7 | gain |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sorted(studies, key=lambda name: (name != "nothing", name)):
        identity, found = studies[name]
        comparison = found["DSD 0.7"]
        control = comparison.gain(BEST).control
        best, sparse, ours = (
            np.array([run.chosen_on(BEST) for run in comparison.runs if run.arm == arm])
            for arm in (control, "sparse 0.7", DSD)
        )
        mean, sd = mean_and_sd(best - ours if comparison.mode == "min" else ours - best)
        lines.append(
            f"| {identity['words']} | {len(comparison.seeds)} | `{control}` | {_spread(best)} | "
            f"{_spread(sparse)} | {_spread(ours)} | {_signed(mean)} ± {sd:.2g} |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    """Returns mean and standard deviation, both to the second figure of the latter."""
    mean, sd = mean_and_sd(values)
    if not sd > 0:
        return f"{mean:.4g} ± {sd:.2g}"
    places = max(0, 1 - math.floor(math.log10(sd)))
    return f"{mean:.{places}f} ± {sd:.{places}f}"


def _gain(gain: Gain) -> str:
    mean, _, low, high, p_value = gain.paired
    p_text = "" if math.isnan(p_value) else f"{p_value:.2g}".replace("-", _MINUS)
    return f"{_signed(mean)} | {_signed(low)} to {_signed(high)} | {p_text}"


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", _MINUS)


def _word(gain: Gain) -> str:
    if not gain.paired.is_shown:
        return "no difference shown"
    return "**better**" if gain.paired.mean > 0 else "worse"


if __name__ == "__main__":
    app.run(main)
