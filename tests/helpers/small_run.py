"""A run of twelve steps that compiles in seconds, and a way to interrupt it."""

import pytest

from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.training import train

# It has momentum, augmentation, epochs of three steps, a plateau schedule that cuts the rate, and
# log intervals inside which it can be interrupted.
RUN = Experiment(
    name="net",
    data=Data(dataset=choose("fake"), batch_size=32, eval_batch_size=40, pad_and_crop=1),
    model=choose("mlp", hidden=(16,)),
    schedule=choose("plateau", base=0.05, patience=1),
    train=Train(steps=12, log_every=5, eval_every=6, save_every=2),
)
TIMES = ("images_per_s", "data_time", "step_time", "wall_s")


class CutError(Exception):
    pass


def cut_at(cut, run, workdir, monkeypatch):
    """Starts the run and interrupts it in its step `cut`."""
    build = train.build_program

    def build_dying_program(config, **seeds):
        built = build(config, **seeds)

        def step(state, arrays, batch):
            if int(state.step) == cut:
                raise CutError
            return built.compiled_step(state, arrays, batch)

        return built._replace(compiled_step=step)

    with monkeypatch.context() as patch:
        patch.setattr(train, "build_program", build_dying_program)
        with pytest.raises(CutError):
            train.run(run, workdir)
