"""Damaged bytes, for Hypothesis: what disks, downloads and other programs make of files."""

from hypothesis import strategies as st

INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff")
PLACES = st.one_of(st.floats(0, 1), st.floats(0, 0.05), st.just(1.0))  # Headers matter most.
LENGTHS = st.one_of(st.integers(1, 8), st.integers(1, 2000))
STEPS = st.one_of(
    st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
    st.tuples(st.just("overwrite"), PLACES, st.sampled_from(INTERESTING) | st.binary(max_size=8)),
    st.tuples(st.just("insert"), PLACES, st.sampled_from(INTERESTING) | st.binary(max_size=64)),
    st.tuples(st.just("delete"), PLACES, LENGTHS),
    st.tuples(st.just("repeat"), PLACES, LENGTHS),
    st.tuples(st.just("cut"), PLACES, st.none()),
)


def apply(content, steps):
    """The bytes with each damage done in turn."""
    for kind, place, value in steps:
        at = min(int(place * len(content)), max(len(content) - 1, 0))
        before, after = content[:at], content[at:]
        if kind == "flip" and after:
            after = bytes([after[0] ^ 1 << value]) + after[1:]
        elif kind == "overwrite":
            after = value + after[len(value) :]
        elif kind == "insert":
            after = value + after
        elif kind == "delete":
            after = after[value:]
        elif kind == "repeat":
            after = after[:value] + after
        elif kind == "cut":
            after = b""
        content = before + after
    return content


def damaged(contents):
    """Strategy of (name, bytes): one of the contents, damaged in up to three places."""
    steps = st.lists(STEPS, min_size=1, max_size=3)
    return st.tuples(st.sampled_from(sorted(contents)), steps).map(
        lambda drawn: (drawn[0], apply(contents[drawn[0]], drawn[1]))
    )
