// The update as the MXNet operator mnist_trainer_sgd_update: attributes, types, shapes, and the call of the arithmetic.
//
// Inputs: for each parameter its weight, its gradient and, with momentum, its momentum; all are float32 and have the same
// shape. Momenta are updated in place. Outputs: the updated weights, which may be the weights themselves (out=), and a float32
// of shape (1,): 1 if all gradients are finite, else 0.
// Attributes, as for MXNet's multi_sgd_update: num_weights; lrs and wds, with a number for each weight; rescale_grad;
// optionally momentum and clip_gradient.
#include <locale.h>
#include <stdlib.h>
#include <string.h>

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

// Parses a number with a decimal point, regardless of the user's locale. Returns false if the text is not a number.
bool parse(const std::string& text, float* number) {
  static const locale_t plain = newlocale(LC_ALL_MASK, "C", nullptr);
  char* end = nullptr;
  *number = strtof_l(text.c_str(), &end, plain);
  return end != text.c_str() && *end == '\0';
}

// Parses the numbers in a text such as "(0.1, 0.2)" or "0.1". Returns false if it contains anything else.
bool parse(std::string text, std::vector<float>* numbers) {
  for (char& character : text)
    if (strchr("()[],", character) != nullptr) character = ' ';
  std::istringstream words(text);
  std::string word;
  float number = 0;
  while (words >> word) {
    if (!parse(word, &number)) return false;
    numbers->push_back(number);
  }
  return true;
}

std::string text_of(const Attributes& attributes, const std::string& name) {
  const auto found = attributes.find(name);
  return found == attributes.end() ? "" : found->second;
}

float number_of(const Attributes& attributes, const char* name, float otherwise) {
  float number = 0;
  return parse(text_of(attributes, name), &number) ? number : otherwise;
}

std::vector<float> numbers_of(const Attributes& attributes, const char* name) {
  std::vector<float> numbers;
  return parse(text_of(attributes, name), &numbers) ? numbers : std::vector<float>();
}

// Returns num_weights; 0 if it is not a positive whole number of at most 8 digits, so that an int can count three arrays for
// each.
size_t weights_of(const Attributes& attributes) {
  const std::string text = text_of(attributes, "num_weights");
  const bool whole = text.find_first_not_of("0123456789") == std::string::npos;
  return whole && text.size() <= 8 ? strtoul(text.c_str(), nullptr, 10) : 0;
}

bool keeps_momentum(const Attributes& attributes) { return attributes.count("momentum") > 0; }
size_t arrays_of_weight(const Attributes& attributes) { return keeps_momentum(attributes) ? 3 : 2; }

MXReturnValue refuse(const Attributes& attributes, const std::string& name, const std::string& expected) {
  return refuse(name + " must " + expected + ", not \"" + text_of(attributes, name) + "\"");
}

MXReturnValue parse_attributes(const Attributes& attributes, int* inputs, int* outputs) {
  const size_t weights = weights_of(attributes);
  if (weights < 1) return refuse(attributes, "num_weights", "be a whole number from 1 to 99999999");
  for (const char* name : {"lrs", "wds"})
    if (numbers_of(attributes, name).size() != weights)
      return refuse(attributes, name, "have a number for each of the weights");
  for (const char* name : {"rescale_grad", "momentum", "clip_gradient"}) {
    float number = 0;
    if (attributes.count(name) > 0 && !parse(text_of(attributes, name), &number))
      return refuse(attributes, name, "be a number");
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
  const std::vector<float> lrs = numbers_of(attributes, "lrs"), wds = numbers_of(attributes, "wds");
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
