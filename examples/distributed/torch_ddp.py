"""Trains a Keras 3 model with PyTorch's DistributedDataParallel, by DSDLoop, on digits.

Gradients are averaged over the ranks, so weights are equal on all of them, and so are the masks
that each rank computes from its weights.

    torchrun --standalone --nproc_per_node=2 examples/distributed/torch_ddp.py --sparsity=0.5
"""

import hashlib
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
import torch.distributed as dist
from absl import app, flags
from sklearn.datasets import load_digits
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import keras_dsd as dsd


def define_flags():
    flags.DEFINE_float("sparsity", 0.5, "Fraction of each weight tensor to prune, in [0, 1).")
    flags.DEFINE_list("phases", [5, 5, 5], "Epochs of the dense, the sparse and the last phase.")
    flags.DEFINE_integer("batch_size", 32, "Images in a batch of each rank.")
    flags.DEFINE_integer("seed", 0, "Seed of the weights and the batches, the same on all ranks.")
    flags.DEFINE_string("save", None, "Where rank 0 saves the model, a .keras file.")


def load():
    """Returns 1,280 images to train on and 517 to test on, with their labels."""
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    return TensorDataset(images[:1280], labels[:1280]), (images[1280:], labels[1280:])


def build():
    layers = keras.layers
    return keras.Sequential([
        layers.Input((64,)), layers.Dense(64, activation="relu"),
        layers.Dense(64, activation="relu"), layers.Dense(10),
    ])  # fmt: skip


def epoch_of(parallel, optimizer, batches, loop):
    for x, y in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(parallel(x), y).backward()
        optimizer.step()
        loop.apply_masks()


def digest_of(mask):
    return hashlib.sha256(np.packbits(mask)).hexdigest()[:16]


def accuracy_of(model, images, labels):
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean()


def train(sparsity, phases, batch_size, seed, save):
    """Trains on all ranks of the process group, and prints the results."""
    rank = dist.get_rank()
    keras.utils.set_random_seed(seed)
    train_data, test_data = load()
    sampler = DistributedSampler(train_data, seed=seed)
    batches = DataLoader(train_data, batch_size, sampler=sampler)
    model = dsd.apply(build(), sparsity=sparsity)
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = dsd.DSDSchedule(*map(int, phases))
    ends, digests = {}, {}
    with dsd.DSDLoop(model, optimizer, schedule) as loop:
        for epoch in range(schedule.timeline.epochs):
            loop.begin_epoch(epoch)
            sampler.set_epoch(epoch)
            epoch_of(parallel, optimizer, batches, loop)
            masks = {weight.path: weight.mask for weight in dsd.weights(model)}
            digests |= {path: digest_of(m) for path, m in masks.items() if m is not None}
            logs = loop.end_epoch()
            ends[logs["dsd_phase"]] = (
                f"ended with epoch {epoch + 1}: sparsity {logs['dsd_sparsity']:.2%}, "
                f"test accuracy {accuracy_of(model, *test_data):.2%}"
            )
    lines = [*(f"phase {phase} {end}" for phase, end in ends.items()),
             *(f"mask of {path}: {digest}" for path, digest in digests.items())]  # fmt: skip
    # In one piece: the ranks share a terminal.
    print("".join(f"[{rank}] {line}\n" for line in lines), end="", flush=True)
    model = dsd.strip(model)
    if save and rank == 0:
        model.save(save)


def main(argv):
    del argv
    names = ("sparsity", "phases", "batch_size", "seed", "save")
    dist.init_process_group("gloo")
    train(**{name: flags.FLAGS[name].value for name in names})
    dist.destroy_process_group()


if __name__ == "__main__":
    define_flags()
    app.run(main)
