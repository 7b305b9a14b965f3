"""Folders of a small study: one that has finished, and one whose run was cut off."""

import dataclasses

import pytest

from cnn_jax import study
from cnn_jax.config import choose
from cnn_jax.study import Row, Study
from cnn_jax.training import train
from helpers.small_run import RUN, CutError


def make_study(preset):
    run = dataclasses.replace(RUN, study="small", protocols=(choose("single"),))
    return Study("small", "Small", "Nobody", "", preset, {"net": run}, (Row("net", "Net", "", ""),))


def make(tmp_path_factory):
    """{finished, unfinished: folder}; programs are built by `train.build_program`."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("finished", "unfinished")}
    study.run(make_study("laptop"), made["finished"], command="make", tell=print)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(CutError):
        build = train.build_program

        def dying(*args, **kwargs):
            program = build(*args, **kwargs)

            def step(state, arrays, batch):
                if int(state.step) == 9:
                    raise CutError
                return program.compiled_step(state, arrays, batch)

            return program._replace(compiled_step=step)

        patch.setattr(train, "build_program", dying)
        study.run(make_study("laptop"), made["unfinished"], command="make", tell=print)
    return made
