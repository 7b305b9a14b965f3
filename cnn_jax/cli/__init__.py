"""The command line: absl flags become arguments of library functions.

`cnn-jax`, `python -m cnn_jax` and `launch.py` are the same command. JAX is imported only after the
flags are read, because several of them must be known to JAX before it starts.
"""

from cnn_jax.cli.command import execute as execute
from cnn_jax.cli.command import main as main
