// The arithmetic of the update: the same operations in the same order as in MXNet, for the same bits.
//
// MXNet rounds a product before adding it. A fused multiply-add, which -march=native allows, rounds only once and must not be
// used here. It would not be faster either, because the loop waits for memory.
#pragma GCC optimize("fp-contract=off")

#include "update.h"

#include <string.h>

namespace mnist_trainer {

static inline float clipped(float number, float bound) { return number > bound ? bound : number < -bound ? -bound : number; }

template <bool Momentum, bool Clipped>
static bool update_each(const Rates& rates, const UpdateArrays& arrays) {
  const float decay = rates.lr * rates.wd, scaled = rates.lr * rates.rescale_grad;
  const float *weight = arrays.weight, *gradient = arrays.gradient;
  float *momentum = arrays.momentum, *updated = arrays.updated;
  uint32_t not_finite = 0;
  for (int64_t i = 0; i < arrays.size; ++i) {
    const float descent = Clipped ? rates.lr * clipped(rates.rescale_grad * gradient[i], rates.clip_gradient) : scaled * gradient[i];
    const float step = (Momentum ? rates.momentum * momentum[i] : 0) - decay * weight[i] - descent;
    uint32_t bits;
    memcpy(&bits, gradient + i, sizeof(bits));
    not_finite |= (bits & 0x7f800000) == 0x7f800000;  // the exponent of infinities and NaNs
    if (Momentum) momentum[i] = step;
    updated[i] = weight[i] + step;
  }
  return not_finite == 0;
}

bool update(const Rates& rates, const UpdateArrays& arrays) {
  const bool clips = rates.clip_gradient >= 0;
  if (arrays.momentum != nullptr) return clips ? update_each<true, true>(rates, arrays) : update_each<true, false>(rates, arrays);
  return clips ? update_each<false, true>(rates, arrays) : update_each<false, false>(rates, arrays);
}

}  // namespace mnist_trainer
