// The arithmetic of the fused stage. kernels.cc includes this file once for each kind of processor, with these macros:
//   KERNELS_NAMESPACE  the namespace of this copy
//   KERNELS_LANES      the number of floats in a vector
//   KERNELS_REGISTERS  the number of vector registers
// This file must not include headers of the standard library. Their inline functions would be compiled for this processor, and
// the linker could keep that copy for the whole program.

namespace mnist_trainer {
namespace KERNELS_NAMESPACE {

// aligned(4): arrays come from MXNet, and patches may begin at any float. may_alias: the vectors point into arrays of floats.
typedef float Floats __attribute__((vector_size(KERNELS_LANES * 4), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(KERNELS_LANES * 4), aligned(4), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(KERNELS_LANES), aligned(1), may_alias));
// Data is rearranged in groups of four on every processor.
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t FourNumbers __attribute__((vector_size(16)));

static const int kLanes = KERNELS_LANES;
// Maximum number of sums in registers. The other registers hold the addends.
static const int kMostSums = KERNELS_REGISTERS * 3 / 4;
static const int kPatch = kKernel + 1;  // the four convolutions of a cell cover 6x6 pixels

static inline const Floats& floats_at(const float* address) { return *reinterpret_cast<const Floats*>(address); }
static inline Floats& floats_at(float* address) { return *reinterpret_cast<Floats*>(address); }
static inline const Four& four_at(const float* address) { return *reinterpret_cast<const Four*>(address); }
static inline Four& four_at(float* address) { return *reinterpret_cast<Four*>(address); }

static inline int vectors_of(int floats) { return (floats + kLanes - 1) / kLanes; }
static inline int padded(int floats) { return vectors_of(floats) * kLanes; }

// ---- forward -------------------------------------------------------------------------------------------------------------
//
// A vector holds consecutive cells of the pooled plane. For each of the 36 pixels that the convolutions of a cell cover, a
// plane is laid out with this pixel of all cells in order. The kernels then read whole vectors and never move data within one.
// For a vector of cells and several output channels, the convolutions are summed in registers, and only their maximum is
// stored.

static const int kPlanes = kPatch * kPatch;
// Maximum number of output channels in a block. Each has four sums. A weight and four vectors of pixels need registers too.
static const int kMostOutputs = KERNELS_REGISTERS > 16 ? 5 : 3;

static inline int plane_pitch(const Stage& stage) { return padded(stage.cells()); }

// Returns every second of seven floats.
static inline Four every_second(const float* from) {
  return __builtin_shuffle(four_at(from), four_at(from + 3), FourNumbers{0, 2, 5, 7});
}

static void lay_out_planes(const Stage& stage, const float* image, float* planes) {
  const int pitch = plane_pitch(stage), rows = stage.pooled_height(), columns = stage.pooled_width();
  for (int channel = 0; channel < stage.channels; ++channel, image += stage.height * stage.width)
    for (int y = 0; y < kPatch; ++y, planes += kPatch * pitch)
      for (int row = 0; row < rows; ++row) {
        const float* from = image + (2 * row + y) * stage.width;
        float* to = planes + row * columns;
        int column = 0;
        for (; column + 4 <= columns; column += 4)
          for (int x = 0; x < kPatch; ++x) four_at(to + x * pitch + column) = every_second(from + 2 * column + x);
        for (; column < columns; ++column)
          for (int x = 0; x < kPatch; ++x) to[x * pitch + column] = from[2 * column + x];
      }
}

// The output channels are divided into the minimum number of blocks, of nearly equal size.
static inline int blocks_of(const Stage& stage) { return (stage.outputs + kMostOutputs - 1) / kMostOutputs; }
static inline int first_of_block(const Stage& stage, int block) {
  return static_cast<int>(static_cast<int64_t>(block) * stage.outputs / blocks_of(stage));
}

// Packs the weights in the order in which they are read: by block, then by weight of the kernel, then by channel of the block.
static void pack_blocks(const Stage& stage, const float* weight, float* packed) {
  for (int block = 0; block < blocks_of(stage); ++block)
    for (int i = 0; i < stage.kernel_floats(); ++i)
      for (int output = first_of_block(stage, block); output < first_of_block(stage, block + 1); ++output)
        *packed++ = weight[output * stage.kernel_floats() + i];
}

// Computes convolution, maximum and ReLU for a vector of cells and `Outputs` output channels.
// planes: the position of the vector in the first plane. pooled, winners: its position in the plane of the first output
// channel.
// cells: the number of cells from this position on. Results of the vector beyond them are not stored.
template <int Outputs>
static inline void convolve_cells(const Stage& stage, const float* planes, const float* weights, const float* bias,
                                  float* pooled, uint8_t* winners, int cells) {
  const int pitch = plane_pitch(stage);
  Floats sums[4][Outputs];
  for (int position = 0; position < 4; ++position)
    for (int output = 0; output < Outputs; ++output) sums[position][output] = Floats{} + bias[output];

  for (int channel = 0; channel < stage.channels; ++channel, planes += kPlanes * pitch)
    for (int row = 0; row < kKernel; ++row) {
      const float* upper = planes + row * kPatch * pitch;
      const float* lower = upper + kPatch * pitch;
#pragma GCC unroll 1  // otherwise the sums do not stay in registers
      for (int column = 0; column < kKernel; ++column, upper += pitch, lower += pitch, weights += Outputs) {
        const Floats pixels[4] = {floats_at(upper), floats_at(upper + pitch), floats_at(lower), floats_at(lower + pitch)};
        for (int output = 0; output < Outputs; ++output)
          for (int position = 0; position < 4; ++position) sums[position][output] += weights[output] * pixels[position];
      }
    }

#pragma GCC unroll 8
  for (int output = 0; output < Outputs; ++output, pooled += stage.cells(), winners += stage.cells()) {
    Floats best = sums[0][output];
    Integers winner = {};
    for (int position = 1; position < 4; ++position) {
      const Floats other = sums[position][output];
      // The first of equal values wins, as in MXNet. Comparisons with NaN are false, so a NaN is taken explicitly. It then
      // remains the maximum and reaches the output.
      const Integers wins = (other > best) | (other != other);
      best = wins ? other : best;
      winner = wins ? (Integers{} + position) : winner;
    }
    const Integers closed = best <= 0;  // false for a NaN
    best = closed ? Floats{} : best;
    const Bytes codes = __builtin_convertvector(closed ? (Integers{} + kClosed) : winner, Bytes);
    if (cells >= kLanes) {
      floats_at(pooled) = best;
      *reinterpret_cast<Bytes*>(winners) = codes;
    } else {
      for (int i = 0; i < cells; ++i) {
        pooled[i] = best[i];
        winners[i] = codes[i];
      }
    }
  }
}

template <int Outputs>
static void convolve_planes(const Stage& stage, const float* planes, const float* weights, const float* bias, float* pooled,
                            uint8_t* winners) {
  for (int cell = 0; cell < stage.cells(); cell += kLanes)
    convolve_cells<Outputs>(stage, planes + cell, weights, bias, pooled + cell, winners + cell, stage.cells() - cell);
}

static inline int64_t forward_shared(const Stage& stage) { return padded(stage.outputs * stage.kernel_floats()); }

static inline int64_t forward_scratch_of_thread(const Stage& stage) {
  return static_cast<int64_t>(stage.channels) * kPlanes * plane_pitch(stage);
}

static int64_t forward_scratch(const Stage& stage, int threads) {
  return forward_shared(stage) + threads * forward_scratch_of_thread(stage);
}

static void forward_image(const Stage& stage, const ForwardArrays& arrays, int64_t number, const float* packed, float* planes) {
  lay_out_planes(stage, arrays.images + number * stage.image_floats(), planes);
  for (int block = 0; block < blocks_of(stage); ++block) {
    const int first = first_of_block(stage, block);
    const float* weights = packed + static_cast<int64_t>(first) * stage.kernel_floats();
    const float* bias = arrays.bias + first;
    float* pooled = arrays.pooled + (number * stage.outputs + first) * stage.cells();
    uint8_t* winners = arrays.winners + (number * stage.outputs + first) * stage.cells();
    switch (first_of_block(stage, block + 1) - first) {
      case 1: convolve_planes<1>(stage, planes, weights, bias, pooled, winners); break;
      case 2: convolve_planes<2>(stage, planes, weights, bias, pooled, winners); break;
      case 3: convolve_planes<3>(stage, planes, weights, bias, pooled, winners); break;
      case 4: convolve_planes<4>(stage, planes, weights, bias, pooled, winners); break;
      default: convolve_planes<5>(stage, planes, weights, bias, pooled, winners);
    }
  }
}

static void forward(const Stage& stage, const ForwardArrays& arrays, float* scratch, int threads) {
  float* packed = scratch;
  float* scratch_of_threads = scratch + forward_shared(stage);
  pack_blocks(stage, arrays.weight, packed);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t number = 0; number < stage.batch; ++number)
    forward_image(stage, arrays, number, packed, scratch_of_threads + omp_get_thread_num() * forward_scratch_of_thread(stage));
}

// ---- backward ------------------------------------------------------------------------------------------------------------
//
// Only an open maximum, which ReLU has not set to zero, has a gradient. Its gradient times its patch is added to the gradient
// of its channel's weights, and its gradient times its channel's weights is added to the gradient of its patch. Both are sums
// of runs times numbers, so one function computes both. For the weights, the list contains the cells of a channel, and the
// target is the gradient of the channel's weights. For the images, the list contains the channels of a cell, and the target is
// the gradient of the cell's 6x6 pixels. The target stays in registers during the whole list.
//
// The layout of images is (height, width, channels): the channels of a pixel are adjacent. A row of the kernel then corresponds
// to one run of 5 * channels consecutive floats, for any number of channels.
//
// A run is rounded up to whole vectors. The values beyond its end are discarded with the padding of the weights' gradient, or
// are zero, because the padding of the weights is zero.

// Transposes: to[column][row] = from[row][column]. Works on squares of four by four; if these do not fit evenly, some numbers
// are copied twice.
static void transpose(const float* from, int rows, int columns, float* to) {
  if (rows < 4 || columns < 4) {
    for (int row = 0; row < rows; ++row)
      for (int column = 0; column < columns; ++column) to[column * rows + row] = from[row * columns + column];
    return;
  }
  for (int next_row = 0; next_row < rows; next_row += 4)
    for (int next_column = 0; next_column < columns; next_column += 4) {
      const int row = next_row + 4 <= rows ? next_row : rows - 4;
      const int column = next_column + 4 <= columns ? next_column : columns - 4;
      const float* source = from + row * columns + column;
      float* target = to + column * rows + row;
      const Four a = four_at(source), b = four_at(source + columns);
      const Four c = four_at(source + 2 * columns), d = four_at(source + 3 * columns);
      const Four ab_left = __builtin_shuffle(a, b, FourNumbers{0, 4, 1, 5});
      const Four ab_right = __builtin_shuffle(a, b, FourNumbers{2, 6, 3, 7});
      const Four cd_left = __builtin_shuffle(c, d, FourNumbers{0, 4, 1, 5});
      const Four cd_right = __builtin_shuffle(c, d, FourNumbers{2, 6, 3, 7});
      four_at(target) = __builtin_shuffle(ab_left, cd_left, FourNumbers{0, 1, 4, 5});
      four_at(target + rows) = __builtin_shuffle(ab_left, cd_left, FourNumbers{2, 3, 6, 7});
      four_at(target + 2 * rows) = __builtin_shuffle(ab_right, cd_right, FourNumbers{0, 1, 4, 5});
      four_at(target + 3 * rows) = __builtin_shuffle(ab_right, cd_right, FourNumbers{2, 3, 6, 7});
    }
}

// A list of open maxima: their gradients, and the offsets of the runs that are multiplied by them.
struct Maxima {
  float* gradients;
  int32_t* offsets;
  int count;
};

// Ends a list with maxima whose gradient is zero, for loops that process several maxima at a time.
static inline void end_list(Maxima* maxima, int count) {
  maxima->count = count;
  floats_at(maxima->gradients + count) = Floats{};
  maxima->offsets[count] = 0;
}

static inline int longest_list(const Stage& stage) { return stage.cells() > stage.outputs ? stage.cells() : stage.outputs; }
static inline int list_floats(const Stage& stage) { return padded(longest_list(stage)) + kLanes; }

// Adds runs to `Rows` rows of `Vectors` vectors. If there are enough registers, every second maximum has its own sums, so that
// an addition does not have to wait for the previous one.
template <int Rows, int Vectors>
static inline void add_runs(const Maxima& maxima, const float* source, int source_pitch, float* target, int target_pitch) {
  const int kSets = 2 * Rows * Vectors <= kMostSums ? 2 : 1;
  Floats sums[kSets][Rows][Vectors];
#pragma GCC unroll 2
  for (int set = 0; set < kSets; ++set)
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
      for (int vector = 0; vector < Vectors; ++vector) sums[set][row][vector] = Floats{};

  for (int i = 0; i < maxima.count; i += kSets)
#pragma GCC unroll 2
    for (int set = 0; set < kSets; ++set) {
      const float* run = source + maxima.offsets[i + set];
      const float gradient = maxima.gradients[i + set];
#pragma GCC unroll 8
      for (int row = 0; row < Rows; ++row, run += source_pitch)
#pragma GCC unroll 8
        for (int vector = 0; vector < Vectors; ++vector)
          sums[set][row][vector] += gradient * floats_at(run + vector * kLanes);
    }

#pragma GCC unroll 8
  for (int row = 0; row < Rows; ++row, target += target_pitch)
#pragma GCC unroll 8
    for (int vector = 0; vector < Vectors; ++vector) {
      Floats sum = sums[0][row][vector];
      if (kSets > 1) sum += sums[kSets - 1][row][vector];
      floats_at(target + vector * kLanes) += sum;
    }
}

// Adds runs to all rows together if the registers can hold the sums, otherwise to one row after the other.
template <int Rows, int Vectors>
static inline void add_rows(const Maxima& maxima, const float* source, int source_pitch, float* target, int target_pitch) {
  const int kTogether = Rows * Vectors <= kMostSums ? Rows : 1;
  for (int row = 0; row < Rows; row += kTogether)
    add_runs<kTogether, Vectors>(maxima, source + row * source_pitch, source_pitch, target + row * target_pitch, target_pitch);
}

template <int Rows>
static inline void add_patches(const Maxima& maxima, int vectors, const float* source, int source_pitch, float* target,
                               int target_pitch) {
  for (; vectors > 8; vectors -= 8, source += 8 * kLanes, target += 8 * kLanes)
    add_rows<Rows, 8>(maxima, source, source_pitch, target, target_pitch);
  switch (vectors) {
    case 1: return add_rows<Rows, 1>(maxima, source, source_pitch, target, target_pitch);
    case 2: return add_rows<Rows, 2>(maxima, source, source_pitch, target, target_pitch);
    case 3: return add_rows<Rows, 3>(maxima, source, source_pitch, target, target_pitch);
    case 4: return add_rows<Rows, 4>(maxima, source, source_pitch, target, target_pitch);
    case 5: return add_rows<Rows, 5>(maxima, source, source_pitch, target, target_pitch);
    case 6: return add_rows<Rows, 6>(maxima, source, source_pitch, target, target_pitch);
    case 7: return add_rows<Rows, 7>(maxima, source, source_pitch, target, target_pitch);
    default: return add_rows<Rows, 8>(maxima, source, source_pitch, target, target_pitch);
  }
}

// Lists the open maxima of an output channel. Their offsets are those of their patches in the image.
// This function and list_outputs are not inlined, so that their loops can use all registers.
static __attribute__((noinline)) void list_cells(const Stage& stage, const float* gradient, const uint8_t* winners,
                                                 Maxima* maxima) {
  // Local copies, which a store through a pointer cannot change.
  const int rows = stage.pooled_height(), columns = stage.pooled_width(), channels = stage.channels;
  const int row_floats = stage.width * channels;
  const int shifts[] = {0, channels, row_floats, row_floats + channels, 0};
  float* gradients = maxima->gradients;
  int32_t* offsets = maxima->offsets;
  int count = 0;
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column) {
      // Always written, but counted only if open: a branch that depends on the data would be slower.
      const int winner = *winners++;
      gradients[count] = *gradient++;
      offsets[count] = 2 * (row * row_floats + column * channels) + shifts[winner];
      count += winner != kClosed;
    }
  end_list(maxima, count);
}

