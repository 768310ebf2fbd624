// The kernels for each kind of processor, and the choice among them.

// GCC 9 introduced __builtin_convertvector. Clang has no __builtin_shuffle and ignores the pragma of update.cc.
#if !defined(__GNUC__) || __GNUC__ < 9 || defined(__clang__)
#error GCC 9 or newer is needed
#endif

#include <omp.h>
#include <string.h>

#include "stage.h"

#define KERNELS_NAMESPACE portable
#define KERNELS_LANES 4
#define KERNELS_REGISTERS 16
#include "kernels.h"
#undef KERNELS_NAMESPACE
#undef KERNELS_LANES
#undef KERNELS_REGISTERS

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define KERNELS_NAMESPACE avx2
#define KERNELS_LANES 8
#define KERNELS_REGISTERS 16
#include "kernels.h"
#undef KERNELS_NAMESPACE
#undef KERNELS_LANES
#undef KERNELS_REGISTERS
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#define KERNELS_NAMESPACE avx512
#define KERNELS_LANES 16
#define KERNELS_REGISTERS 32
#include "kernels.h"
#undef KERNELS_NAMESPACE
#undef KERNELS_LANES
#undef KERNELS_REGISTERS
#pragma GCC pop_options
#endif

namespace mnist_trainer {

#if defined(__x86_64__)
// Backward on a processor with AVX-512. A run that fits into one vector of AVX2 would leave most of an AVX-512 vector empty:
// with one channel, AVX2 takes two thirds of the time.
static bool run_is_short(const Stage& stage) { return stage.run() <= avx2::kLanes; }

static int64_t backward_scratch_for_avx512(const Stage& stage, int threads) {
  return run_is_short(stage) ? avx2::backward_scratch(stage, threads) : avx512::backward_scratch(stage, threads);
}

static void backward_for_avx512(const Stage& stage, const BackwardArrays& arrays, float* scratch, int threads) {
  return run_is_short(stage) ? avx2::backward(stage, arrays, scratch, threads) : avx512::backward(stage, arrays, scratch, threads);
}

static bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#define KERNELS(name) {#name, name::forward_scratch, name::backward_scratch, name::forward, name::backward}

const Kernels* choose_kernels(const char* wanted) {
  static const Kernels for_all_processors = KERNELS(portable);
  const bool any = wanted == nullptr || *wanted == '\0';
#if defined(__x86_64__)
  static const Kernels for_avx2 = KERNELS(avx2);
  static const Kernels for_avx512 = {"avx512", avx512::forward_scratch, backward_scratch_for_avx512, avx512::forward,
                                     backward_for_avx512};
  if (has_avx512() && (any || strcmp(wanted, for_avx512.name) == 0)) return &for_avx512;
  if (has_avx2() && (any || strcmp(wanted, for_avx2.name) == 0)) return &for_avx2;
#endif
  return any || strcmp(wanted, for_all_processors.name) == 0 ? &for_all_processors : nullptr;
}

}  // namespace mnist_trainer
