"""Writes the tables in docs/results.md and draws its figures from the results in this folder.

The prose is edited manually. A table has the name of a task of the protocol, or is `answers`,
`controls`, `paper-rates`, `ruled-out` or `other-regimes`; docs/should-i-use-it.md has the sums of
`protocol`, the answers, `errors`, `controls` and `one-run`, in words. A task has an answer, and a
place in the figures, once it is tuned, from ten complete seeds on.

    python benchmarks/studies/page.py
"""

import collections
import dataclasses
import gzip
import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import app

sys.path.append(str(pathlib.Path(__file__).parents[1]))

import filling
import protocol
from protocol import (
    DSD,
    DSD_ARMS,
    DSD_SINGLE,
    FIRST,
    HIGH,
    ITERATED,
    LOW,
    PLAIN,
    PRUNED_ARMS,
    SAME,
    SINGLE,
    Answer,
    Lengths,
    Run,
    Setting,
)
from records import Records, load

from keras_dsd.analysis.comparison.statistics import Difference, holm, mean_and_sd
from keras_dsd.utils.figures import new_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "results.md"
SHORT_PAGE = PAGE.with_name("should-i-use-it.md")
FIGURES = PAGE.parent / "figures" / "studies"
RESULTS = pathlib.Path(__file__).parent / "results"
OTHER = "other-regimes"
_MINUS = "\N{MINUS SIGN}"
_FIGURES = (
    "",
    "![A row for each task and question, with the mean difference and its interval in percent of "
    "the control](figures/studies/answers.png)",
    "",
    "Left of 0, DSD is better. Green: better; red: worse; blue: equal within 1 % (the band); grey: "
    "no difference shown, or not tested. Beyond 1 % the axis of differences is logarithmic.",
    "",
    "![The difference of question (a) for each task, against the training loss that the control "
    "has left, its validation loss over its training loss, and the number of weights]"
    "(figures/studies/predictors.png)",
)
# The controls of `dsd` that the short page names.
_IN_WORDS = {
    FIRST: "the network before pruning", LOW: "training on at its last learning rate",
    SAME: "the same learning rates without pruning", SINGLE: "one conventional run",
}  # fmt: skip
# Pairs of an arm and a control: DSD after the first phase, DSD within one run, and one run itself.
_PAIRS = (
    *((DSD, control) for control in (FIRST, LOW, HIGH, SAME, SINGLE)),
    (DSD_SINGLE, SINGLE), (SINGLE, FIRST),
)  # fmt: skip
_MARKS = {"better": "**", "worse": "_"}
_COLOURS = {"better": "tab:green", "worse": "tab:red", "equal": "tab:blue"}


@dataclasses.dataclass(frozen=True)
class Found:
    """Results of a task of the protocol so far.

    Attributes:
        records: Its runs.
        unpruned: Question (a): the best schedule of DSD against the best unpruned arm.
        pruned: Question (b): the same schedule against the best arm that is pruned for good.
    """

    records: Records
    unpruned: Answer
    pruned: Answer

    @property
    def num_seeds(self) -> int:
        """On how many seeds it rests."""
        return self.unpruned.best.number

    def against(self, control: str, arm: str = DSD) -> Answer:
        """Returns an arm, DSD after the first phase, against a control; `SAME` has its rates."""
        return protocol.answer(self.records.reported, control, arm)

    def has_equal_settings(self, control: str, arm: str = DSD) -> bool:
        """Returns whether tuning chose the same learning rate and L2 for both.

        The first dense phase is that of `DSD`.
        """
        arms = {DSD if name == FIRST else name for name in (control, arm)}
        chosen = (protocol.chosen_setting(self.records.tuning, name) for name in arms)
        return len({(setting.lr, setting.l2) for setting in chosen}) == 1

    @property
    def error(self) -> Answer:
        """Question (a) of the error rate at the chosen epochs; NaN without classes."""
        runs = [dataclasses.replace(run, test=run.error, validation=(0.0,))
                for run in self.records.reported]  # fmt: skip
        return protocol.answer(runs, self.unpruned.control, self.unpruned.arm)

    @property
    def lengths(self) -> Lengths:
        """The epochs of its phases."""
        return Lengths(**self.records.identity["lengths"])

    @property
    def ours(self) -> list[Run]:
        """The reported runs of its schedule of DSD."""
        return [run for run in self.records.reported if run.arm == self.unpruned.arm]

    @property
    def num_regrown(self) -> int:
        """In how many seeds the chosen epoch of DSD is one after pruned weights regrew."""
        start = self.lengths.before_regrowth(self.unpruned.arm)
        return sum(run.best_epoch >= start for run in self.ours)

    @property
    def regrown(self) -> Answer:
        """Question (a), with DSD at the best of the epochs after pruned weights regrew."""
        start = self.lengths.before_regrowth(self.unpruned.arm)
        control = [run for run in self.records.reported if run.arm == self.unpruned.control]
        late = [dataclasses.replace(run, validation=run.validation[start:], test=run.test[start:])
                for run in self.ours]  # fmt: skip
        return protocol.answer([*control, *late], self.unpruned.control, self.unpruned.arm)


