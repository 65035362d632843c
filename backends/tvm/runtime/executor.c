/* executor.c: the interface of gensynth.h, but for what runs the kernels: opening, checks, weights, messages. */
#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int gs_fail(gs_network *network, int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(network->error, sizeof network->error, format, arguments);
    va_end(arguments);
    return status;
}

/* Checksum: the sum over all 64-bit little-endian words (the last filled up with zeros) of a mix of word and position.
 * The mix is one to one for a given position, so a change of one word never goes unseen; the terms are independent of
 * one another, so that it runs at the speed of memory. */
#define KEY UINT64_C(0x9e3779b97f4a7c15)
#define MULTIPLIER UINT64_C(0xc2b2ae3d27d4eb4f)
#define FINISHER UINT64_C(0x165667b19e3779f9)

static uint64_t rotate(uint64_t word) { return (word << 29) | (word >> 35); }

static uint64_t mix(uint64_t word, uint64_t key) { return rotate((word ^ key) * MULTIPLIER) * KEY; }

uint64_t gs_checksum(const void *data, size_t bytes) {
    const unsigned char *at = data;
    uint64_t lanes[4] = {0, 0, 0, 0};
    uint64_t key = KEY;
    uint64_t words[4];
    for (size_t blocks = bytes / sizeof words; blocks > 0; blocks--) {
        memcpy(words, at, sizeof words);
        at += sizeof words;
        for (int lane = 0; lane < 4; lane++)
            lanes[lane] += mix(words[lane], key + (uint64_t)lane * KEY);
        key += 4 * KEY;
    }
    memset(words, 0, sizeof words);
    size_t rest = bytes % sizeof words;
    if (rest > 0)
        memcpy(words, at, rest);
    for (size_t lane = 0; lane < (rest + 7) / 8; lane++)
        lanes[lane] += mix(words[lane], key + lane * KEY);
    uint64_t sum = lanes[0] + lanes[1] + lanes[2] + lanes[3] + (uint64_t)bytes;
    sum = (sum ^ (sum >> 33)) * FINISHER;
    return sum ^ (sum >> 29);
}

/* The weights stay in their file, mapped; a page of zeros on either side lets kernels read beyond the ends. */
static int map_weights(gs_network *network) {
    size_t expected = network->program->description.weights_bytes;
    char path[4096];
    if (snprintf(path, sizeof path, "%s/weights.bin", network->directory) >= (int)sizeof path)
        return gs_fail(network, GS_BAD_ARGUMENT, "the directory's name is too long");
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return gs_fail(network, GS_BAD_FILE, "%s cannot be read: %s; it belongs to the artifact", path, strerror(errno));
    struct stat facts;
    int status = GS_OK;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode))
        status = gs_fail(network, GS_BAD_FILE, "%s is not a file", path);
    else if ((uint64_t)facts.st_size != (uint64_t)expected)
        status = gs_fail(network, GS_BAD_FILE,
                         "%s has %lld bytes, the network's weights have %llu: it is damaged or of another network; copy the "
                         "artifact again",
                         path, (long long)facts.st_size, (unsigned long long)expected);
    if (status == GS_OK) {
        size_t whole = (expected + page - 1) / page * page;
        unsigned char *region =
            mmap(NULL, whole + 2 * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (region == MAP_FAILED) {
            status = gs_fail(network, GS_NO_MEMORY, "no memory for %llu bytes of weights", (unsigned long long)expected);
        } else {
            network->weights_mapping = region;
            network->weights_mapping_bytes = whole + 2 * page;
            network->weights = region + page;
            if (expected > 0 && mmap(region + page, expected, PROT_READ, MAP_PRIVATE | MAP_FIXED | MAP_POPULATE, file,
                                     0) == MAP_FAILED)
                status = gs_fail(network, GS_BAD_FILE, "%s cannot be mapped: %s", path, strerror(errno));
        }
    }
    close(file);
    if (status == GS_OK && gs_checksum(network->weights, expected) != network->program->weights_checksum)
        status = gs_fail(network, GS_BAD_FILE,
                         "%s is damaged or of another network: its checksum is %016llx, not %016llx; copy the artifact again",
                         path, (unsigned long long)gs_checksum(network->weights, expected),
                         (unsigned long long)network->program->weights_checksum);
    return status;
}

void gs_unmap_weights(gs_network *network) {
    if (network->weights_mapping != NULL)
        munmap(network->weights_mapping, network->weights_mapping_bytes);
    network->weights_mapping = NULL;
    network->weights = NULL;
}

static int describe_steps(gs_network *network) {
    const gs_program *program = network->program;
    network->steps = calloc((size_t)program->call_count + 1, sizeof *network->steps);
    if (network->steps == NULL)
        return gs_fail(network, GS_NO_MEMORY, "no memory");
    for (int i = 0; i < program->call_count; i++) {
        const gs_kernel *kernel = &program->kernels[program->calls[i].kernel];
        gs_step *step = &network->steps[i];
        step->kernel = kernel->name;
        step->nodes = program->calls[i].nodes;
        step->macs = kernel->macs;
        step->bytes = kernel->bytes;
        step->tasks = kernel->tasks;
        step->threads = 1;
    }
    return GS_OK;
}

/* Whether a word is among those of a line. */
static int holds(const char *line, const char *word) {
    size_t length = strlen(word);
    for (const char *at = line; (at = strstr(at, word)) != NULL; at++)
        if ((at == line || strchr(" \t:", at[-1]) != NULL) &&
            (at[length] == '\0' || strchr(" \t\n", at[length]) != NULL))
            return 1;
    return 0;
}

/* Kernels for a newer processor would end the process by an illegal instruction. Where the system does not say what its
 * processor can, nothing is checked. */
