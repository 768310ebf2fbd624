// The fused stage as the MXNet operator mnist_trainer_conv_pool_relu: attributes, types, shapes, and the call of the kernels.
//
// Inputs: images (batch, channels, height, width), weight (outputs, channels, 5, 5), bias (outputs), all float32.
// Outputs: pooled (batch, outputs, (height - 4) / 2, (width - 4) / 2), float32, and for backward the winners, uint8 of the same
// shape (see kClosed). Attribute: images_gradient, True (the default) or False; False fills that gradient with zeros.
//
// MXNet does not pass on whether a gradient should be written or accumulated, so it is always written.
#include <omp.h>
#include <stdlib.h>

#include <lib_api.cc>  // the part of the interface in MXNet's wheel that each library of operators must compile

#include "stage.h"

// mnist_trainer.model.native reads this text from the library file. It refuses a library that was not built from the installed
// sources, and reports the compiler and the user's flags, which may change the last bits of the results.
extern "C" const char mnist_trainer_native_fingerprint[] =
    "mnist_trainer native sources " MNIST_TRAINER_NATIVE_FINGERPRINT " compiler GCC " __VERSION__ MNIST_TRAINER_NATIVE_FLAGS;

namespace {

using mnist_trainer::Stage;
using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
typedef std::unordered_map<std::string, std::string> Attributes;

const char kName[] = "mnist_trainer_conv_pool_relu";
const char kVariable[] = "MNIST_TRAINER_NATIVE";
const mnist_trainer::Kernels* kernels = nullptr;  // chosen once, by initialize

MXReturnValue refuse(const std::string& reason) {
  MX_ERROR_MSG << kName << ": " << reason;
  return mxnet::ext::MX_FAIL;
}

// MXNet's value for a size that is not known yet: -1.
const unsigned int kUnknown = static_cast<unsigned int>(-1);

std::string described(const std::vector<unsigned int>& shape) {
  std::ostringstream text;
  text << "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    text << (i ? ", " : "");
    if (shape[i] == kUnknown)
      text << "unknown";
    else
      text << shape[i];
  }
  text << (shape.size() == 1 ? ",)" : ")");
  return text.str();
}

MXReturnValue parse_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  for (const auto& attribute : attributes) {
    if (attribute.first.compare(0, 2, "__") == 0) continue;  // MXNet's own, such as __ctx_group__
    if (attribute.first != "images_gradient")
      return refuse("the only attribute is images_gradient, not " + attribute.first);
    if (attribute.second != "True" && attribute.second != "False")
      return refuse("images_gradient is True or False, not " + attribute.second);
  }
  *inputs = 3;
  *outputs = 2;
  return mxnet::ext::MX_SUCCESS;
}

MXReturnValue infer_types(const Attributes&, std::vector<int>* inputs, std::vector<int>* outputs) {
  const char* names[] = {"images", "weight", "bias"};
  for (size_t i = 0; i < inputs->size(); ++i) {
    if ((*inputs)[i] == -1) (*inputs)[i] = mxnet::ext::kFloat32;  // not known yet
    if ((*inputs)[i] != mxnet::ext::kFloat32) return refuse(std::string(names[i]) + " must be float32");
  }
  (*outputs)[0] = mxnet::ext::kFloat32;
  (*outputs)[1] = mxnet::ext::kUint8;
  return mxnet::ext::MX_SUCCESS;
}

MXReturnValue infer_shapes(const Attributes&, std::vector<std::vector<unsigned int>>* inputs,
                           std::vector<std::vector<unsigned int>>* outputs) {
  std::vector<unsigned int>&images = (*inputs)[0], &weight = (*inputs)[1], &bias = (*inputs)[2];
  if (images.size() != 4) return refuse("images must be (batch, channels, height, width), not " + described(images));
  for (unsigned int size : images)
    if (size == 0 || size == kUnknown) return refuse("images of shape " + described(images) + " are none");
  const unsigned int channels = images[1], height = images[2], width = images[3];
  for (unsigned int size : {height, width})
    if (size < 6 || size % 2 != 0)
      return refuse("images must have an even height and width of at least 6, for 2x2 pooling after a 5x5 kernel; they are " +
                    described(images));

  // At Gluon's first forward pass, the number of channels of the weight may be unknown. It is that of the images.
  if (weight.size() == 4 && weight[1] == kUnknown) weight[1] = channels;
  if (weight.size() != 4 || weight[0] == 0 || weight[0] == kUnknown || weight[1] != channels || weight[2] != 5 || weight[3] != 5) {
    std::ostringstream expected;
    expected << "weight must be (outputs, " << channels << ", 5, 5) for images " << described(images) << ", not ";
    return refuse(expected.str() + described(weight));
  }
  if (bias.empty()) bias.push_back(weight[0]);
  if (bias.size() != 1 || bias[0] != weight[0]) {
    std::ostringstream expected;
    expected << "bias must be (" << weight[0] << ",) for weight " << described(weight) << ", not ";
    return refuse(expected.str() + described(bias));
  }
  // The kernels use int for positions within an image and within the weights.
  const double most = 1 << 29;
  if (static_cast<double>(channels) * height * width > most || 25.0 * channels * weight[0] > most ||
      static_cast<double>(weight[0]) * height * width > most)
    return refuse("images " + described(images) + " with weight " + described(weight) + " are too large");

  (*outputs)[0] = {images[0], weight[0], (height - 4) / 2, (width - 4) / 2};
  (*outputs)[1] = (*outputs)[0];
  return mxnet::ext::MX_SUCCESS;
}