def main(argv: list[str]) -> None:
    del argv
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
    words = filled_in_words(SHORT_PAGE.read_text(encoding="utf-8"), RESULTS)
    SHORT_PAGE.write_text(words, encoding="utf-8")
    FIGURES.mkdir(parents=True, exist_ok=True)
    draw_other_regimes(RESULTS / f"{OTHER}.json.gz", FIGURES / f"{OTHER}.png")
    found = counted(read_all(RESULTS))
    if found:
        draw_answers(found, FIGURES / "answers.png")
        draw_predictors(found, FIGURES / "predictors.png")
        draw_longer_training(found, FIGURES / "longer-training.png")


def filled(page: str, results: pathlib.Path) -> str:
    """Returns a page with its tables rewritten.

    Args:
        page: The page.
        results: The folder of the tasks' files.

    Raises:
        ValueError: A task has no table on the page.
    """
    found = read_all(results)
    tasks = counted(found)
    if missing := set(found) - set(filling.names_in(page)):
        raise ValueError(
            f"Expected a table for each task. Received: none for {sorted(missing)}. Write a line "
            f"<!-- NAME --> and a line <!-- end --> where it is to be."
        )

    def table(name: str) -> str:
        if name == "answers":
            return answers(tasks)
        if name == "ruled-out":
            return ruled_out(tasks)
        if name == "controls":
            return controls(tasks)
        if name == "paper-rates":
            return controls({task: each for task, each in found.items() if task not in tasks})
        if name == OTHER:
            return other_regimes(results / f"{OTHER}.json.gz")
        if name in found:
            return of_task(found[name])
        path = results / f"{name}.json.gz"
        return tuning(load(path)) if path.exists() else "Not run yet.\n"

    return filling.filled(page, table)


def filled_in_words(page: str, results: pathlib.Path) -> str:
    """Returns the short page with its sentences of numbers rewritten."""
    found = counted(read_all(results))
    words = {
        "protocol": in_words(found), "errors": errors_in_words(found),
        "controls": controls_in_words(found, DSD, [*_IN_WORDS]),
        "one-run": controls_in_words(found, DSD_SINGLE, (SINGLE,)),
    }  # fmt: skip
    return filling.filled(page, words.__getitem__)


def read_all(folder: pathlib.Path) -> dict[str, Found]:
    """Returns each task that is tuned, with as many seeds as an answer needs, by its name.

    A seed counts once all arms are trained.
    """
    found = {}
    for name in sorted(path.name.removesuffix(".json.gz") for path in folder.glob("*.json.gz")):
        if name == OTHER:
            continue
        records = load(folder / f"{name}.json.gz")
        if not all(records.tuned):
            continue
        tuning, reported = records.tuning, _of_complete_seeds(records)
        if len({run.seed for run in reported}) >= protocol.LEAST_SEEDS:
            records.runs = [*tuning, *reported]
            ours = protocol.best_of(tuning, DSD_ARMS)
            controls = (protocol.best_of(tuning, arms) for arms in (PLAIN, PRUNED_ARMS))
            pairs = (protocol.answer(reported, control, ours) for control in controls)
            found[name] = Found(records, *pairs)
    return found


