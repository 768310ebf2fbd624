// The arithmetic of the fused stage, written once. kernels.cc includes this file once for each kind of processor, with
//   KERNELS_NAMESPACE  a name of its own for this copy
//   KERNELS_LANES      floats in a vector
// No header of the standard library may be used here: its inline functions would be compiled for the wrong processor, and
// the linker could keep that copy for the whole program.
//
// Images are worked on with the channels of a pixel side by side, (height, width, channels). Then a row of the kernel meets
// one run of 5 * channels floats without a gap, whatever the number of channels, and a patch is five such runs.

namespace mnist_trainer {
namespace KERNELS_NAMESPACE {

// Arrays come from MXNet and patches begin anywhere, hence the alignment of a float; may_alias: these point into float arrays.
typedef float Floats __attribute__((vector_size(KERNELS_LANES * 4), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(KERNELS_LANES * 4), aligned(4), may_alias));

static const int kLanes = KERNELS_LANES;
// Channels of a block: three vectors for each of the four positions of a cell are 12 accumulators, and with three vectors of
// weights and one pixel they fill 16 registers.
static const int kMostVectors = 3;

static inline const Floats& floats_at(const float* address) { return *reinterpret_cast<const Floats*>(address); }
static inline Floats& floats_at(float* address) { return *reinterpret_cast<Floats*>(address); }

static inline int vectors_of(int floats) { return (floats + kLanes - 1) / kLanes; }
static inline int padded(int floats) { return vectors_of(floats) * kLanes; }
// A copy of an image may be read, and its gradient written, up to a vector beyond its end.
static inline int padded_image(const Stage& stage) { return padded(stage.image_floats()) + kMostLanes; }

static void copy_channels_last(const Stage& stage, const float* image, float* copy) {
  const int pixels = stage.height * stage.width, channels = stage.channels;
  for (int pixel = 0; pixel < pixels; ++pixel)
    for (int channel = 0; channel < channels; ++channel) copy[pixel * channels + channel] = image[channel * pixels + pixel];
  for (int i = stage.image_floats(); i < padded_image(stage); ++i) copy[i] = 0;
}

static void copy_channels_first(const Stage& stage, const float* copy, float* image) {
  const int pixels = stage.height * stage.width, channels = stage.channels;
  for (int channel = 0; channel < channels; ++channel)
    for (int pixel = 0; pixel < pixels; ++pixel) image[channel * pixels + pixel] = copy[pixel * channels + channel];
}

// ---- forward -------------------------------------------------------------------------------------------------------------
//
// Vectors lie along the output channels. For some neighbouring cells of the pooled plane and up to three vectors of
// channels, the four convolutions of each cell are summed in registers; their maximum is then all that is stored.

// Weights as the loop below reads them: for each block of channels, each row of the kernel, each float of the run, the
// block's channels. Channels that do not exist have weights of zero.
static void pack_weights(const Stage& stage, const float* weight, const float* bias, float* packed, float* packed_bias) {
  const int all_vectors = vectors_of(stage.outputs);
  for (int first = 0; first < all_vectors; first += kMostVectors) {
    const int vectors = all_vectors - first < kMostVectors ? all_vectors - first : kMostVectors;
    for (int row = 0; row < kKernel; ++row)
      for (int column = 0; column < kKernel; ++column)
        for (int channel = 0; channel < stage.channels; ++channel)
          for (int lane = 0; lane < vectors * kLanes; ++lane) {
            const int output = first * kLanes + lane;
            *packed++ = output < stage.outputs
                            ? weight[((output * stage.channels + channel) * kKernel + row) * kKernel + column]
                            : 0;
          }
  }
  for (int output = 0; output < all_vectors * kLanes; ++output)
    packed_bias[output] = output < stage.outputs ? bias[output] : 0;
}

// Convolution, maximum and relu of `Cells` neighbouring cells and `Vectors` vectors of channels.
// image: the first pixel of the first cell's patch. pooled and winners: the first cell's channels; the next cell's are
// `pitch` further on.
template <int Vectors, int Cells>
static inline void convolve_cells(const Stage& stage, const float* image, const float* weights, const float* bias,
                                  float* pooled, int32_t* winners, int pitch) {
  const int row_floats = stage.width * stage.channels;
  const int run = stage.run();
  const int offsets[4] = {0, stage.channels, row_floats, row_floats + stage.channels};

  Floats sums[Cells][4][Vectors];
  for (int cell = 0; cell < Cells; ++cell)
    for (int position = 0; position < 4; ++position)
      for (int vector = 0; vector < Vectors; ++vector) sums[cell][position][vector] = floats_at(bias + vector * kLanes);

  for (int row = 0; row < kKernel; ++row, image += row_floats)
    for (int i = 0; i < run; ++i, weights += Vectors * kLanes)
      for (int cell = 0; cell < Cells; ++cell)
        for (int position = 0; position < 4; ++position) {
          const float pixel = image[i + 2 * cell * stage.channels + offsets[position]];
          for (int vector = 0; vector < Vectors; ++vector)
            sums[cell][position][vector] += pixel * floats_at(weights + vector * kLanes);
        }

  for (int cell = 0; cell < Cells; ++cell)
    for (int vector = 0; vector < Vectors; ++vector) {
      Floats best = sums[cell][0][vector];
      Integers winner = {};
      for (int position = 1; position < 4; ++position) {
        const Floats other = sums[cell][position][vector];
        // The first of equals wins, as in MXNet. A NaN is greater than nothing and nothing is greater than it: whoever
        // comes across one takes it and keeps it, so that it reaches the output.
        const Integers wins = (other > best) | (other != other);
        best = wins ? other : best;
        winner = wins ? (Integers{} + position) : winner;
      }
      const Integers closed = best <= 0;  // false of a NaN
      floats_at(pooled + cell * pitch + vector * kLanes) = closed ? Floats{} : best;
      *reinterpret_cast<Integers*>(winners + cell * pitch + vector * kLanes) = closed ? (Integers{} + kClosed) : winner;
    }
}

template <int Vectors>
static void convolve_plane(const Stage& stage, const float* image, const float* weights, const float* bias, float* pooled,
                           int32_t* winners, int pitch) {
  // With the four accumulators of one vector and one cell, each sum would wait for its last addition to end.
  const int kCells = Vectors == 1 ? 2 : 1;
  const int columns = stage.pooled_width();
  for (int row = 0; row < stage.pooled_height(); ++row) {
    const float* patch = image + 2 * row * stage.width * stage.channels;
    int column = 0;
    for (; column + kCells <= columns; column += kCells) {
      const int cell = row * columns + column;
      convolve_cells<Vectors, kCells>(stage, patch + 2 * column * stage.channels, weights, bias, pooled + cell * pitch,
                                      winners + cell * pitch, pitch);
    }
    for (; column < columns; ++column) {
      const int cell = row * columns + column;
      convolve_cells<Vectors, 1>(stage, patch + 2 * column * stage.channels, weights, bias, pooled + cell * pitch,
                                 winners + cell * pitch, pitch);
    }
  }
}

static int64_t forward_shared(const Stage& stage) {
  return static_cast<int64_t>(padded(stage.outputs)) * (stage.kernel_floats() + 1);
}

static int64_t forward_scratch_of_thread(const Stage& stage) {
  return padded_image(stage) + 2 * static_cast<int64_t>(stage.cells()) * padded(stage.outputs);
}

static int64_t forward_scratch(const Stage& stage, int threads) {
  return forward_shared(stage) + threads * forward_scratch_of_thread(stage);
}

static void forward_image(const Stage& stage, const ForwardArrays& arrays, int64_t number, const float* packed,
                          const float* packed_bias, float* scratch) {
  const int pitch = padded(stage.outputs), cells = stage.cells(), all_vectors = vectors_of(stage.outputs);
  float* image = scratch;
  float* pooled = image + padded_image(stage);
  int32_t* winners = reinterpret_cast<int32_t*>(pooled + static_cast<int64_t>(cells) * pitch);
  copy_channels_last(stage, arrays.images + number * stage.image_floats(), image);

  for (int first = 0; first < all_vectors; first += kMostVectors) {
    const int channel = first * kLanes;
    const float* weights = packed + static_cast<int64_t>(channel) * stage.kernel_floats();
    const float* bias = packed_bias + channel;
    switch (all_vectors - first) {
      case 1: convolve_plane<1>(stage, image, weights, bias, pooled + channel, winners + channel, pitch); break;
      case 2: convolve_plane<2>(stage, image, weights, bias, pooled + channel, winners + channel, pitch); break;
      default: convolve_plane<3>(stage, image, weights, bias, pooled + channel, winners + channel, pitch);
    }
  }

  for (int output = 0; output < stage.outputs; ++output) {
    float* pooled_plane = arrays.pooled + (number * stage.outputs + output) * cells;
    uint8_t* winners_plane = arrays.winners + (number * stage.outputs + output) * cells;
    for (int cell = 0; cell < cells; ++cell) {
      pooled_plane[cell] = pooled[cell * pitch + output];
      winners_plane[cell] = static_cast<uint8_t>(winners[cell * pitch + output]);
    }
  }
}

static void forward(const Stage& stage, const ForwardArrays& arrays, float* scratch, int threads) {
  float* packed = scratch;
  float* packed_bias = packed + static_cast<int64_t>(padded(stage.outputs)) * stage.kernel_floats();
  pack_weights(stage, arrays.weight, arrays.bias, packed, packed_bias);
  float* scratch_of_threads = scratch + forward_shared(stage);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t number = 0; number < stage.batch; ++number)
    forward_image(stage, arrays, number, packed, packed_bias,
                  scratch_of_threads + omp_get_thread_num() * forward_scratch_of_thread(stage));
}

// ---- backward ------------------------------------------------------------------------------------------------------------
//
// Only an open maximum has a gradient. It adds its gradient times its patch to its channel's weights, and its gradient times
// its channel's weights to its patch. Both are sums of runs times numbers, so one function does both: in the first the list
// goes through the cells of a channel and the target is the channel's weights; in the second it goes through the channels
// that a pixel won and the target is the pixel's patch. The target stays in registers while the list is gone through.
//
// A run is rounded up to whole vectors. What is added beyond its end is dropped with the padding of the weights' gradient, or
// is zero times the gradient, from the padding of the weights.

template <int Rows, int Vectors>
static inline void add_runs(const Maximum* maxima, int count, const float* source, int source_pitch, float* target,
                            int target_pitch) {
  Floats sums[Rows][Vectors];
  for (int row = 0; row < Rows; ++row)
    for (int vector = 0; vector < Vectors; ++vector) sums[row][vector] = Floats{};
  for (int i = 0; i < count; ++i) {
    const float* run = source + maxima[i].offset;
    const float gradient = maxima[i].gradient;
    for (int row = 0; row < Rows; ++row)
      for (int vector = 0; vector < Vectors; ++vector)
        sums[row][vector] += gradient * floats_at(run + row * source_pitch + vector * kLanes);
  }
  for (int row = 0; row < Rows; ++row)
    for (int vector = 0; vector < Vectors; ++vector)
      floats_at(target + row * target_pitch + vector * kLanes) += sums[row][vector];
}

// All five runs of all maxima in the list. With one channel a run is a single vector, and all five fit the registers.
static inline void add_patches(const Maximum* maxima, int count, int vectors, const float* source, int source_pitch,
                               float* target, int target_pitch) {
  if (vectors == 1) return add_runs<kRowsOfKernel, 1>(maxima, count, source, source_pitch, target, target_pitch);
  for (int row = 0; row < kRowsOfKernel; ++row, source += source_pitch, target += target_pitch) {
    int done = 0;
    for (; done + 8 <= vectors; done += 8)
      add_runs<1, 8>(maxima, count, source + done * kLanes, 0, target + done * kLanes, 0);
    const float* from = source + done * kLanes;
    float* to = target + done * kLanes;
    switch (vectors - done) {
      case 1: add_runs<1, 1>(maxima, count, from, 0, to, 0); break;
      case 2: add_runs<1, 2>(maxima, count, from, 0, to, 0); break;
      case 3: add_runs<1, 3>(maxima, count, from, 0, to, 0); break;
      case 4: add_runs<1, 4>(maxima, count, from, 0, to, 0); break;
      case 5: add_runs<1, 5>(maxima, count, from, 0, to, 0); break;
      case 6: add_runs<1, 6>(maxima, count, from, 0, to, 0); break;
      case 7: add_runs<1, 7>(maxima, count, from, 0, to, 0); break;
      default: break;
    }
  }
}

static int64_t floats_of_weights(const Stage& stage) {
  return static_cast<int64_t>(stage.outputs) * kRowsOfKernel * padded(stage.run());
}

// What a chunk of images sums up: the gradients of weights, in rows of whole vectors, and of biases.
static int64_t backward_sums(const Stage& stage) { return floats_of_weights(stage) + stage.outputs; }

static int64_t longest_list(const Stage& stage) { return stage.cells() > stage.outputs ? stage.cells() : stage.outputs; }

static int64_t backward_scratch_of_thread(const Stage& stage) {
  return 2 * static_cast<int64_t>(padded_image(stage)) +
         longest_list(stage) * static_cast<int64_t>(sizeof(Maximum) / sizeof(float));
}

static int64_t backward_scratch(const Stage& stage, int threads) {
  return floats_of_weights(stage) + stage.chunks() * backward_sums(stage) + threads * backward_scratch_of_thread(stage);
}

static void gradients_of_weights(const Stage& stage, const float* image, const float* gradient, const uint8_t* winners,
                                 Maximum* maxima, float* weight_sums, float* bias_sums) {
  const int row_floats = stage.width * stage.channels, pitch = padded(stage.run()), vectors = vectors_of(stage.run());
  for (int output = 0; output < stage.outputs; ++output) {
    int count = 0;
    float sum = 0;
    for (int row = 0; row < stage.pooled_height(); ++row)
      for (int column = 0; column < stage.pooled_width(); ++column, ++gradient, ++winners) {
        const int y = 2 * row + (*winners >> 1), x = 2 * column + (*winners & 1);
        // Written always and kept only if open: a jump that depends on the data would cost more.
        maxima[count].gradient = *gradient;
        maxima[count].offset = y * row_floats + x * stage.channels;
        count += *winners != kClosed;
      }
    for (int i = 0; i < count; ++i) sum += maxima[i].gradient;
    bias_sums[output] += sum;
    add_patches(maxima, count, vectors, image, row_floats, weight_sums + static_cast<int64_t>(output) * kRowsOfKernel * pitch,
                pitch);
  }
}

static void gradient_of_image(const Stage& stage, const float* packed, const float* gradient, const uint8_t* winners,
                              Maximum* maxima, float* image_sums) {
  const int row_floats = stage.width * stage.channels, pitch = padded(stage.run()), vectors = vectors_of(stage.run());
  const int cells = stage.cells();
  for (int i = 0; i < padded_image(stage); ++i) image_sums[i] = 0;
  for (int row = 0; row < stage.pooled_height(); ++row)
    for (int column = 0; column < stage.pooled_width(); ++column) {
      const int cell = row * stage.pooled_width() + column;
      for (int position = 0; position < 4; ++position) {
        int count = 0;
        for (int output = 0; output < stage.outputs; ++output) {
          maxima[count].gradient = gradient[output * cells + cell];
          maxima[count].offset = output * kRowsOfKernel * pitch;
          count += winners[output * cells + cell] == position;
        }
        if (count == 0) continue;
        const int y = 2 * row + (position >> 1), x = 2 * column + (position & 1);
        add_patches(maxima, count, vectors, packed, pitch, image_sums + y * row_floats + x * stage.channels, row_floats);
      }
    }
}

// The weights as rows of whole vectors, the rest zero; and back, for their gradient.
static void pack_rows(const Stage& stage, const float* weight, float* packed) {
  const int pitch = padded(stage.run());
  for (int output = 0; output < stage.outputs; ++output)
    for (int row = 0; row < kKernel; ++row, packed += pitch) {
      for (int i = stage.run(); i < pitch; ++i) packed[i] = 0;
      for (int column = 0; column < kKernel; ++column)
        for (int channel = 0; channel < stage.channels; ++channel)
          packed[column * stage.channels + channel] =
              weight[((output * stage.channels + channel) * kKernel + row) * kKernel + column];
    }
}

static void unpack_rows(const Stage& stage, const float* packed, float* weight) {
  const int pitch = padded(stage.run());
  for (int output = 0; output < stage.outputs; ++output)
    for (int row = 0; row < kKernel; ++row, packed += pitch)
      for (int column = 0; column < kKernel; ++column)
        for (int channel = 0; channel < stage.channels; ++channel)
          weight[((output * stage.channels + channel) * kKernel + row) * kKernel + column] =
              packed[column * stage.channels + channel];
}

static void backward(const Stage& stage, const BackwardArrays& arrays, float* scratch, int threads) {
  const int64_t sums_floats = backward_sums(stage);
  const int64_t plane = static_cast<int64_t>(stage.outputs) * stage.cells();
  const int chunks = stage.chunks();
  float* packed = scratch;
  float* sums = packed + floats_of_weights(stage);
  float* scratch_of_threads = sums + chunks * sums_floats;
  if (arrays.wants_images_gradient) pack_rows(stage, arrays.weight, packed);

#pragma omp parallel for num_threads(threads) schedule(static)
  for (int chunk = 0; chunk < chunks; ++chunk) {
    float* weight_sums = sums + chunk * sums_floats;
    float* bias_sums = weight_sums + floats_of_weights(stage);
    float* image = scratch_of_threads + omp_get_thread_num() * backward_scratch_of_thread(stage);
    float* image_sums = image + padded_image(stage);
    Maximum* maxima = reinterpret_cast<Maximum*>(image_sums + padded_image(stage));
    for (int64_t i = 0; i < sums_floats; ++i) weight_sums[i] = 0;
    const int64_t end = (chunk + 1) * stage.batch / chunks;
    for (int64_t number = chunk * stage.batch / chunks; number < end; ++number) {
      const float* gradient = arrays.pooled_gradient + number * plane;
      const uint8_t* winners = arrays.winners + number * plane;
      float* image_gradient = arrays.images_gradient + number * stage.image_floats();
      copy_channels_last(stage, arrays.images + number * stage.image_floats(), image);
      gradients_of_weights(stage, image, gradient, winners, maxima, weight_sums, bias_sums);
      if (arrays.wants_images_gradient) {
        gradient_of_image(stage, packed, gradient, winners, maxima, image_sums);
        copy_channels_first(stage, image_sums, image_gradient);
      } else {
        for (int i = 0; i < stage.image_floats(); ++i) image_gradient[i] = 0;
      }
    }
  }

  for (int chunk = 1; chunk < chunks; ++chunk)
    for (int64_t i = 0; i < sums_floats; ++i) sums[i] += sums[chunk * sums_floats + i];
  unpack_rows(stage, sums, arrays.weight_gradient);
  for (int output = 0; output < stage.outputs; ++output)
    arrays.bias_gradient[output] = sums[floats_of_weights(stage) + output];
}

}  // namespace KERNELS_NAMESPACE
}  // namespace mnist_trainer
