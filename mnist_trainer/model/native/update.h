// Stochastic gradient descent as MXNet's multi_sgd_update and multi_sgd_mom_update do it, and whether a gradient is finite.
#ifndef MNIST_TRAINER_NATIVE_UPDATE_H_
#define MNIST_TRAINER_NATIVE_UPDATE_H_

#include <stdint.h>

namespace mnist_trainer {

// What one parameter is updated with.
struct Rates {
  float lr, wd, momentum, rescale_grad;
  float clip_gradient;  // negative: gradients are not clipped
};

// One parameter. `updated` may be `weight` itself; momentum is null where none is kept.
struct UpdateArrays {
  const float *weight, *gradient;
  float *momentum, *updated;
  int64_t size;
};

// Updates the parameter; returns whether every number of its gradient is finite.
bool update(const Rates& rates, const UpdateArrays& arrays);

}  // namespace mnist_trainer

#endif  // MNIST_TRAINER_NATIVE_UPDATE_H_
