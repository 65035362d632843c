/* cpu.c: runs a program on the processor's cores. All threads go through all calls together; thread t of T does the
 * t-th part of each call's tasks. Everything that does not depend on the caller's arrays is worked out at opening.
 *
 * A program with repeats is run otherwise: repeats know nothing of one another, so each thread takes some of them and
 * does all calls whole, on an arena and with arguments of its own. */
#define _GNU_SOURCE
#include "calling.h"
#include "program.h"
#include "threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_FROM ((size_t)512 << 10) /* arenas from this size on ask for huge pages */

/* The tasks of one call that one thread does. */
typedef struct share {
    int begin, end;
} share;

/* An argument that points into a caller's array. */
typedef struct patch {
    int argument;
    int space;
    int index;
    size_t offset;
} patch;

/* Before which calls all threads wait for one another, and whether they do at the end. */
typedef struct barriers {
    unsigned char *before;
    int at_end;
} barriers;

struct gs_backend {
    gs_pool *pool;
    pid_t process;
    unsigned char *region;
    size_t region_bytes;
    int lanes;        /* arenas, each with arguments: one a thread if the program has repeats, else one for all */
    void **arguments; /* [lanes][argument_count] */
    patch *patches;
    int patch_count;
    share *shares; /* [threads][calls] */
    barriers running;
    const void *const *inputs; /* of the run that goes on */
    void *const *outputs;
};

static int least(int a, int b) { return a < b ? a : b; }

/* How many of the threads share a call. */
static int participants(const gs_program *program, int call, int threads) {
    int most = least(program->calls[call].threads, program->kernels[program->calls[call].kernel].tasks);
    return most < 1 ? 1 : least(most, threads);
}

/* Chooses the barriers to keep, of those that the program asks for.
 *
 * What must hold: if the program asks for a barrier at call f, then every call i < f is finished before any call j >= f
 * begins. Calls that one thread does alone, thread 0, are ordered by that thread. So a barrier that is asked for is put
 * off while all calls since the last one kept, and the call itself, are thread 0's; it stands before the first call
 * that several threads share.
 * Proof: let f be such a barrier and i < f <= j. If it is kept at f, it orders i and j. Otherwise all calls from k to f
 * are thread 0's, k being where the last kept one stands. If k > i, that one orders them. If not, i is one of thread
 * 0's. Let p > f be where the one put off is kept. If p <= j, that orders them; if not, i and j are both thread 0's.
 *
 * At the end all threads must have finished before gs_run returns; that takes no barrier where all calls since the last
 * one are thread 0's. A run in which several threads share a call thus holds at least one, as the pool demands: the call
 * is followed by a kept barrier or by that at the end. */
