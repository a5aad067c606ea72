"""What decides whether DSD helps: the MLP on Shakespeare's letters, one thing changed at a time.

All is looked at on validation data alone.

    STUDY_DATA=data python benchmarks/studies/tried.py --seeds=3
"""

import dataclasses
import functools

import shakespeare
from study import Task, main

BASE = dataclasses.replace(
    shakespeare.mlp_task("tried/nothing", 300_000, 128),
    only=("llr", "llr at once", "sparse 0.7", "DSD 0.7"),
)


def tried(name: str, words: str, **options: object) -> Task:
    return dataclasses.replace(BASE, name=f"tried/{name}", words=words, **options)


def net(**options: object) -> functools.partial:
    return functools.partial(shakespeare.mlp, **options)


def data(num_letters: int, context: int = shakespeare.CONTEXT) -> functools.partial:
    return functools.partial(shakespeare.read_contexts, num_letters, context)


TASKS = [
    dataclasses.replace(BASE, words="nothing"),
    tried("letters-100k", "100,000 letters to train on", data=data(100_000)),
    tried("letters-1m", "1,000,000 letters to train on", data=data(1_000_000)),
    tried("width-32", "32 units", build=net(width=32)),
    tried("width-512", "512 units", build=net(width=512)),
    tried("context-10", "10 letters before", build=net(context=10), data=data(300_000, 10)),
    tried("adam", "Adam at 0.001", build=net(optimizer="adam")),
    tried("first-1", "a first phase of 1 epoch", phases=(1, 4, 4)),
    tried("first-12", "a first phase of 12 epochs", phases=(12, 4, 4)),
    tried("sparse-12", "a sparse phase of 12 epochs", phases=(4, 12, 4)),
    tried("sparse-lr", "a sparse phase at 0.3 times the rate", sparse_lr=0.3),
    tried("redense-lr-high", "a last phase at 0.3 times the rate", redense_lr=0.3),
    tried("redense-lr-low", "a last phase at 0.03 times the rate", redense_lr=0.03),
    tried("reset-none", "momentum kept: `reset='none'`", reset="none"),
    tried("reset-all", "all momentum set back: `reset='all'`", reset="all"),
]

if __name__ == "__main__":
    main(TASKS)