// The weights for the gradient of an image: each row of a kernel is padded with zeros to whole vectors, and a row of zeros
// precedes and follows the five rows. The six rows from the first on belong to a maximum in the lower positions of a cell; the
// six rows from the second on belong to a maximum in the upper positions.
static inline int run_pitch(const Stage& stage) { return padded(stage.run()); }
static inline int weights_floats(const Stage& stage) { return (kKernel + 2) * run_pitch(stage); }

static void pack_weights(const Stage& stage, const float* weight, float* packed) {
  for (int64_t i = 0; i < static_cast<int64_t>(stage.outputs) * weights_floats(stage); ++i) packed[i] = 0;
  for (int output = 0; output < stage.outputs; ++output, packed += weights_floats(stage))
    for (int channel = 0; channel < stage.channels; ++channel)
      for (int row = 1; row <= kKernel; ++row)
        for (int column = 0; column < kKernel; ++column)
          packed[row * run_pitch(stage) + column * stage.channels + channel] = *weight++;
}

// Lists the open maxima of a cell in the left positions, and those in the right positions. `gradient` and `winners` point to
// the cell in the first output channel. The offsets are those of the channels' weights.
static __attribute__((noinline)) void list_outputs(const Stage& stage, const float* gradient, const uint8_t* winners,
                                                   Maxima* left, Maxima* right) {
  const int outputs = stage.outputs, cells = stage.cells(), pitch = run_pitch(stage), floats = weights_floats(stage);
  float *left_gradients = left->gradients, *right_gradients = right->gradients;
  int32_t *left_offsets = left->offsets, *right_offsets = right->offsets;
  int lefts = 0, rights = 0;
  for (int output = 0; output < outputs; ++output, gradient += cells, winners += cells) {
    const int winner = *winners;
    left_gradients[lefts] = right_gradients[rights] = *gradient;
    left_offsets[lefts] = right_offsets[rights] = output * floats + (winner < 2 ? pitch : 0);
    lefts += (winner == 0) | (winner == 2);
    rights += (winner == 1) | (winner == 3);
  }
  end_list(left, lefts);
  end_list(right, rights);
}

