#include "storage/part_merge.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::storage {
namespace {

template <typename Message>
absl::StatusOr<Message> ReadRecord(Store& store, const std::string& domain, std::string_view name) {
  const auto digest = Digest::From(name);
  if (!digest.has_value()) return absl::DataLossError("it has no name");
  CKPT_ASSIGN_OR_RETURN(const std::vector<v1::ChunkRow> rows, store.chunks().Locate(domain, {{true, *digest}}));
  CKPT_ASSIGN_OR_RETURN(const PackId pack, PackOfRow(rows.front()));
  std::string record(rows.front().stored_length(), '\0');
  CKPT_RETURN_IF_ERROR(store.packs().Read(domain, pack, rows.front().offset() + kRecordHeaderSize,
                                          std::as_writable_bytes(std::span(record))));
  Message message;
  if (Sha256(record) != *digest || !message.ParseFromString(record))
    return absl::DataLossError("its bytes have changed");
  return message;
}

absl::Status MergePart(Store& store, const std::string& domain, std::uint32_t rank, const v1::PartRow& part,
                       StateMerge& merge) {
  std::vector<v1::Tensor> tensors;
  std::vector<v1::StateNode> nodes;
  const auto read = [&]() -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(const auto root, ReadRecord<v1::ManifestRoot>(store, domain, part.manifest()));
    for (const v1::ManifestPartRef& ref : root.parts()) {
      CKPT_ASSIGN_OR_RETURN(auto records, ReadRecord<v1::ManifestPart>(store, domain, ref.digest()));
      std::move(records.mutable_tensors()->begin(), records.mutable_tensors()->end(), std::back_inserter(tensors));
      std::move(records.mutable_nodes()->begin(), records.mutable_nodes()->end(), std::back_inserter(nodes));
    }
    return absl::OkStatus();
  };
  if (const absl::Status status = read(); !status.ok())
    return MakeError(absl::StatusCode::kDataLoss, "DATA_DAMAGED",
                     absl::StrCat("what rank ", rank, " had committed cannot be read any more (", status.message(),
                                  "); save again, all ranks, with a new attempt key"));
  return merge.Add(rank, std::move(tensors), std::move(nodes));
}

}  // namespace

absl::StatusOr<StateMerge::Merged> MergeParts(Store& store, const std::string& domain, const Parts& parts) {
  StateMerge merge;
  for (std::uint32_t rank = 0; rank < parts.size(); ++rank)
    CKPT_RETURN_IF_ERROR(MergePart(store, domain, rank, *parts[rank], merge));
  return std::move(merge).Finish();
}

}  // namespace ckpt::storage
