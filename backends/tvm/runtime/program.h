/* program.h: a network as tables, which network.c holds, and what the parts of the executor share. */
#ifndef GENSYNTH_PROGRAM_H
#define GENSYNTH_PROGRAM_H

#include "gensynth.h"

#include <pthread.h>

#define GS_MAX_POINTERS 16
#define GS_MARGIN 64 /* bytes around the arena and the weights that kernels may read */

typedef void (*gs_function)(void);

typedef struct gs_kernel {
    const char *name;
    gs_function function; /* NULL on a GPU, where the PTX has it under its name */
    int pointers;
    int tasks;
    unsigned grid[3], block[3];
    int64_t macs, bytes;
} gs_kernel;

enum { GS_ARENA = 0, GS_WEIGHTS = 1, GS_INPUT = 2, GS_OUTPUT = 3 };

/* Where an argument points: bytes into a space; `index` counts the inputs or outputs. */
typedef struct gs_argument {
    int space;
    int index;
    uint64_t offset;
} gs_argument;

/* One call of a kernel, with arguments from `first` on. `barrier`: all threads must have finished the calls before. */
typedef struct gs_call {
    int kernel;
    int first;
    int threads;
    int barrier;
    const char *nodes;
} gs_call;

typedef struct gs_program {
    gs_description description;
    uint64_t weights_checksum;
    const char *features; /* of the processor, by the system's names, separated by spaces */
    int repeats; /* how often a run does all calls, each time for the next part of the batch; 1 or more */
    int kernel_count, call_count, argument_count, input_count, output_count;
    const gs_kernel *kernels;
    const gs_call *calls;
    const gs_argument *arguments;
    const gs_tensor *inputs, *outputs;
    /* Of a GPU: PTX in pieces of text and NULL, and the least compute capability and CUDA version that take it. */
    const char *const *ptx;
    int capability, cuda_version;
} gs_program;

extern const gs_program gs_the_program;

typedef struct gs_backend gs_backend;

struct gs_network {
    const gs_program *program;
    char *directory;
    gs_step *steps;
    const unsigned char *weights; /* mapped, with readable bytes on both sides */
    void *weights_mapping;
    size_t weights_mapping_bytes;
    int threads;
    char device[128];
    gs_backend *backend;
    pthread_mutex_t turn;
    int turn_made;
    char error[1024];
};

/* executor.c. gs_fail writes the error's text and returns the status. */
int gs_fail(gs_network *network, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
uint64_t gs_checksum(const void *data, size_t bytes);
void gs_unmap_weights(gs_network *network);

/* cpu.c or cuda.c: one of the two is linked. On failure gs_backend_open leaves nothing behind. With `seconds` the run
 * is a profile. */
int gs_backend_open(gs_network *network, int threads);
int gs_backend_run(gs_network *network, const void *const *inputs, void *const *outputs, double *seconds);
void gs_backend_close(gs_network *network);

#endif
