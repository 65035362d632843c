/* threads.c: the thread pool. Waits are short, so they spin first; see the notes at each. */
#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LINE 128 /* bytes that two threads should not both write: two cache lines, which some processors fetch together */
#define BARRIER_NANOSECONDS 20000 /* how long a barrier spins before it offers the processor to others */
#define IDLE_NANOSECONDS 50000    /* how long a worker spins between runs before it sleeps */

typedef struct worker {
    gs_pool *pool;
    pthread_t thread;
    int number;
    unsigned goal; /* arrivals that the next barrier of this thread waits for; its own */
    char padding[LINE];
} worker;

struct gs_pool {
    int threads;
    int started; /* workers to join */
    int crowded;  /* more threads than processors: spinning takes time from those that are waited for */
    int patience; /* pauses that a barrier spins */
    worker *workers;

    /* Written by thread 0 before `epoch`, read by workers after it. */
    gs_work work;
    void *context;
    char padding0[LINE];
    unsigned epoch; /* counts runs */
    char padding1[LINE];
    unsigned arrived; /* counts arrivals at barriers, ever; wraps around */
    char padding2[LINE];
    int sleepers;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

static long long nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* How many pauses make BARRIER_NANOSECONDS: a pause takes from less than one nanosecond to more than forty. */
static int measure_patience(void) {
    const int pauses = 200;
    long long best = 1000000;
    for (int attempt = 0; attempt < 3; attempt++) {
        long long before = nanoseconds();
        for (int i = 0; i < pauses; i++)
            relax();
        long long taken = nanoseconds() - before;
        best = taken < best ? taken : best;
    }
    return (int)((long long)BARRIER_NANOSECONDS * pauses / (best > 0 ? best : 1)) + 1;
}

int gs_processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

/* Waits until a run after `seen` has begun; returns its number.
 *
 * No wake-up is lost. The worker counts itself as a sleeper and then reads `epoch`; thread 0 writes `epoch` and then
 * reads `sleepers`; all four are sequentially consistent, so one of the two sees what the other wrote. If the worker
 * sees the run, it does not sleep. If thread 0 sees the sleeper, it takes the mutex, which the worker holds from before
 * it looks until it waits, and signals. */
static unsigned wait_for_run(gs_pool *pool, unsigned seen) {
    long long end = pool->crowded ? 0 : nanoseconds() + IDLE_NANOSECONDS;
    unsigned epoch;
    do {
        for (int spin = 0; spin < 64; spin++) {
            epoch = __atomic_load_n(&pool->epoch, __ATOMIC_ACQUIRE);
            if (epoch != seen)
                return epoch;
            relax();
        }
    } while (nanoseconds() < end);
    pthread_mutex_lock(&pool->mutex);
    __atomic_add_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    while ((epoch = __atomic_load_n(&pool->epoch, __ATOMIC_SEQ_CST)) == seen)
        pthread_cond_wait(&pool->wake, &pool->mutex);
    __atomic_sub_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&pool->mutex);
    return epoch;
}

static void begin_run(gs_pool *pool, gs_work work, void *context) {
    pool->work = work;
    pool->context = context;
    __atomic_store_n(&pool->epoch, pool->epoch + 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool->sleepers, __ATOMIC_SEQ_CST) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
    }
}

/* A worker never misses a run, and reads `work` and `context` before they change: each run holds a barrier that thread
 * 0 passes only when the worker has come to it, and thus has begun the run. */
static void *live(void *argument) {
    worker *self = argument;
    gs_pool *pool = self->pool;
    unsigned seen = 0;
    for (;;) {
        seen = wait_for_run(pool, seen);
        if (pool->work == NULL)
            return NULL;
        pool->work(pool->context, self->number);
    }
}

void gs_pool_run(gs_pool *pool, gs_work work, void *context) {
    if (pool->threads > 1)
        begin_run(pool, work, context);
    work(context, 0);
}

/* The count of arrivals only grows. A thread's n-th barrier is passed when all threads have arrived n times. Nobody can
 * be a whole barrier ahead of one that still waits, so the difference to the goal fits a signed int and wrapping around
 * is harmless. Every arrival is a read-modify-write that releases what the thread wrote before; who sees the count at
 * its goal acquires what all of them wrote. */
void gs_pool_barrier(gs_pool *pool, int thread) {
    if (pool->threads == 1)
        return;
    unsigned goal = pool->workers[thread].goal += (unsigned)pool->threads;
    if (__atomic_add_fetch(&pool->arrived, 1, __ATOMIC_ACQ_REL) == goal)
        return;
    int patience = pool->patience;
    while ((int)(__atomic_load_n(&pool->arrived, __ATOMIC_ACQUIRE) - goal) < 0) {
        if (patience > 0) {
            patience--;
            relax();
        } else {
            sched_yield();
        }
    }
}

gs_pool *gs_pool_open(int threads) {
    gs_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return NULL;
    pool->threads = threads;
    pool->crowded = threads > gs_processors();
    pool->patience = pool->crowded ? 50 : threads > 1 ? measure_patience() : 0;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    if (pool->workers == NULL) {
        gs_pool_close(pool);
        return NULL;
    }
    /* Signals are the program's business: its own threads shall take them. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = 0;
    for (int number = 1; number < threads && !failed; number++) {
        worker *each = &pool->workers[number];
        each->pool = pool;
        each->number = number;
        failed = pthread_create(&each->thread, NULL, live, each);
        pool->started += !failed;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        gs_pool_close(pool);
        return NULL;
    }
    return pool;
}

void gs_pool_close(gs_pool *pool) {
    if (pool == NULL)
        return;
    if (pool->started > 0) {
        begin_run(pool, NULL, NULL);
        for (int number = 1; number <= pool->started; number++)
            pthread_join(pool->workers[number].thread, NULL);
    }
    free(pool->workers);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}
