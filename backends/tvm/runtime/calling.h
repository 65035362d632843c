/* calling.h: calls of kernels through pointers. */
#ifndef GENSYNTH_CALLING_H
#define GENSYNTH_CALLING_H

#include "program.h"

#include <stdlib.h>

typedef void *P;
typedef int32_t I;

/* Kernels are plain C functions of 1 to GS_MAX_POINTERS pointers, of the first task to do and the one after the last. */
static inline void call_kernel(gs_function f, int pointers, void *const *a, int begin, int end) {
    switch (pointers) {
    case 1: ((void (*)(P, I, I))f)(a[0], begin, end); break;
    case 2: ((void (*)(P, P, I, I))f)(a[0], a[1], begin, end); break;
    case 3: ((void (*)(P, P, P, I, I))f)(a[0], a[1], a[2], begin, end); break;
    case 4: ((void (*)(P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], begin, end); break;
    case 5: ((void (*)(P, P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], a[4], begin, end); break;
    case 6: ((void (*)(P, P, P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], a[4], a[5], begin, end); break;
    case 7: ((void (*)(P, P, P, P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], begin, end); break;
    case 8:
        ((void (*)(P, P, P, P, P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], begin, end);
        break;
    case 9:
        ((void (*)(P, P, P, P, P, P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], begin,
                                                       end);
        break;
    case 10:
        ((void (*)(P, P, P, P, P, P, P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9],
                                                          begin, end);
        break;
    case 11:
        ((void (*)(P, P, P, P, P, P, P, P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8],
                                                             a[9], a[10], begin, end);
        break;
    case 12:
        ((void (*)(P, P, P, P, P, P, P, P, P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8],
                                                                a[9], a[10], a[11], begin, end);
        break;
    case 13:
        ((void (*)(P, P, P, P, P, P, P, P, P, P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7],
                                                                   a[8], a[9], a[10], a[11], a[12], begin, end);
        break;
    case 14:
        ((void (*)(P, P, P, P, P, P, P, P, P, P, P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7],
                                                                      a[8], a[9], a[10], a[11], a[12], a[13], begin,
                                                                      end);
        break;
    case 15:
        ((void (*)(P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, I, I))f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6],
                                                                         a[7], a[8], a[9], a[10], a[11], a[12], a[13],
                                                                         a[14], begin, end);
        break;
    case 16:
        ((void (*)(P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, I, I))f)(
            a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15],
            begin, end);
        break;
    default: abort(); /* the generator of network.c makes no other */
    }
}

#endif
