/* gensynth.h: run a compiled network from C.
 *
 *     char error[512];
 *     gs_network *network = gs_open("artifact", 0, error, sizeof error);
 *     if (network == NULL) { fprintf(stderr, "%s\n", error); return 1; }
 *     const void *inputs[] = {image};
 *     void *outputs[] = {logits};
 *     size_t in[] = {sizeof image}, out[] = {sizeof logits};
 *     if (gs_run(network, inputs, in, outputs, out) != GS_OK) fprintf(stderr, "%s\n", gs_error(network));
 *     gs_close(network);
 *
 * Link with libnetwork.so of the artifact, or load it by dlopen. It holds one network; the weights are read from the
 * artifact's directory. Arrays are those of C: contiguous, row-major, float32, [N, C, H, W] for images; N is the batch
 * that the network was compiled for.
 *
 * Networks are independent of one another. Calls on the same network from several threads are safe: they take turns.
 */
#ifndef GENSYNTH_H
#define GENSYNTH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GS_VERSION 1
#define GS_MAX_RANK 8

#if defined(__GNUC__)
#define GS_API __attribute__((visibility("default")))
#else
#define GS_API
#endif

/* What a call returns. gs_error tells more. */
typedef enum gs_status {
    GS_OK = 0,
    GS_BAD_ARGUMENT = 1,  /* a size, a count or a pointer that does not fit the network */
    GS_BAD_FILE = 2,      /* a file of the artifact that is missing, truncated or changed */
    GS_NO_MEMORY = 3,     /* memory or threads that the system does not give */
    GS_NO_DEVICE = 4,     /* no CUDA driver or GPU, or one too old */
    GS_DEVICE_FAILED = 5  /* an error that the CUDA driver reports */
} gs_status;

typedef struct gs_network gs_network;

/* An input or output. */
typedef struct gs_tensor {
    const char *name;
    const char *dtype; /* "f32" */
    int rank;
    int64_t shape[GS_MAX_RANK]; /* the first is the batch */
    size_t bytes;
} gs_tensor;

/* One call of a kernel, in the order in which they run. */
typedef struct gs_step {
    const char *kernel;
    const char *nodes; /* the nodes of the network that it computes, separated by spaces */
    int64_t macs;      /* multiply-accumulates */
    int64_t bytes;     /* of activations and weights, read and written */
    int tasks;         /* parts that it can be cut into; 1 on a GPU */
    int threads;       /* how many threads share it */
} gs_step;

/* What the network is and what it was compiled for. */
typedef struct gs_description {
    const char *name;
    const char *architecture_hash;
    const char *target;
    const char *kind;  /* where kernels run: "cpu" or "cuda" */
    const char *dtype; /* of weights and activations */
    int64_t batch;
    size_t weights_bytes;
    size_t arena_bytes; /* of all activations */
    double tolerance;   /* largest error of the check vectors, relative to the range of an output */
} gs_description;

/* Opens the network of an artifact: maps DIRECTORY/weights.bin, checks its size and checksum, and allocates all memory
 * that running takes. `threads` counts the calling one; 0 takes as many as there are processors, but no more than the
 * network can use; on a GPU it is ignored. The environment variable GENSYNTH_CUDA_DEVICE chooses among GPUs (0).
 * Returns NULL on failure, with a message in `error` (which may be NULL). */
GS_API gs_network *gs_open(const char *directory, int threads, char *error, size_t error_size);

/* Waits for calls that run, then frees everything. NULL is fine. The network must not be used any more. */
GS_API void gs_close(gs_network *network);

/* Runs the network once: reads each input, writes each output, in the order of gs_input and gs_output. The sizes, in
 * bytes, are compared with the network's; NULL in place of them leaves that to the caller. Inputs and outputs must not
 * overlap. Allocates nothing. */
GS_API int gs_run(gs_network *network, const void *const *inputs, const size_t *input_bytes, void *const *outputs,
                  const size_t *output_bytes);

/* The same, and writes the seconds that each step takes, [gs_step_count], to `seconds`. Slower than gs_run: all threads
 * wait for one another after each step. */
GS_API int gs_profile(gs_network *network, const void *const *inputs, const size_t *input_bytes, void *const *outputs,
                      const size_t *output_bytes, double *seconds);

/* What went wrong in the last call that failed, in words; "" if none did. The text changes with the next failure. */
GS_API const char *gs_error(const gs_network *network);

/* Facts about the network. Indices begin at 0; one that is out of range gives NULL. */
GS_API int gs_input_count(const gs_network *network);
GS_API int gs_output_count(const gs_network *network);
GS_API int gs_step_count(const gs_network *network);
GS_API const gs_tensor *gs_input(const gs_network *network, int index);
GS_API const gs_tensor *gs_output(const gs_network *network, int index);
GS_API const gs_step *gs_step_at(const gs_network *network, int index);
GS_API const gs_description *gs_describe(const gs_network *network);

/* How many threads run it, the calling one among them. */
GS_API int gs_threads(const gs_network *network);

/* What runs the kernels: "2 threads", or the name of the GPU. */
GS_API const char *gs_device(const gs_network *network);

/* The version of this interface that the library was built with: GS_VERSION. */
GS_API int gs_version(void);

#ifdef __cplusplus
}
#endif

#endif
