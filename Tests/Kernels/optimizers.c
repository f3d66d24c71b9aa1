// Optimizers.
#include "driver.h"

// The distance between neighbours of the scalar type at a value.
static double ulp(double value) {
  if (scalar_bytes == 4) {
    const float v = fabsf((float)value);
    return (double)nextafterf(v, INFINITY) - (double)v;
  }
  const double v = fabs(value);
  return nextafter(v, INFINITY) - v;
}

void check_optimizers(size_t count, unsigned where, unsigned variant) {
  steppe_optimizer_step k = {.learning_rate = 0.01 * (1 + variant % 5), .weight_decay = variant & 1 ? 0.05 : 0,
                             .gradient_scale = variant & 2 ? 0.5 : 1, .momentum = 0.9, .dampening = variant & 4 ? 0.3 : 0,
                             .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .bias_correction1 = 0.3, .bias_correction2 = 0.02,
                             .nesterov = variant & 8, .decoupled = variant & 4, .first = variant & 16,
                             .clear_gradient = variant & 1};
  for (int rule = 0; rule < 6; rule++) {
    static const char *const names[] = {"sgd", "sgd with momentum", "adagrad", "rmsprop", "rmsprop with momentum", "adam"};
    // Each operand stands in the middle of a margin of eight.
    void *operands[4];
    for (int i = 0; i < 4; i++) operands[i] = random_at(i, count + 16, where, 0, 1);
    static double before[4][2048];
    for (int i = 0; i < 4; i++) {
      for (size_t j = 0; j < count + 16; j++) {
        if (i == 3 || (i == 2 && rule != 1)) set(operands[i], j, fabs(get(operands[i], j)) + 1e-3);
        if (i == 2 && rule == 1 && k.first) set(operands[i], j, NAN);
        before[i][j] = get(operands[i], j);
      }
    }
    void *p = (char *)operands[0] + 8 * scalar_bytes, *g = (char *)operands[1] + 8 * scalar_bytes;
    void *s = (char *)operands[2] + 8 * scalar_bytes, *t = (char *)operands[3] + 8 * scalar_bytes;
    switch (rule) {
    case 0: table->sgd(&k, p, g, NULL, count); break;
    case 1: table->sgd(&k, p, g, s, count); break;
    case 2: table->adagrad(&k, p, g, s, count); break;
    case 3: table->rmsprop(&k, p, g, s, NULL, count); break;
    case 4: table->rmsprop(&k, p, g, s, t, count); break;
    case 5: table->adam(&k, p, g, s, t, count); break;
    }
    for (size_t j = 0; j < count + 16; j++) {
      double after[4];
      for (int i = 0; i < 4; i++) after[i] = before[i][j];
      if (j >= 8 && j < count + 8) {
        double q = after[0], v = after[2], w = after[3];
        double h = k.gradient_scale * after[1] + (rule == 5 && k.decoupled ? 0 : k.weight_decay * q);
        if (rule == 0) {
          q -= k.learning_rate * h;
        } else if (rule == 1) {
          v = k.first ? h : k.momentum * v + (1 - k.dampening) * h;
          q -= k.learning_rate * (k.nesterov ? h + k.momentum * v : v);
        } else if (rule == 2) {
          v += h * h;
          q -= k.learning_rate * h / (sqrt(v) + k.epsilon);
        } else if (rule == 3 || rule == 4) {
          v = k.beta2 * v + (1 - k.beta2) * h * h;
          double u = h / (sqrt(v) + k.epsilon);
          if (rule == 4) u = w = k.momentum * w + u;
          q -= k.learning_rate * u;
        } else {
          v = k.beta1 * v + (1 - k.beta1) * h;
          w = k.beta2 * w + (1 - k.beta2) * h * h;
          if (k.decoupled) q -= k.learning_rate * k.weight_decay * q;
          q -= k.learning_rate * (v / k.bias_correction1) / (sqrt(w / k.bias_correction2) + k.epsilon);
        }
        after[0] = q;
        if (k.clear_gradient) after[1] = 0;
        if (rule > 0) after[2] = v;
        if (rule > 3) after[3] = w;
      }
      for (int i = 0; i < 4; i++) {
        // Where terms cancel, their rounding is left: of a state's own terms, and in the parameter of all of them.
        const double size = fabs(before[0][j]) + fabs(before[1][j]), old = isnan(before[i][j]) ? 0 : fabs(before[i][j]);
        const double terms = old + fabs(after[i]) + size * (1 + size);
        const double slack = i == 0 ? 32 * epsilon * (fabs(before[0][j]) + 1) : i == 1 ? 0 : 4 * epsilon * terms;
        const bool kept = j < 8 || j >= count + 8;
        expect(names[rule], (size_t)i * 10000 + j, get(operands[i], j), after[i], kept ? 0 : 4 * ulp(after[i]) + slack);
      }
    }
  }
}
