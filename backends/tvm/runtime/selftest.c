/* selftest.c: `run --selftest`, the comparison with the check vectors, and `run FILE...`. */
#define _GNU_SOURCE
#include "command.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct comparison {
    double largest; /* absolute error; not a number if either has one that is not finite */
    double range;   /* of the expected values: largest less smallest, and at least the largest magnitude */
    size_t at;      /* index of the largest error */
} comparison;

static comparison compare(const float *values, const float *expected, size_t count) {
    comparison found = {0.0, 0.0, 0};
    double least = INFINITY, most = -INFINITY, magnitude = 0.0;
    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)values[i] - (double)expected[i]);
        if (!(error <= found.largest) && !isnan(found.largest)) {
            found.largest = error;
            found.at = i;
        }
        least = fmin(least, (double)expected[i]);
        most = fmax(most, (double)expected[i]);
        magnitude = fmax(magnitude, fabs((double)expected[i]));
    }
    found.range = count > 0 ? fmax(most - least, magnitude) : 0.0;
    if (found.range == 0.0)
        found.range = 1.0;
    return found;
}

int selftest(gs_network *network, const options *asked) {
    double tolerance = gs_describe(network)->tolerance;
    arrays held = make_arrays(network), expected = make_arrays(network);
    char path[4096];
    for (int i = 0; i < held.input_count; i++) {
        join_path(path, sizeof path, asked->directory, "check/input_", gs_input(network, i)->name);
        read_array(path, gs_input(network, i), held.inputs[i]);
    }
    for (int i = 0; i < held.output_count; i++) {
        join_path(path, sizeof path, asked->directory, "check/output_", gs_output(network, i)->name);
        read_array(path, gs_output(network, i), expected.outputs[i]);
    }
    run_network(network, &held);
    int failures = 0;
    for (int i = 0; i < held.output_count; i++) {
        const gs_tensor *tensor = gs_output(network, i);
        char shape[128];
        shape_text(tensor, shape, sizeof shape);
        comparison found = compare(held.outputs[i], expected.outputs[i], tensor->bytes / sizeof(float));
        double relative = found.largest / found.range;
        int fine = relative <= tolerance; /* false for NaN */
        failures += !fine;
        printf("%s %s %s: largest error %.3g of the range %.4g, %.3g (at most %.3g)", fine ? "ok  " : "FAIL", tensor->name,
               shape, found.largest, found.range, relative, tolerance);
        if (!fine)
            printf("; element %llu is %.9g, should be %.9g", (unsigned long long)found.at,
                   (double)((float *)held.outputs[i])[found.at], (double)((float *)expected.outputs[i])[found.at]);
        putchar('\n');
    }
    printf("%s on %s: %s\n", gs_describe(network)->name, gs_device(network),
           failures == 0 ? "computes what it should" : "does NOT compute what it should");
    free_arrays(&held);
    free_arrays(&expected);
    return failures == 0 ? EXIT_FINE : EXIT_DIFFERS;
}

static void summarize(const gs_tensor *tensor, const float *values) {
    size_t count = tensor->bytes / sizeof *values, largest = 0;
    double sum = 0.0;
    float least = count > 0 ? values[0] : 0.0f;
    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i];
        least = values[i] < least ? values[i] : least;
        largest = values[i] > values[largest] ? i : largest;
    }
    char shape[128];
    shape_text(tensor, shape, sizeof shape);
    printf("%s %s: from %.6g to %.6g, mean %.6g, largest at element %llu\n", tensor->name, shape, (double)least,
           count > 0 ? (double)values[largest] : 0.0, count > 0 ? sum / (double)count : 0.0,
           (unsigned long long)largest);
}

int run_files(gs_network *network, const options *asked) {
    int count = gs_input_count(network);
    if (asked->file_count != count)
        stop("%d input file%s given, the network takes %d", asked->file_count, asked->file_count == 1 ? " is" : "s are",
             count);
    arrays held = make_arrays(network);
    for (int i = 0; i < count; i++)
        read_array(asked->files[i], gs_input(network, i), held.inputs[i]);
    run_network(network, &held);
    if (asked->out != NULL && mkdir(asked->out, 0777) != 0 && errno != EEXIST)
        stop("%s cannot be made: %s", asked->out, strerror(errno));
    for (int i = 0; i < held.output_count; i++) {
        const gs_tensor *tensor = gs_output(network, i);
        if (asked->out != NULL) {
            char path[4096];
            join_path(path, sizeof path, asked->out, "", tensor->name);
            write_array(path, tensor, held.outputs[i]);
        }
        summarize(tensor, held.outputs[i]);
    }
    free_arrays(&held);
    return EXIT_FINE;
}