def counted(tasks: Mapping[str, Found]) -> dict[str, Found]:
    """Returns the tasks that have an answer: a task at other learning rates is no other one."""
    return {
        name: found for name, found in tasks.items()
        if not name.endswith(protocol.AT_PAPER_RATES)
    }  # fmt: skip


def _of_complete_seeds(records: Records) -> list[Run]:
    """Returns the runs of reported seeds of which every arm is trained as tuning chose.

    Of the first dense phase, which each setting has, they are those of `DSD`.
    """
    chosen = protocol.chosen_settings(records.tuning)
    seeds = {run.seed for run in records.reported}
    complete = {seed for seed in seeds if not records.missing(seed, chosen)}
    shown = {**chosen, FIRST: dataclasses.replace(chosen[DSD], sparsity=None)}
    return [run for run in records.reported
            if run.seed in complete and run.setting == shown.get(run.arm)]  # fmt: skip


def answers(tasks: Mapping[str, Found]) -> str:
    """Returns the table of all tasks, with both questions."""
    if not tasks:
        return "No task has enough seeds for an answer yet.\n"
    lines = [
        "| Task | seeds | DSD | (a) best unpruned arm | DSD minus it, in % | p | verdict "
        "| smallest effect, in % | (b) best pruned arm | DSD minus it, in % | p | verdict "
        "| regrown in |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in tasks.items():
        one = found.unpruned
        planned = found.records.identity["seeds"]
        of = "" if found.num_seeds >= planned else f" of {planned}, so far"
        lines.append(
            f"| [{name}](#{name}) | {found.num_seeds}{of} | `{one.arm}` | `{one.control}` | "
            f"{_verdict(tasks, name, 'unpruned')} | {_short(100 * one.best.smallest / one.mean)} | "
            f"`{found.pruned.control}` | {_verdict(tasks, name, 'pruned')} | "
            f"{found.num_regrown} of {found.num_seeds} |"
        )
    return "\n".join([*lines, *_FIGURES]) + "\n"


def ruled_out(tasks: Mapping[str, Found]) -> str:
    """Returns which gains each task rules out, with what tells its regime from others."""
    if not tasks:
        return "No task has enough seeds for an answer yet.\n"
    lines = [
        "| Task | weights | training loss of the control | its validation loss / training loss "
        "| (a) rules out gains above, in % |",
        "|---|---|---|---|---|",
    ]
    for name, found in tasks.items():
        train, gap, weights = _regime(found)
        low = 100 * found.unpruned.best.low / found.unpruned.mean
        lines.append(
            f"| [{name}](#{name}) | {weights:,.0f} | {train:.2g} | {gap:.2g} | "
            f"{'none' if math.isnan(low) else f'{max(0.0, -low):.2g}'} |"
        )
    return "\n".join(lines) + "\n"


def controls(tasks: Mapping[str, Found]) -> str:
    """Returns the difference of each of `_PAIRS`, in percent of the control."""
    if not tasks:
        return "No task has enough seeds for an answer yet.\n"
    columns = {name: [f"[{name}](#{name})"] for name in tasks}
    for arm, control in _PAIRS:
        every = {name: found.against(control, arm) for name, found in tasks.items()}
        for name, verdict in protocol.verdicts(every).items():
            cell = _interval(every[name].best, 100 / every[name].mean)
            mark = _MARKS.get(_first_word(verdict), "")
            other = "" if tasks[name].has_equal_settings(control, arm) else " †"
            columns[name].append(f"{mark}{cell}{mark}{other}")
    lines = [
        "| Task | " + " | ".join(f"`{arm}` minus `{control}`" for arm, control in _PAIRS) + " |",
        "|---" * (1 + len(_PAIRS)) + "|",
        *(f"| {' | '.join(cells)} |" for cells in columns.values()),
    ]
    return "\n".join(lines) + "\n"


def _regime(found: Found) -> tuple[float, float, float]:
    """Returns the last training loss of the control, its gap to validation, and the weights.

    The gap is the validation loss over the training loss.
    """
    runs = [run for run in found.records.reported if run.arm == found.unpruned.control]
    train = [run.train[-1] for run in runs]
    gap = [run.validation[-1] / run.train[-1] for run in runs]
    return mean_and_sd(train)[0], mean_and_sd(gap)[0], found.records.identity["weights"]


def in_words(tasks: Mapping[str, Found]) -> str:
    """Returns how many tasks have which answer, and how large the differences are."""
    if not tasks:
        return f"no task has the {protocol.LEAST_SEEDS} seeds yet that an answer takes"
    parts = []
    questions = {"unpruned": "the best training without pruning", "pruned": "pruning for good"}
    for question, control in questions.items():
        sizes = collections.defaultdict(list)
        for name, verdict in _verdicts(tasks, question).items():
            found = getattr(tasks[name], question)
            sizes[_first_word(verdict)].append(abs(100 * found.best.mean / found.mean))
        better, worse = (f"{word} in {_sized(sizes[word])}" for word in ("better", "worse"))
        parts.append(
            f"against {control}, DSD is {better}, {worse}, equal within 1 % in "
            f"{len(sizes['equal'])}, and nothing is shown in {len(sizes['no'] + sizes['not'])}"
        )
    number = "1 task has" if len(tasks) == 1 else f"{len(tasks)} tasks have"
    return f"{number} {protocol.LEAST_SEEDS} seeds or more; " + "; ".join(parts)


def errors_in_words(tasks: Mapping[str, Found]) -> str:
    """Returns in how many tasks the error rate of DSD is better or worse, question (a)."""
    every = {name: found.error for name, found in tasks.items()
             if not math.isnan(found.error.mean)}  # fmt: skip
    count = _counted_words(protocol.verdicts(every))
    return (
        f"of the {len(every)} tasks with an error rate, it is better in {count['better']} and "
        f"worse in {count['worse']}"
    )


def controls_in_words(tasks: Mapping[str, Found], arm: str, controls: Sequence[str]) -> str:
    """Returns in how many tasks an arm is better or worse than each of some controls."""
    parts = []
    for control in controls:
        every = {name: found.against(control, arm) for name, found in tasks.items()}
        count = _counted_words(protocol.verdicts(every))
        parts.append(f"than {_IN_WORDS[control]} in {count['better']} (worse in {count['worse']})")
    return f"of {len(tasks)} tasks it is better {', '.join(parts)}"


def _counted_words(verdicts: Mapping[str, str]) -> collections.Counter[str]:
    """Returns how many verdicts begin with which word."""
    return collections.Counter(map(_first_word, verdicts.values()))


def _sized(sizes: Sequence[float]) -> str:
    """Returns how many sizes there are, and from the smallest to the largest, in percent."""
    if not sizes:
        return "0"
    ends = dict.fromkeys(map(_short, (min(sizes), max(sizes))))
    return f"{len(sizes)} (by {' to '.join(ends)} %)"


def _verdict(tasks: Mapping[str, Found], name: str, question: str) -> str:
    every = {task: getattr(found, question) for task, found in tasks.items()}
    adjusted = holm({task: each.best.p_value for task, each in every.items()})[name]
    found = every[name]
    word = _bold(_verdicts(tasks, question)[name])
    if not math.isfinite(found.best.mean):
        word = "none: a seed failed"
    return f"{_interval(found.best, 100 / found.mean)} | {_short(adjusted)} | {word}"


def _verdicts(tasks: Mapping[str, Found], question: str) -> dict[str, str]:
    """Returns the verdict of each task; of (b), none where the arms are mostly the same network."""
    given = protocol.verdicts({name: getattr(found, question) for name, found in tasks.items()})
    if question == "unpruned":
        return given
    return {
        name: verdict if 2 * tasks[name].num_regrown >= tasks[name].num_seeds else "not tested"
        for name, verdict in given.items()
    }


def _first_word(verdict: str) -> str:
    return verdict.replace(",", "").split()[0]


def _bold(verdict: str) -> str:
    return verdict.replace("better", "**better**")


def of_task(found: Found) -> str:
    """Returns what a task is, the table of its arms, and both answers."""
    records, runs = found.records, found.records.reported
    identity, lengths = records.identity, records.identity["lengths"]
    planned = identity["seeds"]
    so_far = "" if found.num_seeds >= planned else f" of {planned}: it is not complete"
    updates = {run.num_updates for run in runs if run.arm != FIRST}
    hours = sum(run.seconds for run in records.runs) / 3600
    ours = found.unpruned.arm
    rates = found.lengths.sparse_lr, found.lengths.redense_lr
    at_rates = "" if rates == (Lengths.sparse_lr, Lengths.redense_lr) else (
        ", from {:g} and {:g} of the first learning rate".format(*rates)
    )  # fmt: skip
    lines = [
        f"{identity['words']}. Data: {identity['data']}. "
        f"Epochs: {lengths['dense']} dense, {lengths['sparse']} sparse, "
        f"{lengths['redense']} dense again{at_rates}; "
        f"{', '.join(f'{number:,}' for number in sorted(updates))} updates in every arm. "
        f"**{found.num_seeds} seeds{so_far}**; {hours:.1f} hours of one core, with tuning. "
        f"Mean ± standard deviation; smaller is better.",
        "",
        "| Arm | learning rate | L2 | sparsity | test loss, chosen epoch | error, in % "
        f"| test loss, last epoch | training loss, last epoch | `{ours}` minus it (95 %) | p "
        f"| `{ours}` better in |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    arms = (FIRST, *protocol.reported_arms(records.tuning))
    lines += [_row(runs, arm, ours) for arm in arms]
    masks = found.against(SAME)
    lines += ["", *_answers_of(found)]
    lines.append(
        f"- The masks alone, after the first phase: `{DSD}` minus `{masks.control}` "
        f"{_interval(masks.best)}, {_interval(masks.best, 100 / masks.mean)} %; "
        f"p = {_short(masks.best.p_value)}, not adjusted"
        f"{'' if found.has_equal_settings(SAME) else '; tuning chose other settings for each'}."
    )
    if found.num_regrown < found.num_seeds:
        lines.append(_regrown(found))
    lines += _probed(records)
    lines += _failed(runs)
    return "\n".join(lines) + "\n"


def tuning(records: Records) -> str:
    """Returns how far the tuning of a task is, and what it has found; no answer rests on it."""
    identity, runs = records.identity, records.tuning
    seeds = len({run.seed for run in records.reported})
    lines = [
        f"{identity['words']}. Data: {identity['data']}. "
        f"**No answer yet: {sum(records.tuned)} of {len(records.tuned)} pieces of the tuning are "
        f"done, and {seeds} of {identity['seeds']} seeds.** Mean "
        "validation loss of the tuning seeds, at the best epoch, for each learning rate and L2:",
        "",
        "| Arm | " + " | ".join(f"{lr:g}, L2 {l2:g}" for lr, l2 in identity["bases"]) + " |",
        "|---" * (1 + len(identity["bases"])) + "|",
    ]  # fmt: skip
    for name in dict.fromkeys(run.arm for run in runs):
        cells = [_tuned(runs, name, *base) for base in identity["bases"]]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    if probed := _probed(records):
        lines += ["", *probed]
    return "\n".join(lines) + "\n"


def _tuned(runs: Sequence[Run], name: str, lr: float, l2: float) -> str:
    found: dict[float | None, list[float]] = {}
    for run in runs:
        if (run.arm, run.setting.lr, run.setting.l2) == (name, lr, l2):
            value = run.validation[run.best_epoch]
            found.setdefault(run.setting.sparsity, []).append(value)
    cells = []
    for sparsity, values in found.items():
        at = "" if sparsity is None or len(found) == 1 else f" at {sparsity:g}"
        seeds = "1 seed" if len(values) == 1 else f"{len(values)} seeds"
        cells.append(f"{sum(values) / len(values):.4f}{at} ({seeds})")
    return ", ".join(cells)


def _row(runs: Sequence[Run], name: str, ours: str) -> str:
    of_arm = [run for run in runs if run.arm == name]
    setting = of_arm[0].setting
    best = _spread([run.test_best for run in of_arm])
    last = _spread([run.test[-1] for run in of_arm])
    train = _spread([run.train[-1] for run in of_arm])
    error = [100 * run.error[0] for run in of_arm]
    wrong = "" if any(map(math.isnan, error)) else _spread(error)
    against = "| | |"
    if name not in (FIRST, ours):
        answer = protocol.answer(runs, name, ours)
        p_value = _short(answer.best.p_value)
        against = (
            f"{_interval(answer.best)} | {p_value} | {answer.num_better} of {answer.best.number} |"
        )
    sparsities = protocol.ITERATED_SPARSITIES if name == ITERATED else (setting.sparsity,)
    sparsity = ", ".join(f"{value:g}" for value in sparsities if value is not None)
    shown = f"**`{name}`**" if name == ours else f"`{name}`"
    how = f"{setting.lr:g} | {setting.l2:g} | {sparsity}"
    return f"| {shown} | {how} | {best} | {wrong} | {last} | {train} | {against}"


def _answers_of(found: Found) -> list[str]:
    lines = []
    for letter, answer in (("a", found.unpruned), ("b", found.pruned)):
        best, last = answer.best, answer.last
        lines.append(
            f"- **({letter})** `{answer.arm}` minus `{answer.control}`: {_interval(best)}, "
            f"{_interval(best, 100 / answer.mean)} %; p = {_short(best.p_value)} before Holm; "
            f"at the last epoch {_interval(last)}, p = {_short(last.p_value)}. The smallest effect "
            f"that would have shown, before Holm: {_short(best.smallest)}, "
            f"{_short(100 * best.smallest / answer.mean)} %."
        )
    return lines


def _regrown(found: Found) -> str:
    """Returns in how many seeds the chosen epoch is of which phase, and the best of the last."""
    arm, late = found.unpruned.arm, found.regrown
    dense = found.lengths.dense_before(arm)
    never = sum(run.best_epoch < dense for run in found.ours)
    return (
        f"- The chosen epoch of `{arm}` has regrown weights in {found.num_regrown} of "
        f"{found.num_seeds} seeds, and is before pruning in {never}. At its best epoch with "
        f"regrown weights: `{arm}` minus `{late.control}` {_interval(late.best)}, "
        f"{_interval(late.best, 100 / late.mean)} %; p = {_short(late.best.p_value)}, not adjusted."
    )


def _probed(records: Records) -> list[str]:
    """Returns the line of settings that were probed, or tuned, if they are of several rates."""
    found = {
        (run.setting.lr, run.setting.l2): run.validation[run.best_epoch]
        for run in records.tuning
        if (run.seed, run.arm) == (protocol.FIRST_TUNING_SEED, SINGLE)
    }
    if len({lr for lr, _ in found}) == 1:
        return []
    values = [f"{loss:.4g} at {lr:g}, L2 {l2:g}" for (lr, l2), loss in sorted(found.items())]
    words = "validation loss of `one run` on one tuning seed, by learning rate and L2"
    return [f"- The {words}: {'; '.join(values)}."]


def _failed(runs: Sequence[Run]) -> list[str]:
    failed = [run for run in runs if not all(map(math.isfinite, (*run.test, *run.validation)))]
    return [f"- Failed: `{run.arm}` of seed {run.seed}, with a loss that is not finite."
            for run in failed]  # fmt: skip


def other_regimes(path: pathlib.Path) -> str:
    """Returns the table of measurements before the protocol, and a description of each task."""
    kept = json.loads(gzip.decompress(path.read_bytes()))
    found = {name: _earlier(entry) for name, entry in kept["tasks"].items()}
    answers = {name: answer for name, (_, answer) in found.items()}
    verdicts = protocol.verdicts(answers)
    adjusted = holm({name: answer.best.p_value for name, answer in answers.items()})
    lines = [
        "| Task | seeds | best control | result of the control | best variant "
        "| result of the variant | difference (95 %) | p | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (variant, answer) in found.items():
        entry = kept["tasks"][name]
        lines.append(
            f"| `{name}`, {entry['metric']} | {entry['seeds']} | "
            f"`{answer.control}` | {_spread(entry['arms'][answer.control]['test'])} | {variant} | "
            f"{_spread(entry['arms'][variant]['test'])} | {_interval(answer.best)} | "
            f"{_short(adjusted[name])} | {_bold(verdicts[name])} |"
        )
    tasks = [f"- `{name}`: {kept['tasks'][name]['words']}." for name in found]
    return "\n".join([*lines, "", *tasks]) + "\n"


def _earlier(entry: Mapping[str, Any]) -> tuple[str, Answer]:
    """Returns the variant and the answer of a task that was measured before the protocol.

    Variant and control are those with the best mean on validation data.
    """
    means = {arm: mean_and_sd(values["validation"])[0] for arm, values in entry["arms"].items()}
    variant = min(entry["variants"], key=means.__getitem__)
    control = min(means.keys() - set(entry["variants"]), key=lambda arm: (means[arm], arm))
    runs = [
        Run(seed, arm, Setting(0.0, 1.0), (0.0,), (value,), (), (math.nan, math.nan), 0, 0.0)
        for arm in (variant, control)
        for seed, value in enumerate(entry["arms"][arm]["test"])
    ]
    return variant, protocol.answer(runs, control, variant)


def draw_answers(tasks: Mapping[str, Found], path: pathlib.Path) -> None:
    """Draws, for both questions, the interval of each task in percent of its control."""
    figure, panels = new_panels(1, 2, 10, 1.2 + 0.35 * len(tasks), sharey=True)
    titles = {"unpruned": "(a) DSD minus the best unpruned arm",
              "pruned": "(b) DSD minus pruned for good"}  # fmt: skip
    for axes, (question, title) in zip(panels[0], titles.items(), strict=True):
        every = {name: getattr(found, question) for name, found in tasks.items()}
        _draw_intervals(axes, every, _verdicts(tasks, question))
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("test loss, % of the control; left of 0, DSD is better", fontsize="small")
    labels = [f"{name} ({found.num_seeds} seeds)" for name, found in tasks.items()]
    panels[0, 0].set_yticks(range(len(labels)), labels, fontsize="small")
    panels[0, 0].invert_yaxis()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def draw_other_regimes(results: pathlib.Path, path: pathlib.Path) -> None:
    """Draws the interval of each task measured before the protocol, in percent of its control."""
    kept = json.loads(gzip.decompress(results.read_bytes()))["tasks"]
    figure, panels = new_panels(1, 1, 8, 1.2 + 0.25 * len(kept))
    every = {name: _earlier(entry)[1] for name, entry in kept.items()}
    _draw_intervals(panels[0, 0], every, protocol.verdicts(every))
    panels[0, 0].set_xlabel(
        "DSD minus the best control, % of the control; left of 0, DSD is better", fontsize="small"
    )
    labels = [f"{name} ({entry['seeds']} seeds)" for name, entry in kept.items()]
    panels[0, 0].set_yticks(range(len(labels)), labels, fontsize="small")
    panels[0, 0].invert_yaxis()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _draw_intervals(
    axes: "Axes", answers: Mapping[str, Answer], verdicts: Mapping[str, str]
) -> None:
    """Draws a row for each task: mean and interval, in the colour of the verdict."""
    axes.axvspan(-1, 1, color="tab:gray", alpha=0.15, linewidth=0)
    axes.axvline(0, color="black", linewidth=0.8)
    for row, (name, answer) in enumerate(answers.items()):
        scale = 100 / answer.mean
        colour = _COLOURS.get(_first_word(verdicts[name]), "tab:gray")
        ends = [answer.best.low * scale, answer.best.high * scale]
        axes.plot(ends, [row, row], color=colour)
        axes.plot(answer.best.mean * scale, row, "o", color=colour)
    _show_percent(axes.xaxis)
    axes.grid(axis="x", alpha=0.3)


def _show_percent(axis: "XAxis | YAxis") -> None:
    """Shows an axis of percent linearly up to 1 %, where most differences are, then in decades."""
    getattr(axis.axes, f"set_{axis.axis_name}scale")("symlog", linthresh=1)
    axis.set_ticks([-10, -1, -0.5, 0, 0.5, 1, 10], ["-10", "-1", "-0.5", "0", "0.5", "1", "10"])


def draw_predictors(tasks: Mapping[str, Found], path: pathlib.Path) -> None:
    """Draws the difference of question (a) against what may predict it, a dot for each task."""
    from matplotlib.ticker import LogLocator

    figure, panels = new_panels(1, 3, 12, 3.5, sharey=True)
    for number, (name, found) in enumerate(tasks.items()):
        percent, ends = _percent(found.unpruned)
        for axes, place in zip(panels[0], _regime(found), strict=True):
            axes.errorbar(place, percent, yerr=ends, fmt=_marker(number), label=name)
    words = ("training loss of the control, last epoch", "its validation loss / training loss",
             "weights")  # fmt: skip
    for axes, word in zip(panels[0], words, strict=True):
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(word, fontsize="small")
        axes.grid(alpha=0.3)
    _show_percent(panels[0, 0].yaxis)
    panels[0, 0].set_ylabel("DSD minus the best\nunpruned arm, %", fontsize="small")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right", fontsize="small")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def draw_longer_training(tasks: Mapping[str, Found], path: pathlib.Path) -> None:
    """Draws what `dsd` gains over its first phase against what one longer plain run gains."""
    figure, panels = new_panels(1, 1, 8, 4.5)
    axes = panels[0, 0]
    for number, (name, found) in enumerate(tasks.items()):
        places, ends = zip(*(_percent(found.against(FIRST, arm)) for arm in (SINGLE, DSD)),
                           strict=True)  # fmt: skip
        axes.errorbar(*places, xerr=ends[0], yerr=ends[1], fmt=_marker(number), label=name)
    for axis in (axes.xaxis, axes.yaxis):
        _show_percent(axis)
    axes.axline((0, 0), (1, 1), color="black", linewidth=0.8)
    axes.grid(alpha=0.3)
    words = "minus the network before pruning, % of its test loss"
    axes.set_xlabel(f"one conventional run {words}", fontsize="small")
    axes.set_ylabel(f"DSD {words}", fontsize="small")
    figure.legend(loc="outside right", fontsize="small")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _marker(number: int) -> str:
    """Returns the marker of a task; there are ten colours."""
    return "osD^"[number // 10 % 4]


def _percent(found: Answer) -> tuple[float, list[list[float]]]:
    """Returns a mean difference in percent of the control, and how far its interval reaches."""
    best, scale = found.best, 100 / found.mean
    reach = [[(best.mean - best.low) * scale], [(best.high - best.mean) * scale]]
    return best.mean * scale, reach


def _spread(values: Sequence[float]) -> str:
    """Returns mean and standard deviation, both to the second figure of the latter."""
    mean, sd = mean_and_sd(values)
    if not math.isfinite(mean):
        return "not finite"
    if not sd > 0:
        return f"{mean:.4g} ± {sd:.2g}"
    places = max(0, 1 - math.floor(math.log10(sd)))
    return f"{mean:.{places}f} ± {sd:.{places}f}"


def _interval(found: Difference, scale: float = 1.0) -> str:
    if not math.isfinite(found.mean):
        return "not finite"
    mean, low, high = (_signed(scale * value) for value in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})"


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", _MINUS)


def _short(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.2g}".replace("-", _MINUS)


if __name__ == "__main__":
    app.run(main)
