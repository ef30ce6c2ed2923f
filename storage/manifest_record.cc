#include "storage/manifest_record.h"

#include <spdlog/spdlog.h>

#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "storage/pack_record.h"

namespace ckpt::storage {
namespace {

// Of the whole pack if that is lost, else of the record.
absl::Status NoteDamage(Store& store, const std::string& domain, const RecordName& record, const PackId& pack,
                        std::uint64_t offset, bool is_short) {
  if (is_short) {
    CKPT_ASSIGN_OR_RETURN(const bool lost, store.pack_table().FoundShort(pack));
    if (lost) return absl::OkStatus();
  }
  return store.chunks().Quarantine(domain, record, pack, offset);
}

}  // namespace

absl::Status NoteUnreadable(Store& store, const std::string& domain, const RecordName& record, const PackId& pack,
                            std::uint64_t offset, const RecordUse& use, const absl::Status& status) {
  const std::string where = absl::StrCat(use.what, " in pack ", pack.ToHex(), " at ", offset);
  // Only some errors say that the bytes are gone.
  if (!absl::IsNotFound(status) && !absl::IsOutOfRange(status) && !absl::IsDataLoss(status))
    return Annotate(status, absl::StrCat(use.owner, ", ", where));
  const absl::Status marked = NoteDamage(store, domain, record, pack, offset, !absl::IsDataLoss(status));
  spdlog::error(absl::StrCat(use.owner, ", ", where, " is damaged: ", status.message(),
                             marked.ok() ? "" : absl::StrCat("; cannot be marked so: ", marked.message())));
  return absl::DataLossError(absl::StrCat(where, " (", status.message(), ")"));
}

absl::StatusOr<std::string> ReadManifestRecord(Store& store, const std::string& domain, const Digest& digest,
                                               const RecordUse& use) {
  const RecordName name{true, digest};
  const absl::StatusOr<std::vector<v1::ChunkRow>> rows = store.chunks().Locate(domain, {name});
  if (absl::IsNotFound(rows.status())) return absl::DataLossError(use.what);
  CKPT_RETURN_IF_ERROR(rows.status());
  CKPT_ASSIGN_OR_RETURN(const PackId pack, PackOfRow(rows->front()));
  const std::uint64_t offset = rows->front().offset();
  std::string record(rows->front().stored_length(), '\0');
  absl::Status status =
      store.packs().Read(domain, pack, offset + kRecordHeaderSize, std::as_writable_bytes(std::span(record)));
  if (status.ok() && Sha256(record) == digest) return record;
  if (status.ok()) status = absl::DataLossError("its bytes have changed");
  return NoteUnreadable(store, domain, name, pack, offset, use, status);
}

}  // namespace ckpt::storage
