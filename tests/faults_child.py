"""A run in a process of its own, to be killed: python tests/faults_child.py WORKDIR [steps]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cnn_jax import train  # noqa: E402
from cnn_jax.config import Data, Experiment, Model, Optim, StoppedError, Train  # noqa: E402

# Dropout, a plateau, augmentation, an epoch of three steps, log intervals and saves that a cut falls between.
RUN = Experiment(
    name="net",
    data=Data(name="fake", batch_size=32, eval_batch_size=40, pad=1),
    model=Model(name="mlp", hidden=(64,), dropout=0.3),
    optim=Optim(learning_rate=0.02, schedule="plateau", patience=1),
    train=Train(steps=400, log_every=7, eval_every=50, save_every=20),
)

if __name__ == "__main__":
    try:
        train.run(RUN, sys.argv[1])
    except StoppedError as stopped:
        print(stopped)
        sys.exit(75)
