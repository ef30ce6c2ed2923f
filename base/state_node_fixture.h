// For tests: the nodes of a state tree, one expression each.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <utility>

#include "ckpt/v1/state.pb.h"

namespace ckpt {

inline v1::Scalar Str(const std::string& text) {
  v1::Scalar out;
  out.set_str_value(text);
  return out;
}

inline v1::Scalar Int(std::int64_t value) {
  v1::Scalar out;
  out.set_int_value(value);
  return out;
}

inline v1::Scalar Bool(bool value) {
  v1::Scalar out;
  out.set_bool_value(value);
  return out;
}

inline v1::Scalar Float(double value) {
  v1::Scalar out;
  out.set_float_bits(std::bit_cast<std::uint64_t>(value));
  return out;
}

inline v1::StateNode Node(v1::NodeKind kind, std::uint64_t children = 0, std::uint64_t attributes = 0) {
  v1::StateNode node;
  node.set_kind(kind);
  node.set_child_count(children);
  node.set_attribute_count(attributes);
  return node;
}

inline v1::StateNode Value(const v1::Scalar& value) {
  v1::StateNode node = Node(v1::NODE_KIND_SCALAR);
  *node.mutable_value() = value;
  return node;
}

inline v1::StateNode At(const v1::Scalar& key, v1::StateNode node) {
  *node.mutable_key() = key;
  return node;
}
inline v1::StateNode At(const std::string& key, v1::StateNode node) { return At(Str(key), std::move(node)); }

}  // namespace ckpt
