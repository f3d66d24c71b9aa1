// Optimizers: parameters, gradients and state in one pass.
//
// The arithmetic is double for float parameters too, and each result is rounded once: gradients that nearly cancel weight decay,
// and updates that nearly cancel a parameter, would otherwise cost most of its digits. The pass is bound by memory, so this is
// nearly free, as long as a step takes one vector of doubles: two would pass through shuffles on their way to and from floats.

// What a pass does: constants at each call, or settings that a loop would only test again and again.
typedef struct K(plan) {
  double rate, scale, decay, shrink, momentum, blend, beta1, beta2, epsilon;
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

// One slice of the parameters: the formulas of the table's comments. `s` and `t` are the rule's state, in its order.
INLINE void K(update)(const K(rule) rule, const K(plan) k, slice *p, slice g, slice *s, slice *t) {
  doubles parameter = AS_DOUBLES(*p), gradient = AS_DOUBLES(g) * k.scale;
  if (k.decoupled) {
    parameter -= parameter * k.shrink;
  } else {
    gradient += parameter * k.decay;
  }
  if (rule == K(plain_sgd)) {
    parameter -= gradient * k.rate;
  } else if (rule == K(momentum_sgd)) {
    const doubles velocity = k.first ? gradient : AS_DOUBLES(*s) * k.momentum + gradient * k.blend;
    *s = AS_SLICE(velocity);
    parameter -= (k.nesterov ? gradient + velocity * k.momentum : velocity) * k.rate;
  } else if (rule == K(adagrad_rule)) {
    const doubles squares = AS_DOUBLES(*s) + gradient * gradient;
    *s = AS_SLICE(squares);
    parameter -= gradient * k.rate / (__builtin_elementwise_sqrt(squares) + k.epsilon);
  } else if (rule == K(plain_rmsprop) || rule == K(momentum_rmsprop)) {
    const doubles squares = AS_DOUBLES(*s) * k.beta2 + gradient * gradient * (1 - k.beta2);
    *s = AS_SLICE(squares);
    doubles change = gradient / (__builtin_elementwise_sqrt(squares) + k.epsilon);
    if (rule == K(momentum_rmsprop)) {
      change += AS_DOUBLES(*t) * k.momentum;
      *t = AS_SLICE(change);
    }
    parameter -= change * k.rate;
  } else {
    const doubles mean = AS_DOUBLES(*s) * k.beta1 + gradient * (1 - k.beta1);
    const doubles squares = AS_DOUBLES(*t) * k.beta2 + gradient * gradient * (1 - k.beta2);
    *s = AS_SLICE(mean);
    *t = AS_SLICE(squares);
    parameter -= mean * k.rate / (__builtin_elementwise_sqrt(squares) + k.epsilon);
  }
  *p = AS_SLICE(parameter);
}

// The loop of every rule. Spare lanes of the last slice hold ones, for which no rule divides by zero.
INLINE void K(update_all)(const K(rule) rule, const K(plan) k, const bool clear, scalar *p, scalar *g, scalar *s, scalar *t,
                          size_t count) {
  const bool one = rule != K(plain_sgd), two = rule == K(momentum_rmsprop) || rule == K(adam_rule);
  // A first step of momentum must not read what its buffer happens to hold.
  const bool reads = one && !(rule == K(momentum_sgd) && k.first);
  const slice ones = (slice){0} + 1;
  size_t i = 0;
  for (; i + 2 * SLICE_LANES <= count; i += 2 * SLICE_LANES) {
    slice parameter[2], gradient[2], state[2], other[2];
#pragma clang loop unroll(full)
    for (int h = 0; h < 2; h++) {
      const size_t at = i + (size_t)h * SLICE_LANES;
      parameter[h] = LOAD_SLICE(p + at);
      gradient[h] = LOAD_SLICE(g + at);
      state[h] = reads ? LOAD_SLICE(s + at) : ones;
      other[h] = two ? LOAD_SLICE(t + at) : ones;
      K(update)(rule, k, &parameter[h], gradient[h], &state[h], &other[h]);
    }
#pragma clang loop unroll(full)
    for (int h = 0; h < 2; h++) {
      const size_t at = i + (size_t)h * SLICE_LANES;
      STORE_SLICE(p + at, parameter[h]);
      if (one) STORE_SLICE(s + at, state[h]);
      if (two) STORE_SLICE(t + at, other[h]);
      if (clear) STORE_SLICE(g + at, (slice){0});
    }
  }
  for (; i + SLICE_LANES <= count; i += SLICE_LANES) {
    slice parameter = LOAD_SLICE(p + i), state = reads ? LOAD_SLICE(s + i) : ones, other = two ? LOAD_SLICE(t + i) : ones;
    K(update)(rule, k, &parameter, LOAD_SLICE(g + i), &state, &other);
    STORE_SLICE(p + i, parameter);
    if (one) STORE_SLICE(s + i, state);
    if (two) STORE_SLICE(t + i, other);
    if (clear) STORE_SLICE(g + i, (slice){0});
  }
  const size_t left = (count - i) * sizeof(scalar);
  if (left == 0) return;
  slice parameter = ones, gradient = ones, state = ones, other = ones;
  __builtin_memcpy(&parameter, p + i, left);
  __builtin_memcpy(&gradient, g + i, left);
  if (reads) __builtin_memcpy(&state, s + i, left);
  if (two) __builtin_memcpy(&other, t + i, left);
  K(update)(rule, k, &parameter, gradient, &state, &other);
  __builtin_memcpy(p + i, &parameter, left);
  if (one) __builtin_memcpy(s + i, &state, left);
  if (two) __builtin_memcpy(t + i, &other, left);
  if (clear) __builtin_memset(g + i, 0, left);
}

INLINE void K(run_rule)(const K(rule) rule, const K(plan) k, bool clear, void *p, void *g, void *s, void *t, size_t count) {
  if (clear) {
    K(update_all)(rule, k, true, p, g, s, t, count);
  } else {
    K(update_all)(rule, k, false, p, g, s, t, count);
  }
}

static void K(sgd)(const steppe_optimizer_step *step, void *p, void *g, void *velocity, size_t count) {
  const K(plan) k = {.rate = step->learning_rate, .scale = step->gradient_scale, .decay = step->weight_decay,
                     .momentum = step->momentum, .blend = 1 - step->dampening, .nesterov = step->nesterov, .first = step->first};
  if (velocity) {
    K(run_rule)(K(momentum_sgd), k, step->clear_gradient, p, g, velocity, NULL, count);
  } else {
    K(run_rule)(K(plain_sgd), k, step->clear_gradient, p, g, NULL, NULL, count);
  }
}

static void K(adagrad)(const steppe_optimizer_step *step, void *p, void *g, void *accumulator, size_t count) {
  const K(plan) k = {.rate = step->learning_rate, .scale = step->gradient_scale, .decay = step->weight_decay,
                     .epsilon = step->epsilon};
  K(run_rule)(K(adagrad_rule), k, step->clear_gradient, p, g, accumulator, NULL, count);
}

static void K(rmsprop)(const steppe_optimizer_step *step, void *p, void *g, void *squares, void *buffer, size_t count) {
  const K(plan) k = {.rate = step->learning_rate, .scale = step->gradient_scale, .decay = step->weight_decay,
                     .momentum = step->momentum, .beta2 = step->beta2, .epsilon = step->epsilon};
  if (buffer) {
    K(run_rule)(K(momentum_rmsprop), k, step->clear_gradient, p, g, squares, buffer, count);
  } else {
    K(run_rule)(K(plain_rmsprop), k, step->clear_gradient, p, g, squares, NULL, count);
  }
}

static void K(adam)(const steppe_optimizer_step *step, void *p, void *g, void *first_moment, void *second_moment, size_t count) {
  // (η/c₁)·m / (√(v/c₂) + ε) = (η·√c₂/c₁)·m / (√v + ε·√c₂), which spares a product for each element.
  const double root = __builtin_sqrt(step->bias_correction2);
  const K(plan) k = {.rate = step->learning_rate / step->bias_correction1 * root, .scale = step->gradient_scale,
                     .decay = step->weight_decay, .shrink = step->learning_rate * step->weight_decay, .beta1 = step->beta1,
                     .beta2 = step->beta2, .epsilon = step->epsilon * root, .decoupled = step->decoupled};
  K(run_rule)(K(adam_rule), k, step->clear_gradient, p, g, first_moment, second_moment, count);
}
