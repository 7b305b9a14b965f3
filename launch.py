"""Runs the papers' studies: `python launch.py --list`, then `launch.py --experiment=NAME`."""

from cnn_jax import interrupts

if __name__ == "__main__":
    interrupts.catch()

from cnn_jax import cli
from experiments import COSTS, STUDIES

if __name__ == "__main__":
    cli.main(STUDIES, COSTS)
