// Runs all kernels on arrays of exactly the required sizes, so that the compiler's sanitizers detect accesses out of bounds.
#include <stdio.h>

#include <vector>

#include "stage.h"
#include "update.h"

using namespace mnist_trainer;

// Returns pseudorandom numbers from -1 to 1, the same sequence in every run.
static float number() {
  static uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(state >> 8) / (1 << 23) - 1;
}

// Allocates each array separately on the heap, so that a sanitizer detects an access before or after it.
static float* array(int64_t size) {
  float* floats = new float[size];
  for (int64_t i = 0; i < size; ++i) floats[i] = number();
  return floats;
}

static int run(const Kernels& kernels, const Stage& stage, int threads) {
  const int64_t images = stage.batch * stage.image_floats(), weights = int64_t(stage.outputs) * stage.kernel_floats();
  const int64_t pooled = stage.batch * stage.outputs * stage.cells();
  uint8_t* winners = new uint8_t[pooled];
  std::vector<float*> a = {array(images), array(weights), array(stage.outputs), array(pooled), array(pooled),
                           array(images), array(weights), array(stage.outputs)};
  float* scratch = array(kernels.forward_scratch(stage, threads));
  kernels.forward(stage, ForwardArrays{a[0], a[1], a[2], a[3], winners}, scratch, threads);
  delete[] scratch;
  for (bool wanted : {false, true}) {
    scratch = array(kernels.backward_scratch(stage, threads));
    kernels.backward(stage, BackwardArrays{a[4], a[0], a[1], winners, a[5], a[6], a[7], wanted}, scratch, threads);
    delete[] scratch;
  }
  delete[] winners;
  for (float* floats : a) delete[] floats;
  return 1;
}

static int run_update(bool momentum, float clip_gradient, int64_t size) {
  std::vector<float*> a = {array(size), array(size), array(size)};
  update(Rates{0.1f, 0.01f, 0.9f, 0.5f, clip_gradient}, UpdateArrays{a[0], a[1], momentum ? a[2] : nullptr, a[0], size});
  for (float* floats : a) delete[] floats;
  return 1;
}

int main() {
  int runs = 0;
  for (const char* name : {"portable", "avx2", "avx512"})
    if (const Kernels* kernels = choose_kernels(name))
      for (int64_t batch : {1, 3, 17})
        for (int channels : {1, 2, 10, 13})
          for (int outputs : {1, 10, 20, 25})
            for (int size : {6, 8, 14}) runs += run(*kernels, Stage{batch, channels, size, size + 2, outputs}, 2);
  for (bool momentum : {false, true})
    for (float clip_gradient : {-1.0f, 0.25f})
      for (int64_t size : {1, 1003}) runs += run_update(momentum, clip_gradient, size);
  printf("%d runs\n", runs);
}
