/* LIBXSMM-DNN's batch norm as a peer: answers requests as serve.py describes, for the cases
 *
 *     batchnorm/forward/NxCxHxW    batchnorm/backward/NxCxHxW
 *
 * with C a multiple of the block of channels. Its tensors lie in its own blocked layout, [N][C / block][H][W][block], in huge pages
 * where the system gives them. The number of threads is OpenMP's. compare.py builds this file when it is given --libxsmm. */
#define _GNU_SOURCE
#include <libxsmm_dnn.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { block = 64, mostSamples = 100000 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static float *allocate(size_t count) {
  const size_t page = 2u << 20, bytes = (count * sizeof(float) + page - 1) / page * page;
  float *memory = aligned_alloc(page, bytes);
  if (memory == NULL) {
    fputs("out of memory\n", stderr);
    exit(1);
  }
  madvise(memory, bytes, MADV_HUGEPAGE);
  memset(memory, 0, bytes);
  return memory;
}

static float uniform(unsigned *state) {
  *state = *state * 1664525u + 1013904223u;
  return (*state >> 8) * (1.0f / 8388608.0f) - 1.0f;
}

/* One prepared case. */
static struct {
  char name[128];
  int backward;
  libxsmm_dnn_bn_fwd_config forwardConfig;
  libxsmm_dnn_bn_bwd_config backwardConfig;
  float *x, *y, *dx, *dy, *gamma, *beta, *dGamma, *dBeta, *mean, *variance, *scratch;
} work;

static void release(void) {
  if (work.name[0] == 0) return;
  destroy_libxsmm_dnn_bn_fwd(&work.forwardConfig);
  destroy_libxsmm_dnn_bn_bwd(&work.backwardConfig);
  float *all[] = {work.x, work.y, work.dx, work.dy, work.gamma, work.beta, work.dGamma, work.dBeta, work.mean, work.variance, work.scratch};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  work.name[0] = 0;
}

static void forward(void) {
#pragma omp parallel
  libxsmm_dnn_bn_fwd_exec_f32(work.forwardConfig, work.x, NULL, work.gamma, work.beta, work.mean, work.variance, work.y, NULL, 1e-5f, 0,
                              omp_get_thread_num(), work.scratch, LIBXSMM_DNN_BN_FULL_NORM);
}

static void backward(void) {
#pragma omp parallel
  libxsmm_dnn_bn_bwd_exec_f32(work.backwardConfig, work.dy, work.x, work.mean, work.variance, work.gamma, NULL, work.dx, NULL,
                              work.dGamma, work.dBeta, 1e-5f, 0, omp_get_thread_num(), work.scratch, LIBXSMM_DNN_BN_FULL_NORM);
}

/* The seconds of one run, over so many. */
static double seconds(int runs) {
  const double start = now();
  for (int i = 0; i < runs; i++) {
    if (work.backward)
      backward();
    else
      forward();
  }
  return (now() - start) / runs;
}

/* Zero if the case is unknown. */
static int prepare(const char *name) {
  char direction[16];
  int n, c, h, w, end = 0;
  release();
  if (sscanf(name, "batchnorm/%15[a-z]/%dx%dx%dx%d%n", direction, &n, &c, &h, &w, &end) != 5 || name[end] != 0) return 0;
  work.backward = strcmp(direction, "backward") == 0;
  if ((!work.backward && strcmp(direction, "forward") != 0) || c % block != 0) return 0;
  const size_t count = (size_t)n * c * h * w;
  const int threads = omp_get_max_threads();
  work.forwardConfig = setup_libxsmm_dnn_bn_fwd(n, c, h, w, block, 0, 0, 0, 0, threads, LIBXSMM_DNN_BN_FUSE_NONE, LIBXSMM_DATATYPE_F32,
                                                LIBXSMM_DATATYPE_F32, LIBXSMM_DATATYPE_F32);
  work.backwardConfig = setup_libxsmm_dnn_bn_bwd(n, c, h, w, block, 0, 0, 0, 0, threads, LIBXSMM_DNN_BN_FUSE_NONE, LIBXSMM_DATATYPE_F32,
                                                 LIBXSMM_DATATYPE_F32, LIBXSMM_DATATYPE_F32);
  const size_t one = work.forwardConfig.scratch_size, other = work.backwardConfig.scratch_size;
  work.scratch = allocate((one > other ? one : other) / sizeof(float) + 1);
  float **tensors[] = {&work.x, &work.y, &work.dx, &work.dy};
  float **vectors[] = {&work.gamma, &work.beta, &work.dGamma, &work.dBeta, &work.mean, &work.variance};
  for (int i = 0; i < 4; i++) *tensors[i] = allocate(count);
  for (int i = 0; i < 6; i++) *vectors[i] = allocate(c);
  unsigned state = 1;
  for (size_t i = 0; i < count; i++) work.x[i] = uniform(&state), work.dy[i] = uniform(&state);
  for (int i = 0; i < c; i++) work.gamma[i] = 1 + 0.5f * uniform(&state), work.beta[i] = uniform(&state);
  forward(); /* The backward pass reads its mean and variance. */
  strcpy(work.name, name);
  seconds(3);
  return 1;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void measure(double budget) {
  static double samples[mostSamples];
  double end = now() + 0.1 * budget, estimate = seconds(1);
  while (now() < end) {
    const double next = seconds(1);
    if (next < estimate) estimate = next;
  }
  const int runs = budget / 40 / estimate < 1 ? 1 : (int)(budget / 40 / estimate + 0.5);
  int count = 0;
  end = now() + 0.9 * budget;
  while (count < mostSamples && (count < 3 || now() < end)) samples[count++] = seconds(runs);
  qsort(samples, count, sizeof *samples, ascending);
  printf("{\"name\": \"%s\", \"median_seconds\": %.9g, \"lower_quartile_seconds\": %.9g, \"upper_quartile_seconds\": %.9g, "
         "\"samples\": %d, \"runs_per_sample\": %d, \"note\": \"\"}\n",
         work.name, samples[count / 2], samples[count / 4], samples[count * 3 / 4], count, runs);
}

int main(void) {
  char line[256], name[128];
  double milliseconds;
  printf("{\"peer\": {\"name\": \"LIBXSMM-DNN\", \"version\": \"on LIBXSMM %s-%s\", \"instruction set\": \"%s\"}}\n", LIBXSMM_BRANCH,
         LIBXSMM_VERSION, libxsmm_get_target_arch());
  fflush(stdout);
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (sscanf(line, "%127s %lf", name, &milliseconds) != 2)
      printf("{\"error\": \"a request is a case and milliseconds\"}\n");
    else if (strcmp(name, work.name) != 0 && !prepare(name))
      printf("{\"error\": \"unknown case %s\"}\n", name);
    else
      measure(milliseconds / 1000);
    fflush(stdout);
  }
  release();
  return 0;
}
