// MPI as Swift can import it. Its handles are integers in MPICH and pointers in Open MPI, and its constants are macros or casts: here they
// are structures and inline functions, so that one Swift source serves both. Every function returns MPI's error code.
#include <errno.h>
#include <fcntl.h>
#include <mpi.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct { MPI_Comm handle; } steppe_mpi_communicator;
typedef struct { MPI_Request handle; } steppe_mpi_request;

typedef enum {
  STEPPE_MPI_FLOAT,
  STEPPE_MPI_DOUBLE,
  STEPPE_MPI_INT64,
  STEPPE_MPI_BYTE,
  // A channel's moments: number, mean, what the mean's rounding left, sum of squared distances from the mean.
  STEPPE_MPI_MOMENTS,
  // What a training step came to: five sums, then a number of which the least counts.
  STEPPE_MPI_STEP,
} steppe_mpi_type;

enum { STEPPE_MPI_MOMENT_NUMBERS = 4, STEPPE_MPI_STEP_NUMBERS = 6 };

typedef enum { STEPPE_MPI_SUM, STEPPE_MPI_MIN, STEPPE_MPI_MAX, STEPPE_MPI_MERGE } steppe_mpi_operation;

// MARK: Operations of our own

// Whether moments a come before b in the order in which they are merged. It makes the merge the same bits whichever of two processes does
// it, which a * b = b * a alone would not.
static inline int steppe_mpi_precedes(const double *a, const double *b) {
  for (int i = 0; i < STEPPE_MPI_MOMENT_NUMBERS; i++) {
    if (a[i] != b[i]) return a[i] > b[i];
  }
  return 1;
}

// b becomes the moments of a's and b's values together (Chan, Golub & LeVeque 1983). NaN spreads.
static inline void steppe_mpi_merge_moments(const double *a, double *b) {
  if (a[0] == 0) return;
  if (b[0] == 0) {
    memcpy(b, a, STEPPE_MPI_MOMENT_NUMBERS * sizeof(double));
    return;
  }
  const double *x = a, *y = b;
  if (!steppe_mpi_precedes(a, b)) x = b, y = a;
  const double count = x[0] + y[0], share = y[0] / count;
  // Both means may be large and near each other: the difference of their high parts is exact then.
  const double distance = (y[1] - x[1]) + (y[2] - x[2]);
  const double step = x[2] + distance * share, mean = x[1] + step;
  const double rest = (x[1] - mean) + step;
  const double squares = x[3] + y[3] + distance * distance * (x[0] * share);
  b[0] = count, b[1] = mean, b[2] = rest, b[3] = squares;
}

static void steppe_mpi_merge_all_moments(void *in, void *inout, int *count, MPI_Datatype *type) {
  const double *a = (const double *)in;
  double *b = (double *)inout;
  for (int i = 0; i < *count; i++) {
    steppe_mpi_merge_moments(a + (size_t)i * STEPPE_MPI_MOMENT_NUMBERS, b + (size_t)i * STEPPE_MPI_MOMENT_NUMBERS);
  }
  (void)type;
}

static void steppe_mpi_merge_all_steps(void *in, void *inout, int *count, MPI_Datatype *type) {
  const double *a = (const double *)in;
  double *b = (double *)inout;
  for (int i = 0; i < *count; i++, a += STEPPE_MPI_STEP_NUMBERS, b += STEPPE_MPI_STEP_NUMBERS) {
    for (int sum = 0; sum < STEPPE_MPI_STEP_NUMBERS - 1; sum++) b[sum] += a[sum];
    const int least = STEPPE_MPI_STEP_NUMBERS - 1;
    if (a[least] < b[least]) b[least] = a[least];
  }
  (void)type;
}

// What is registered with MPI once for the process.
typedef struct {
  MPI_Datatype moments, step;
  MPI_Op merge_moments, merge_steps;
} steppe_mpi_registry;

static inline int steppe_mpi_register(steppe_mpi_registry *registry) {
  int code = MPI_Type_contiguous(STEPPE_MPI_MOMENT_NUMBERS, MPI_DOUBLE, &registry->moments);
  if (!code) code = MPI_Type_commit(&registry->moments);
  if (!code) code = MPI_Type_contiguous(STEPPE_MPI_STEP_NUMBERS, MPI_DOUBLE, &registry->step);
  if (!code) code = MPI_Type_commit(&registry->step);
  if (!code) code = MPI_Op_create(steppe_mpi_merge_all_moments, 1, &registry->merge_moments);
  if (!code) code = MPI_Op_create(steppe_mpi_merge_all_steps, 1, &registry->merge_steps);
  return code;
}

