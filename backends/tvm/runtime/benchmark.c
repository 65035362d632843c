/* benchmark.c: `run --bench`, `--profile` and `--memory`. */
#define _GNU_SOURCE
#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double milliseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e3 * (double)time.tv_sec + 1e-6 * (double)time.tv_nsec;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* The smallest time that at least `share` of the runs do not exceed. */
static double percentile(const double *sorted, int count, double share) {
    int rank = (int)(share * count);
    if ((double)rank < share * count)
        rank++;
    return sorted[rank > 0 ? rank - 1 : 0];
}

long memory_kilobytes(const char *field) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long found = -1;
    while (file != NULL && found < 0 && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0 && line[strlen(field)] == ':')
            found = strtol(line + strlen(field) + 1, NULL, 10);
    if (file != NULL)
        fclose(file);
    return found;
}

void show_memory(const options *asked) {
    static const char *const fields[] = {"VmRSS", "RssAnon", "RssFile", "VmHWM"};
    static const char *const texts[] = {"resident", "of it private", "of it mapped files", "most ever resident"};
    (void)asked;
    printf("memory:");
    for (int i = 0; i < 4; i++)
        printf("%s %s %ld kB", i > 0 ? "," : "", texts[i], memory_kilobytes(fields[i]));
    putchar('\n');
}

typedef struct statistics {
    double mean, min, p50, p90, p95, p99, max;
} statistics;

static statistics summarize(double *times, int count) {
    statistics found;
    double sum = 0.0;
    qsort(times, (size_t)count, sizeof *times, ascending);
    for (int i = 0; i < count; i++)
        sum += times[i];
    found.mean = sum / count;
    found.min = times[0];
    found.p50 = percentile(times, count, 0.50);
    found.p90 = percentile(times, count, 0.90);
    found.p95 = percentile(times, count, 0.95);
    found.p99 = percentile(times, count, 0.99);
    found.max = times[count - 1];
    return found;
}

static void print_json(const gs_network *network, const options *asked, const statistics *t) {
    const gs_description *facts = gs_describe(network);
    printf("{\"network\": ");
    print_string(facts->name);
    printf(", \"architecture_hash\": ");
    print_string(facts->architecture_hash);
    printf(", \"target\": ");
    print_string(facts->target);
    printf(", \"device\": ");
    print_string(gs_device(network));
    printf(", \"dtype\": \"%s\", \"batch\": %lld, \"threads\": %d, \"repetitions\": %d, \"warmup\": %d, ", facts->dtype,
           (long long)facts->batch, gs_threads(network), asked->repetitions, asked->warmup);
    printf("\"latency_ms\": {\"mean\": %.6f, \"min\": %.6f, \"p50\": %.6f, \"p90\": %.6f, \"p95\": %.6f, \"p99\": %.6f, "
           "\"max\": %.6f}, ",
           t->mean, t->min, t->p50, t->p90, t->p95, t->p99, t->max);
    printf("\"images_per_second\": %.3f, \"resident_kb\": %ld}\n", 1e3 * (double)facts->batch / t->mean,
           memory_kilobytes("VmRSS"));
}

static void print_csv(const gs_network *network, const options *asked, const statistics *t) {
    const gs_description *facts = gs_describe(network);
    printf("network,architecture_hash,target,dtype,batch,threads,repetitions,warmup,mean_ms,min_ms,p50_ms,p90_ms,p95_ms,"
           "p99_ms,max_ms,images_per_second,resident_kb\n");
    printf("%s,%s,%s,%s,%lld,%d,%d,%d,%.6f,%.6f,%.6f,%.6f,%.6f,%.6f,%.6f,%.3f,%ld\n", facts->name,
           facts->architecture_hash, facts->target, facts->dtype, (long long)facts->batch, gs_threads(network),
           asked->repetitions, asked->warmup, t->mean, t->min, t->p50, t->p90, t->p95, t->p99, t->max,
           1e3 * (double)facts->batch / t->mean, memory_kilobytes("VmRSS"));
}

static void print_text(const gs_network *network, const options *asked, const statistics *t) {
    const gs_description *facts = gs_describe(network);
    printf("%s for %s, batch %lld, %s, on %s: %d runs after %d to warm up\n", facts->name, facts->target,
           (long long)facts->batch, facts->dtype, gs_device(network), asked->repetitions, asked->warmup);
    printf("  latency [ms]   mean %.4f   min %.4f   p50 %.4f   p90 %.4f   p95 %.4f   p99 %.4f   max %.4f\n", t->mean,
           t->min, t->p50, t->p90, t->p95, t->p99, t->max);
    printf("  throughput     %.1f images per second\n", 1e3 * (double)facts->batch / t->mean);
}

