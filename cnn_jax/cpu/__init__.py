"""Everything that makes training fast on a CPU: one folder, one switch, and this list.

On GPU and TPU the layers leave their work to XLA, except where the list says "everywhere". On a
CPU they call the functions below, which return the same values to rounding. The switch is the
environment variable CNN_JAX_ROUTES (`switch.py`), read whenever a layer is traced:

- unset: the CPU kernels run on a CPU, for inputs of at least `settings.MIN_BATCH_VALUES` values;
- `cpu`: they run for every input on every platform (the tests do this);
- `xla`: none of them runs, and every layer is plain XLA.

In Python, `switch.use("xla")` does the same for what is traced inside a `with` block. What
`jax.jit` has compiled already is not traced again, so it keeps the choice it was compiled with.

What there is, in which file, and what it is worth. Times are of a training step on 2 cores
(ResNet-20: batch 128; ResNet-50: batch 16 at 224; VGG-16 on 32x32), measured one after the other;
benchmarks/README.md says how.

Turned off by the switch:

- convolution.py, convolutions: 1x1 as a matrix product, feature maps smaller than the kernel as
  im2col and a matrix product (1,104 -> 13 ms for one layer), input gradients of strided kernels as
  shifted products, kernel gradients as convolutions over images, and barriers around both
  gradients. ResNet-20: 360 -> 246 ms, together with `configure` and oneDNN below.
- max_pooling.py, max pooling: its gradient from the first maximum of each window, computed once.
  VGG-16: -65 ms of 690; ResNet-50: -40 ms of 1,795.
- reductions.py, sums over all but the channels in chunks, for batch norm and biases. ResNet-20
  with batch norm's gradient in closed form: within noise; VGG-16, of biases: -45 ms of 690.
- barriers.py `fence_updates`, an optimizer's arithmetic kept apart from the products that give
  large gradients. VGG-16: -30 ms of 690.
- barriers.py `combine_linearly`, everywhere: batch norm's factors, not computed again for each
  element. Not measured alone.
- rewrites.py `draw_normal`, everywhere: initial weights drawn as flat arrays of few sizes, which
  XLA compiles 16 times faster.
- rewrites.py `power`, everywhere: LRN's power -3/4 as two roots. Not measured alone.

Turned off otherwise:

- rewrites.py `min_scan_blocks`, identical blocks in a Python loop, because a convolution inside
  `lax.scan` is 4 to 35 times slower on a CPU (jax#12868): the model option `scan_min_blocks`.
- settings.py `configure`, XLA's own convolutions instead of YNNPACK's, whose kernel gradients take
  up to four times as long: name the flag in XLA_FLAGS.
- settings.py `compiler_options`, oneDNN's convolutions in long runs. ResNet-20: 280 -> 217 ms: name
  its flags in XLA_FLAGS.
- settings.py `keep_memory`, freed memory stays with the process. ResNet-20: 246 -> 218 ms: do not
  call it.
- cnn_jax/models/lazy_init.py, everywhere: initial parameters without a forward pass.
- cnn_jax/training/multi_seed.py: several seeds one after another in one program, because vmapped
  convolutions take up to three times as long on a CPU.

What does not work: the CPU kernels, and batch norm in training on every platform, define their
gradients for reverse mode only, so `jax.jvp`, `jax.jacfwd`, `jax.linearize` and `jax.hessian`
through them raise a TypeError; with the switch set to `xla` they work. `jax.grad`, `jax.vjp` and
`jax.jacrev` work either way, also inside one another.
"""

from cnn_jax.cpu.settings import configure

__all__ = ["configure"]