static int check_processor(gs_network *network) {
#if defined(__aarch64__)
    static const char label[] = "Features";
#else
    static const char label[] = "flags";
#endif
    char line[16384];
    int found = 0;
    FILE *file = network->program->features[0] != '\0' ? fopen("/proc/cpuinfo", "r") : NULL;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL)
        found = strncmp(line, label, sizeof label - 1) == 0;
    if (file != NULL)
        fclose(file);
    if (!found)
        return GS_OK;
    const char *word = network->program->features;
    while (*word != '\0') {
        char name[32];
        size_t length = strcspn(word, " ");
        snprintf(name, sizeof name, "%.*s", (int)length, word);
        if (!holds(line, name))
            return gs_fail(network, GS_NO_DEVICE,
                           "the kernels need a processor with %s, which this one has not (they are compiled for %s): compile "
                           "the network for this machine",
                           network->program->features, network->program->description.target);
        word += length;
        word += strspn(word, " ");
    }
    return GS_OK;
}

static int open_network(gs_network *network, const char *directory, int threads) {
    if (directory == NULL || threads < 0)
        return gs_fail(network, GS_BAD_ARGUMENT, "gs_open takes a directory, and threads from 0 on");
    network->program = &gs_the_program;
    network->directory = strdup(directory);
    if (network->directory == NULL)
        return gs_fail(network, GS_NO_MEMORY, "no memory");
    if (pthread_mutex_init(&network->turn, NULL) != 0)
        return gs_fail(network, GS_NO_MEMORY, "no memory");
    network->turn_made = 1;
    int status = describe_steps(network);
    if (status == GS_OK)
        status = check_processor(network);
    if (status == GS_OK)
        status = map_weights(network);
    if (status == GS_OK)
        status = gs_backend_open(network, threads);
    return status;
}

static void free_network(gs_network *network) {
    gs_unmap_weights(network);
    if (network->turn_made)
        pthread_mutex_destroy(&network->turn);
    free(network->steps);
    free(network->directory);
    free(network);
}

gs_network *gs_open(const char *directory, int threads, char *error, size_t error_size) {
    gs_network *network = calloc(1, sizeof *network);
    if (network != NULL && open_network(network, directory, threads) == GS_OK) {
        if (error != NULL && error_size > 0)
            error[0] = '\0';
        return network;
    }
    if (error != NULL && error_size > 0)
        snprintf(error, error_size, "%s", network != NULL ? network->error : "no memory");
    if (network != NULL)
        free_network(network);
    return NULL;
}

void gs_close(gs_network *network) {
    if (network == NULL)
        return;
    pthread_mutex_lock(&network->turn);
    gs_backend_close(network);
    pthread_mutex_unlock(&network->turn);
    free_network(network);
}

static int check_arrays(gs_network *network, const char *what, const gs_tensor *tensors, int count,
                        const void *const *arrays, const size_t *sizes) {
    if (arrays == NULL)
        return gs_fail(network, GS_BAD_ARGUMENT, "no %ss are given; the network has %d", what, count);
    for (int i = 0; i < count; i++) {
        if (arrays[i] == NULL)
            return gs_fail(network, GS_BAD_ARGUMENT, "%s %d (%s) is NULL", what, i, tensors[i].name);
        if (sizes != NULL && sizes[i] != tensors[i].bytes)
            return gs_fail(network, GS_BAD_ARGUMENT, "%s %d (%s) has %llu bytes, the network's has %llu", what, i,
                           tensors[i].name, (unsigned long long)sizes[i], (unsigned long long)tensors[i].bytes);
    }
    return GS_OK;
}

static int run(gs_network *network, const void *const *inputs, const size_t *input_bytes, void *const *outputs,
               const size_t *output_bytes, double *seconds) {
    const gs_program *program = network->program;
    pthread_mutex_lock(&network->turn);
    int status = check_arrays(network, "input", program->inputs, program->input_count, inputs, input_bytes);
    if (status == GS_OK)
        status = check_arrays(network, "output", program->outputs, program->output_count,
                              (const void *const *)outputs, output_bytes);
    if (status == GS_OK)
        status = gs_backend_run(network, inputs, outputs, seconds);
    pthread_mutex_unlock(&network->turn);
    return status;
}

int gs_run(gs_network *network, const void *const *inputs, const size_t *input_bytes, void *const *outputs,
           const size_t *output_bytes) {
    return network == NULL ? GS_BAD_ARGUMENT : run(network, inputs, input_bytes, outputs, output_bytes, NULL);
}

int gs_profile(gs_network *network, const void *const *inputs, const size_t *input_bytes, void *const *outputs,
               const size_t *output_bytes, double *seconds) {
    if (network == NULL || seconds == NULL)
        return GS_BAD_ARGUMENT;
    return run(network, inputs, input_bytes, outputs, output_bytes, seconds);
}

const char *gs_error(const gs_network *network) { return network->error; }
int gs_input_count(const gs_network *network) { return network->program->input_count; }
int gs_output_count(const gs_network *network) { return network->program->output_count; }
int gs_step_count(const gs_network *network) { return network->program->call_count; }
int gs_threads(const gs_network *network) { return network->threads; }
const char *gs_device(const gs_network *network) { return network->device; }
const gs_description *gs_describe(const gs_network *network) { return &network->program->description; }
int gs_version(void) { return GS_VERSION; }

const gs_tensor *gs_input(const gs_network *network, int index) {
    return index < 0 || index >= network->program->input_count ? NULL : &network->program->inputs[index];
}

const gs_tensor *gs_output(const gs_network *network, int index) {
    return index < 0 || index >= network->program->output_count ? NULL : &network->program->outputs[index];
}

const gs_step *gs_step_at(const gs_network *network, int index) {
    return index < 0 || index >= network->program->call_count ? NULL : &network->steps[index];
}
