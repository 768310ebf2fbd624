// The interface of the kernels: the sizes of one fused stage, its arrays, its scratch memory, and the codes of the winners.
#ifndef MNIST_TRAINER_NATIVE_STAGE_H_
#define MNIST_TRAINER_NATIVE_STAGE_H_

#include <stdint.h>

namespace mnist_trainer {

const int kKernel = 5;        // the convolution is 5x5, without padding, stride 1
const uint8_t kClosed = 4;    // code of a pooled value that ReLU set to zero; 0 to 3 are the positions, row by row
const int kMostChunks = 16;   // maximum number of parts of a batch in backward; the gradients of parts are summed in order

// images (batch, channels, height, width), weight (outputs, channels, 5, 5), pooled (batch, outputs, pooled_height,
// pooled_width)
struct Stage {
  int64_t batch;
  int channels, height, width, outputs;

  int pooled_height() const { return (height - kKernel + 1) / 2; }
  int pooled_width() const { return (width - kKernel + 1) / 2; }
  int cells() const { return pooled_height() * pooled_width(); }
  int image_floats() const { return channels * height * width; }
  int kernel_floats() const { return channels * kKernel * kKernel; }
  // Number of consecutive floats in one row of a kernel, if the channels of a pixel are adjacent.
  int run() const { return kKernel * channels; }
  // The chunks depend only on the size of the batch, not on the number of threads. The order of every sum is then fixed.
  int chunks() const { return batch < kMostChunks ? static_cast<int>(batch) : kMostChunks; }
};

struct ForwardArrays {
  const float *images, *weight, *bias;
  float* pooled;
  uint8_t* winners;
};

struct BackwardArrays {
  const float *pooled_gradient, *images, *weight;
  const uint8_t* winners;
  float *images_gradient, *weight_gradient, *bias_gradient;
  bool wants_images_gradient;  // otherwise images_gradient is filled with zeros
};

// One set of kernels, compiled for one kind of processor. The unit of scratch memory is a float.
struct Kernels {
  const char* name;
  int64_t (*forward_scratch)(const Stage& stage, int threads);
  int64_t (*backward_scratch)(const Stage& stage, int threads);
  void (*forward)(const Stage& stage, const ForwardArrays& arrays, float* scratch, int threads);
  void (*backward)(const Stage& stage, const BackwardArrays& arrays, float* scratch, int threads);
};

// Returns the best kernels for this processor, or the kernels with the name `wanted`; null if there are no such kernels or the
// processor cannot run them.
const Kernels* choose_kernels(const char* wanted);

}  // namespace mnist_trainer

#endif  // MNIST_TRAINER_NATIVE_STAGE_H_
