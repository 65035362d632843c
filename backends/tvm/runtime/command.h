/* command.h: what the parts of `run` share. They use gensynth.h alone, as a user's program would. */
#ifndef GENSYNTH_COMMAND_H
#define GENSYNTH_COMMAND_H

#include "gensynth.h"

enum { EXIT_FINE = 0, EXIT_DIFFERS = 1, EXIT_USAGE = 2 };

typedef enum output_format { FORMAT_TEXT, FORMAT_JSON, FORMAT_CSV } output_format;

typedef struct options {
    const char *directory;
    int threads;
    int repetitions; /* --bench */
    int warmup;
    int memory;
    output_format format;
    const char *out;
    char **files;
    int file_count;
} options;

/* Arrays for all inputs and outputs of a network. */
typedef struct arrays {
    int input_count, output_count;
    void **inputs, **outputs;
    size_t *input_bytes, *output_bytes;
} arrays;

/* arrays.c. These write what is wrong to stderr and end the program with EXIT_USAGE. */
void stop(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
arrays make_arrays(const gs_network *network);
void free_arrays(arrays *held);
void read_array(const char *path, const gs_tensor *tensor, void *into);
void write_array(const char *path, const gs_tensor *tensor, const void *from);
void join_path(char *path, size_t size, const char *directory, const char *prefix, const char *name);
void fill_inputs(const gs_network *network, const char *directory, arrays *held);
void run_network(gs_network *network, arrays *held);
void shape_text(const gs_tensor *tensor, char *text, size_t size);
void print_string(const char *text); /* as JSON */

/* Each returns the exit code. */
int show_information(gs_network *network, const options *asked);
int run_files(gs_network *network, const options *asked);
int selftest(gs_network *network, const options *asked);
int benchmark(gs_network *network, const options *asked);
int show_profile(gs_network *network, const options *asked);
void show_memory(const options *asked);
long memory_kilobytes(const char *field); /* of /proc/self/status; -1 where there is none */

#endif
