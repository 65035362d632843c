/* main.c: the program `run` of an artifact. */
#define _GNU_SOURCE
#include "command.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: run [INPUT.bin ... [-o DIR]] [--selftest | --bench N | --profile | --info] [options]\n"
    "\n"
    "  INPUT.bin ...      run the network on these arrays: raw little-endian float32, one file for each input\n"
    "  -o DIR             write the outputs to DIR/NAME.bin\n"
    "  --selftest         compare with the check vectors; exit code 1 if an output differs\n"
    "  --bench N          time N runs\n"
    "  --profile          time each step (with --bench N: medians of N runs, otherwise of 50)\n"
    "  --info             say what the network is and what it takes and gives\n"
    "\n"
    "  --threads T        threads (default: as many as there are processors)\n"
    "  --warmup W         runs before the timed ones (default 10)\n"
    "  --json, --csv      print times as JSON or as CSV\n"
    "  --memory           print the memory in use at the end\n"
    "  --directory DIR    the artifact (default: where this program lies)\n"
    "  --help             print this\n"
    "\n"
    "exit code: 0 fine, 1 the selftest failed, 2 a wrong option or a missing or damaged file\n";

int show_information(gs_network *network, const options *asked) {
    const gs_description *facts = gs_describe(network);
    int64_t macs = 0;
    (void)asked;
    for (int i = 0; i < gs_step_count(network); i++)
        macs += gs_step_at(network, i)->macs;
    printf("network       %s (architecture %s)\n", facts->name, facts->architecture_hash);
    printf("target        %s, %s\n", facts->target, facts->dtype);
    printf("device        %s\n", gs_device(network));
    for (int i = 0; i < gs_input_count(network) + gs_output_count(network); i++) {
        int input = i < gs_input_count(network);
        const gs_tensor *tensor = input ? gs_input(network, i) : gs_output(network, i - gs_input_count(network));
        char shape[128];
        shape_text(tensor, shape, sizeof shape);
        printf("%s %s: %s, %llu bytes\n", input ? "input        " : "output       ", tensor->name, shape,
               (unsigned long long)tensor->bytes);
    }
    printf("steps         %d, %.6g million multiply-accumulates\n", gs_step_count(network), 1e-6 * (double)macs);
    printf("weights       %llu bytes\n", (unsigned long long)facts->weights_bytes);
    printf("activations   %llu bytes\n", (unsigned long long)facts->arena_bytes);
    return EXIT_FINE;
}

static int whole_number(const char *option, const char *text, int least) {
    char *end = NULL;
    long value = text != NULL ? strtol(text, &end, 10) : 0;
    if (text == NULL || end == text || *end != '\0' || value < least || value > 100000000)
        stop("%s takes a whole number from %d on%s%s; --help tells more", option, least, text != NULL ? ", not " : "",
             text != NULL ? text : "");
    return (int)value;
}

static const char *own_directory(void) {
    static char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0)
        return ".";
    while (length > 1 && path[length - 1] != '/')
        length--;
    path[length > 1 ? length - 1 : length] = '\0';
    return path;
}

typedef enum action { ACTION_NONE, ACTION_SELFTEST, ACTION_BENCH, ACTION_PROFILE, ACTION_INFO, ACTION_RUN } action;

static action choose(action now, action then) {
    if (now == ACTION_NONE || now == then || (now == ACTION_PROFILE && then == ACTION_BENCH))
        return now == ACTION_NONE ? then : now;
    if (now == ACTION_BENCH && then == ACTION_PROFILE)
        return then;
    stop("one thing at a time: input files, --selftest, --bench, --profile or --info; --help tells more");
}

static action parse(int count, char **words, options *asked) {
    action chosen = ACTION_NONE;
    for (int i = 1; i < count; i++) {
        const char *word = words[i], *next = i + 1 < count ? words[i + 1] : NULL;
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            fputs(usage, stdout);
            exit(EXIT_FINE);
        } else if (strcmp(word, "--selftest") == 0) {
            chosen = choose(chosen, ACTION_SELFTEST);
        } else if (strcmp(word, "--profile") == 0) {
            chosen = choose(chosen, ACTION_PROFILE);
        } else if (strcmp(word, "--info") == 0) {
            chosen = choose(chosen, ACTION_INFO);
        } else if (strcmp(word, "--bench") == 0) {
            chosen = choose(chosen, ACTION_BENCH);
            asked->repetitions = whole_number(word, next, 1);
            i++;
        } else if (strcmp(word, "--threads") == 0) {
            asked->threads = whole_number(word, next, 1);
            i++;
        } else if (strcmp(word, "--warmup") == 0) {
            asked->warmup = whole_number(word, next, 0);
            i++;
        } else if (strcmp(word, "--json") == 0) {
            asked->format = FORMAT_JSON;
        } else if (strcmp(word, "--csv") == 0) {
            asked->format = FORMAT_CSV;
        } else if (strcmp(word, "--memory") == 0) {
            asked->memory = 1;
        } else if (strcmp(word, "-o") == 0 || strcmp(word, "--directory") == 0) {
            if (next == NULL)
                stop("%s takes a directory; --help tells more", word);
            if (word[1] == 'o')
                asked->out = next;
            else
                asked->directory = next;
            i++;
        } else if (word[0] == '-' && word[1] != '\0') {
            stop("there is no option %s; --help tells more", word);
        } else {
            chosen = choose(chosen, ACTION_RUN);
            asked->files[asked->file_count++] = words[i];
        }
    }
    if (chosen == ACTION_NONE)
        stop("what to do? Give input files, --selftest, --bench N, --profile or --info; --help tells more");
    if (asked->out != NULL && chosen != ACTION_RUN)
        stop("-o goes with input files; --help tells more");
    return chosen;
}

int main(int count, char **words) {
    options asked;
    memset(&asked, 0, sizeof asked);
    asked.warmup = 10;
    asked.directory = own_directory();
    asked.files = calloc((size_t)count + 1, sizeof *asked.files);
    if (asked.files == NULL)
        stop("no memory");
    action chosen = parse(count, words, &asked);
    char error[1024];
    gs_network *network = gs_open(asked.directory, asked.threads, error, sizeof error);
    if (network == NULL)
        stop("%s", error);
    int code = chosen == ACTION_SELFTEST  ? selftest(network, &asked)
               : chosen == ACTION_BENCH   ? benchmark(network, &asked)
               : chosen == ACTION_PROFILE ? show_profile(network, &asked)
               : chosen == ACTION_INFO    ? show_information(network, &asked)
                                          : run_files(network, &asked);
    if (asked.memory)
        show_memory(&asked);
    gs_close(network);
    free(asked.files);
    if (fflush(stdout) != 0 || ferror(stdout))
        stop("the output cannot be written");
    return code;
}
