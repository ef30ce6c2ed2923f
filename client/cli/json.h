// What ckptctl prints with --output json. The shapes are an interface: names stay, new ones may come.
#pragma once

#include <nlohmann/json.hpp>

#include "ckpt/v1/checkpoint.pb.h"

namespace ckpt::cli {

// Objects keep their order.
using Json = nlohmann::ordered_json;

// {run, checkpoints, latest_epoch, best:{metric,value,epoch}|null, logical_bytes, stored_bytes, create_time,
// update_time}
Json RunJson(const v1::Run& run);

// {run, epoch, version, step, metrics, labels, tags, logical_bytes, new_bytes, create_time}
Json CheckpointJson(const v1::Checkpoint& checkpoint);

// A number; what JSON has no number for as "NaN", "Infinity", "-Infinity".
Json NumberJson(double value);

// The text, laid out for people and programs alike; malformed UTF-8 is replaced.
std::string Dump(const Json& json);

}  // namespace ckpt::cli