// The sums over a chunk of images: the gradients of the weights, in rows of whole vectors, and of the biases, one vector for
// each output channel.
static inline int64_t weight_sums_floats(const Stage& stage) {
  return static_cast<int64_t>(stage.outputs) * kKernel * run_pitch(stage);
}
static inline int64_t sums_floats(const Stage& stage) {
  return weight_sums_floats(stage) + static_cast<int64_t>(stage.outputs) * kLanes;
}

// Adds the gradients of one image to the sums. The layout of image, and of image_sums below, is (height, width, channels).
static void add_to_sums(const Stage& stage, const float* image, const float* gradient, const uint8_t* winners, Maxima maxima,
                        float* weight_sums, float* bias_sums) {
  const int row_floats = stage.width * stage.channels, pitch = run_pitch(stage), vectors = vectors_of(stage.run());
  for (int output = 0; output < stage.outputs; ++output, gradient += stage.cells(), winners += stage.cells()) {
    list_cells(stage, gradient, winners, &maxima);
    add_patches<kKernel>(maxima, vectors, image, row_floats, weight_sums, pitch);
    for (int i = 0; i < maxima.count; i += kLanes) floats_at(bias_sums) += floats_at(maxima.gradients + i);
    weight_sums += kKernel * pitch;
    bias_sums += kLanes;
  }
}

