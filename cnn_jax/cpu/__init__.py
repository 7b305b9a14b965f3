"""Everything that makes training fast on a CPU.

On a CPU the layers call the kernels of this package, which return the same values up to rounding.
On GPU and TPU the layers use plain XLA, except where the list below says "everywhere". The
environment variable CNN_JAX_ROUTES (`switch.py`) switches the kernels on and off. It is read
whenever a layer is traced:

- unset: on a CPU, the kernels run for inputs of at least `settings.MIN_BATCH_VALUES` values;
- `cpu`: they run for every input on every platform (the tests do this);
- `xla`: none of them runs, and every layer is plain XLA.

In Python, `switch.use("xla")` does the same for code that is traced inside a `with` block. A
function that `jax.jit` has compiled keeps the choice with which it was compiled.

The optimizations, their files and their effect follow. Times are of a training step on 2 cores
(ResNet-20: batch 128; ResNet-50: batch 16 at 224; VGG-16 on 32x32); benchmarks/README.md says how
they were measured.

Turned off by the switch:

- convolution.py, convolutions: 1x1 as a matrix product, feature maps smaller than the kernel as
  im2col and a matrix product (1,104 -> 13 ms for one layer), input gradients of strided kernels as
  shifted products, kernel gradients as convolutions over images, and barriers around both
  gradients. ResNet-20: 360 -> 246 ms, together with `configure` and oneDNN below.
- max_pooling.py, max pooling: the backward pass finds the maximum of each window once. With the
  bias gradients in chunks and the barriers of `fence_updates`: VGG-16 690 -> 518 ms, ResNet-50
  2,002 -> 1,795 ms. The barrier after the gradient: ResNet-50 1,795 -> 1,725 ms.
- reductions.py, sums per channel in chunks, for batch norm and for the gradients of biases.
  ResNet-20, together with batch norm's gradient in closed form: within noise.
- barriers.py `fence_updates`, barriers between the matrix products that compute large gradients
  and the optimizer's arithmetic.
- barriers.py `combine_linearly`, everywhere: batch norm's factors are not computed again for each
  element. Not measured alone.
- rewrites.py `draw_normal`, everywhere: initial weights drawn as flat arrays of few sizes, which
  XLA compiles 16 times faster.
- rewrites.py `raise_to_power`, everywhere: LRN's power -3/4 as two roots. Not measured alone.

Not controlled by the switch:

- rewrites.py `choose_min_scan_blocks`, identical blocks in a Python loop, because a convolution
  inside `lax.scan` is 4 to 35 times slower on a CPU (jax#12868). To turn it off, set the model
  option `scan_min_blocks`.
- settings.py `configure`, XLA's own convolutions instead of YNNPACK's, whose kernel gradients take
  up to four times as long. To turn it off, set the flag in XLA_FLAGS.
- settings.py `choose_onednn_for_run`, oneDNN's convolutions in long runs, in training and in the
  evaluations of a run. ResNet-20: 280 -> 217 ms. To turn it off, set its flags in XLA_FLAGS.
- cnn_jax/training/first_steps.py, a plain program for the first steps of such a run, while a thread
  compiles the one with oneDNN. ResNet-20, first step after a launch: 7.0 -> 3.3 s.
- settings.py `choose_onednn_for_views`, the same in evaluations of many images by their views.
- memory.py `keep_memory`, freed memory stays with the process. ResNet-20: 246 -> 218 ms. Only a
  call of it switches this on. `Trimmer` returns memory beyond a step's need to the system.
  Dense views of VGG-16, 4 images: 2,610 -> 2,300 ms.
- memory.py `trim_after_compiling`, where memory is kept: before the first step the compiler's
  memory is returned to the system. Peak memory of Inception v3's step: 2,184 -> 1,700 MiB.
- cnn_jax/models/lazy_init.py, everywhere: initial parameters without a forward pass.
- cnn_jax/training/multi_seed.py: several seeds one after another in one program where the model has
  convolutions, because vmapped ones take up to three times as long on a CPU.

The CPU kernels, and batch norm in training on every platform, are differentiable in reverse mode
only. `jax.grad`, `jax.vjp` and `jax.jacrev` work, also nested; `jax.jvp`, `jax.jacfwd`,
`jax.linearize` and `jax.hessian` raise a TypeError. With the switch set to `xla` all of them work.
"""

from cnn_jax.cpu.settings import configure

__all__ = ["configure"]
