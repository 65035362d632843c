/* A stand-in for NVIDIA's libcuda.so.1: device memory is host memory, kernels are those of kernels.c, every call goes to
 * the file that FAKE_CUDA_LOG names. FAKE_CUDA_VERSION, _CAPABILITY and _COUNT say what there is; FAKE_CUDA_FAIL=NAME
 * lets the driver's function NAME fail. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.c"

typedef uint64_t pointer;

static int say(const char *function, const char *format, ...) {
    const char *path = getenv("FAKE_CUDA_LOG"), *failing = getenv("FAKE_CUDA_FAIL");
    FILE *file = path != NULL ? fopen(path, "a") : NULL;
    if (file != NULL) {
        va_list arguments;
        va_start(arguments, format);
        fprintf(file, "%s ", function);
        vfprintf(file, format, arguments);
        fputc('\n', file);
        va_end(arguments);
        fclose(file);
    }
    return failing != NULL && strcmp(failing, function) == 0 ? 719 : 0;
}

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text != NULL ? atoi(text) : otherwise;
}

int cuInit(unsigned flags) { return number("FAKE_CUDA_COUNT", 1) == 0 ? 100 : say("cuInit", "%u", flags); }
int cuDriverGetVersion(int *version) { return *version = number("FAKE_CUDA_VERSION", 10020), 0; }
int cuGetErrorName(int error, const char **text) {
    *text = error == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_LAUNCH_FAILED";
    return 0;
}
int cuGetErrorString(int error, const char **text) {
    *text = error == 100 ? "no CUDA-capable device is detected" : "unspecified launch failure";
    return 0;
}
int cuDeviceGetCount(int *count) { return *count = number("FAKE_CUDA_COUNT", 1), 0; }
int cuDeviceGet(int *device, int index) { return *device = index, 0; }
int cuDeviceGetName(char *name, int size, int device) { return snprintf(name, (size_t)size, "Fake GPU %d", device), 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    int capability = number("FAKE_CUDA_CAPABILITY", 62);
    (void)device;
    *value = which == 75 ? capability / 10 : capability % 10;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = &number;
    return say("cuDevicePrimaryCtxRetain", "%d", device);
}
int cuDevicePrimaryCtxRelease(int device) { return say("cuDevicePrimaryCtxRelease", "%d", device); }
int cuCtxPushCurrent_v2(void *context) { return say("push", "%d", context == (void *)&number); }
int cuCtxPopCurrent_v2(void **context) { return *context = &number, say("pop", ""); }
int cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options, void **values) {
    int failed = say("cuModuleLoadDataEx", "%.10s", (const char *)image);
    *module = strdup(image);
    if (failed && count == 2 && options[0] == 5 && options[1] == 6)
        snprintf(values[0], (size_t)(uintptr_t)values[1], "ptxas application ptx input, line 1; fatal: broken");
    return failed ? 218 : 0;
}
int cuModuleUnload(void *module) { return free(module), say("cuModuleUnload", ""); }

typedef struct kernel {
    const char *name;
    void (*function)(void);
    int pointers;
} kernel;
static kernel kernels[] = {{"add", (void (*)(void))add, 3},   {"mix", (void (*)(void))mix, 3},
                           {"scan", (void (*)(void))scan, 2}, {"copy", (void (*)(void))copy, 2},
                           {"fill", (void (*)(void))fill, 1}, {"weigh", (void (*)(void))weigh, 16}};

int cuModuleGetFunction(kernel **function, void *module, const char *name) {
    for (unsigned i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (strcmp(kernels[i].name, name) == 0 && strstr(module, name) != NULL)
            return *function = &kernels[i], 0;
    return 500;
}
int cuMemAlloc_v2(pointer *memory, size_t bytes) {
    void *made = NULL;
    if (say("cuMemAlloc", "%d", bytes > 0) || posix_memalign(&made, 256, bytes))
        return 2;
    return *memory = (pointer)(uintptr_t)made, 0;
}
int cuMemFree_v2(pointer memory) { return free((void *)(uintptr_t)memory), say("cuMemFree", ""); }
int cuMemcpyHtoD_v2(pointer to, const void *from, size_t bytes) {
    return memcpy((void *)(uintptr_t)to, from, bytes), say("cuMemcpyHtoD", "%zu", bytes);
}
int cuMemsetD8_v2(pointer to, unsigned char byte, size_t bytes) { return memset((void *)(uintptr_t)to, byte, bytes), 0; }
int cuMemcpyHtoDAsync_v2(pointer to, const void *from, size_t bytes, void *stream) {
    return memcpy((void *)(uintptr_t)to, from, bytes), say("in", "%zu %d", bytes, stream != NULL);
}
int cuMemcpyDtoHAsync_v2(void *to, pointer from, size_t bytes, void *stream) {
    return memcpy(to, (void *)(uintptr_t)from, bytes), say("out", "%zu %d", bytes, stream != NULL);
}
int cuStreamCreate(void **stream, unsigned flags) { return *stream = &number, say("cuStreamCreate", "%u", flags); }
int cuStreamDestroy_v2(void *stream) { return (void)stream, say("cuStreamDestroy", ""); }
int cuStreamSynchronize(void *stream) { return say("synchronize", "%d", stream != NULL); }
int cuEventCreate(void **event, unsigned flags) { return *event = malloc(1), say("cuEventCreate", "%u", flags); }
int cuEventDestroy_v2(void *event) { return free(event), say("cuEventDestroy", ""); }
int cuEventRecord(void *event, void *stream) { return say("record", "%d", event != NULL && stream != NULL); }
int cuEventElapsedTime(float *milliseconds, void *from, void *to) { return *milliseconds = 0.25f, from == to; }

int cuLaunchKernel(kernel *what, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    void *p[16];
    int failed = say("cuLaunchKernel", "%s %ux%ux%u %ux%ux%u %u %d %d", what->name, gx, gy, gz, bx, by, bz, shared,
                     stream != NULL, extra != NULL);
    if (failed)
        return failed;
    for (int i = 0; i < what->pointers; i++)
        p[i] = (void *)(uintptr_t) * (pointer *)parameters[i];
    int all = (int)gx;
    if (what->pointers == 1)
        ((void (*)(void *, int, int))what->function)(p[0], 0, all);
    else if (what->pointers == 2)
        ((void (*)(void *, void *, int, int))what->function)(p[0], p[1], 0, all);
    else if (what->pointers == 3)
        ((void (*)(void *, void *, void *, int, int))what->function)(p[0], p[1], p[2], 0, all);
    else
        weigh(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12], p[13], p[14], p[15], 0,
              all);
    return 0;
}