static void unpack_sums(const Stage& stage, const float* weight_sums, const float* bias_sums, float* weight, float* bias) {
  for (int output = 0; output < stage.outputs; ++output, weight_sums += kKernel * run_pitch(stage), bias_sums += kLanes) {
    for (int channel = 0; channel < stage.channels; ++channel)
      for (int row = 0; row < kKernel; ++row)
        for (int column = 0; column < kKernel; ++column)
          *weight++ = weight_sums[row * run_pitch(stage) + column * stage.channels + channel];
    bias[output] = 0;
    for (int lane = 0; lane < kLanes; ++lane) bias[output] += bias_sums[lane];
  }
}

static void sum_up_image(const Stage& stage, const float* packed, const float* gradient, const uint8_t* winners, Maxima left,
                         Maxima right, float* image_sums) {
  const int row_floats = stage.width * stage.channels, pitch = run_pitch(stage), vectors = vectors_of(stage.run());
  for (int i = 0; i < stage.image_floats(); ++i) image_sums[i] = 0;
  for (int row = 0; row < stage.pooled_height(); ++row)
    for (int column = 0; column < stage.pooled_width(); ++column, ++gradient, ++winners) {
      float* patch = image_sums + 2 * (row * row_floats + column * stage.channels);
      list_outputs(stage, gradient, winners, &left, &right);
      add_patches<kPatch>(left, vectors, packed, pitch, patch, row_floats);
      add_patches<kPatch>(right, vectors, packed, pitch, patch + stage.channels, row_floats);
    }
}

