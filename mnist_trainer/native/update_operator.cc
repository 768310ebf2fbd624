// The update as MXNet's operator mnist_trainer_sgd_update: attributes, types, shapes, and the call of the arithmetic.
//
// Inputs: weight, gradient and, with momentum, momentum of one parameter after the other, float32 of one shape; a momentum is
// changed where it is. Outputs: the updated weights, which may be the weights themselves (out=), and a float32 of shape (1,):
// 1 if every number of all gradients is finite, else 0.
// Attributes, as of MXNet's multi_sgd_update: num_weights; lrs and wds, a number for each weight; rescale_grad; and where they
// are wanted momentum and clip_gradient.
#include <stdlib.h>

#include <mxnet/lib_api.h>

#include "update.h"

namespace {

using mnist_trainer::Rates;
using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
typedef std::unordered_map<std::string, std::string> Attributes;

MXReturnValue refuse(const std::string& reason) {
  MX_ERROR_MSG << "mnist_trainer_sgd_update: " << reason;
  return mxnet::ext::MX_FAIL;
}

// The numbers in "(0.1, 0.2)" or "0.1".
std::vector<float> numbers_in(const std::string& text) {
  std::vector<float> numbers;
  const char* at = text.c_str();
  while (*at != '\0') {
    char* end = nullptr;
    const float number = strtof(at, &end);
    if (end == at) {
      ++at;  // a bracket, a comma or a space
    } else {
      numbers.push_back(number);
      at = end;
    }
  }
  return numbers;
}

float number_of(const Attributes& attributes, const char* name, float otherwise) {
  const auto found = attributes.find(name);
  return found == attributes.end() ? otherwise : strtof(found->second.c_str(), nullptr);
}

// 0 where num_weights is no number.
size_t weights_of(const Attributes& attributes) { return static_cast<size_t>(number_of(attributes, "num_weights", 0)); }
bool keeps_momentum(const Attributes& attributes) { return attributes.count("momentum") > 0; }
size_t arrays_of_weight(const Attributes& attributes) { return keeps_momentum(attributes) ? 3 : 2; }

MXReturnValue parse_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  const size_t weights = weights_of(attributes);
  if (weights < 1) return refuse("num_weights must be a whole number of at least 1");
  for (const char* name : {"lrs", "wds"}) {
    const auto found = attributes.find(name);
    if (found == attributes.end() || numbers_in(found->second).size() != weights)
      return refuse(std::string(name) + " must have a number for each of the weights");
  }
  *inputs = static_cast<int>(weights * arrays_of_weight(attributes));
  *outputs = static_cast<int>(weights + 1);
  return mxnet::ext::MX_SUCCESS;
}

MXReturnValue mutated_inputs(const Attributes& attributes, std::vector<int>* indices) {
  if (keeps_momentum(attributes))
    for (size_t i = 0; i < weights_of(attributes); ++i) indices->push_back(static_cast<int>(3 * i + 2));
  return mxnet::ext::MX_SUCCESS;
}

MXReturnValue infer_types(const Attributes&, std::vector<int>* inputs, std::vector<int>* outputs) {
  for (int& type : *inputs) {
    if (type == -1) type = mxnet::ext::kFloat32;  // not known yet
    if (type != mxnet::ext::kFloat32) return refuse("all arrays must be float32");
  }
  for (int& type : *outputs) type = mxnet::ext::kFloat32;
  return mxnet::ext::MX_SUCCESS;
}

MXReturnValue infer_shapes(const Attributes& attributes, std::vector<std::vector<unsigned int>>* inputs,
                           std::vector<std::vector<unsigned int>>* outputs) {
  const size_t arrays = arrays_of_weight(attributes);
  for (size_t i = 0; i < inputs->size(); ++i)
    if ((*inputs)[i] != (*inputs)[i - i % arrays])
      return refuse("a weight, its gradient and its momentum must be of one shape");
  for (size_t i = 0; i + 1 < outputs->size(); ++i) (*outputs)[i] = (*inputs)[i * arrays];
  outputs->back() = {1};
  return mxnet::ext::MX_SUCCESS;
}

MXReturnValue forward(const Attributes& attributes, std::vector<MXTensor>* inputs, std::vector<MXTensor>* outputs,
                      const OpResource&) {
  const std::vector<float> lrs = numbers_in(attributes.at("lrs")), wds = numbers_in(attributes.at("wds"));
  const size_t arrays = arrays_of_weight(attributes);
  Rates rates;
  rates.momentum = number_of(attributes, "momentum", 0);
  rates.rescale_grad = number_of(attributes, "rescale_grad", 1);
  rates.clip_gradient = number_of(attributes, "clip_gradient", -1);
  bool all_finite = true;
  for (size_t i = 0; i < lrs.size(); ++i) {
    rates.lr = lrs[i];
    rates.wd = wds[i];
    mnist_trainer::UpdateArrays of_weight;
    of_weight.weight = (*inputs)[i * arrays].data<float>();
    of_weight.gradient = (*inputs)[i * arrays + 1].data<float>();
    of_weight.momentum = arrays == 3 ? (*inputs)[i * arrays + 2].data<float>() : nullptr;
    of_weight.updated = (*outputs)[i].data<float>();
    of_weight.size = (*inputs)[i * arrays].size();
    all_finite = mnist_trainer::update(rates, of_weight) && all_finite;
  }
  *outputs->back().data<float>() = all_finite ? 1 : 0;
  return mxnet::ext::MX_SUCCESS;
}

}  // namespace

REGISTER_OP(mnist_trainer_sgd_update)
    .setForward(forward, "cpu")
    .setParseAttrs(parse_attributes)
    .setMutateInputs(mutated_inputs)
    .setInferType(infer_types)
    .setInferShape(infer_shapes);
