"""Everything that makes training fast on a CPU: one folder, one switch, and this list.

On GPU and TPU the layers leave their work to XLA, except where the list says "everywhere". On a
CPU they call the functions below, which return the same values to rounding. The switch is the
environment variable CNN_JAX_ROUTES (`switch.py`), read whenever a layer is traced:

- unset: the CPU kernels run on a CPU, for inputs of at least `settings.MIN_BATCH_VALUES` values;
- `cpu`: they run for every input on every platform (the tests do this);
- `xla`: none of them runs, and every layer is plain XLA.

In Python, `switch.use("xla")` does the same for what is traced inside a `with` block. A function
that `jax.jit` has compiled already is not traced again, so it keeps the choice it was compiled with.

What there is, where, and what it is worth (2 cores of an AMD EPYC, batch 128 at 32x32 unless
stated; the measurements are in benchmarks/README.md):

| what | file | worth | switched off by |
|---|---|---|---|
| convolutions: 1x1 as a matrix product; feature maps smaller than the kernel as im2col and a \
matrix product; the input gradient of a strided convolution as shifted products; the kernel \
gradient as a convolution over images; fences around both gradients | convolution.py | ResNet-20's \
step 594 -> 323 ms; 2x2 feature maps 1,104 -> 13 ms | the switch |
| max pooling and its gradient from the first maximum of each window | max_pooling.py | XLA's \
gradient finds the maxima again and scatters: two to three times as long | the switch |
| sums over all but the channels, and a bias whose gradient is such a sum | reductions.py | XLA \
writes the products that it sums to memory first | the switch |
| batch norm's factors behind a fence, so that they are not computed again for every element | \
barriers.py, everywhere | a few percent of a ResNet's step | the switch set to `xla` |
| weight decay and momentum kept apart from the gradients' matrix products | barriers.py | one \
pass over all parameters for each term of the update | the switch |
| initial weights drawn as one flat array of a few sizes | rewrites.py, everywhere | compiling the \
generator 16 times faster; one program for many shapes | the switch set to `xla` |
| LRN's power -3/4 as two roots | rewrites.py, everywhere | a general power takes several times as \
long | the switch set to `xla` |
| identical blocks in a Python loop, not in `lax.scan` (jax#12868) | rewrites.py | a convolution \
in a scan is 4 to 35 times slower | the model option `scan_min_blocks` |
| initial parameters without a forward pass | cnn_jax/models/lazy_init.py, everywhere | seconds at \
the start of every run | - |
| several seeds one after another in one program, not vmapped | cnn_jax/training/multi_seed.py \
(`form`) | vmapped convolutions take up to three times as long | - |
| XLA's own convolutions, not YNNPACK's | settings.py, `configure` | kernel gradients up to four \
times as fast | XLA_FLAGS naming the flag |
| oneDNN's convolutions in long runs | settings.py, `compiler_options` | another 10 to 20% | \
XLA_FLAGS naming its flags |
| freed memory stays with the process | settings.py, `keep_memory` | page faults at every step: \
up to a tenth of it | not calling it |

What does not work: the CPU kernels and batch norm in training define their gradients for reverse
mode only, so `jax.jvp`, `jax.jacfwd`, `jax.linearize` and `jax.hessian` through a model raise a
TypeError; with the switch set to `xla` they work. `jax.grad`, `jax.vjp` and `jax.jacrev` work
either way, also one inside another.
"""

from cnn_jax.cpu.settings import configure

__all__ = ["configure"]
