// Optimizers: parameters, gradients and state in one pass.
//
// The arithmetic is the scalar's own: in double, a float pass would wait for conversions, roots and divisions instead of memory. Fused
// multiplications and additions leave each result within a few ulps of its greatest term.

// What a pass does: constants at each call, or settings that a loop would only test again and again.
typedef struct K(plan) {
  scalar rate, scale, decay, shrink, momentum, blend, beta1, blend1, beta2, beta2_rest, blend2, epsilon;
  bool nesterov, first, decoupled;
} K(plan);

typedef enum K(rule) {
  K(plain_sgd),
  K(momentum_sgd),
  K(adagrad_rule),
  K(plain_rmsprop),
  K(momentum_rmsprop),
  K(adam_rule)
} K(rule);

// The running average of squared gradients. β₂ is near 1, and its rounding to float alone would be felt 1 / (1 - β₂) times in the long run
// (3e-5 for 0.999): it comes in two parts.
INLINE vector K(average_squares)(const K(plan) k, vector squares, vector gradient) {
  return squares * k.beta2 + (squares * k.beta2_rest + gradient * (gradient * k.blend2));
}

// One vector of the parameters: the formulas of the table's comments. `s` and `t` are the rule's state, in its order.
INLINE void K(update)(const K(rule) rule, const K(plan) k, vector *p, vector g, vector *s, vector *t) {
  vector parameter = *p, gradient = g * k.scale;
  if (k.decoupled) {
    parameter -= parameter * k.shrink;
  } else {
    gradient += parameter * k.decay;
  }
  if (rule == K(plain_sgd)) {
    parameter -= gradient * k.rate;
  } else if (rule == K(momentum_sgd)) {
    const vector velocity = k.first ? gradient : *s * k.momentum + gradient * k.blend;
    *s = velocity;
    parameter -= (k.nesterov ? gradient + velocity * k.momentum : velocity) * k.rate;
  } else if (rule == K(adagrad_rule)) {
    *s += gradient * gradient;
    parameter -= gradient * k.rate / (__builtin_elementwise_sqrt(*s) + k.epsilon);
  } else if (rule == K(plain_rmsprop) || rule == K(momentum_rmsprop)) {
    *s = K(average_squares)(k, *s, gradient);
    vector change = gradient / (__builtin_elementwise_sqrt(*s) + k.epsilon);
    if (rule == K(momentum_rmsprop)) {
      change += *t * k.momentum;
      *t = change;
    }
    parameter -= change * k.rate;
  } else {
    *s = *s * k.beta1 + gradient * k.blend1;
    *t = K(average_squares)(k, *t, gradient);
    parameter -= *s * k.rate / (__builtin_elementwise_sqrt(*t) + k.epsilon);
  }
  *p = parameter;
}

// The loop of every rule. Spare lanes of the last vector hold ones, for which no rule divides by zero.
INLINE void K(update_all)(const K(rule) rule, const K(plan) k, const bool clear, scalar *p, scalar *g, scalar *s, scalar *t,
                          size_t count) {
  const bool one = rule != K(plain_sgd), two = rule == K(momentum_rmsprop) || rule == K(adam_rule);
  // A first step of momentum must not read what its buffer happens to hold.
  const bool reads = one && !(rule == K(momentum_sgd) && k.first);
  const vector ones = splat(1);
  size_t i = 0;
  for (; i + 2 * LANES <= count; i += 2 * LANES) {
    vector parameter[2], gradient[2], state[2], other[2];
#pragma clang loop unroll(full)
    for (int h = 0; h < 2; h++) {
      const size_t at = i + (size_t)h * LANES;
      parameter[h] = load(p + at);
      gradient[h] = load(g + at);
      state[h] = reads ? load(s + at) : ones;
      other[h] = two ? load(t + at) : ones;
      K(update)(rule, k, &parameter[h], gradient[h], &state[h], &other[h]);
    }
#pragma clang loop unroll(full)
    for (int h = 0; h < 2; h++) {
      const size_t at = i + (size_t)h * LANES;
      store(p + at, parameter[h]);
      if (one) store(s + at, state[h]);
      if (two) store(t + at, other[h]);
      if (clear) store(g + at, (vector){0});
    }
  }
  for (; i + LANES <= count; i += LANES) {
    vector parameter = load(p + i), state = reads ? load(s + i) : ones, other = two ? load(t + i) : ones;
    K(update)(rule, k, &parameter, load(g + i), &state, &other);
    store(p + i, parameter);
    if (one) store(s + i, state);
    if (two) store(t + i, other);
    if (clear) store(g + i, (vector){0});
  }
  const size_t left = count - i;
  if (left == 0) return;
  vector parameter = load_first(p + i, left, 1);
  vector state = reads ? load_first(s + i, left, 1) : ones, other = two ? load_first(t + i, left, 1) : ones;
  K(update)(rule, k, &parameter, load_first(g + i, left, 1), &state, &other);
  store_first(p + i, parameter, left);
  if (one) store_first(s + i, state, left);
  if (two) store_first(t + i, other, left);
  if (clear) store_first(g + i, (vector){0}, left);
}

