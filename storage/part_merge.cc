#include "storage/part_merge.h"

#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "storage/limits.h"
#include "storage/manifest_record.h"

namespace ckpt::storage {
namespace {

// One rank's part, being read and merged.
class PartReader {
 public:
  PartReader(Store& store, const v1::SessionRow& session, std::uint32_t rank)
      : store_(store),
        domain_(session.domain()),
        rank_(rank),
        use_{absl::StrCat("run ", session.run(), " epoch ", session.epoch()),
             absl::StrCat("what rank ", rank, " had committed")} {}

  absl::Status MergeInto(const v1::PartRow& part, StateMerge& merge) {
    CKPT_ASSIGN_OR_RETURN(const auto root, Read<v1::ManifestRoot>(part.manifest()));
    std::uint64_t size_bytes = 0;
    for (const v1::ManifestPartRef& ref : root.parts()) size_bytes += ref.size_bytes();
    if (size_bytes > kMaxMergedBytes)
      return MakeError(absl::StatusCode::kInvalidArgument, "TOO_LARGE",
                       absl::StrCat("the description of what rank ", rank_, " saves has ", size_bytes >> 20,
                                    " MiB, and may have ", kMaxMergedBytes >> 20));
    std::vector<v1::Tensor> tensors;
    std::vector<v1::StateNode> nodes;
    for (const v1::ManifestPartRef& ref : root.parts()) {
      CKPT_ASSIGN_OR_RETURN(auto records, Read<v1::ManifestPart>(ref.digest()));
      std::move(records.mutable_tensors()->begin(), records.mutable_tensors()->end(), std::back_inserter(tensors));
      std::move(records.mutable_nodes()->begin(), records.mutable_nodes()->end(), std::back_inserter(nodes));
    }
    return merge.Add(rank_, std::move(tensors), std::move(nodes));
  }

 private:
  template <typename Message>
  absl::StatusOr<Message> Read(std::string_view name) {
    const auto digest = Digest::From(name);
    absl::StatusOr<std::string> record = absl::DataLossError(use_.what);
    if (digest.has_value()) record = ReadManifestRecord(store_, domain_, *digest, use_);
    Message message;
    if (record.ok() && !message.ParseFromString(*record)) record = absl::DataLossError(use_.what);
    if (absl::IsDataLoss(record.status()) && ReasonOf(record.status()).empty())
      return MakeError(absl::StatusCode::kDataLoss, "DATA_DAMAGED",
                       absl::StrCat(record.status().message(), " was damaged before the checkpoint was complete"));
    CKPT_RETURN_IF_ERROR(record.status());
    return message;
  }

  Store& store_;
  const std::string domain_;
  const std::uint32_t rank_;
  const RecordUse use_;
};

}  // namespace

absl::StatusOr<StateMerge::Merged> MergeParts(Store& store, const v1::SessionRow& session, const Parts& parts,
                                              const std::function<void()>& at_work) {
  const Store::MergeTurn turn(store, at_work);
  StateMerge merge(kMaxMergedBytes, at_work);
  for (std::uint32_t rank = 0; rank < parts.size(); ++rank) {
    CKPT_RETURN_IF_ERROR(PartReader(store, session, rank).MergeInto(*parts[rank], merge));
  }
  return std::move(merge).Finish();
}

}  // namespace ckpt::storage
