"""How often JAX compiled a function."""


def count_compilations(compiled):
    """Returns the number of programs that JAX made of a jitted function, trimmed or not."""
    return getattr(compiled, "_function", compiled)._cache_size()
