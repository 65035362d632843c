/* Goes through all sequences of up to eight calls (one thread's or many threads', with or without a barrier asked for)
 * and checks the barriers that the executor keeps: every order that is asked for holds, none more is kept than asked,
 * and nothing of many threads is left unwaited for at the end. */
#include "cpu.c"

enum { LONGEST = 8 };

static gs_kernel kernel = {.name = "k", .pointers = 1, .tasks = 4};
static gs_call calls[LONGEST];
const gs_program gs_the_program = {.kernels = &kernel, .calls = calls};

int gs_fail(gs_network *network, int status, const char *format, ...) { return (void)network, (void)format, status; }

int main(void) {
    long checked = 0;
    for (int length = 1; length <= LONGEST; length++) {
        for (int code = 0; code < 1 << (2 * length); code++) {
            gs_program program = gs_the_program;
            unsigned char before[LONGEST] = {0};
            barriers chosen = {before, 0};
            program.call_count = length;
            for (int i = 0; i < length; i++) {
                calls[i].threads = code >> (2 * i) & 1 ? 4 : 1;
                calls[i].barrier = code >> (2 * i + 1) & 1;
            }
            choose_barriers(&program, 2, &chosen);
            int asked = 0, kept = 0, open = 0;
            for (int j = 0; j < length; j++) {
                asked += calls[j].barrier && j > 0;
                kept += before[j];
                open = (before[j] ? 0 : open) || calls[j].threads > 1;
                for (int i = 0; i < j; i++) {
                    int wanted = 0, between = 0;
                    for (int k = i + 1; k <= j; k++) {
                        wanted |= calls[k].barrier;
                        between |= before[k];
                    }
                    int alone = calls[i].threads == 1 && calls[j].threads == 1;
                    if (wanted && !between && !alone)
                        return printf("length %d, code %x: %d is not before %d\n", length, (unsigned)code, i, j), 1;
                }
            }
            if (kept > asked || open != chosen.at_end)
                return printf("length %d, code %x: %d kept, %d asked\n", length, (unsigned)code, kept, asked), 1;
            checked++;
        }
    }
    printf("%ld sequences\n", checked);
    return 0;
}
