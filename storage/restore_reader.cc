#include "storage/restore_reader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/glob.h"
#include "base/status.h"
#include "storage/checkpoint_reads.h"
#include "storage/limits.h"
#include "storage/manifest_record.h"
#include "storage/pack_record.h"

namespace ckpt::storage {
namespace {

constexpr int kMaxGlobs = 100;

bool IsChosen(const v1::Tensor& tensor, const std::vector<std::string>& components,
              const std::vector<std::string>& include) {
  return (components.empty() ||
          std::find(components.begin(), components.end(), tensor.component()) != components.end()) &&
         (include.empty() || MatchesAnyGlob(tensor.path(), include));
}

// DataLoss when the record is not the chunk's.
absl::Status CheckRecord(const ChunkToRead& chunk, std::span<const std::byte> record, bool payload_too) {
  CKPT_ASSIGN_OR_RETURN(const RecordHeader header, DecodeRecordHeader(record.first(kRecordHeaderSize)));
  if (header.kind != RecordKind::kChunk || header.digest != chunk.digest || header.stored_length != chunk.stored_length)
    return absl::DataLossError("another record is in its place");
  if (payload_too && Xxh3(record.subspan(kRecordHeaderSize)) != header.fingerprint)
    return absl::DataLossError("its bytes have changed");
  return absl::OkStatus();
}

}  // namespace

std::string RestoreReader::Name() const {
  return absl::StrCat("run ", checkpoint_.run(), " epoch ", checkpoint_.epoch(), " version ", checkpoint_.version());
}

absl::Status RestoreReader::Damaged(std::string_view what) const {
  return MakeError(absl::StatusCode::kDataLoss, "DATA_DAMAGED",
                   absl::StrCat(Name(), ", ", absl::string_view(what.data(), what.size()),
                                ": the stored bytes are damaged; restore another checkpoint, or save this state again "
                                "if it is still at hand"));
}

absl::StatusOr<std::unique_ptr<RestoreReader>> RestoreReader::Open(Store& store, const v1::RestoreBegin& begin,
                                                                   const std::function<bool()>& abandoned) {
  const std::string domain = begin.domain().empty() ? "default" : begin.domain();
  CKPT_ASSIGN_OR_RETURN(v1::Checkpoint checkpoint, Resolve(store.engine(), domain, begin.reference()));
  auto reader = std::unique_ptr<RestoreReader>(new RestoreReader(store, domain, std::move(checkpoint)));
  const auto digest = Digest::From(reader->checkpoint_.manifest_digest());
  if (!digest.has_value()) return reader->Damaged("its manifest");
  CKPT_ASSIGN_OR_RETURN(const std::string root, reader->ReadRecordOfManifest(*digest));
  if (!reader->root_.ParseFromString(root) || reader->root_.format() != 1) return reader->Damaged("its manifest");
  for (const bool tensors : {false, true})
    for (int i = 0; i < reader->root_.parts_size(); ++i)
      if (reader->root_.parts(i).tensors() == tensors) reader->order_.push_back(i);
  CKPT_RETURN_IF_ERROR(reader->Select(begin, abandoned));
  return reader;
}

v1::RestoreHeader RestoreReader::header() const {
  v1::RestoreHeader header;
  *header.mutable_checkpoint() = checkpoint_;
  header.set_chunk_size(root_.chunk_size());
  return header;
}

// Decides about every tensor before the first part goes out: what a selected view shows comes before the view.
absl::Status RestoreReader::Select(const v1::RestoreBegin& begin, const std::function<bool()>& abandoned) {
  if (begin.include_size() > kMaxGlobs)
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_GLOB", absl::StrCat("more than ", kMaxGlobs, " globs"));
  for (const std::string& glob : begin.include()) CKPT_RETURN_IF_ERROR(CheckGlob(glob));
  for (const std::string& component : begin.components())
    if (std::find(root_.components().begin(), root_.components().end(), component) == root_.components().end())
      return MakeError(absl::StatusCode::kNotFound, "COMPONENT_NOT_FOUND",
                       absl::StrCat("run ", checkpoint_.run(), " epoch ", checkpoint_.epoch(), " has no component ",
                                    component, "; `ckptctl show` lists those that it has"));
  const bool all = begin.components().empty() && begin.include().empty();
  selected_.assign(root_.tensor_count(), all);
  if (all) return absl::OkStatus();
  const std::vector<std::string> components(begin.components().begin(), begin.components().end());
  const std::vector<std::string> include(begin.include().begin(), begin.include().end());
  for (const int i : order_) {
    if (!root_.parts(i).tensors()) continue;
    CKPT_ASSIGN_OR_RETURN(const v1::ManifestPart part, ReadPart(root_.parts(i)));
    std::uint64_t number = root_.parts(i).first();
    for (const v1::Tensor& tensor : part.tensors()) {
      if (number % 64 == 0 && abandoned())  // globs may take long
        return MakeError(absl::StatusCode::kCancelled, "STREAM_ENDED", "the stream ended before all was sent");
      if (IsChosen(tensor, components, include)) {
        selected_[number] = true;
        if (tensor.has_view_of()) selected_[tensor.view_of()] = true;
      }
      ++number;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> RestoreReader::ReadRecordOfManifest(const Digest& digest) const {
  absl::StatusOr<std::string> record = ReadManifestRecord(store_, domain_, digest, {Name(), "its manifest"});
  if (absl::IsDataLoss(record.status()) && ReasonOf(record.status()).empty())
    return Damaged(std::string(record.status().message()));
  return record;
}

absl::StatusOr<v1::ManifestPart> RestoreReader::ReadPart(const v1::ManifestPartRef& ref) const {
  const auto digest = Digest::From(ref.digest());
  if (!digest.has_value()) return Damaged("its manifest");
  CKPT_ASSIGN_OR_RETURN(const std::string record, ReadRecordOfManifest(*digest));
  v1::ManifestPart part;
  if (!part.ParseFromString(record) ||
      (ref.tensors() && ref.first() + static_cast<std::uint64_t>(part.tensors_size()) > root_.tensor_count()))
    return Damaged("its manifest");
  return part;
}

// Remembers the digests of a part's chunks.
void RestoreReader::NotePart(const v1::ManifestPart& part) {
  for (const v1::Tensor& tensor : part.tensors()) {
    first_chunk_.push_back(digests_.size());
    for (const v1::Box& box : tensor.boxes())
      for (std::size_t i = 0; i < box.digests().size() / Digest::kSize; ++i)
        digests_.push_back(Digest::At(box.digests(), i));
  }
}

absl::StatusOr<std::optional<v1::RestoreResponse>> RestoreReader::NextPart() {
  if (next_part_ == order_.size()) {
    first_chunk_.push_back(digests_.size());
    if (first_chunk_.size() != root_.tensor_count() + 1) return Damaged("its manifest");
    return std::optional<v1::RestoreResponse>();
  }
  const v1::ManifestPartRef& ref = root_.parts(order_[next_part_++]);
  absl::StatusOr<v1::ManifestPart> read = ReadPart(ref);
  if (absl::IsDataLoss(read.status()))  // all that is damaged is to be known, so that one save can heal it
    while (next_part_ < order_.size()) (void)ReadPart(root_.parts(order_[next_part_++]));
  CKPT_RETURN_IF_ERROR(read.status());
  v1::ManifestPart part = *std::move(read);
  v1::RestoreResponse out;
  if (!ref.tensors()) {
    out.mutable_state()->mutable_nodes()->Swap(part.mutable_nodes());
    return std::optional(std::move(out));
  }
  if (ref.first() != first_chunk_.size()) return Damaged("its manifest");
  NotePart(part);
  v1::TensorPart& tensors = *out.mutable_tensors();
  tensors.set_first(ref.first());
  tensors.mutable_selected()->resize((static_cast<std::size_t>(part.tensors_size()) + 7) / 8);
  for (std::size_t i = 0; i < static_cast<std::size_t>(part.tensors_size()); ++i) {
    if (selected_[ref.first() + i]) {
      char& byte = (*tensors.mutable_selected())[i / 8];
      byte = static_cast<char>(byte | 1 << i % 8);
    } else {
      part.mutable_tensors(static_cast<int>(i))->clear_inline_data();
    }
  }
  tensors.mutable_tensors()->Swap(part.mutable_tensors());
  return std::optional(std::move(out));
}

absl::StatusOr<std::uint64_t> RestoreReader::PlanSelected() {
  plan_.clear();
  for (std::uint64_t tensor = 0; tensor < selected_.size(); ++tensor) {
    if (!selected_[tensor]) continue;
    for (std::uint64_t i = first_chunk_[tensor]; i < first_chunk_[tensor + 1]; ++i)
      plan_.push_back({tensor, i - first_chunk_[tensor], digests_[i], {}, 0, 0});
  }
  return Locate();
}

absl::StatusOr<std::uint64_t> RestoreReader::PlanWant(const v1::Want& want) {
  const auto bad = [](std::string_view what) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_WANT", what);
  };
  if (static_cast<std::uint64_t>(want.ranges_size()) > kMaxPerQuestion)
    return bad(absl::StrCat("a want takes ", kMaxPerQuestion, " ranges at most"));
  plan_.clear();
  for (const v1::Want::Range& range : want.ranges()) {
    if (range.tensor() >= selected_.size() || !selected_[range.tensor()])
      return bad(absl::StrCat("tensor number ", range.tensor(), " is not among what was selected"));
    const std::uint64_t first = first_chunk_[range.tensor()];
    const std::uint64_t count = first_chunk_[range.tensor() + 1] - first;
    if (range.first_chunk() > count || range.chunk_count() > count - range.first_chunk())
      return bad(absl::StrCat("tensor number ", range.tensor(), " has only ", count, " chunks"));
    if (plan_.size() + range.chunk_count() > digests_.size()) return bad("a want asks for chunks twice");
    for (std::uint64_t i = range.first_chunk(); i < range.first_chunk() + range.chunk_count(); ++i)
      plan_.push_back({range.tensor(), i, digests_[first + i], {}, 0, 0});
  }
  return Locate();
}

// Fills in where the plan's chunks are, and puts them in the order of the packs.
absl::StatusOr<std::uint64_t> RestoreReader::Locate() {
  constexpr std::size_t kPage = 4096;
  std::uint64_t bytes = 0;
  for (std::size_t begin = 0; begin < plan_.size(); begin += kPage) {
    const std::size_t end = std::min(begin + kPage, plan_.size());
    std::vector<RecordName> names;
    for (std::size_t i = begin; i < end; ++i) names.push_back({false, plan_[i].digest});
    const absl::StatusOr<std::vector<v1::ChunkRow>> rows = store_.chunks().Locate(domain_, names);
    if (absl::IsNotFound(rows.status())) return Damaged(std::string(rows.status().message()));
    CKPT_RETURN_IF_ERROR(rows.status());
    for (std::size_t i = begin; i < end; ++i) {
      const v1::ChunkRow& row = (*rows)[i - begin];
      CKPT_ASSIGN_OR_RETURN(plan_[i].pack, PackOfRow(row));
      plan_[i].offset = row.offset();
      plan_[i].stored_length = row.stored_length();
      bytes += row.raw_length();
    }
  }
  std::sort(plan_.begin(), plan_.end(), [](const ChunkToRead& a, const ChunkToRead& b) {
    return std::tie(a.pack, a.offset, a.tensor, a.index) < std::tie(b.pack, b.offset, b.tensor, b.index);
  });
  return bytes;
}

absl::Status RestoreReader::ReadRecord(const ChunkToRead& chunk, std::span<std::byte> buffer, bool check) const {
  CKPT_RETURN_IF_ERROR(store_.packs().Read(domain_, chunk.pack, chunk.offset, buffer));
  return CheckRecord(chunk, buffer, check);
}

// The chunk where it is now, if it has moved since the plan was made: it healed.
std::optional<ChunkToRead> RestoreReader::Moved(const ChunkToRead& chunk) const {
  const absl::StatusOr<std::vector<v1::ChunkRow>> rows = store_.chunks().Locate(domain_, {{false, chunk.digest}});
  if (!rows.ok()) return std::nullopt;
  const absl::StatusOr<PackId> pack = PackOfRow(rows->front());
  if (!pack.ok() || (*pack == chunk.pack && rows->front().offset() == chunk.offset) ||
      rows->front().stored_length() != chunk.stored_length)
    return std::nullopt;
  ChunkToRead moved = chunk;
  moved.pack = *pack;
  moved.offset = rows->front().offset();
  return moved;
}

absl::Status RestoreReader::Read(ChunkToRead chunk, std::span<std::byte> buffer, bool check) const {
  absl::Status status = ReadRecord(chunk, buffer, check);
  if (status.ok()) return status;
  if (const auto moved = Moved(chunk); moved.has_value()) {
    chunk = *moved;
    status = ReadRecord(chunk, buffer, check);
    if (status.ok()) return status;
  }
  const RecordUse use{Name(), absl::StrCat("tensor ", TensorPath(chunk.tensor), " chunk ", chunk.index)};
  status = NoteUnreadable(store_, domain_, {false, chunk.digest}, chunk.pack, chunk.offset, use, status);
  return absl::IsDataLoss(status) ? Damaged(std::string(status.message())) : status;
}

// Looked up again when it is needed: paths are too many to keep.
std::string RestoreReader::TensorPath(std::uint64_t tensor) const {
  const v1::ManifestPartRef* holder = nullptr;  // the last part that begins before it
  for (const v1::ManifestPartRef& ref : root_.parts())
    if (ref.tensors() && ref.first() <= tensor) holder = &ref;
  if (holder != nullptr) {
    const absl::StatusOr<v1::ManifestPart> part = ReadPart(*holder);
    if (part.ok() && tensor - holder->first() < static_cast<std::uint64_t>(part->tensors_size()))
      return part->tensors(static_cast<int>(tensor - holder->first())).path();
  }
  return absl::StrCat("number ", tensor);
}

}  // namespace ckpt::storage
