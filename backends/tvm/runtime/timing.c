/* timing.c: times single kernels. No part of an artifact: it is linked with candidates among which a compile chooses. */
#define _GNU_SOURCE
#include "calling.h"
#include "threads.h"

#include <time.h>

#define LINE 64

typedef struct gs_trial {
    gs_function function;
    int pointers;
    void *const *arguments;
    const size_t *bytes; /* of each argument's memory, from its pointer on */
    const int *cold;     /* whether it is to come from beyond the caches that are evicted */
    int tasks;
    int threads;
    size_t evict; /* bytes to read before each call; 0 leaves the caches warm */
    unsigned char *const *scratch; /* [threads], that many bytes each */
    gs_pool *pool;
    int repetitions; /* calls in the time of one sample */
    double nanoseconds;
    unsigned sink;
} gs_trial;

static double nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e9 * (double)time.tv_sec + (double)time.tv_nsec;
}

static unsigned touch(const unsigned char *memory, size_t bytes) {
    const volatile unsigned char *at = memory;
    unsigned sum = 0;
    for (size_t i = 0; i < bytes; i += LINE)
        sum += at[i];
    return sum;
}

/* One sample. Each thread brings its own core's caches into the state that is asked for. */
static void sample(void *context, int thread) {
    gs_trial *trial = context;
    int many = trial->threads, repetitions = trial->repetitions; /* may change once thread 0 is past the last barrier */
    int begin = (int)((int64_t)thread * trial->tasks / many), end = (int)((int64_t)(thread + 1) * trial->tasks / many);
    if (trial->evict > 0) {
        unsigned sum = touch(trial->scratch[thread], trial->evict);
        for (int i = 0; i < trial->pointers; i++)
            if (!trial->cold[i])
                sum += touch(trial->arguments[i], trial->bytes[i]);
        if (thread == 0)
            trial->sink += sum;
    }
    gs_pool_barrier(trial->pool, thread);
    double before = nanoseconds();
    for (int i = 0; i < repetitions; i++) {
        if (begin < end)
            call_kernel(trial->function, trial->pointers, trial->arguments, begin, end);
        gs_pool_barrier(trial->pool, thread);
    }
    if (thread == 0)
        trial->nanoseconds = (nanoseconds() - before) / repetitions;
}

GS_API void *gs_timing_open(int threads) { return gs_pool_open(threads); }

GS_API void gs_timing_close(void *pool) { gs_pool_close(pool); }

/* Writes the nanoseconds per call of `count` samples, each of calls that take `least` nanoseconds together, or of one
 * call where caches are to be cold. The first call is not counted. */
GS_API void gs_time_kernel(void *pool, void *function, int pointers, void *const *arguments, const size_t *bytes,
                           const int *cold, int tasks, int threads, size_t evict, unsigned char *const *scratch,
                           double least, int count, double *samples) {
    gs_trial trial = {NULL,  pointers, arguments, bytes, cold, tasks, threads,
                      evict, scratch,  pool,      1,     0.0,  0};
    *(void **)(&trial.function) = function;
    gs_pool_run(pool, sample, &trial);
    gs_pool_run(pool, sample, &trial);
    if (evict == 0 && trial.nanoseconds < least) {
        double wanted = least / (trial.nanoseconds > 1.0 ? trial.nanoseconds : 1.0);
        trial.repetitions = wanted < 1e6 ? (int)wanted + 1 : 1000000;
    }
    for (int i = 0; i < count; i++) {
        gs_pool_run(pool, sample, &trial);
        samples[i] = trial.nanoseconds;
    }
}
