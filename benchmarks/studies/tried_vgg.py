"""What BatchNormalization's statistics do: the small VGG on 5,000 images of MNIST.

Looked at on validation data alone.

    STUDY_DATA=data python benchmarks/studies/tried_vgg.py --seeds=3
"""

import dataclasses

import mnist
from study import main

VGG = dataclasses.replace(
    mnist.task("vgg", 5000), only=("llr", "llr at once", "sparse 0.7", "DSD 0.7")
)
TASKS = [
    dataclasses.replace(VGG, name="tried-vgg/nothing", words="nothing"),
    dataclasses.replace(
        VGG, name="tried-vgg/batch-norm", batch_norm_batches=20,
        words="statistics of BatchNormalization estimated anew",
    ),
]  # fmt: skip

if __name__ == "__main__":
    main(TASKS)