INLINE void K(run_rule)(const K(rule) rule, const K(plan) k, bool clear, void *p, void *g, void *s, void *t, size_t count) {
  if (clear) {
    K(update_all)(rule, k, true, p, g, s, t, count);
  } else {
    K(update_all)(rule, k, false, p, g, s, t, count);
  }
}

// The constants of a pass, rounded once. Adam has its own rate and ε at each step. A float gradient below 1e-22 has a square of 0: an ε that
// is small against it, or 0, would make a great step of a small one.
INLINE K(plan) K(plan_of)(const steppe_optimizer_step *step, double rate, double epsilon) {
  const scalar beta2 = (scalar)step->beta2;
  if (sizeof(scalar) == sizeof(float) && epsilon < 1e-18) epsilon = 1e-18;
  return (K(plan)){.rate = (scalar)rate, .scale = (scalar)step->gradient_scale, .decay = (scalar)step->weight_decay,
                   .shrink = (scalar)(step->learning_rate * step->weight_decay), .momentum = (scalar)step->momentum,
                   .blend = (scalar)(1 - step->dampening), .beta1 = (scalar)step->beta1, .blend1 = (scalar)(1 - step->beta1),
                   .beta2 = beta2, .beta2_rest = (scalar)(step->beta2 - beta2), .blend2 = (scalar)(1 - step->beta2),
                   .epsilon = (scalar)epsilon, .nesterov = step->nesterov, .first = step->first};
}

static void K(sgd)(const steppe_optimizer_step *step, void *p, void *g, void *velocity, size_t count) {
  const K(plan) k = K(plan_of)(step, step->learning_rate, 0);
  if (velocity) {
    K(run_rule)(K(momentum_sgd), k, step->clear_gradient, p, g, velocity, NULL, count);
  } else {
    K(run_rule)(K(plain_sgd), k, step->clear_gradient, p, g, NULL, NULL, count);
  }
}

static void K(adagrad)(const steppe_optimizer_step *step, void *p, void *g, void *accumulator, size_t count) {
  const K(plan) k = K(plan_of)(step, step->learning_rate, step->epsilon);
  K(run_rule)(K(adagrad_rule), k, step->clear_gradient, p, g, accumulator, NULL, count);
}

static void K(rmsprop)(const steppe_optimizer_step *step, void *p, void *g, void *squares, void *buffer, size_t count) {
  const K(plan) k = K(plan_of)(step, step->learning_rate, step->epsilon);
  if (buffer) {
    K(run_rule)(K(momentum_rmsprop), k, step->clear_gradient, p, g, squares, buffer, count);
  } else {
    K(run_rule)(K(plain_rmsprop), k, step->clear_gradient, p, g, squares, NULL, count);
  }
}

static void K(adam)(const steppe_optimizer_step *step, void *p, void *g, void *first_moment, void *second_moment, size_t count) {
  // (η/c₁)·m / (√(v/c₂) + ε) = (η·√c₂/c₁)·m / (√v + ε·√c₂), which spares a product for each element.
  const double root = __builtin_sqrt(step->bias_correction2);
  K(plan) k = K(plan_of)(step, step->learning_rate / step->bias_correction1 * root, step->epsilon * root);
  k.decoupled = step->decoupled;
  K(run_rule)(K(adam_rule), k, step->clear_gradient, p, g, first_moment, second_moment, count);
}
