"""A study in a user's own file: does a hidden layer help on the digits?

python launch.py --experiment=tests/testdata/my_study/my_study.py
"""

from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.study import Row, Study


def study(preset: str) -> Study:
    """Returns two runs: the perceptron, and a layer of 32 units."""
    data = Data(dataset=choose("digits"), batch_size=64, pad_and_crop=0, flip=False)
    train = Train(steps=20, log_every=10, eval_every=20, save_every=20)
    models = {"perceptron": choose("perceptron"), "hidden": choose("mlp", hidden=(32,))}
    runs = {
        name: Experiment("my_study", name, data=data, model=model, train=train)
        for name, model in models.items()
    }
    rows = tuple(Row(name, name, "Digits", "") for name in runs)
    return Study("my_study", "A hidden layer on digits", "-", "", preset, runs, rows)
