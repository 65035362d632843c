/* cuda.c: runs a program on a GPU by CUDA's driver interface, which is loaded from the system's libcuda.so.1 at opening:
 * nothing of CUDA is needed to build or link this. */
#define _GNU_SOURCE
#include "program.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT ((size_t)256)

/* The part of cuda.h that is used here. Its types are plain; names with _v2 are what cuda.h renames functions to. */
typedef int cu_result;
typedef int cu_device;
typedef uint64_t cu_pointer;
typedef struct cu_context_object *cu_context;
typedef struct cu_module_object *cu_module;
typedef struct cu_function_object *cu_function;
typedef struct cu_stream_object *cu_stream;
typedef struct cu_event_object *cu_event;

enum { CU_SUCCESS = 0, CU_JIT_ERROR_LOG = 5, CU_JIT_ERROR_LOG_BYTES = 6, CU_STREAM_NON_BLOCKING = 1 };
enum { CU_CAPABILITY_MAJOR = 75, CU_CAPABILITY_MINOR = 76 };

#define DRIVER(each)                                                                                                   \
    each(cuInit, (unsigned)) each(cuDriverGetVersion, (int *))                                                         \
    each(cuGetErrorName, (cu_result, const char **)) each(cuGetErrorString, (cu_result, const char **))                \
    each(cuDeviceGetCount, (int *)) each(cuDeviceGet, (cu_device *, int))                                              \
    each(cuDeviceGetName, (char *, int, cu_device)) each(cuDeviceGetAttribute, (int *, int, cu_device))                \
    each(cuDevicePrimaryCtxRetain, (cu_context *, cu_device)) each(cuDevicePrimaryCtxRelease, (cu_device))             \
    each(cuCtxPushCurrent_v2, (cu_context)) each(cuCtxPopCurrent_v2, (cu_context *))                                   \
    each(cuModuleLoadDataEx, (cu_module *, const void *, unsigned, int *, void **))                                    \
    each(cuModuleUnload, (cu_module)) each(cuModuleGetFunction, (cu_function *, cu_module, const char *))              \
    each(cuMemAlloc_v2, (cu_pointer *, size_t)) each(cuMemFree_v2, (cu_pointer))                                       \
    each(cuMemcpyHtoD_v2, (cu_pointer, const void *, size_t)) each(cuMemsetD8_v2, (cu_pointer, unsigned char, size_t)) \
    each(cuMemcpyHtoDAsync_v2, (cu_pointer, const void *, size_t, cu_stream))                                          \
    each(cuMemcpyDtoHAsync_v2, (void *, cu_pointer, size_t, cu_stream))                                                \
    each(cuStreamCreate, (cu_stream *, unsigned)) each(cuStreamDestroy_v2, (cu_stream))                                \
    each(cuStreamSynchronize, (cu_stream))                                                                             \
    each(cuLaunchKernel, (cu_function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,           \
                          cu_stream, void **, void **))                                                                \
    each(cuEventCreate, (cu_event *, unsigned)) each(cuEventDestroy_v2, (cu_event))                                    \
    each(cuEventRecord, (cu_event, cu_stream)) each(cuEventElapsedTime, (float *, cu_event, cu_event))

#define DECLARE(name, parameters) cu_result(*name) parameters;

typedef struct driver {
    void *library;
    DRIVER(DECLARE)
} driver;

struct gs_backend {
    driver cu;
    cu_device device;
    cu_context context;
    int pushed;
    cu_module module;
    cu_stream stream;
    cu_pointer memory; /* weights, activations, inputs, outputs */
    cu_pointer *inputs, *outputs;
    cu_function *functions;
    cu_pointer *values; /* what the arguments point to */
    void **parameters;  /* the address of each value, as cuLaunchKernel takes them */
    cu_event *events;   /* [calls + 1], made for the first profile */
};

static int check(gs_network *network, cu_result result, const char *doing) {
    if (result == CU_SUCCESS)
        return GS_OK;
    const driver *cu = &network->backend->cu;
    const char *name = NULL, *text = NULL;
    cu->cuGetErrorName(result, &name);
    cu->cuGetErrorString(result, &text);
    return gs_fail(network, GS_DEVICE_FAILED, "the GPU failed at %s: %s (%s, error %d)", doing,
                   text != NULL ? text : "unknown error", name != NULL ? name : "no name", result);
}

#define TRY(call, doing)                                                                                               \
    do {                                                                                                               \
        int status_ = check(network, (call), (doing));                                                                 \
        if (status_ != GS_OK)                                                                                          \
            return status_;                                                                                            \
    } while (0)

