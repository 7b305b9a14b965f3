"""Training programs that tests share: each is compiled once per session."""

import functools

import jax
import jax.numpy as jnp

from cnn_jax import mesh
from cnn_jax.training import multi_seed, program


@functools.cache
def _build(experiment, seeds, devices, form):
    del form  # Only a part of the cache's key: tests choose it by `multi_seed.choose_form`.
    return program.build_program(experiment, devices=list(devices), seeds=seeds)


def build_program(experiment, dataset=None, devices=None, seeds=(), cache=None):
    """Works as `program.build_program`; each call returns its own state, as steps donate theirs."""
    del cache  # Equal runs share their programs here.
    if dataset is not None:
        return program.build_program(experiment, dataset, devices, seeds)
    devices = mesh.make_batch_mesh(devices).devices.flat
    shared = _build(experiment, tuple(seeds), tuple(devices), multi_seed.choose_form)
    return shared._replace(state=jax.tree.map(jnp.copy, shared.state))
