// Optimizers: parameters, gradients and state in one pass.
//
// The arithmetic is double for float parameters too, and each result is rounded once: gradients that nearly cancel weight decay,
// and updates that nearly cancel a parameter, would otherwise cost most of its digits. The pass is bound by memory, so this is
// nearly free. `wide` vectors hold the lanes of a vector in double.

// What a pass does: constants at each call, or settings that a loop would only test again and again.
typedef struct K(plan) {
  double rate, scale, decay, momentum, blend, beta1, beta2, epsilon, correction;
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

#define AS_WIDE(v) __builtin_convertvector(v, wide)
#define AS_VECTOR(w) __builtin_convertvector(w, vector)

// One vector of parameters: the formulas of the table's comments. `s` and `t` are the rule's state, in its order.
INLINE void K(update)(const K(rule) rule, const K(plan) k, vector *p, vector g, vector *s, vector *t) {
  wide parameter = AS_WIDE(*p), gradient = AS_WIDE(g) * k.scale;
  if (k.decoupled) {
    parameter -= parameter * (k.rate * k.decay);
  } else {
    gradient += parameter * k.decay;
  }
  if (rule == K(plain_sgd)) {
    parameter -= gradient * k.rate;
  } else if (rule == K(momentum_sgd)) {
    const wide velocity = k.first ? gradient : AS_WIDE(*s) * k.momentum + gradient * k.blend;
    *s = AS_VECTOR(velocity);
    parameter -= (k.nesterov ? gradient + velocity * k.momentum : velocity) * k.rate;
  } else if (rule == K(adagrad_rule)) {
    const wide squares = AS_WIDE(*s) + gradient * gradient;
    *s = AS_VECTOR(squares);
    parameter -= gradient * k.rate / (__builtin_elementwise_sqrt(squares) + k.epsilon);
  } else if (rule == K(plain_rmsprop) || rule == K(momentum_rmsprop)) {
    const wide squares = AS_WIDE(*s) * k.beta2 + gradient * gradient * (1 - k.beta2);
    *s = AS_VECTOR(squares);
    wide change = gradient / (__builtin_elementwise_sqrt(squares) + k.epsilon);
    if (rule == K(momentum_rmsprop)) {
      change += AS_WIDE(*t) * k.momentum;
      *t = AS_VECTOR(change);
    }
    parameter -= change * k.rate;
  } else {
    const wide mean = AS_WIDE(*s) * k.beta1 + gradient * (1 - k.beta1);
    const wide squares = AS_WIDE(*t) * k.beta2 + gradient * gradient * (1 - k.beta2);
    *s = AS_VECTOR(mean);
    *t = AS_VECTOR(squares);
    // The rate holds 1/c₁ already.
    parameter -= mean * k.blend / (__builtin_elementwise_sqrt(squares * k.correction) + k.epsilon);
  }
  *p = AS_VECTOR(parameter);
}

// The loop of every rule. Spare lanes of the last vector hold ones, for which no rule divides by zero.
INLINE void K(update_all)(const K(rule) rule, const K(plan) k, const bool clear, scalar *p, scalar *g, scalar *s, scalar *t,
                          size_t count) {
  const bool one = rule != K(plain_sgd), two = rule == K(momentum_rmsprop) || rule == K(adam_rule);
  // A first step of momentum must not read what its buffer happens to hold.
  const bool reads = one && !(rule == K(momentum_sgd) && k.first);
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    vector parameter = load(p + i), state = reads ? load(s + i) : splat(1), other = two ? load(t + i) : splat(1);
    K(update)(rule, k, &parameter, load(g + i), &state, &other);
    store(p + i, parameter);
    if (one) store(s + i, state);
    if (two) store(t + i, other);
    if (clear) store(g + i, splat(0));
  }
  const size_t left = count - i;
  if (left == 0) return;
  vector parameter = load_first(p + i, left, 1), state = reads ? load_first(s + i, left, 1) : splat(1);
  vector other = two ? load_first(t + i, left, 1) : splat(1);
  K(update)(rule, k, &parameter, load_first(g + i, left, 1), &state, &other);
  store_first(p + i, parameter, left);
  if (one) store_first(s + i, state, left);
  if (two) store_first(t + i, other, left);
  if (clear) store_first(g + i, splat(0), left);
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
  const K(plan) k = {.rate = step->learning_rate, .scale = step->gradient_scale, .decay = step->weight_decay,
                     .blend = step->learning_rate / step->bias_correction1, .beta1 = step->beta1, .beta2 = step->beta2,
                     .epsilon = step->epsilon, .correction = 1 / step->bias_correction2, .decoupled = step->decoupled};
  K(run_rule)(K(adam_rule), k, step->clear_gradient, p, g, first_moment, second_moment, count);
}

#undef AS_WIDE
#undef AS_VECTOR
