/* Stands for NVIDIA's libcuda.so.1, so that the launcher that ships can be run without a GPU: device memory is host memory,
 * and kernels are those of a library that `build_shim` made. What the launcher does wrong that a driver would not forgive
 * is an error here too: pointers that are in no allocation, copies beyond one, a kernel or stream that is not there.
 *
 * Generated before this: KERNELS, the library's path; CAPABILITY; and `kernels`, each kernel's name and number of pointers. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID = 1, NO_MEMORY = 2, NO_PTX = 218, NOT_FOUND = 500, FAILED = 719 };

typedef uint64_t pointer;
typedef int (*launcher)(const unsigned *grid, const unsigned *block, void **arguments);
typedef struct function {
    launcher launch;
    int pointers;
} function;
typedef struct allocation {
    char *memory;
    size_t bytes;
} allocation;

static allocation held[16];
static int context, stream, pushed;
static function functions[sizeof kernels / sizeof *kernels];

/* Whether so many bytes from there on are device memory. */
static int on_device(pointer at, size_t bytes) {
    for (unsigned i = 0; i < sizeof held / sizeof *held; i++) {
        pointer first = (pointer)(uintptr_t)held[i].memory;
        if (held[i].memory != NULL && at >= first && bytes <= held[i].bytes && at - first <= held[i].bytes - bytes)
            return 1;
    }
    return 0;
}

static int copy(void *to, const void *from, size_t bytes, pointer device) {
    if (!pushed || !on_device(device, bytes))
        return INVALID;
    memcpy(to, from, bytes);
    return SUCCESS;
}

static void *host(pointer at) { return (void *)(uintptr_t)at; }

int cuInit(unsigned flags) { return flags == 0 ? SUCCESS : INVALID; }
int cuDriverGetVersion(int *version) { return *version = 10020, SUCCESS; }
int cuGetErrorName(int error, const char **text) { return (void)error, *text = "STAND_IN", SUCCESS; }
int cuGetErrorString(int error, const char **text) { return (void)error, *text = "refused by the stand-in", SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int *device, int index) { return *device = index, index == 0 ? SUCCESS : INVALID; }
int cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, (size_t)size, "a CPU in the place of a GPU");
    return device == 0 ? SUCCESS : INVALID;
}
int cuDeviceGetAttribute(int *value, int which, int device) {
    *value = which == 75 ? CAPABILITY / 10 : CAPABILITY % 10;
    return device == 0 && (which == 75 || which == 76) ? SUCCESS : INVALID;
}
int cuDevicePrimaryCtxRetain(void **made, int device) { return *made = &context, device == 0 ? SUCCESS : INVALID; }
int cuDevicePrimaryCtxRelease(int device) { return device == 0 ? SUCCESS : INVALID; }
int cuCtxPushCurrent_v2(void *which) { return pushed++, which == &context ? SUCCESS : INVALID; }
int cuCtxPopCurrent_v2(void **which) { return *which = &context, pushed-- > 0 ? SUCCESS : INVALID; }

int cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options, void **values) {
    (void)count, (void)options, (void)values;
    if (!pushed || strstr(image, ".version ") == NULL)
        return NO_PTX;
    for (unsigned i = 0; i < sizeof kernels / sizeof *kernels; i++) /* what ships has every kernel */
        if (strstr(image, kernels[i].name) == NULL)
            return NO_PTX;
    *module = dlopen(KERNELS, RTLD_NOW | RTLD_LOCAL);
    void (*backward)(int) = NULL;
    if (*module != NULL)
        *(void **)&backward = dlsym(*module, "run_backward");
    if (backward == NULL)
        return NO_PTX;
    backward(1); /* threads that race show, beside the shim's own launches in their order */
    return SUCCESS;
}
int cuModuleUnload(void *module) { return dlclose(module) == 0 ? SUCCESS : INVALID; }
int cuModuleGetFunction(void **found, void *module, const char *name) {
    char symbol[256];
    snprintf(symbol, sizeof symbol, "launch_%s", name);
    for (unsigned i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (strcmp(kernels[i].name, name) == 0) {
            *(void **)&functions[i].launch = dlsym(module, symbol);
            functions[i].pointers = kernels[i].pointers;
            *found = &functions[i];
            return functions[i].launch != NULL ? SUCCESS : NOT_FOUND;
        }
    return NOT_FOUND;
}

int cuMemAlloc_v2(pointer *memory, size_t bytes) {
    void *made = NULL;
    for (unsigned i = 0; i < sizeof held / sizeof *held; i++)
        if (held[i].memory == NULL) {
            if (!pushed || posix_memalign(&made, 256, bytes))
                return NO_MEMORY;
            memset(made, 0xff, bytes); /* NaNs */
            held[i] = (allocation){made, bytes};
            return *memory = (pointer)(uintptr_t)made, SUCCESS;
        }
    return NO_MEMORY;
}
int cuMemFree_v2(pointer memory) {
    for (unsigned i = 0; i < sizeof held / sizeof *held; i++)
        if (held[i].memory != NULL && host(memory) == held[i].memory) {
            free(held[i].memory);
            held[i].memory = NULL;
            return SUCCESS;
        }
    return INVALID;
}
int cuMemcpyHtoD_v2(pointer to, const void *from, size_t bytes) { return copy(host(to), from, bytes, to); }
int cuMemsetD8_v2(pointer to, unsigned char byte, size_t bytes) {
    if (!pushed || !on_device(to, bytes))
        return INVALID;
    return memset(host(to), byte, bytes), SUCCESS;
}
int cuMemcpyHtoDAsync_v2(pointer to, const void *from, size_t bytes, void *on) {
    return on == &stream ? copy(host(to), from, bytes, to) : INVALID;
}
int cuMemcpyDtoHAsync_v2(void *to, pointer from, size_t bytes, void *on) {
    return on == &stream ? copy(to, host(from), bytes, from) : INVALID;
}

int cuStreamCreate(void **made, unsigned flags) { return (void)flags, *made = &stream, SUCCESS; }
int cuStreamDestroy_v2(void *which) { return which == &stream ? SUCCESS : INVALID; }
int cuStreamSynchronize(void *which) { return which == &stream ? SUCCESS : INVALID; }

int cuEventCreate(void **event, unsigned flags) {
    (void)flags;
    return (*event = calloc(1, sizeof(double))) != NULL ? SUCCESS : NO_MEMORY;
}
int cuEventDestroy_v2(void *event) { return free(event), SUCCESS; }
int cuEventRecord(void *event, void *on) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *(double *)event = 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
    return on == &stream ? SUCCESS : INVALID;
}
int cuEventElapsedTime(float *milliseconds, void *from, void *to) {
    *milliseconds = (float)(*(double *)to - *(double *)from);
    return SUCCESS;
}

int cuLaunchKernel(function *what, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *on, void **parameters, void **extra) {
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    void *arguments[64];
    if (!pushed || on != &stream || extra != NULL || shared != 0 || what->pointers > 64)
        return INVALID;
    /* the limits of compute capability 6.2 */
    if (bx == 0 || by == 0 || bz == 0 || gx == 0 || gy == 0 || gz == 0 || bx * by * bz > 1024 || bx > 1024 ||
        by > 1024 || bz > 64 || gx > 2147483647u || gy > 65535 || gz > 65535)
        return INVALID;
    for (int i = 0; i < what->pointers; i++) {
        pointer at = *(pointer *)parameters[i];
        if (!on_device(at, 1))
            return FAILED;
        arguments[i] = host(at);
    }
    return what->launch(grid, block, arguments) == 0 ? SUCCESS : FAILED;
}
