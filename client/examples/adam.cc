#include "client/examples/adam.h"

#include <cmath>
#include <utility>

namespace digits {
namespace {

void StepOne(const AdamOptions& options, Parameter& parameter, Adam::Slot& slot) {
  slot.step += 1;
  // The moving means begin at 0; these take that out.
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(slot.step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(slot.step));
  const auto step_size = static_cast<float>(options.learning_rate / correction1);
  const auto deviation_scale = static_cast<float>(1 / std::sqrt(correction2));
  const auto new_mean = static_cast<float>(1 - options.beta1);
  const auto old_square = static_cast<float>(options.beta2);
  const auto new_square = static_cast<float>(1 - options.beta2);
  const auto epsilon = static_cast<float>(options.epsilon);
  const auto decay = static_cast<float>(options.weight_decay);

  for (std::size_t i = 0; i < parameter.value.size(); ++i) {
    const float gradient = parameter.gradient[i] + decay * parameter.value[i];
    slot.exp_avg[i] += new_mean * (gradient - slot.exp_avg[i]);
    slot.exp_avg_sq[i] = old_square * slot.exp_avg_sq[i] + new_square * gradient * gradient;
    const float deviation = std::sqrt(slot.exp_avg_sq[i]) * deviation_scale + epsilon;
    parameter.value[i] -= step_size * slot.exp_avg[i] / deviation;
  }
}

}  // namespace

Adam::Adam(std::vector<Parameter*> parameters, const AdamOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  for (const Parameter* parameter : parameters_) {
    const std::size_t size = parameter->value.size();
    slots_.push_back({.step = 0, .exp_avg = std::vector<float>(size), .exp_avg_sq = std::vector<float>(size)});
  }
}

void Adam::Step() {
  for (std::size_t i = 0; i < parameters_.size(); ++i) StepOne(options_, *parameters_[i], slots_[i]);
}

}  // namespace digits