static inline MPI_Datatype steppe_mpi_datatype(const steppe_mpi_registry *registry, steppe_mpi_type type) {
  switch (type) {
  case STEPPE_MPI_FLOAT: return MPI_FLOAT;
  case STEPPE_MPI_DOUBLE: return MPI_DOUBLE;
  case STEPPE_MPI_INT64: return MPI_INT64_T;
  case STEPPE_MPI_BYTE: return MPI_BYTE;
  case STEPPE_MPI_MOMENTS: return registry->moments;
  case STEPPE_MPI_STEP: return registry->step;
  }
  return MPI_DATATYPE_NULL;
}

static inline MPI_Op steppe_mpi_op(const steppe_mpi_registry *registry, steppe_mpi_type type, steppe_mpi_operation operation) {
  switch (operation) {
  case STEPPE_MPI_SUM: return MPI_SUM;
  case STEPPE_MPI_MIN: return MPI_MIN;
  case STEPPE_MPI_MAX: return MPI_MAX;
  case STEPPE_MPI_MERGE: return type == STEPPE_MPI_STEP ? registry->merge_steps : registry->merge_moments;
  }
  return MPI_OP_NULL;
}

// MARK: The process

// Starts MPI for calls from any thread, one at a time; whether it grants that.
static inline int steppe_mpi_start(int *granted) {
  int provided = 0;
  const int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
  *granted = provided >= MPI_THREAD_SERIALIZED;
  // Open MPI reports here what goes wrong in its non-blocking collectives, whatever their communicator.
  return code ? code : MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
}

static inline int steppe_mpi_is_started(int *flag) { return MPI_Initialized(flag); }
static inline int steppe_mpi_is_finished(int *flag) { return MPI_Finalized(flag); }
static inline int steppe_mpi_finish(void) { return MPI_Finalize(); }
static inline int steppe_mpi_abort(int code) { return MPI_Abort(MPI_COMM_WORLD, code); }

enum { STEPPE_MPI_TEXT = MPI_MAX_ERROR_STRING > MPI_MAX_LIBRARY_VERSION_STRING ? MPI_MAX_ERROR_STRING : MPI_MAX_LIBRARY_VERSION_STRING };

// `text` has room for STEPPE_MPI_TEXT bytes and the end.
static inline int steppe_mpi_error_text(int code, char *text) {
  int length = 0;
  text[0] = 0;
  return MPI_Error_string(code, text, &length);
}

static inline int steppe_mpi_library(char *text) {
  int length = 0;
  text[0] = 0;
  return MPI_Get_library_version(text, &length);
}

static inline int steppe_mpi_host(char *text) {
  int length = 0;
  text[0] = 0;
  return MPI_Get_processor_name(text, &length);
}

// MARK: Communicators

// A communicator of all processes, apart from others, whose errors are returned.
static inline int steppe_mpi_duplicate_world(steppe_mpi_communicator *result) {
  const int code = MPI_Comm_dup(MPI_COMM_WORLD, &result->handle);
  return code ? code : MPI_Comm_set_errhandler(result->handle, MPI_ERRORS_RETURN);
}

static inline int steppe_mpi_rank(steppe_mpi_communicator communicator, int *rank) { return MPI_Comm_rank(communicator.handle, rank); }
static inline int steppe_mpi_size(steppe_mpi_communicator communicator, int *size) { return MPI_Comm_size(communicator.handle, size); }

// How many of the processes share this machine's memory.
static inline int steppe_mpi_local_size(steppe_mpi_communicator communicator, int *size) {
  MPI_Comm local;
  int code = MPI_Comm_split_type(communicator.handle, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local);
  if (!code) code = MPI_Comm_size(local, size);
  if (!code) code = MPI_Comm_free(&local);
  return code;
}

// MARK: What all processes of a communicator do together, begun here and ended by steppe_mpi_test

static inline int steppe_mpi_all_reduce(steppe_mpi_communicator communicator, const steppe_mpi_registry *registry, void *values,
                                        int count, steppe_mpi_type type, steppe_mpi_operation operation,
                                        steppe_mpi_request *request) {
  return MPI_Iallreduce(MPI_IN_PLACE, values, count, steppe_mpi_datatype(registry, type),
                        steppe_mpi_op(registry, type, operation), communicator.handle, &request->handle);
}

