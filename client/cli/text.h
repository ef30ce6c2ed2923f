// Values as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ckpt/v1/checkpoint.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace ckpt::cli {

// Text from a server or a file, safe for a terminal: control characters as \xNN.
std::string Printable(std::string_view text);

// "1.2 GiB".
std::string HumanBytes(std::uint64_t bytes);

// RFC 3339 in UTC, to the second: "2026-01-31T12:00:00Z".
std::string Time(const google::protobuf::Timestamp& time);

// Six significant digits: "0.982301", "nan", "inf". JSON has them all.
std::string Number(double value);

// The reference that names this one version: "resnet50@3#1".
std::string Name(const v1::Checkpoint& checkpoint);

// Rows in columns as wide as they need, the first row the header.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string name;
    Align align = Align::kLeft;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // As many cells as columns; each is made printable.
  void Add(std::vector<std::string> cells);
  [[nodiscard]] std::string Text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace ckpt::cli
