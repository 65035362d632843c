/* Stands for CUDA when kernels are compiled for a CPU: threads of a block are fibers, __syncthreads switches between them.
 *
 * Blocks run one after another. Shared memory is filled with NaNs before each block, so that a read of what no thread wrote
 * shows. Threads run in order from barrier to barrier or, to tell whether they race, in the opposite one. A barrier that
 * only some of a block's threads reach is an error, as it is on a GPU.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__F16C__)
#include <immintrin.h>
#endif

typedef unsigned int uint;
typedef unsigned short ushort;

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("cuda_shared")))

struct dim3 { uint x, y, z; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;

template <typename T, int N> struct alignas(sizeof(T) * N) Lanes;
template <typename T> struct alignas(sizeof(T) * 2) Lanes<T, 2> { T x, y; };
template <typename T> struct alignas(sizeof(T) * 4) Lanes<T, 4> { T x, y, z, w; };
typedef Lanes<float, 2> float2;
typedef Lanes<float, 4> float4;
typedef Lanes<int, 2> int2;
typedef Lanes<int, 4> int4;
typedef Lanes<uint, 2> uint2;
typedef Lanes<uint, 4> uint4;
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(uint x, uint y) { return {x, y}; }
static inline uint4 make_uint4(uint x, uint y, uint z, uint w) { return {x, y, z, w}; }

static inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
static inline float min(float a, float b) { return __builtin_fminf(a, b); }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline int min(int a, int b) { return a < b ? a : b; }
/* __shared__ alignas(64) float x[...]: g++ wants the attribute elsewhere */
#define alignas(bytes) __attribute__((aligned(bytes)))
#define expf __builtin_expf
#define powf __builtin_powf

static inline uint float_bits(float value) { uint bits; memcpy(&bits, &value, 4); return bits; }
static inline float bits_float(uint bits) { float value; memcpy(&value, &bits, 4); return value; }

/* float16 <-> float32, to the nearest, ties to even; by the CPU's own instructions where it has them */
#if defined(__F16C__)
static inline float half_to_float(ushort bits) { return _cvtsh_ss(bits); }
static inline ushort float_to_half(float value) { return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT); }
#else
static inline float half_to_float(ushort bits) {
  const uint sign = (uint)(bits & 0x8000u) << 16;
  const uint exponent = (bits >> 10) & 31u, fraction = bits & 0x3ffu;
  if (exponent == 31u) return bits_float(sign | 0x7f800000u | fraction << 13);
  if (exponent) return bits_float(sign | (exponent + 112u) << 23 | fraction << 13);
  const float magnitude = (float)fraction * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}
static inline uint rounded(uint fraction, int shift) {
  const uint whole = fraction >> shift, left = fraction & ((1u << shift) - 1), tie = 1u << (shift - 1);
  return whole + (left > tie || (left == tie && (whole & 1)));
}
static inline ushort float_to_half(float value) {
  const uint bits = float_bits(value), sign = (bits >> 16) & 0x8000u;
  const int exponent = (int)(bits >> 23 & 255u) - 127;
  const uint fraction = bits & 0x7fffffu;
  if (exponent == 128 && fraction) return (ushort)(sign | 0x7e00u | fraction >> 13);
  if (exponent >= 16) return (ushort)(sign | 0x7c00u);
  /* a fraction that rounds up to 2 carries into the exponent, as it should */
  if (exponent >= -14) return (ushort)(sign + ((uint)(exponent + 14) << 10) + rounded(fraction | 0x800000u, 13));
  if (exponent < -25) return (ushort)sign;
  return (ushort)(sign + rounded(fraction | 0x800000u, -1 - exponent));
}
#endif

/* The product of two float16 numbers is exact in float32. Where the sum is not, it is made odd, so that rounding it again
 * gives what rounding once would (Boldo and Melquiond, IEEE Transactions on Computers 57(4), 2008). */
static inline ushort multiply_add_half(ushort a, ushort b, ushort c) {
  const float product = half_to_float(a) * half_to_float(b), other = half_to_float(c);
  float sum = product + other;
  const float part = sum - product, error = (product - (sum - part)) + (other - part);
  const uint bits = float_bits(sum);
  if (error != 0 && error - error == 0 && !(bits & 1)) sum = bits_float((error > 0) == (sum > 0) ? bits + 1 : bits - 1);
  return float_to_half(sum);
}
static inline uint multiply_add_halves(uint a, uint b, uint c) {
  return multiply_add_half((ushort)a, (ushort)b, (ushort)c) |
         (uint)multiply_add_half((ushort)(a >> 16), (ushort)(b >> 16), (ushort)(c >> 16)) << 16;
}
static inline float low_half(uint pair) { return half_to_float((ushort)pair); }
static inline float high_half(uint pair) { return half_to_float((ushort)(pair >> 16)); }

