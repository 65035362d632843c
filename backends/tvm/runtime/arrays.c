/* arrays.c: the arrays that `run` reads, makes and writes. */
#define _GNU_SOURCE
#include "command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void stop(const char *format, ...) {
    va_list arguments;
    fflush(stdout);
    fputs("run: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(EXIT_USAGE);
}

static void *reserve(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes + 64) != 0)
        stop("no memory for %llu bytes", (unsigned long long)bytes);
    memset(memory, 0, bytes + 64);
    return memory;
}

arrays make_arrays(const gs_network *network) {
    arrays held;
    held.input_count = gs_input_count(network);
    held.output_count = gs_output_count(network);
    held.inputs = reserve((size_t)held.input_count * sizeof(void *));
    held.outputs = reserve((size_t)held.output_count * sizeof(void *));
    held.input_bytes = reserve((size_t)held.input_count * sizeof(size_t));
    held.output_bytes = reserve((size_t)held.output_count * sizeof(size_t));
    for (int i = 0; i < held.input_count; i++) {
        held.input_bytes[i] = gs_input(network, i)->bytes;
        held.inputs[i] = reserve(held.input_bytes[i]);
    }
    for (int i = 0; i < held.output_count; i++) {
        held.output_bytes[i] = gs_output(network, i)->bytes;
        held.outputs[i] = reserve(held.output_bytes[i]);
    }
    return held;
}

void free_arrays(arrays *held) {
    for (int i = 0; i < held->input_count; i++)
        free(held->inputs[i]);
    for (int i = 0; i < held->output_count; i++)
        free(held->outputs[i]);
    free(held->inputs);
    free(held->outputs);
    free(held->input_bytes);
    free(held->output_bytes);
}

void shape_text(const gs_tensor *tensor, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "%s[", tensor->dtype);
    for (int i = 0; i < tensor->rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, i > 0 ? ", %lld" : "%lld", (long long)tensor->shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

void print_string(const char *text) {
    putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            printf("\\u%04x", (unsigned)*text);
        else
            putchar(*text);
    }
    putchar('"');
}

void join_path(char *path, size_t size, const char *directory, const char *prefix, const char *name) {
    if (snprintf(path, size, "%s/%s%s.bin", directory, prefix, name) >= (int)size)
        stop("the path %s/%s%s.bin is too long", directory, prefix, name);
}

void read_array(const char *path, const gs_tensor *tensor, void *into) {
    char shape[128];
    shape_text(tensor, shape, sizeof shape);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        stop("%s cannot be read: %s", path, strerror(errno));
    struct stat facts;
    if (fstat(fileno(file), &facts) != 0 || S_ISDIR(facts.st_mode))
        stop("%s is not a file", path);
    size_t got = fread(into, 1, tensor->bytes, file);
    int more = got == tensor->bytes && fgetc(file) != EOF;
    if (ferror(file))
        stop("%s cannot be read: %s", path, strerror(errno));
    fclose(file);
    if (got != tensor->bytes || more)
        stop("%s has %s%llu bytes; %s is %s, %llu bytes of raw little-endian numbers", path, more ? "more than " : "",
             (unsigned long long)got, tensor->name, shape, (unsigned long long)tensor->bytes);
}

void write_array(const char *path, const gs_tensor *tensor, const void *from) {
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        stop("%s cannot be written: %s", path, strerror(errno));
    int failed = fwrite(from, 1, tensor->bytes, file) != tensor->bytes;
    if (fclose(file) != 0 || failed)
        stop("%s cannot be written: %s", path, strerror(errno));
}

/* The check vectors where the artifact has them, otherwise numbers from -1 to 1 that are the same every time. */
void fill_inputs(const gs_network *network, const char *directory, arrays *held) {
    uint32_t state = 1;
    for (int i = 0; i < held->input_count; i++) {
        const gs_tensor *tensor = gs_input(network, i);
        char path[4096];
        struct stat facts;
        join_path(path, sizeof path, directory, "check/input_", tensor->name);
        if (stat(path, &facts) == 0) {
            read_array(path, tensor, held->inputs[i]);
            continue;
        }
        float *values = held->inputs[i];
        for (size_t k = 0; k < tensor->bytes / sizeof *values; k++) {
            state = state * 1664525u + 1013904223u;
            values[k] = (float)(state >> 8) / 8388608.0f - 1.0f;
        }
    }
}

void run_network(gs_network *network, arrays *held) {
    if (gs_run(network, (const void *const *)held->inputs, held->input_bytes, held->outputs, held->output_bytes) !=
        GS_OK)
        stop("%s", gs_error(network));
}