// Size of an image or its gradient with one more vector at the end, which the kernels may read or write.
static inline int64_t padded_image(const Stage& stage) { return padded(stage.image_floats()) + kLanes; }

static inline int64_t backward_shared(const Stage& stage) {
  return static_cast<int64_t>(stage.outputs) * weights_floats(stage) + stage.chunks() * sums_floats(stage);
}

static inline int64_t backward_scratch_of_thread(const Stage& stage) {
  return 2 * padded_image(stage) + 4 * static_cast<int64_t>(list_floats(stage));
}

static int64_t backward_scratch(const Stage& stage, int threads) {
  return backward_shared(stage) + threads * backward_scratch_of_thread(stage);
}

static void backward_chunk(const Stage& stage, const BackwardArrays& arrays, int chunk, const float* packed, float* weight_sums,
                           float* scratch) {
  const int pixels = stage.height * stage.width;
  const int64_t plane = static_cast<int64_t>(stage.outputs) * stage.cells();
  float* image = scratch;
  float* image_sums = image + padded_image(stage);
  float* lists = image_sums + padded_image(stage);
  Maxima maxima[2];
  for (int i = 0; i < 2; ++i, lists += 2 * list_floats(stage))
    maxima[i] = Maxima{lists, reinterpret_cast<int32_t*>(lists + list_floats(stage)), 0};
  for (int64_t i = stage.image_floats(); i < padded_image(stage); ++i) image[i] = 0;
  for (int64_t i = 0; i < sums_floats(stage); ++i) weight_sums[i] = 0;

  const int64_t end = (chunk + 1) * stage.batch / stage.chunks();
  for (int64_t number = chunk * stage.batch / stage.chunks(); number < end; ++number) {
    const float* gradient = arrays.pooled_gradient + number * plane;
    const uint8_t* winners = arrays.winners + number * plane;
    float* image_gradient = arrays.images_gradient + number * stage.image_floats();
    transpose(arrays.images + number * stage.image_floats(), stage.channels, pixels, image);
    add_to_sums(stage, image, gradient, winners, maxima[0], weight_sums, weight_sums + weight_sums_floats(stage));
    if (arrays.wants_images_gradient) {
      sum_up_image(stage, packed, gradient, winners, maxima[0], maxima[1], image_sums);
      transpose(image_sums, pixels, stage.channels, image_gradient);
    } else {
      for (int i = 0; i < stage.image_floats(); ++i) image_gradient[i] = 0;
    }
  }
}

static void backward(const Stage& stage, const BackwardArrays& arrays, float* scratch, int threads) {
  const int chunks = stage.chunks();
  const int64_t sums_size = sums_floats(stage);
  float* packed = scratch;
  float* sums = packed + static_cast<int64_t>(stage.outputs) * weights_floats(stage);
  float* scratch_of_threads = scratch + backward_shared(stage);
  if (arrays.wants_images_gradient) pack_weights(stage, arrays.weight, packed);

#pragma omp parallel for num_threads(threads) schedule(static)
  for (int chunk = 0; chunk < chunks; ++chunk)
    backward_chunk(stage, arrays, chunk, packed, sums + chunk * sums_size,
                   scratch_of_threads + omp_get_thread_num() * backward_scratch_of_thread(stage));

  for (int chunk = 1; chunk < chunks; ++chunk)
    for (int64_t i = 0; i < sums_size; ++i) sums[i] += sums[chunk * sums_size + i];
  unpack_sums(stage, sums, sums + weight_sums_floats(stage), arrays.weight_gradient, arrays.bias_gradient);
}

}  // namespace KERNELS_NAMESPACE
}  // namespace mnist_trainer
