#include "client/formats/safetensors_writer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/status.h"
#include "client/formats/file_error.h"
#include "client/formats/output_file.h"
#include "client/formats/row_major_copy.h"
#include "client/formats/safetensors_header.h"
#include "client/formats/safetensors_names.h"
#include "client/formats/written_pieces.h"
#include "client/tensor_strides.h"

namespace ckpt::formats {
namespace {

// Where bytes behind the file's end begin.
constexpr std::uint64_t kPageSize = 4096;

class SafetensorsWriter : public StateFileWriter {
 public:
  explicit SafetensorsWriter(std::span<const v1::Tensor> tensors)
      : tensors_(tensors.begin(), tensors.end()), sources_(tensors.size()) {}

  absl::Status Open(const std::string& path, std::span<const v1::StateNode> nodes, const Options& options);
  absl::Status Write(std::uint64_t tensor, std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
  absl::StatusOr<std::uint64_t> Finish() override;

 private:
  // A tensor of the file, made of what one of the state's has.
  struct Placement {
    std::uint64_t tensor;        // that it shows
    std::uint64_t offset_bytes;  // in the file
    std::uint64_t size_bytes;
    bool row_major;  // it is one run of the source's bytes
  };
  struct Source {
    std::uint64_t size_bytes = 0;
    std::vector<Placement> placements = {};
    WrittenPieces pieces = {};
    std::uint64_t received_bytes = 0;
    // A placement is not one run of bytes: until all have come they are kept in the file, behind its end, so that
    // memory does not grow with them.
    bool strided = false;
    std::uint64_t kept_at = 0;
    bool copied = false;
  };

  absl::Status Place(std::uint64_t tensor, const SafetensorsEntry& entry, std::uint64_t data_begin);
  absl::Status CopyStrided(Source& source);

  std::vector<v1::Tensor> tensors_;
  std::vector<Source> sources_;  // by tensor number
  std::unique_ptr<OutputFile> file_;
  std::uint64_t size_bytes_ = 0;
};

absl::Status SafetensorsWriter::Place(std::uint64_t tensor, const SafetensorsEntry& entry, std::uint64_t data_begin) {
  const v1::Tensor& meta = tensors_[tensor];
  const std::uint64_t holder = meta.has_view_of() ? meta.view_of() : tensor;
  if (holder >= tensors_.size() || tensors_[holder].has_view_of())
    return UnsupportedValue(meta.path(), "a view of a tensor that holds no bytes", "the checkpoint is malformed");
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t reach, client::ReachBytes(meta));
  Source& source = sources_[holder];
  CKPT_ASSIGN_OR_RETURN(source.size_bytes, SizeBytes(tensors_[holder]));
  if (meta.view_offset_bytes() > source.size_bytes || reach > source.size_bytes - meta.view_offset_bytes())
    return UnsupportedValue(meta.path(), "a view beyond the bytes that it shows", "the checkpoint is malformed");
  const bool row_major = IsRowMajor(meta);
  source.placements.push_back({tensor, data_begin + entry.begin, entry.end - entry.begin, row_major});
  source.strided |= !row_major;
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Open(const std::string& path, std::span<const v1::StateNode> nodes,
                                     const Options& options) {
  CKPT_ASSIGN_OR_RETURN(SafetensorsNames names, NameTensors(nodes));
  SafetensorsHeader header;
  header.metadata = std::move(names.metadata);
  header.has_metadata = names.has_metadata;
  std::vector<std::size_t> order;
  for (const auto& [name, path_in_state, tensor] : names.tensors) {
    if (tensor >= tensors_.size())
      return UnsupportedValue(path_in_state, absl::StrCat("tensor number ", tensor), "there is no such tensor");
    const v1::Tensor& meta = tensors_[tensor];
    order.push_back(header.entries.size());
    header.entries.push_back({.name = name,
                              .path = path_in_state,
                              .dtype = meta.dtype(),
                              .shape = {meta.shape().begin(), meta.shape().end()}});
  }
  // The largest elements first: so every tensor is aligned to its own.
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return ElementSize(header.entries[a].dtype) > ElementSize(header.entries[b].dtype);
  });
  std::uint64_t end = 0;
  for (const std::size_t i : order) {
    CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(tensors_[names.tensors[i].tensor]));
    header.entries[i].begin = end;
    if (__builtin_add_overflow(end, size, &end) || end > INT64_MAX)
      return UnsupportedValue(header.entries[i].path, "more than 2^63 bytes", "the checkpoint is malformed");
    header.entries[i].end = end;
  }
  CKPT_ASSIGN_OR_RETURN(const std::string text, FormatSafetensorsHeader(header));
  for (std::size_t i = 0; i < header.entries.size(); ++i)
    CKPT_RETURN_IF_ERROR(Place(names.tensors[i].tensor, header.entries[i], text.size()));
  CKPT_ASSIGN_OR_RETURN(file_, OutputFile::Create(path, {.overwrite = options.overwrite}));
  size_bytes_ = text.size() + end;
  CKPT_RETURN_IF_ERROR(file_->Reserve(size_bytes_));
  std::uint64_t kept_at = size_bytes_ + kPageSize - size_bytes_ % kPageSize;
  for (Source& source : sources_) {
    if (!source.strided) continue;
    source.kept_at = kept_at;
    if (__builtin_add_overflow(kept_at, source.size_bytes + kPageSize - source.size_bytes % kPageSize, &kept_at) ||
        kept_at > INT64_MAX)
      return UnsupportedValue("", "more than 2^63 bytes", "the checkpoint is malformed");
  }
  return file_->WriteAt(0, text);
}

