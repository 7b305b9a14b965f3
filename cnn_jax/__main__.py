"""python -m cnn_jax, and the command cnn-jax."""

from typing import NoReturn

from cnn_jax import interrupts


def main() -> NoReturn:
    """Runs the command of sys.argv and exits."""
    interrupts.catch()
    from cnn_jax import cli

    cli.main()


if __name__ == "__main__":
    main()
