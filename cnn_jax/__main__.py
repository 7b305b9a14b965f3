"""python -m cnn_jax: the same as the command cnn-jax."""

from cnn_jax.cli import main

if __name__ == "__main__":
    main()