absl::Status SafetensorsWriter::CopyStrided(Source& source) {
  for (const Placement& placement : source.placements) {
    if (placement.row_major) continue;
    const v1::Tensor& meta = tensors_[placement.tensor];
    CKPT_RETURN_IF_ERROR(
        CopyRowMajor(meta, {.from = source.kept_at + meta.view_offset_bytes(), .to = placement.offset_bytes}, *file_));
  }
  source.copied = true;
  file_->Discard(source.kept_at, source.size_bytes);
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Write(std::uint64_t tensor, std::uint64_t offset_bytes,
                                      std::span<const std::byte> bytes) {
  if (tensor >= tensors_.size())
    return MakeError(absl::StatusCode::kInvalidArgument, "WRONG_SIZE", absl::StrCat("there is no tensor ", tensor));
  Source& source = sources_[tensor];
  if (source.placements.empty()) return absl::OkStatus();  // not in this file
  if (offset_bytes > source.size_bytes || bytes.size() > source.size_bytes - offset_bytes)
    return MakeError(absl::StatusCode::kInvalidArgument, "WRONG_SIZE",
                     absl::StrCat("tensor ", tensors_[tensor].path(), ": bytes beyond its end"));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (const Placement& placement : source.placements) {
    if (!placement.row_major) continue;
    const std::uint64_t from = tensors_[placement.tensor].view_offset_bytes();
    const std::uint64_t begin = std::max(offset_bytes, from);
    const std::uint64_t end = std::min(offset_bytes + text.size(), from + placement.size_bytes);
    if (begin >= end) continue;
    CKPT_RETURN_IF_ERROR(
        file_->WriteAt(placement.offset_bytes + begin - from, text.substr(begin - offset_bytes, end - begin)));
  }
  source.pieces.Add(offset_bytes, text.size(), 0);
  source.received_bytes += text.size();
  if (!source.strided || source.copied) return absl::OkStatus();
  CKPT_RETURN_IF_ERROR(file_->WriteAt(source.kept_at + offset_bytes, text));
  if (source.received_bytes < source.size_bytes || !source.pieces.Cover(source.size_bytes)) return absl::OkStatus();
  return CopyStrided(source);
}

absl::StatusOr<std::uint64_t> SafetensorsWriter::Finish() {
  for (std::size_t i = 0; i < sources_.size(); ++i)
    if (!sources_[i].placements.empty() && !sources_[i].pieces.Cover(sources_[i].size_bytes))
      return MakeError(absl::StatusCode::kFailedPrecondition, "BYTES_MISSING",
                       absl::StrCat("tensor ", tensors_[i].path(), ": not all of its bytes were written"));
  CKPT_RETURN_IF_ERROR(file_->Finish(size_bytes_));
  return size_bytes_;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateFileWriter>> CreateSafetensorsWriter(const std::string& path,
                                                                         std::span<const v1::StateNode> nodes,
                                                                         std::span<const v1::Tensor> tensors,
                                                                         const StateFileWriter::Options& options) {
  auto writer = std::make_unique<SafetensorsWriter>(tensors);
  CKPT_RETURN_IF_ERROR(writer->Open(path, nodes, options));
  return writer;
}

}  // namespace ckpt::formats
