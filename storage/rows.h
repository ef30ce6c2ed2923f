// Rows of the catalog as messages.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/status.h"
#include "storage/kv_engine.h"

namespace ckpt::storage {

// Parses a row. DataLoss when its bytes are no such message.
template <typename Row>
absl::StatusOr<Row> ParseRow(std::string_view key, std::string_view value) {
  Row row;
  if (!row.ParseFromArray(value.data(), static_cast<int>(value.size())))
    return MakeError(
        absl::StatusCode::kDataLoss, "CATALOG_DAMAGED",
        absl::StrCat("the catalog's row ", ToHex(key.substr(0, 64)), " is no ", Row::descriptor()->name()));
  return row;
}

// Reads a row; nullopt if there is none.
template <typename Row>
absl::StatusOr<std::optional<Row>> GetRow(Transaction& txn, const std::string& key, Hold hold) {
  CKPT_ASSIGN_OR_RETURN(const std::optional<std::string> value, txn.Get(key, hold));
  if (!value.has_value()) return std::optional<Row>();
  CKPT_ASSIGN_OR_RETURN(Row row, ParseRow<Row>(key, *value));
  return std::optional<Row>(std::move(row));
}

template <typename Row>
absl::Status PutRow(Transaction& txn, const std::string& key, const Row& row) {
  return txn.Put(key, row.SerializeAsString());
}

// Calls body(key, value) for every row below the prefix, a page at a time.
template <typename Body>
absl::Status ForEachRow(Transaction& txn, const std::string& prefix, Body body) {
  constexpr std::size_t kPage = 1024;
  std::string after;
  while (true) {
    CKPT_ASSIGN_OR_RETURN(const auto page, txn.Scan(prefix, after, kPage));
    if (page.empty()) return absl::OkStatus();
    for (const auto& [key, value] : page) CKPT_RETURN_IF_ERROR(body(key, value));
    after = page.back().first;
  }
}

}  // namespace ckpt::storage
