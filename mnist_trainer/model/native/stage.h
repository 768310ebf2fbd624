// What both sides of the kernels agree on: the sizes of one fused stage, its scratch memory, and the codes of the winners.
#ifndef MNIST_TRAINER_NATIVE_STAGE_H_
#define MNIST_TRAINER_NATIVE_STAGE_H_

#include <stdint.h>

namespace mnist_trainer {

const int kKernel = 5;        // the convolution is 5x5, without padding, stride 1
const uint8_t kClosed = 4;    // code of a pooled value that relu set to zero; 0 to 3 are the positions, row by row
const int kMostChunks = 16;   // see backward: the parts of a batch whose gradients are summed one after the other

// images (batch, channels, height, width), weight (outputs, channels, 5, 5), pooled (batch, outputs, pooled_height, pooled_width)
struct Stage {
  int64_t batch;
  int channels, height, width, outputs;

  int pooled_height() const { return (height - kKernel + 1) / 2; }
  int pooled_width() const { return (width - kKernel + 1) / 2; }
  int cells() const { return pooled_height() * pooled_width(); }
  int image_floats() const { return channels * height * width; }
  int kernel_floats() const { return channels * kKernel * kKernel; }
  // A kernel's row, laid out as pixels with their channels side by side: this many floats without a gap.
  int run() const { return kKernel * channels; }
  // The batch is cut by its size alone, never by the number of threads, so that every sum has one order.
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

// One set of kernels, compiled for one kind of processor. Scratch is counted in floats.
struct Kernels {
  const char* name;
  int64_t (*forward_scratch)(const Stage& stage, int threads);
  int64_t (*backward_scratch)(const Stage& stage, int threads);
  void (*forward)(const Stage& stage, const ForwardArrays& arrays, float* scratch, int threads);
  void (*backward)(const Stage& stage, const BackwardArrays& arrays, float* scratch, int threads);
};

// The best kernels for this processor, or those called `wanted`; null when there are none of this name or the processor
// cannot run them.
const Kernels* choose_kernels(const char* wanted);

}  // namespace mnist_trainer

#endif  // MNIST_TRAINER_NATIVE_STAGE_H_