/* Fibers. */

struct Fiber { void *stack; void *context; bool done; };

static void *scheduler_context;
static Fiber *fibers;
static uint current_fiber;
static bool backward;

extern "C" void run_backward(int whether) { backward = whether != 0; }

static const size_t STACK = 64 * 1024;

#if defined(__x86_64__)
extern "C" void switch_fiber(void **from, void *to);
__asm__(
    ".pushsection .text\n"
    ".local switch_fiber\n"
    ".type switch_fiber, @function\n"
    "switch_fiber:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".popsection\n");
static void start_fiber(Fiber *fiber, void (*entry)(void)) {
  void **top = (void **)(((uintptr_t)fiber->stack + STACK) & ~(uintptr_t)15);
  *--top = 0;                /* keeps the stack aligned as after a call */
  *--top = (void *)entry;    /* where the first switch returns to */
  for (int number = 0; number < 6; number++) *--top = 0;
  fiber->context = top;
}
#else
#include <ucontext.h>
static void switch_fiber(void **from, void *to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, (ucontext_t *)to);
}
static void start_fiber(Fiber *fiber, void (*entry)(void)) {
  ucontext_t *context = (ucontext_t *)fiber->stack;
  getcontext(context);
  context->uc_stack.ss_sp = (char *)fiber->stack + sizeof(ucontext_t);
  context->uc_stack.ss_size = STACK - sizeof(ucontext_t);
  context->uc_link = NULL;
  makecontext(context, entry, 0);
  fiber->context = context;
}
#endif

static __attribute__((noinline)) void __syncthreads() {
  switch_fiber(&fibers[current_fiber].context, scheduler_context);
}

typedef void (*Kernel)(void **arguments);
static Kernel running_kernel;
static void **running_arguments;

static void fiber_main() {
  running_kernel(running_arguments);
  fibers[current_fiber].done = true;
  switch_fiber(&fibers[current_fiber].context, scheduler_context);
  abort();
}

static void stand_at(uint thread) {
  threadIdx.x = thread % blockDim.x;
  threadIdx.y = thread / blockDim.x % blockDim.y;
  threadIdx.z = thread / (blockDim.x * blockDim.y);
}

/* Runs the threads of one block; returns whether all reached every barrier. */
static bool run_block(uint threads) {
  for (uint thread = 0; thread < threads; thread++) {
    fibers[thread].done = false;
    start_fiber(&fibers[thread], fiber_main);
  }
  for (;;) {
    uint done = 0;
    for (uint number = 0; number < threads; number++) {
      const uint thread = backward ? threads - 1 - number : number;
      current_fiber = thread;
      stand_at(thread);
      switch_fiber(&scheduler_context, fibers[thread].context);
      done += fibers[thread].done;
    }
    if (done == threads) return true;
    if (done) return false;
  }
}

extern "C" char __start_cuda_shared[] __attribute__((weak)), __stop_cuda_shared[] __attribute__((weak));

/* Launches a kernel; returns 0, or 1 if some threads missed a barrier. */
static int launch_kernel(Kernel kernel, bool barriers, const uint *grid, const uint *block, void **arguments) {
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  const uint threads = block[0] * block[1] * block[2];
  running_kernel = kernel;
  running_arguments = arguments;
  int failed = 0;
  if (barriers) {
    fibers = (Fiber *)malloc(threads * sizeof(Fiber));
    for (uint thread = 0; thread < threads; thread++) fibers[thread].stack = malloc(STACK);
  }
  for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
      for (blockIdx.x = 0; blockIdx.x < grid[0] && !failed; blockIdx.x++) {
        if (__start_cuda_shared) memset(__start_cuda_shared, 0xff, (size_t)(__stop_cuda_shared - __start_cuda_shared));
        if (barriers) {
          failed |= !run_block(threads);
        } else {
          for (uint number = 0; number < threads; number++) {
            stand_at(backward ? threads - 1 - number : number);
            kernel(arguments);
          }
        }
      }
  if (barriers) {
    for (uint thread = 0; thread < threads; thread++) free(fibers[thread].stack);
    free(fibers);
  }
  return failed;
}