static int load_driver(gs_network *network) {
    driver *cu = &network->backend->cu;
    cu->library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (cu->library == NULL)
        return gs_fail(network, GS_NO_DEVICE,
                       "NVIDIA's driver library cannot be loaded: %s. The network is compiled for a GPU (%s): run it where "
                       "the driver is installed",
                       dlerror(), network->program->description.target);
#define LOAD(name, parameters)                                                                                         \
    *(void **)(&cu->name) = dlsym(cu->library, #name);                                                                 \
    if (cu->name == NULL)                                                                                              \
        return gs_fail(network, GS_NO_DEVICE, "NVIDIA's driver library has no %s: install a newer driver", #name);
    DRIVER(LOAD)
    return GS_OK;
}

static int find_device(gs_network *network) {
    gs_backend *backend = network->backend;
    const driver *cu = &backend->cu;
    const gs_program *program = network->program;
    int version = 0, count = 0, major = 0, minor = 0;
    cu_result result = cu->cuInit(0);
    if (result != CU_SUCCESS) {
        check(network, result, "initialization");
        char reason[sizeof network->error];
        snprintf(reason, sizeof reason, "%s", network->error);
        return gs_fail(network, GS_NO_DEVICE, "%s. Is there an NVIDIA GPU, and may this process use it?", reason);
    }
    TRY(cu->cuDriverGetVersion(&version), "asking for the driver's version");
    if (version < program->cuda_version)
        return gs_fail(network, GS_NO_DEVICE,
                       "NVIDIA's driver is too old: it is of CUDA %d.%d, the network's kernels need %d.%d or newer",
                       version / 1000, version % 1000 / 10, program->cuda_version / 1000,
                       program->cuda_version % 1000 / 10);
    TRY(cu->cuDeviceGetCount(&count), "counting GPUs");
    const char *chosen = getenv("GENSYNTH_CUDA_DEVICE");
    char *end = NULL;
    long index = chosen != NULL && *chosen != '\0' ? strtol(chosen, &end, 10) : 0;
    if (count == 0)
        return gs_fail(network, GS_NO_DEVICE, "the driver finds no GPU");
    if ((end != NULL && *end != '\0') || index < 0 || index >= count)
        return gs_fail(network, GS_BAD_ARGUMENT, "GENSYNTH_CUDA_DEVICE is '%s'; there are GPUs 0 to %d", chosen,
                       count - 1);
    TRY(cu->cuDeviceGet(&backend->device, (int)index), "choosing the GPU");
    TRY(cu->cuDeviceGetName(network->device, (int)sizeof network->device, backend->device), "asking for the GPU's name");
    TRY(cu->cuDeviceGetAttribute(&major, CU_CAPABILITY_MAJOR, backend->device), "asking what the GPU can do");
    TRY(cu->cuDeviceGetAttribute(&minor, CU_CAPABILITY_MINOR, backend->device), "asking what the GPU can do");
    if (major * 10 + minor < program->capability)
        return gs_fail(network, GS_NO_DEVICE,
                       "%s has compute capability %d.%d, the network's kernels need %d.%d: compile it for this GPU",
                       network->device, major, minor, program->capability / 10, program->capability % 10);
    TRY(cu->cuDevicePrimaryCtxRetain(&backend->context, backend->device), "making a context");
    TRY(cu->cuCtxPushCurrent_v2(backend->context), "entering the context");
    backend->pushed = 1;
    return GS_OK;
}

/* Returns the pieces of the PTX as one text, to be freed. */
static char *joined(const char *const *pieces) {
    size_t bytes = 1;
    for (const char *const *each = pieces; *each != NULL; each++)
        bytes += strlen(*each);
    char *text = malloc(bytes), *end = text;
    for (const char *const *each = pieces; text != NULL && *each != NULL; each++) {
        size_t length = strlen(*each);
        memcpy(end, *each, length);
        end += length;
    }
    if (text != NULL)
        *end = '\0';
    return text;
}

/* The driver compiles PTX for its GPU here, and keeps the result in its cache. */
static int load_kernels(gs_network *network) {
    gs_backend *backend = network->backend;
    const driver *cu = &backend->cu;
    const gs_program *program = network->program;
    char log[512] = "";
    int options[] = {CU_JIT_ERROR_LOG, CU_JIT_ERROR_LOG_BYTES};
    void *values[] = {log, (void *)(uintptr_t)(sizeof log - 1)};
    char *ptx = joined(program->ptx);
    if (ptx == NULL)
        return gs_fail(network, GS_NO_MEMORY, "no memory for the kernels' text");
    cu_result result = cu->cuModuleLoadDataEx(&backend->module, ptx, 2, options, values);
    free(ptx);
    if (result != CU_SUCCESS) {
        check(network, result, "compiling the kernels");
        if (log[0] != '\0') {
            size_t used = strlen(network->error);
            snprintf(network->error + used, sizeof network->error - used, "\n%s", log);
        }
        return GS_DEVICE_FAILED;
    }
    for (int i = 0; i < program->kernel_count; i++) {
        char doing[256];
        snprintf(doing, sizeof doing, "looking for kernel %s", program->kernels[i].name);
        TRY(cu->cuModuleGetFunction(&backend->functions[i], backend->module, program->kernels[i].name), doing);
    }
    return GS_OK;
}

static size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static int allocate(gs_network *network) {
    gs_backend *backend = network->backend;
    const driver *cu = &backend->cu;
    const gs_program *program = network->program;
    const gs_description *facts = &program->description;
    size_t arena = aligned(facts->weights_bytes) + ALIGNMENT;
    size_t total = arena + aligned(facts->arena_bytes) + ALIGNMENT;
    for (int i = 0; i < program->input_count; i++)
        total += aligned(program->inputs[i].bytes);
    for (int i = 0; i < program->output_count; i++)
        total += aligned(program->outputs[i].bytes);
    if (cu->cuMemAlloc_v2(&backend->memory, total) != CU_SUCCESS)
        return gs_fail(network, GS_NO_MEMORY, "%s has no %llu bytes of memory free", network->device,
                       (unsigned long long)total);
    TRY(cu->cuMemsetD8_v2(backend->memory, 0, total), "clearing its memory");
    if (facts->weights_bytes > 0)
        TRY(cu->cuMemcpyHtoD_v2(backend->memory, network->weights, facts->weights_bytes), "copying the weights");
    gs_unmap_weights(network); /* the GPU has its own copy */
    cu_pointer at = backend->memory + arena + aligned(facts->arena_bytes) + ALIGNMENT;
    for (int i = 0; i < program->input_count; i++) {
        backend->inputs[i] = at;
        at += aligned(program->inputs[i].bytes);
    }
    for (int i = 0; i < program->output_count; i++) {
        backend->outputs[i] = at;
        at += aligned(program->outputs[i].bytes);
    }
    for (int i = 0; i < program->argument_count; i++) {
        const gs_argument *each = &program->arguments[i];
        cu_pointer base = each->space == GS_ARENA     ? backend->memory + arena
                          : each->space == GS_WEIGHTS ? backend->memory
                          : each->space == GS_INPUT   ? backend->inputs[each->index]
                                                      : backend->outputs[each->index];
        backend->values[i] = base + each->offset;
        backend->parameters[i] = &backend->values[i];
    }
    TRY(cu->cuStreamCreate(&backend->stream, CU_STREAM_NON_BLOCKING), "making a stream");
    return GS_OK;
}

static int open_device(gs_network *network) {
    gs_backend *backend = network->backend;
    const gs_program *program = network->program;
    backend->inputs = calloc((size_t)program->input_count + 1, sizeof *backend->inputs);
    backend->outputs = calloc((size_t)program->output_count + 1, sizeof *backend->outputs);
    backend->functions = calloc((size_t)program->kernel_count + 1, sizeof(cu_function));
    backend->values = calloc((size_t)program->argument_count + 1, sizeof *backend->values);
    backend->parameters = calloc((size_t)program->argument_count + 1, sizeof(void *));
    if (backend->inputs == NULL || backend->outputs == NULL || backend->functions == NULL || backend->values == NULL ||
        backend->parameters == NULL)
        return gs_fail(network, GS_NO_MEMORY, "no memory");
    int status = load_driver(network);
    if (status == GS_OK)
        status = find_device(network);
    if (status == GS_OK)
        status = load_kernels(network);
    if (status == GS_OK)
        status = allocate(network);
    return status;
}

static void leave(gs_backend *backend) {
    cu_context popped;
    if (backend->pushed)
        backend->cu.cuCtxPopCurrent_v2(&popped);
    backend->pushed = 0;
}

int gs_backend_open(gs_network *network, int threads) {
    (void)threads;
    network->threads = 1;
    gs_backend *backend = network->backend = calloc(1, sizeof *backend);
    if (backend == NULL)
        return gs_fail(network, GS_NO_MEMORY, "no memory");
    int status = open_device(network);
    leave(backend);
    if (status != GS_OK)
        gs_backend_close(network);
    return status;
}

static int launch(gs_network *network, int call) {
    const gs_backend *backend = network->backend;
    const gs_call *each = &network->program->calls[call];
    const gs_kernel *kernel = &network->program->kernels[each->kernel];
    cu_result result = backend->cu.cuLaunchKernel(
        backend->functions[each->kernel], kernel->grid[0], kernel->grid[1], kernel->grid[2], kernel->block[0],
        kernel->block[1], kernel->block[2], 0, backend->stream, backend->parameters + each->first, NULL);
    if (result == CU_SUCCESS)
        return GS_OK;
    char doing[256];
    snprintf(doing, sizeof doing, "starting kernel %s", kernel->name);
    return check(network, result, doing);
}

static int make_events(gs_network *network) {
    gs_backend *backend = network->backend;
    if (backend->events != NULL)
        return GS_OK;
    backend->events = calloc((size_t)network->program->call_count + 1, sizeof(cu_event));
    if (backend->events == NULL)
        return gs_fail(network, GS_NO_MEMORY, "no memory");
    for (int i = 0; i <= network->program->call_count; i++)
        TRY(backend->cu.cuEventCreate(&backend->events[i], 0), "making an event");
    return GS_OK;
}

/* Calls of one stream run one after another, so the barriers of the program hold by themselves. */
static int run_stream(gs_network *network, const void *const *inputs, void *const *outputs, double *seconds) {
    const gs_program *program = network->program;
    const gs_backend *backend = network->backend;
    const driver *cu = &backend->cu;
    for (int i = 0; i < program->input_count; i++)
        TRY(cu->cuMemcpyHtoDAsync_v2(backend->inputs[i], inputs[i], program->inputs[i].bytes, backend->stream),
            "copying an input");
    if (seconds != NULL)
        TRY(cu->cuEventRecord(backend->events[0], backend->stream), "recording an event");
    for (int i = 0; i < program->call_count; i++) {
        int status = launch(network, i);
        if (status != GS_OK)
            return status;
        if (seconds != NULL)
            TRY(cu->cuEventRecord(backend->events[i + 1], backend->stream), "recording an event");
    }
    for (int i = 0; i < program->output_count; i++)
        TRY(cu->cuMemcpyDtoHAsync_v2(outputs[i], backend->outputs[i], program->outputs[i].bytes, backend->stream),
            "copying an output");
    TRY(cu->cuStreamSynchronize(backend->stream), "running the kernels");
    for (int i = 0; seconds != NULL && i < program->call_count; i++) {
        float milliseconds = 0.0f;
        TRY(cu->cuEventElapsedTime(&milliseconds, backend->events[i], backend->events[i + 1]), "reading an event");
        seconds[i] = 1e-3 * (double)milliseconds;
    }
    return GS_OK;
}

int gs_backend_run(gs_network *network, const void *const *inputs, void *const *outputs, double *seconds) {
    gs_backend *backend = network->backend;
    TRY(backend->cu.cuCtxPushCurrent_v2(backend->context), "entering the context");
    backend->pushed = 1;
    int status = seconds != NULL ? make_events(network) : GS_OK;
    if (status == GS_OK)
        status = run_stream(network, inputs, outputs, seconds);
    if (status != GS_OK) /* copies from and to the caller's arrays must not outlive the call */
        backend->cu.cuStreamSynchronize(backend->stream);
    leave(backend);
    return status;
}

void gs_backend_close(gs_network *network) {
    gs_backend *backend = network->backend;
    if (backend == NULL)
        return;
    const driver *cu = &backend->cu;
    if (backend->context != NULL) {
        if (cu->cuCtxPushCurrent_v2(backend->context) == CU_SUCCESS)
            backend->pushed = 1;
        for (int i = 0; backend->events != NULL && i <= network->program->call_count; i++)
            if (backend->events[i] != NULL)
                cu->cuEventDestroy_v2(backend->events[i]);
        if (backend->stream != NULL)
            cu->cuStreamDestroy_v2(backend->stream);
        if (backend->memory != 0)
            cu->cuMemFree_v2(backend->memory);
        if (backend->module != NULL)
            cu->cuModuleUnload(backend->module);
        leave(backend);
        cu->cuDevicePrimaryCtxRelease(backend->device);
    }
    /* The library stays loaded: the process may have other users of the driver, and it keeps threads of its own. */
    free(backend->events);
    free(backend->inputs);
    free(backend->outputs);
    free(backend->functions);
    free(backend->values);
    free(backend->parameters);
    free(backend);
    network->backend = NULL;
}
