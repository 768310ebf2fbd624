// Stochastic gradient descent as in MXNet's multi_sgd_update and multi_sgd_mom_update, with a check for finite gradients.
#ifndef MNIST_TRAINER_NATIVE_UPDATE_H_
#define MNIST_TRAINER_NATIVE_UPDATE_H_

#include <stdint.h>

namespace mnist_trainer {

// The hyperparameters of one update.
struct Rates {
  float lr, wd, momentum, rescale_grad;
  float clip_gradient;  // negative: gradients are not clipped
};

// The arrays of one parameter. `updated` may be `weight` itself; `momentum` is null for updates without momentum.
struct UpdateArrays {
  const float *weight, *gradient;
  float *momentum, *updated;
  int64_t size;
};

// Updates the parameter. Returns true if all numbers of its gradient are finite.
bool update(const Rates& rates, const UpdateArrays& arrays);

}  // namespace mnist_trainer

#endif  // MNIST_TRAINER_NATIVE_UPDATE_H_