int benchmark(gs_network *network, const options *asked) {
    arrays held = make_arrays(network);
    double *times = malloc((size_t)asked->repetitions * sizeof *times);
    if (times == NULL)
        stop("no memory for the times of %d runs", asked->repetitions);
    fill_inputs(network, asked->directory, &held);
    for (int i = 0; i < asked->warmup; i++)
        run_network(network, &held);
    for (int i = 0; i < asked->repetitions; i++) {
        double before = milliseconds();
        run_network(network, &held);
        times[i] = milliseconds() - before;
    }
    statistics found = summarize(times, asked->repetitions);
    if (asked->format == FORMAT_JSON)
        print_json(network, asked, &found);
    else if (asked->format == FORMAT_CSV)
        print_csv(network, asked, &found);
    else
        print_text(network, asked, &found);
    free(times);
    free_arrays(&held);
    return EXIT_FINE;
}

/* Cuts the middle out of what is too long for a column: both ends of a node's name tell something. */
static const char *shortened(const char *text, char *into, size_t width) {
    size_t length = strlen(text);
    if (length <= width)
        return text;
    size_t head = (width - 2) / 2, tail = width - 2 - head;
    memcpy(into, text, head);
    memcpy(into + head, "..", 2);
    memcpy(into + head + 2, text + length - tail, tail);
    into[width] = '\0';
    return into;
}

#define NODES_WIDTH 60

/* The median of each step over the runs. */
int show_profile(gs_network *network, const options *asked) {
    int steps = gs_step_count(network), runs = asked->repetitions > 0 ? asked->repetitions : 50;
    arrays held = make_arrays(network);
    double *seconds = malloc((size_t)runs * ((size_t)steps + 1) * sizeof *seconds);
    double *medians = calloc((size_t)steps + 1, sizeof *medians), *column = malloc((size_t)runs * sizeof *column);
    if (seconds == NULL || medians == NULL || column == NULL)
        stop("no memory for the times of %d runs of %d steps", runs, steps);
    fill_inputs(network, asked->directory, &held);
    for (int i = 0; i < asked->warmup; i++)
        run_network(network, &held);
    for (int i = 0; i < runs; i++)
        if (gs_profile(network, (const void *const *)held.inputs, held.input_bytes, held.outputs, held.output_bytes,
                       seconds + (size_t)i * (size_t)steps) != GS_OK)
            stop("%s", gs_error(network));
    double total = 0.0;
    for (int step = 0; step < steps; step++) {
        for (int i = 0; i < runs; i++)
            column[i] = seconds[(size_t)i * (size_t)steps + (size_t)step];
        qsort(column, (size_t)runs, sizeof *column, ascending);
        medians[step] = column[runs / 2];
        total += medians[step];
    }
    if (asked->format == FORMAT_JSON)
        printf("[");
    else if (asked->format == FORMAT_CSV)
        printf("step,kernel,threads,microseconds,macs,bytes,nodes\n");
    else
        printf("%5s  %10s  %6s  %8s  %8s  %3s  %-*s  %s\n", "step", "us", "share", "GMAC/s", "GB/s", "thr", NODES_WIDTH,
               "nodes", "kernel");
    for (int i = 0; i < steps; i++) {
        const gs_step *step = gs_step_at(network, i);
        double taken = medians[i] > 0.0 ? medians[i] : 1e-9;
        if (asked->format == FORMAT_JSON) {
            printf("%s{\"step\": %d, \"kernel\": ", i > 0 ? ",\n " : "", i);
            print_string(step->kernel);
            printf(", \"threads\": %d, \"microseconds\": %.3f, \"macs\": %lld, \"bytes\": %lld, \"nodes\": ",
                   step->threads, 1e6 * medians[i], (long long)step->macs, (long long)step->bytes);
            print_string(step->nodes);
            printf("}");
        } else if (asked->format == FORMAT_CSV) {
            printf("%d,%s,%d,%.3f,%lld,%lld,%s\n", i, step->kernel, step->threads, 1e6 * medians[i],
                   (long long)step->macs, (long long)step->bytes, step->nodes);
        } else {
            char nodes[NODES_WIDTH + 1];
            printf("%5d  %10.2f  %5.1f%%  %8.2f  %8.2f  %3d  %-*s  %s\n", i, 1e6 * medians[i],
                   total > 0.0 ? 100.0 * medians[i] / total : 0.0, 1e-9 * (double)step->macs / taken,
                   1e-9 * (double)step->bytes / taken, step->threads, NODES_WIDTH,
                   shortened(step->nodes, nodes, NODES_WIDTH), step->kernel);
        }
    }
    if (asked->format == FORMAT_JSON)
        printf("]\n");
    else if (asked->format == FORMAT_TEXT)
        printf("%5s  %10.2f  on %s, medians of %d runs\n", "all", 1e6 * total, gs_device(network), runs);
    free(seconds);
    free(medians);
    free(column);
    free_arrays(&held);
    return EXIT_FINE;
}