static inline int steppe_mpi_broadcast(steppe_mpi_communicator communicator, const steppe_mpi_registry *registry, void *values,
                                       int count, steppe_mpi_type type, int root, steppe_mpi_request *request) {
  return MPI_Ibcast(values, count, steppe_mpi_datatype(registry, type), root, communicator.handle, &request->handle);
}

static inline int steppe_mpi_barrier(steppe_mpi_communicator communicator, steppe_mpi_request *request) {
  return MPI_Ibarrier(communicator.handle, &request->handle);
}

// Each process's `count` values, in the order of ranks.
static inline int steppe_mpi_all_gather(steppe_mpi_communicator communicator, const steppe_mpi_registry *registry, const void *values,
                                        int count, steppe_mpi_type type, void *all, steppe_mpi_request *request) {
  const MPI_Datatype kind = steppe_mpi_datatype(registry, type);
  return MPI_Iallgather(values, count, kind, all, count, kind, communicator.handle, &request->handle);
}

// Moves what is under way, and says whether the request is done.
static inline int steppe_mpi_test(steppe_mpi_request *request, int *done) {
  return MPI_Test(&request->handle, done, MPI_STATUS_IGNORE);
}

// MARK: Memory that processes share

// Makes a file of `bytes` that no other user can open, for processes of one machine to share; 0 or errno. All its pages are there from
// the start: where there is no room for them it is an error here, and not a signal where they are written.
static inline int steppe_shared_make(const char *path, size_t bytes) {
  const int file = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0) return errno;
  const int code = posix_fallocate(file, 0, (off_t)bytes);
  close(file);
  if (code) unlink(path);
  return code;
}

// The file's memory; NULL where this process can't have it.
static inline void *steppe_shared_map(const char *path, size_t bytes) {
  const int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return NULL;
  void *const memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return memory == MAP_FAILED ? NULL : memory;
}

// A number in shared memory: who reads it sees all that was written before it.
static inline void steppe_shared_store(uint64_t *number, uint64_t value) { __atomic_store_n(number, value, __ATOMIC_RELEASE); }
static inline uint64_t steppe_shared_load(const uint64_t *number) { return __atomic_load_n(number, __ATOMIC_ACQUIRE); }

// MARK: Messages from one process to another

static inline int steppe_mpi_send(steppe_mpi_communicator communicator, const void *bytes, int count, int rank, int tag,
                                  steppe_mpi_request *request) {
  return MPI_Isend(bytes, count, MPI_BYTE, rank, tag, communicator.handle, &request->handle);
}

static inline int steppe_mpi_receive(steppe_mpi_communicator communicator, void *bytes, int count, int rank, int tag,
                                     steppe_mpi_request *request) {
  return MPI_Irecv(bytes, count, MPI_BYTE, rank, tag, communicator.handle, &request->handle);
}

// Whether a message of `tag` has come, and from whom.
static inline int steppe_mpi_probe(steppe_mpi_communicator communicator, int tag, int *found, int *rank) {
  MPI_Status status;
  const int code = MPI_Iprobe(MPI_ANY_SOURCE, tag, communicator.handle, found, &status);
  if (!code && *found) *rank = status.MPI_SOURCE;
  return code;
}

// MARK: Processes of this machine

// What becomes readable when it is written to.
static inline int steppe_event_descriptor(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

static pid_t steppe_guarded = 0;

static void steppe_pass_on(int signal) {
  if (steppe_guarded > 0) kill(steppe_guarded, signal);
}

// Goes on in a child of this process, which stays as its guard: where the child is ended by a signal, the guard writes `message` to standard
// error. Then it ends as the child did. Where the guard is killed the child is too. For a process with one thread.
static inline void steppe_guard(const char *message, size_t length) {
  const pid_t guard = getpid(), child = fork();
  if (child < 0) return;
  if (child == 0) {
    // Launchers signal process groups: the child would get what the guard passes on twice.
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // The guard may have ended before that was set.
    if (getppid() != guard) _exit(1);
    return;
  }
  steppe_guarded = child;
  const int passed[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCONT};
  for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) signal(passed[i], steppe_pass_on);
  if (chdir("/")) {
    // It stays where it is.
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFSIGNALED(status)) _exit(WEXITSTATUS(status));
  if (write(STDERR_FILENO, message, length) < 0) _exit(1);
  signal(WTERMSIG(status), SIG_DFL);
  kill(getpid(), WTERMSIG(status));
  _exit(128 + WTERMSIG(status));
}