static void choose_barriers(const gs_program *program, int threads, barriers *chosen) {
    int waiting = 0, shared = 0;
    for (int i = 0; i < program->call_count; i++) {
        int many = participants(program, i, threads) > 1;
        waiting |= i > 0 && program->calls[i].barrier;
        if (waiting && (many || shared)) {
            chosen->before[i] = 1;
            waiting = shared = 0;
        }
        shared |= many;
    }
    chosen->at_end = shared;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void run_thread(void *context, int thread) {
    const gs_network *network = context;
    const gs_backend *backend = network->backend;
    const gs_program *program = network->program;
    const share *shares = backend->shares + (size_t)thread * (size_t)program->call_count;
    for (int i = 0; i < program->call_count; i++) {
        if (backend->running.before[i])
            gs_pool_barrier(backend->pool, thread);
        if (shares[i].begin < shares[i].end) {
            const gs_kernel *kernel = &program->kernels[program->calls[i].kernel];
            call_kernel(kernel->function, kernel->pointers, backend->arguments + program->calls[i].first,
                        shares[i].begin, shares[i].end);
        }
    }
    if (backend->running.at_end)
        gs_pool_barrier(backend->pool, thread);
}

/* Points the arguments of a lane at a repeat's part of the caller's arrays. */
static void point(const gs_network *network, int lane, int repeat) {
    const gs_backend *backend = network->backend;
    const gs_program *program = network->program;
    void **arguments = backend->arguments + (size_t)lane * (size_t)program->argument_count;
    for (int i = 0; i < backend->patch_count; i++) {
        const patch *each = &backend->patches[i];
        int reads = each->space == GS_INPUT;
        const gs_tensor *tensor = reads ? &program->inputs[each->index] : &program->outputs[each->index];
        /* Kernels take no const pointers; an input is never what they write. */
        const unsigned char *base = reads ? (const unsigned char *)backend->inputs[each->index]
                                          : (unsigned char *)backend->outputs[each->index];
        base += tensor->bytes / (size_t)program->repeats * (size_t)repeat;
        arguments[each->argument] = (void *)(uintptr_t)(base + each->offset);
    }
}

static void call_whole(const gs_network *network, int lane, int call) {
    const gs_program *program = network->program;
    const gs_kernel *kernel = &program->kernels[program->calls[call].kernel];
    void **arguments = network->backend->arguments + (size_t)lane * (size_t)program->argument_count;
    call_kernel(kernel->function, kernel->pointers, arguments + program->calls[call].first, 0, kernel->tasks);
}

static void run_repeats(void *context, int thread) {
    const gs_network *network = context;
    const gs_program *program = network->program;
    int begin = (int)((int64_t)thread * program->repeats / network->threads);
    int end = (int)((int64_t)(thread + 1) * program->repeats / network->threads);
    for (int repeat = begin; repeat < end; repeat++) {
        point(network, thread, repeat);
        for (int i = 0; i < program->call_count; i++)
            call_whole(network, thread, i);
    }
    if (network->threads > 1)
        gs_pool_barrier(network->backend->pool, thread);
}

typedef struct profile {
    gs_network *network;
    double *seconds;
} profile;

/* A barrier after every call, so that the time between two is that of the call. More barriers are never wrong. */
static void profile_thread(void *context, int thread) {
    const profile *asked = context;
    const gs_backend *backend = asked->network->backend;
    const gs_program *program = asked->network->program;
    const share *shares = backend->shares + (size_t)thread * (size_t)program->call_count;
    gs_pool_barrier(backend->pool, thread);
    double before = thread == 0 ? now() : 0.0;
    for (int i = 0; i < program->call_count; i++) {
        const gs_kernel *kernel = &program->kernels[program->calls[i].kernel];
        if (shares[i].begin < shares[i].end)
            call_kernel(kernel->function, kernel->pointers, backend->arguments + program->calls[i].first,
                        shares[i].begin, shares[i].end);
        gs_pool_barrier(backend->pool, thread);
        if (thread == 0) {
            double after = now();
            asked->seconds[i] = after - before;
            before = after;
        }
    }
}

/* Thread 0 does all repeats, so that the times are those of one core. */
static void profile_repeats(void *context, int thread) {
    const profile *asked = context;
    const gs_program *program = asked->network->program;
    if (thread == 0) {
        memset(asked->seconds, 0, (size_t)program->call_count * sizeof *asked->seconds);
        for (int repeat = 0; repeat < program->repeats; repeat++) {
            point(asked->network, 0, repeat);
            double before = now();
            for (int i = 0; i < program->call_count; i++) {
                call_whole(asked->network, 0, i);
                double after = now();
                asked->seconds[i] += after - before;
                before = after;
            }
        }
    }
    if (asked->network->threads > 1)
        gs_pool_barrier(asked->network->backend->pool, thread);
}

int gs_backend_run(gs_network *network, const void *const *inputs, void *const *outputs, double *seconds) {
    gs_backend *backend = network->backend;
    if (network->threads > 1 && getpid() != backend->process)
        return gs_fail(network, GS_BAD_ARGUMENT,
                       "the network was opened before this process was forked, and its threads are not in it: open it again");
    int repeated = network->program->repeats > 1;
    backend->inputs = inputs;
    backend->outputs = outputs;
    if (!repeated)
        point(network, 0, 0);
    if (seconds != NULL) {
        profile asked = {network, seconds};
        gs_pool_run(backend->pool, repeated ? profile_repeats : profile_thread, &asked);
    } else {
        gs_pool_run(backend->pool, repeated ? run_repeats : run_thread, network);
    }
    return GS_OK;
}

/* One region for the activations of all lanes: on a cache line, with margins, on huge pages where it is large. */
static unsigned char *allocate_arena(gs_backend *backend, size_t bytes) {
    size_t wanted = bytes + 2 * GS_MARGIN;
    int huge = wanted >= HUGE_FROM;
    size_t whole = huge ? (wanted + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE : wanted;
    size_t reserved = huge ? whole + HUGE_PAGE : whole;
    unsigned char *region = mmap(NULL, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED)
        return NULL;
    backend->region = region;
    backend->region_bytes = reserved;
    if (huge) {
        region = (unsigned char *)(((uintptr_t)region + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
        madvise(region, whole, MADV_HUGEPAGE);
    }
    memset(region, 0, wanted); /* pages are given now rather than in the first run */
    return region + GS_MARGIN;
}

/* From the arena of one lane to the next: on cache lines of its own, with a margin that both may read. */
static size_t lane_bytes(const gs_program *program) {
    return (program->description.arena_bytes + 63) / 64 * 64 + GS_MARGIN;
}

static int resolve_arguments(gs_network *network, unsigned char *arena) {
    const gs_program *program = network->program;
    gs_backend *backend = network->backend;
    size_t count = (size_t)program->argument_count, lanes = (size_t)backend->lanes;
    backend->arguments = calloc(count * lanes + 1, sizeof *backend->arguments);
    backend->patches = calloc(count + 1, sizeof *backend->patches);
    if (backend->arguments == NULL || backend->patches == NULL)
        return 0;
    for (int i = 0; i < program->argument_count; i++) {
        const gs_argument *each = &program->arguments[i];
        if (each->space == GS_ARENA) {
            for (size_t lane = 0; lane < lanes; lane++)
                backend->arguments[lane * count + (size_t)i] = arena + lane * lane_bytes(program) + each->offset;
        } else if (each->space == GS_WEIGHTS) {
            for (size_t lane = 0; lane < lanes; lane++)
                backend->arguments[lane * count + (size_t)i] = (void *)(uintptr_t)(network->weights + each->offset);
        } else {
            patch *made = &backend->patches[backend->patch_count++];
            made->argument = i;
            made->space = each->space;
            made->index = each->index;
            made->offset = (size_t)each->offset;
        }
    }
    return 1;
}

static int divide(gs_network *network) {
    const gs_program *program = network->program;
    gs_backend *backend = network->backend;
    size_t calls = (size_t)program->call_count;
    backend->shares = calloc(calls * (size_t)network->threads + 1, sizeof *backend->shares);
    backend->running.before = calloc(calls + 1, 1);
    if (backend->shares == NULL || backend->running.before == NULL)
        return 0;
    for (int i = 0; i < program->call_count; i++) {
        int many = program->repeats > 1 ? 1 : participants(program, i, network->threads);
        int64_t tasks = program->kernels[program->calls[i].kernel].tasks;
        network->steps[i].threads = many;
        for (int thread = 0; thread < many; thread++) {
            share *part = &backend->shares[(size_t)thread * calls + (size_t)i];
            part->begin = (int)(thread * tasks / many);
            part->end = (int)((thread + 1) * tasks / many);
        }
    }
    choose_barriers(program, network->threads, &backend->running);
    return 1;
}

int gs_backend_open(gs_network *network, int threads) {
    const gs_program *program = network->program;
    gs_backend *backend = network->backend = calloc(1, sizeof *backend);
    if (backend == NULL)
        return gs_fail(network, GS_NO_MEMORY, "no memory");
    int useful = 1;
    for (int i = 0; i < program->call_count; i++) {
        int most = participants(program, i, GS_MAX_THREADS);
        useful = most > useful ? most : useful;
    }
    if (program->repeats > 1)
        useful = least(program->repeats, GS_MAX_THREADS);
    network->threads = least(threads > 0 ? threads : gs_processors(), useful);
    snprintf(network->device, sizeof network->device, "%d thread%s", network->threads,
             network->threads == 1 ? "" : "s");
    backend->process = getpid();
    backend->lanes = program->repeats > 1 ? network->threads : 1;
    size_t bytes = lane_bytes(program) * (size_t)backend->lanes;
    unsigned char *arena = allocate_arena(backend, bytes);
    int status = GS_OK;
    if (arena == NULL)
        status = gs_fail(network, GS_NO_MEMORY, "no memory for %llu bytes of activations", (unsigned long long)bytes);
    else if (!resolve_arguments(network, arena) || !divide(network))
        status = gs_fail(network, GS_NO_MEMORY, "no memory");
    else if ((backend->pool = gs_pool_open(network->threads)) == NULL)
        status = gs_fail(network, GS_NO_MEMORY, "the system gives no %d threads; ask for fewer", network->threads);
    if (status != GS_OK)
        gs_backend_close(network);
    return status;
}

void gs_backend_close(gs_network *network) {
    gs_backend *backend = network->backend;
    if (backend == NULL)
        return;
    gs_pool_close(backend->pool);
    if (backend->region != NULL)
        munmap(backend->region, backend->region_bytes);
    free(backend->arguments);
    free(backend->patches);
    free(backend->shares);
    free(backend->running.before);
    free(backend);
    network->backend = NULL;
}
