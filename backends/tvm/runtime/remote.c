/* remote.c: lets a TVM RPC server measure the network. The server loads libnetwork.so as a module of TVM, whose functions
 * are symbols called __tvm_ffi_NAME with the C interface of tvm-ffi, which takes nothing but the two declarations below:
 * no header and no library of TVM. Numbers alone cross it. The artifact lies in the server's working directory. */
#define _GNU_SOURCE
#include "gensynth.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The any value of tvm-ffi, as far as it holds numbers. */
typedef struct value {
    int32_t kind;
    uint32_t padding;
    union {
        int64_t integer;
        double real;
    } as;
} value;

enum { INTEGER = 1, REAL = 3 };

#define REMOTE(name)                                                                                                   \
    GS_API int __tvm_ffi_gensynth_##name(void *self, const value *arguments, int32_t count, value *result);            \
    int __tvm_ffi_gensynth_##name(void *self, const value *arguments, int32_t count, value *result)

static gs_network *network;
static void **inputs, **outputs; /* one array each per input and output */
static double *seconds;          /* of each repetition, [repetitions] */
static int64_t repetitions;
static char error[512];

static int64_t argument(const value *arguments, int32_t count, int index) {
    return index < count && arguments[index].kind == INTEGER ? arguments[index].as.integer : 0;
}

static int integer(value *result, int64_t number) {
    result->kind = INTEGER;
    result->padding = 0;
    result->as.integer = number;
    return 0;
}

static int real(value *result, double number) {
    result->kind = REAL;
    result->padding = 0;
    result->as.real = number;
    return 0;
}

static int failed(value *result, const char *text) {
    strncpy(error, text, sizeof error - 1);
    return integer(result, 1);
}

static void release(void **arrays, int count) {
    for (int i = 0; arrays != NULL && i < count; i++) free(arrays[i]);
    free(arrays);
}

static void close_network(void) {
    if (network == NULL) return;
    release(inputs, gs_input_count(network));
    release(outputs, gs_output_count(network));
    gs_close(network);
    network = NULL;
    inputs = outputs = NULL;
}

/* Returns arrays for all inputs or outputs, with noise from -1 to 1 in them; NULL where there is no memory. */
static void **allocate(int count, const gs_tensor *(*tensor)(const gs_network *, int)) {
    void **arrays = calloc((size_t)count, sizeof *arrays);
    uint32_t state = 1;
    for (int i = 0; arrays != NULL && i < count; i++) {
        size_t elements = tensor(network, i)->bytes / sizeof(float);
        float *array = malloc(elements * sizeof *array);
        if (array == NULL) {
            release(arrays, count);
            return NULL;
        }
        for (size_t k = 0; k < elements; k++) {
            state = state * 1664525u + 1013904223u;
            array[k] = (float)(state >> 8) / 8388608.0f - 1.0f;
        }
        arrays[i] = array;
    }
    return arrays;
}

/* open(threads): 0, or 1 where text() has the reason. */
REMOTE(open) {
    (void)self;
    close_network();
    network = gs_open(".", (int)argument(arguments, count, 0), error, sizeof error);
    if (network == NULL) return integer(result, 1);
    inputs = allocate(gs_input_count(network), gs_input);
    outputs = allocate(gs_output_count(network), gs_output);
    if (inputs == NULL || outputs == NULL) return failed(result, "there is no memory for inputs and outputs");
    return integer(result, 0);
}

/* run(repetitions, warm-up): runs the network so often; 0, or 1 where text() has the reason. */
REMOTE(run) {
    (void)self;
    if (network == NULL || inputs == NULL || outputs == NULL) return failed(result, "no network is open");
    int64_t warm_up = argument(arguments, count, 1);
    repetitions = argument(arguments, count, 0);
    free(seconds);
    seconds = calloc(repetitions > 0 ? (size_t)repetitions : 1, sizeof *seconds);
    if (seconds == NULL) return failed(result, "there is no memory for so many repetitions");
    for (int64_t i = -warm_up; i < repetitions; i++) {
        struct timespec begin, end;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        if (gs_run(network, (const void *const *)inputs, NULL, outputs, NULL) != GS_OK)
            return failed(result, gs_error(network));
        clock_gettime(CLOCK_MONOTONIC, &end);
        if (i >= 0)
            seconds[i] = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    }
    return integer(result, 0);
}

/* seconds(i): of repetition i. */
REMOTE(seconds) {
    (void)self;
    int64_t index = argument(arguments, count, 0);
    return real(result, seconds != NULL && index >= 0 && index < repetitions ? seconds[index] : -1.0);
}

/* threads(): that run the network. */
REMOTE(threads) {
    (void)self, (void)arguments, (void)count;
    return integer(result, network == NULL ? 0 : gs_threads(network));
}

/* text(i): character i of what went wrong, 0 behind its end. */
REMOTE(text) {
    (void)self;
    int64_t index = argument(arguments, count, 0);
    return integer(result, index >= 0 && index < (int64_t)sizeof error ? (unsigned char)error[index] : 0);
}

REMOTE(close) {
    (void)self, (void)arguments, (void)count;
    close_network();
    return integer(result, 0);
}
