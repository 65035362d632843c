/* threads.h: threads that run one function together, with barriers among them. */
#ifndef GENSYNTH_THREADS_H
#define GENSYNTH_THREADS_H

#define GS_MAX_THREADS 256

typedef struct gs_pool gs_pool;
typedef void (*gs_work)(void *context, int thread);

/* Processors that this process may use. */
int gs_processors(void);

/* Starts threads - 1 workers, the caller being thread 0. NULL if the system does not give them. */
gs_pool *gs_pool_open(int threads);
void gs_pool_close(gs_pool *pool);

/* Runs work(context, t) on every thread t, thread 0 being the caller, and returns when thread 0 is done: work that
 * the others may still be at must end with a barrier, and after its last barrier a thread must not read what the caller
 * may change or free, but for what it frees after gs_pool_close. Each run must hold at least one barrier. */
void gs_pool_run(gs_pool *pool, gs_work work, void *context);

/* Returns when all threads have called it as often as this one; what they wrote before is then seen. */
void gs_pool_barrier(gs_pool *pool, int thread);

#endif