Stage stage_of(const MXTensor& images, const MXTensor& weight) {
  Stage stage;
  stage.batch = images.shape[0];
  stage.channels = static_cast<int>(images.shape[1]);
  stage.height = static_cast<int>(images.shape[2]);
  stage.width = static_cast<int>(images.shape[3]);
  stage.outputs = static_cast<int>(weight.shape[0]);
  return stage;
}

int threads_for(int64_t tasks) {
  const int threads = omp_get_max_threads();
  return tasks < threads ? static_cast<int>(tasks) : threads;
}

// Returns MXNet's workspace, which is kept between calls; null if it is larger than the interface can request. It is aligned to
// a cache line, so that no vector of the kernels crosses two lines.
float* allocate(const OpResource& resource, int64_t floats) {
  const int64_t line = 64, bytes = floats * static_cast<int64_t>(sizeof(float)) + line;
  if (bytes > INT32_MAX) return nullptr;
  char* workspace = static_cast<char*>(resource.alloc_cpu(static_cast<int>(bytes)));
  return reinterpret_cast<float*>(workspace + (line - reinterpret_cast<intptr_t>(workspace) % line) % line);
}

MXReturnValue forward(const Attributes&, std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs,
                      const OpResource& resource) {
  const Stage stage = stage_of((*inputs)[0], (*inputs)[1]);
  const int threads = threads_for(stage.batch);
  float* scratch = allocate(resource, kernels->forward_scratch(stage, threads));
  if (scratch == nullptr) return refuse("too large for MXNet's workspace");
  mnist_trainer::ForwardArrays arrays;
  arrays.images = (*inputs)[0].data<float>();
  arrays.weight = (*inputs)[1].data<float>();
  arrays.bias = (*inputs)[2].data<float>();
  arrays.pooled = (*outputs)[0].data<float>();
  arrays.winners = (*outputs)[1].data<uint8_t>();
  kernels->forward(stage, arrays, scratch, threads);
  return mxnet::ext::MX_SUCCESS;
}

// inputs: the gradient of pooled, the gradient of winners (unused), images, weight, bias, pooled, winners.
MXReturnValue backward(const Attributes& attributes, std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs,
                       const OpResource& resource) {
  const Stage stage = stage_of((*inputs)[2], (*inputs)[3]);
  const int threads = threads_for(stage.chunks());
  float* scratch = allocate(resource, kernels->backward_scratch(stage, threads));
  if (scratch == nullptr) return refuse("too large for MXNet's workspace");
  const auto wanted = attributes.find("images_gradient");
  mnist_trainer::BackwardArrays arrays;
  arrays.pooled_gradient = (*inputs)[0].data<float>();
  arrays.images = (*inputs)[2].data<float>();
  arrays.weight = (*inputs)[3].data<float>();
  arrays.winners = (*inputs)[6].data<uint8_t>();
  arrays.images_gradient = (*outputs)[0].data<float>();
  arrays.weight_gradient = (*outputs)[1].data<float>();
  arrays.bias_gradient = (*outputs)[2].data<float>();
  arrays.wants_images_gradient = wanted == attributes.end() || wanted->second == "True";
  kernels->backward(stage, arrays, scratch, threads);
  return mxnet::ext::MX_SUCCESS;
}

}  // namespace

REGISTER_OP(mnist_trainer_conv_pool_relu)
    .setForward(forward, "cpu")
    .setBackward(backward, "cpu")
    .setParseAttrs(parse_attributes)
    .setInferType(infer_types)
    .setInferShape(infer_shapes);

// MXNet calls this after it has loaded the library.
MXReturnValue initialize(int) {
  const char* wanted = getenv(kVariable);
  kernels = mnist_trainer::choose_kernels(wanted);
  if (kernels == nullptr)
    return refuse(std::string(kVariable) + "=" + wanted + ": this processor has the kernels portable and, where it can run them, avx2 and avx512");
  return mxnet::ext::MX_SUCCESS;
}

// For mnist_trainer.model.native. Returns the name of the kernels that run; "" if there are no kernels with the requested name.
extern "C" const char* mnist_trainer_native_kernels() {
  const mnist_trainer::Kernels* chosen = mnist_trainer::choose_kernels(getenv(kVariable));
  return chosen == nullptr ? "" : chosen->name;
}
