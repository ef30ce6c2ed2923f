#include "client/cli/json.h"

#include <cmath>

#include "client/cli/text.h"

namespace ckpt::cli {

Json NumberJson(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

Json RunJson(const v1::Run& run) {
  Json best = nullptr;
  if (run.has_best())
    best = {{"metric", run.best().metric()}, {"value", NumberJson(run.best().value())}, {"epoch", run.best().epoch()}};
  return {{"run", run.name()},
          {"checkpoints", run.checkpoint_count()},
          {"latest_epoch", run.latest_epoch()},
          {"best", best},
          {"logical_bytes", run.logical_bytes()},
          {"stored_bytes", run.stored_bytes()},
          {"create_time", Time(run.create_time())},
          {"update_time", Time(run.update_time())}};
}

Json CheckpointJson(const v1::Checkpoint& checkpoint) {
  Json metrics = Json::object();
  for (const v1::Metric& metric : checkpoint.metrics()) metrics[metric.name()] = NumberJson(metric.value());
  Json labels = Json::object();
  for (const v1::Label& label : checkpoint.labels()) labels[label.key()] = label.value();
  Json tags = Json::array();
  for (const std::string& tag : checkpoint.tags()) tags.push_back(tag);
  return {{"run", checkpoint.run()},
          {"epoch", checkpoint.epoch()},
          {"version", checkpoint.version()},
          {"step", checkpoint.has_step() ? Json(checkpoint.step()) : Json(nullptr)},
          {"metrics", metrics},
          {"labels", labels},
          {"tags", tags},
          {"logical_bytes", checkpoint.logical_bytes()},
          {"new_bytes", checkpoint.new_bytes()},
          {"world_size", checkpoint.world_size()},
          {"create_time", Time(checkpoint.create_time())}};
}

std::string Dump(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace); }

}  // namespace ckpt::cli
