// The arithmetic of the fused stage, written once. kernels.cc includes this file once for each kind of processor, with
//   KERNELS_NAMESPACE  a name of its own for this copy
//   KERNELS_LANES      floats in a vector
//   KERNELS_REGISTERS  how many vectors the processor holds
// No header of the standard library may be used here: its inline functions would be compiled for the wrong processor, and
// the linker could keep that copy for the whole program.

namespace mnist_trainer {
namespace KERNELS_NAMESPACE {

// Arrays come from MXNet and patches begin anywhere, hence the alignment of a float; may_alias: these point into float arrays.
typedef float Floats __attribute__((vector_size(KERNELS_LANES * 4), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(KERNELS_LANES * 4), aligned(4), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(KERNELS_LANES), aligned(1), may_alias));
// What is rearranged goes four by four on every processor.
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t FourNumbers __attribute__((vector_size(16)));

static const int kLanes = KERNELS_LANES;
// Sums kept in registers at once; the rest is for what is added to them.
static const int kMostSums = KERNELS_REGISTERS * 3 / 4;
static const int kPatch = kKernel + 1;  // the four convolutions of a cell see 6x6 pixels

static inline const Floats& floats_at(const float* address) { return *reinterpret_cast<const Floats*>(address); }
static inline Floats& floats_at(float* address) { return *reinterpret_cast<Floats*>(address); }
static inline const Four& four_at(const float* address) { return *reinterpret_cast<const Four*>(address); }
static inline Four& four_at(float* address) { return *reinterpret_cast<Four*>(address); }

static inline int vectors_of(int floats) { return (floats + kLanes - 1) / kLanes; }
static inline int padded(int floats) { return vectors_of(floats) * kLanes; }

// ---- forward -------------------------------------------------------------------------------------------------------------
//
// Vectors lie along the cells of the pooled plane. Of each of the 36 pixels that a cell's convolutions see, a plane is laid out
// that has it for one cell after the other, so that whole vectors are read and nothing is moved within one. For a vector of
// cells and some output channels, the convolutions are summed in registers; their maximum is all that is stored.

static const int kPlanes = kPatch * kPatch;
// Output channels of a block, with four sums each. A weight and four vectors of pixels need registers too.
static const int kMostOutputs = KERNELS_REGISTERS > 16 ? 5 : 3;

static inline int plane_pitch(const Stage& stage) { return padded(stage.cells()); }

// Every second of seven floats.
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

// The output channels are shared out to as few blocks as there can be, of about one size.
static inline int blocks_of(const Stage& stage) { return (stage.outputs + kMostOutputs - 1) / kMostOutputs; }
static inline int first_of_block(const Stage& stage, int block) {
  return static_cast<int>(static_cast<int64_t>(block) * stage.outputs / blocks_of(stage));
}

// Weights in the order in which they are read: block by block, and for each weight of the kernel the block's channels.
static void pack_blocks(const Stage& stage, const float* weight, float* packed) {
  for (int block = 0; block < blocks_of(stage); ++block)
    for (int i = 0; i < stage.kernel_floats(); ++i)
      for (int output = first_of_block(stage, block); output < first_of_block(stage, block + 1); ++output)
        *packed++ = weight[output * stage.kernel_floats() + i];
}

// Convolution, maximum and relu of a vector of cells and `Outputs` output channels.
// planes: the vector's place in the first plane. pooled and winners: its place in the plane of the first output channel.
// cells: how many there are from that place on; those of the vector beyond them are not stored.
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
#pragma GCC unroll 1  // or the sums leave their registers
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
      // The first of equals wins, as in MXNet. A NaN is greater than nothing and nothing is greater than it: whoever
      // comes across one takes it and keeps it, so that it reaches the output.
      const Integers wins = (other > best) | (other != other);
      best = wins ? other : best;
      winner = wins ? (Integers{} + position) : winner;
    }
    const Integers closed = best <= 0;  // false of a NaN
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
// Only an open maximum has a gradient. It adds its gradient times its patch to its channel's weights, and its gradient times
// its channel's weights to its patch. Both are sums of runs times numbers, so one function does both: in the first the list
// goes through the cells of a channel and the target is the channel's weights; in the second it goes through the channels of
// a cell and the target is the cell's 6x6 pixels. The target stays in registers while the list is gone through.
//
// Images are worked on with the channels of a pixel side by side, (height, width, channels). Then a row of the kernel meets
// one run of 5 * channels floats without a gap, whatever the number of channels.
//
// A run is rounded up to whole vectors. What is added beyond its end is dropped with the padding of the weights' gradient, or
// is zero times the gradient, from the padding of the weights.

// to[column][row] = from[row][column]. In squares of four by four; where these do not come out even, some are done twice.
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

// Open maxima: their gradients, and where the runs begin that these are multiplied with.
struct Maxima {
  float* gradients;
  int32_t* offsets;
  int count;
};

// Ends a list with maxima without a gradient, for those who take several at a time.
static inline void end_list(Maxima* maxima, int count) {
  maxima->count = count;
  floats_at(maxima->gradients + count) = Floats{};
  maxima->offsets[count] = 0;
}

static inline int longest_list(const Stage& stage) { return stage.cells() > stage.outputs ? stage.cells() : stage.outputs; }
static inline int list_floats(const Stage& stage) { return padded(longest_list(stage)) + kLanes; }

// Adds runs to `Rows` rows of `Vectors` vectors. Where registers are left, every second maximum has sums of its own, so that an
// addition has not to wait for the one before.
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

// All rows at once if so many sums fit the registers, else one after the other.
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

// The open maxima of an output channel; their offsets are those of their patches in the image.
// Not inlined, so that the loop has the registers to itself; so below.
static __attribute__((noinline)) void list_cells(const Stage& stage, const float* gradient, const uint8_t* winners,
                                                 Maxima* maxima) {
  // Numbers of their own, which no store through a pointer can change.
  const int rows = stage.pooled_height(), columns = stage.pooled_width(), channels = stage.channels;
  const int row_floats = stage.width * channels;
  const int shifts[] = {0, channels, row_floats, row_floats + channels, 0};
  float* gradients = maxima->gradients;
  int32_t* offsets = maxima->offsets;
  int count = 0;
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column) {
      // Written always and kept only if open: a jump that depends on the data would cost more.
      const int winner = *winners++;
      gradients[count] = *gradient++;
      offsets[count] = 2 * (row * row_floats + column * channels) + shifts[winner];
      count += winner != kClosed;
    }
  end_list(maxima, count);
}

// Weights for the gradient of an image: each row of a kernel in whole vectors, the rest zero, and a row of zeros before and
// after the five. From the first row on, they are six rows for a maximum in the lower positions of a cell; from the second
// on, for one in the upper.
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

// The open maxima of a cell, gradient and winners being those of the first output channel: those in the left positions, and
// those in the right ones. Their offsets are those of their channel's weights.
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

// What a chunk of images sums up: the gradients of weights, in rows of whole vectors, and of biases, a vector each.
static inline int64_t weight_sums_floats(const Stage& stage) {
  return static_cast<int64_t>(stage.outputs) * kKernel * run_pitch(stage);
}
static inline int64_t sums_floats(const Stage& stage) {
  return weight_sums_floats(stage) + static_cast<int64_t>(stage.outputs) * kLanes;
}

// image, and below image_sums: channels last.
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

// Of an image a vector beyond its end may be read, and of its gradient written.
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
