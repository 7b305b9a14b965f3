# ruff: noqa: E501
"""The one-line bugs of `mutants.py`, by the tests that must notice them."""

# {tests: [(file, line or part of it, what it becomes)]}. The part stands in the file once.
MUTANTS = {
    "tests/evaluation/losses_test.py": [
        ("cnn_jax/evaluation/losses.py", "(1 - smoothing) * loss - smoothing", "loss - smoothing"),
        (
            "cnn_jax/evaluation/losses.py",
            "log_softmax(logits).mean(-1)",
            "log_softmax(logits).sum(-1)",
        ),
        ("cnn_jax/evaluation/losses.py", " | ~jnp.isfinite(logits).all(-1)", ""),
    ],
    "tests/evaluation/metrics_test.py -k 'hand or fifth or five or chance or not_finite or published or width'": [
        ("cnn_jax/evaluation/metrics.py", "float((rank >= 5).mean())", "float((rank > 5).mean())"),
        ("cnn_jax/evaluation/metrics.py", "int((rank >= 5).sum())", "int((rank > 5).sum())"),
        ("cnn_jax/evaluation/metrics.py", "(scores == own[:, None]) & earlier", "False & earlier"),
        ("cnn_jax/evaluation/metrics.py", "< labels[:, None]", "<= labels[:, None]"),
        ("cnn_jax/evaluation/metrics.py", "(labels, answers), 1", "(answers, labels), 1"),
        ("cnn_jax/evaluation/metrics.py", "loss=float(-own.mean())", "loss=float(-own.min())"),
        ("cnn_jax/evaluation/metrics.py", "has_top5 = classes > 5", "has_top5 = classes >= 5"),
        ("cnn_jax/evaluation/metrics.py", "scale = 1 + z**2 / count", "scale = 1 + z / count"),
        ("cnn_jax/evaluation/metrics.py", "share + z**2 / (2 * count)", "share"),
        ("cnn_jax/evaluation/metrics.py", "1.959963984540054", "1.6448536269514722"),
        ("cnn_jax/evaluation/metrics.py", "if bad:", "if bad > 1:"),
    ],
    "tests/evaluation/protocols_test.py": [
        (
            "cnn_jax/evaluation/protocols.py",
            "(side - crop) / 4) for i in range(5)",
            "(side - crop) / 5) for i in range(5)",
        ),
        ("cnn_jax/evaluation/protocols.py", "[(y + v, x + u) for y, x", "[(y + u, x + v) for y, x"),
        ("cnn_jax/evaluation/protocols.py", "(0, across), (down, 0)", "(0, down), (across, 0)"),
        (
            "cnn_jax/evaluation/protocols.py",
            "Protocol((DENSE, GRID), scales)",
            "Protocol((GRID, GRID), scales)",
        ),
        (
            "cnn_jax/evaluation/protocols.py",
            "CENTER = Views(offset_center, mirror=False)",
            "CENTER = Views(offset_center)",
        ),
        ("cnn_jax/evaluation/protocols.py", "if scale < crop:", "if scale < crop - 1:"),
    ],
    "tests/evaluation/scoring_test.py -k 'shift or fused or twice or offsets'": [
        ("cnn_jax/evaluation/scoring.py", "- np.log(len(scores))", ""),
        (
            "cnn_jax/evaluation/scoring.py",
            "np.logaddexp.reduce(scores, axis=0) -",
            "np.mean(scores, axis=0) + 0 *",
        ),
        (
            "cnn_jax/evaluation/scoring.py",
            "crops[:, :, : max(0, crop - views.shift)]",
            "crops[:, :, -max(0, crop - views.shift) :]",
        ),
        (
            "cnn_jax/evaluation/scoring.py",
            "y : y + side, x : x + side",
            "x : x + side, y : y + side",
        ),
        (
            "cnn_jax/evaluation/scoring.py",
            "(np.diff(result.index) > 0)",
            "(np.diff(result.index) >= 0)",
        ),
    ],
    "tests/evaluation/scoring_test.py -k 'dense_scores'": [
        (
            "cnn_jax/evaluation/scoring.py",
            "(size[:, 1, None] - 1 - column)",
            "(size[:, 1, None] - column)",
        ),
        ("cnn_jax/evaluation/scoring.py", "/ own.sum((1, 2))", "/ own[0].sum((0, 1))"),
        (
            "cnn_jax/evaluation/dense_views.py",
            "[None] < size[:, axis, None]",
            "[None] <= size[:, axis, None]",
        ),
    ],
    "tests/evaluation/during_training_test.py": [
        (
            "cnn_jax/evaluation/during_training.py",
            "np.mean(columns[k][valid]",
            "np.mean(columns[k]",
        ),
        ("cnn_jax/data/loader.py", '"valid": index < count}', '"valid": index <= count}'),
        ("cnn_jax/data/loader.py", "np.minimum(index, count - 1)", "np.minimum(index, count - 2)"),
    ],
    "tests/optim/optimizers_test.py": [
        ("cnn_jax/optim/optimizers.py", "lambda p: p.ndim > 1", "lambda p: p.ndim > 0"),
        ("cnn_jax/optim/optimizers.py", "g + l1 * jnp.sign(p)", "g + l1 * p"),
        ("cnn_jax/optim/optimizers.py", "initial_scale=1.0", "initial_scale=0.0"),
        ("cnn_jax/optim/optimizers.py", "decay=momentum, nesterov=nesterov", "decay=momentum"),
        (
            "cnn_jax/optim/optimizers.py",
            "optax.scale_by_adadelta(decay, epsilon)",
            "optax.scale_by_adadelta(decay)",
        ),
        ("cnn_jax/optim/optimizers.py", "optax.clip_by_global_norm(norm)", "optax.clip(norm)"),
        (
            "cnn_jax/optim/optimizers.py",
            "        schedule,\n        optax.trace(decay=momentum, nesterov=nesterov),\n",
            "        optax.trace(decay=momentum, nesterov=nesterov),\n        schedule,\n",
        ),
        (
            "cnn_jax/optim/optimizers.py",
            "_penalize(weight_decay, 0.0, decay_biases)",
            "_penalize(weight_decay, 0.0, True)",
        ),
    ],
    "tests/optim/schedules_test.py": [
        ("cnn_jax/optim/schedules.py", "count >= edges", "count > edges"),
        ("cnn_jax/optim/schedules.py", "jnp.exp(-k *", "jnp.exp2(-k *"),
        ("cnn_jax/optim/schedules.py", "base: base / (1 + k *", "base: base / (2 + k *"),
        ("cnn_jax/optim/schedules.py", "base * (step + 1) / max", "base * step / max"),
        (
            "cnn_jax/optim/schedules.py",
            "length.total_steps - 1 - warmup_steps",
            "length.total_steps - warmup_steps",
        ),
        ("cnn_jax/optim/schedules.py", "** (count // every)", "** ((count + 1) // every)"),
        ("cnn_jax/optim/schedules.py", "round(time * period, 6)", "time * period"),
        ("cnn_jax/optim/schedules.py", "multiply(-now, updates)", "multiply(now, updates)"),
    ],
    "tests/optim/transformations_test.py": [
        ("cnn_jax/optim/transformations.py", "mean < error_below", "error < error_below"),
        (
            "cnn_jax/optim/transformations.py",
            "jnp.float32(1), state.scale)",
            "jnp.float32(1), jnp.float32(scale))",
        ),
        (
            "cnn_jax/optim/transformations.py",
            "due = waited >= state.patience",
            "due = waited > state.patience",
        ),
        ("cnn_jax/optim/transformations.py", "waited=jnp.where(due, 0, waited)", "waited=waited"),
        (
            "cnn_jax/optim/transformations.py",
            "state.cuts < state.max_cuts",
            "state.cuts <= state.max_cuts",
        ),
        ("cnn_jax/optim/transformations.py", "axis=(0, 1, 2), keepdims", "axis=(0, 1), keepdims"),
        ("cnn_jax/optim/transformations.py", "if param.ndim != 4:", "if param.ndim < 2:"),
        (
            "cnn_jax/optim/transformations.py",
            "better = error < state.best",
            "better = error <= state.best",
        ),
    ],
    "tests/data/sampler_test.py": [
        (
            "cnn_jax/data/sampler.py",
            "default_rng((seed, epoch)).permutation",
            "default_rng(seed + epoch).permutation",
        ),
        (
            "cnn_jax/data/sampler.py",
            "default_rng((seed, epoch)).permutation",
            "default_rng((seed, 0)).permutation",
        ),
        (
            "cnn_jax/data/sampler.py",
            "most = max(map(len, by_class))",
            "most = min(map(len, by_class))",
        ),
        (
            "cnn_jax/data/sampler.py",
            "for _ in range(-(-most // len(rows)))])[:most]",
            "for _ in range(1)])[:most]",
        ),
    ],
    "tests/data/crops_test.py": [
        (
            "cnn_jax/data/crops.py",
            "(2 * side * shorter_side + min(size))",
            "(2 * side * shorter_side)",
        ),
        ("cnn_jax/data/crops.py", "rng.integers(lo, hi + 1)", "rng.integers(lo, hi)"),
        ("cnn_jax/data/crops.py", "rng.integers(to[0] - crop + 1)", "rng.integers(to[0] - crop)"),
        ("cnn_jax/data/crops.py", "AREA, ASPECT = (0.08, 1.0)", "AREA, ASPECT = (0.16, 1.0)"),
        (
            "cnn_jax/data/crops.py",
            "math.sqrt(area / aspect)), min(width, math.sqrt(area * aspect))",
            "math.sqrt(area * aspect)), min(width, math.sqrt(area / aspect))",
        ),
        ("cnn_jax/data/crops.py", "crop * y, crop * x", "crop * x, crop * y"),
        ("cnn_jax/data/crops.py", "(to[1] - crop) // 2), crop)", "(to[1] - crop) // 2 + 1), crop)"),
    ],
    "tests/data/augment_test.py": [
        ("cnn_jax/data/augment.py", "images.shape[1] - height + 1,", "images.shape[1] - height,"),
        (
            "cnn_jax/data/augment.py",
            "images[:, :, ::-1, :], images)",
            "images[:, ::-1, :, :], images)",
        ),
        (
            "cnn_jax/data/augment.py",
            "jax.vmap(jax.random.fold_in, (None, 0))(key, rows)",
            "jax.vmap(jax.random.fold_in, (None, 0))(key, 0 * rows)",
        ),
        (
            "cnn_jax/data/augment.py",
            "((0, 0), (pad, pad), (pad, pad), (0, 0))",
            '((0, 0), (pad, pad), (pad, pad), (0, 0)), "edge"',
        ),
        (
            "cnn_jax/data/augment.py",
            "minval=-degrees, maxval=degrees",
            "minval=0.0, maxval=degrees",
        ),
        ("cnn_jax/data/augment.py", "(n - 1) / 2 for n in", "n / 2 for n in"),
        (
            "cnn_jax/data/augment.py",
            "share * images + (1 - share) * images[partner]",
            "share * images + share * images[partner]",
        ),
        (
            "cnn_jax/data/augment.py",
            "jax.random.beta(share_key, alpha, alpha,",
            "jax.random.beta(share_key, alpha, 1.0,",
        ),
        ("cnn_jax/data/augment.py", "(a * values[None])", "(a * jnp.sqrt(values)[None])"),
        ("cnn_jax/data/augment.py", "- np.outer(mean, mean)", ""),
        (
            "cnn_jax/data/augment.py",
            "adjust_contrast(image, 1 + factors[0])",
            "adjust_contrast(image, factors[0])",
        ),
    ],
    "tests/data/loader_test.py -k 'each_image_once or start_at_any or spans or mean or the_row_only'": [
        (
            "cnn_jax/data/loader.py",
            "itertools.count(start * batch, batch)",
            "itertools.count(0, batch)",
        ),
        ("cnn_jax/data/loader.py", "begin = first - epoch * count", "begin = first % count"),
        ("cnn_jax/data/preprocess.py", '"channel": (0, 1, 2)', '"channel": (0, 1)'),
    ],
    "tests/data/preprocess_test.py": [
        ("cnn_jax/data/preprocess.py", "if data.flip:", "if data.flip and False:"),
        ("cnn_jax/data/preprocess.py", '"shift", augment.shift', '"pad", augment.shift'),
    ],
    "tests/data/measure_test.py": [
        ("cnn_jax/data/measure.py", "np.arange(count) * len(images) // count", "np.arange(count)"),
        (
            "cnn_jax/data/measure.py",
            "mean = found.sums / found.count",
            "mean = found.sums / len(images)",
        ),
    ],
    "tests/layers/batch_norm_test.py -k 'by_hand or in_evaluation or central or match_float64'": [
        ("cnn_jax/layers/batch_norm.py", "square - jnp.square(offset)", "square"),
        (
            "cnn_jax/layers/batch_norm.py",
            "rsqrt(moments.variance + epsilon)",
            "rsqrt(moments.variance)",
        ),
        (
            "cnn_jax/layers/batch_norm.py",
            "rows = _as_rows(x, groups) - shift[:, None]\n    values",
            "rows = _as_rows(x, groups)\n    values",
        ),
    ],
    "tests/layers/lrn_test.py": [
        ("cnn_jax/layers/lrn.py", "((n - 1) // 2, n // 2)", "(n // 2, (n - 1) // 2)"),
        ("cnn_jax/layers/lrn.py", "alpha / n if caffe_alpha else alpha", "alpha / n"),
        (
            "cnn_jax/layers/lrn.py",
            "raise_to_power(denominator, -beta)",
            "raise_to_power(denominator, beta)",
        ),
        (
            "cnn_jax/layers/lrn.py",
            "reshape(*x.shape[:-1], towers, -1)",
            "reshape(*x.shape[:-1], 1, -1)",
        ),
    ],
    "tests/layers/pooling_test.py": [
        ("cnn_jax/layers/pooling.py", "-(size - window) % stride", "(size - window) % stride"),
        (
            "cnn_jax/layers/pooling.py",
            'if count_padding or padding == "VALID"',
            'if True or padding == "VALID"',
        ),
        ("cnn_jax/layers/pooling.py", "sums * coefficient + bias", "sums / 4 * coefficient + bias"),
    ],
    "tests/layers/initializers_test.py": [
        (
            "cnn_jax/layers/initializers.py",
            "he_normal = fan_in_normal(2.0)",
            "he_normal = fan_in_normal(1.0)",
        ),
        ("cnn_jax/layers/initializers.py", "math.sqrt(3 * variance)", "math.sqrt(variance)"),
        (
            "cnn_jax/layers/initializers.py",
            "return math.prod(shape[:-1])",
            "return math.prod(shape[1:])",
        ),
    ],
    "tests/training/checksum_test.py": [
        (
            "cnn_jax/training/checksum.py",
            "2 * jax.lax.iota(jnp.uint32, len(words)) +",
            "0 * jax.lax.iota(jnp.uint32, len(words)) +",
        ),
        ("cnn_jax/training/checksum.py", "jnp.sum(words * odd", "jnp.max(words * odd"),
    ],
    "tests/training/train_step_test.py -k 'sums or not_finite or mixup or keys'": [
        (
            "cnn_jax/training/train_step.py",
            "jax.random.fold_in(parts.key, step)",
            "jax.random.fold_in(parts.key, 0)",
        ),
        (
            "cnn_jax/training/train_step.py",
            "share * loss + (1 - share) * other_loss",
            "share * loss + share * other_loss",
        ),
        ("cnn_jax/training/train_step.py", '"loss": sums["loss"] + loss', '"loss": loss'),
        ("cnn_jax/training/train_step.py", "(state.nan_step < 0) & ~fine", "~fine"),
        ("cnn_jax/training/train_step.py", "fine & jnp.isfinite(g).all()", "fine"),
    ],
    "tests/training/loop_test.py": [
        (
            "cnn_jax/training/seed_run.py",
            "evaluate = step % train.eval_every == 0 or step == train.steps",
            "evaluate = step % train.eval_every == 0",
        ),
        (
            "cnn_jax/training/seed_run.py",
            "save = evaluate or step % train.save_every == 0",
            "save = evaluate or step == until",
        ),
        ("cnn_jax/training/seed_run.py", "save or step == until, measure", "save, measure"),
        (
            "cnn_jax/training/seed_run.py",
            "log = save or measure or step % train.log_every == 0",
            "log = measure or step % train.log_every == 0",
        ),
        (
            "cnn_jax/training/seed_run.py",
            "log = save or measure or step % train.log_every == 0",
            "log = save or measure or step % train.log_every == 0 or step == until",
        ),
    ],
    "tests/data/streaming_test.py -k 'epoch or seed_only or evaluation_replaces'": [
        ("cnn_jax/data/streaming.py", "(self.seed, epoch, 1 + place)", "(self.seed, 0, 1 + place)"),
        ("cnn_jax/data/streaming.py", "(self.seed, epoch, 1 + place)", "(self.seed, epoch, place)"),
        ("cnn_jax/data/streaming.py", 'position < len(self.images) and not row["bad"]', "True"),
    ],
    "tests/data/decode_test.py": [
        ("cnn_jax/data/decode.py", "box.left - left + (x - 1) / 2", "box.left - left + x / 2"),
        ("cnn_jax/data/decode.py", "cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if", "image if"),
        ("cnn_jax/data/decode.py", "if k <= max(1, shrink)", "if k <= max(1, 2 * shrink)"),
    ],
    "tests/report/claims_test.py": [
        ("cnn_jax/report/claims.py", "values[seed] = 100 * sum", "values[seed] = sum"),
    ],
    "tests/report/verdicts_test.py": [
        (
            "cnn_jax/report/verdicts.py",
            "interval[1] < low or interval[0] > high",
            "interval[0] < low or interval[1] > high",
        ),
        (
            "cnn_jax/report/verdicts.py",
            "if not measured.same_weights and measured.over_seeds is None:",
            "if False:",
        ),
        (
            "cnn_jax/report/verdicts.py",
            "low <= measured.value <= high",
            "low < measured.value <= high",
        ),
        (
            "cnn_jax/report/verdicts.py",
            "measured.over_images[0] == measured.over_images[1]",
            "False",
        ),
        ("cnn_jax/report/verdicts.py", "if measured.seeds < 2", "if measured.seeds < 3"),
    ],
    "tests/pretrained -k 'resizing or channel_order or hostile_pickle_is_refused'": [
        (
            "cnn_jax/pretrained/preprocessing.py",
            'x[..., ::-1] if self.channels == "BGR"',
            'x if self.channels == "BGR"',
        ),
        ("cnn_jax/pretrained/preprocessing.py", "x * (self.maximum / 255)", "x / 255"),
        (
            "cnn_jax/pretrained/preprocessing.py",
            "x = jnp.clip(jnp.round(resized), 0.0, 255.0)",
            "x = resized",
        ),
    ],
    "tests/report/render_text_test.py": [
        ("cnn_jax/report/render_text.py", "if column.cells and all(", "if all("),
        ("cnn_jax/report/render_text.py", "if common == [DASH]:", "if False:"),
        (
            "cnn_jax/report/render_text.py",
            "_measure([*groups[-1], column]) > width",
            "_measure([*groups[-1], column]) > width + 1",
        ),
        ("cnn_jax/report/render_text.py", "if len(parts) > 1:", "if len(parts) > 0:"),
    ],
    "tests/data/alter_test.py": [
        ("cnn_jax/data/alter.py", "int(size + 1e-9)", "int(size)"),
        ("cnn_jax/data/alter.py", "[: max(1, int(size", "[: max(0, int(size"),
        ("cnn_jax/data/alter.py", "padded[..., ::-1], options", "padded, options"),
        ("cnn_jax/data/alter.py", 'mode="edge"', 'mode="constant"'),
        ("cnn_jax/data/alter.py", "flat[:, order]", "flat[:, np.random.permutation(order)]"),
    ],
    "tests/tuning_test.py -k 'speed or equal or besides or type or not_a_number or paper_s_own or chosen_only or left_out'": [
        ("cnn_jax/tuning.py", "if not known or len(known) < len(scores):", "if not known:"),
        ("cnn_jax/tuning.py", "return min(known, key", "return max(known, key"),
        ("cnn_jax/tuning.py", "math.inf if math.isnan(score) else score", "score"),
        ("cnn_jax/tuning.py", "if trial.seed < tuning.seeds]", "if trial.seed <= tuning.seeds]"),
        (
            "cnn_jax/tuning.py",
            "all(trial.ended for trial in own)",
            "any(trial.ended for trial in own)",
        ),
        ("cnn_jax/tuning.py", "if run.finished and errors else", "if errors else"),
        (
            "cnn_jax/tuning.py",
            "count = tuning.seeds - (left_out is not None)",
            "count = tuning.seeds",
        ),
    ],
    "tests/training/first_steps_test.py -k 'thread or numbers or compiled_once'": [
        (
            "cnn_jax/training/first_steps.py",
            "self._until > FIRST_STEPS",
            "self._until >= FIRST_STEPS",
        ),
        ("cnn_jax/training/first_steps.py", "self._thread is None and self._until", "self._until"),
        ("cnn_jax/training/first_steps.py", "step < FIRST_STEPS", "step <= FIRST_STEPS"),
        (
            "cnn_jax/training/first_steps.py",
            "self._thread.join()\n        self._thread = None",
            "self._thread.join()",
        ),
    ],
    "tests/values_test.py": [
        ("cnn_jax/values.py", "value <= bound.above", "value < bound.above"),
        ("cnn_jax/values.py", "value >= bound.below", "value > bound.below"),
        ("cnn_jax/values.py", "and not math.isfinite(value)", "and math.isnan(value)"),
    ],
}
