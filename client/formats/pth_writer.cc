// The file is laid out before the first byte comes, since all sizes are known: each storage has its place, to which its
// pieces are written as they come. The pickle follows the storages, because arrays' bytes are in it.
#include "client/formats/pth_writer.h"

#include <libdeflate.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/state_walk.h"
#include "base/status.h"
#include "client/formats/file_error.h"
#include "client/formats/output_file.h"
#include "client/formats/pickle_writer.h"
#include "client/tensor_strides.h"
#include "client/formats/written_pieces.h"
#include "client/formats/zip_writer.h"

namespace ckpt::formats {
namespace {

constexpr std::size_t kWindowSize = 1U << 20;
constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();
constexpr std::string_view kByteOrder = "little";
constexpr std::string_view kVersion = "3\n";

std::uint32_t Crc32(std::string_view bytes) { return libdeflate_crc32(0, bytes.data(), bytes.size()); }

class PthWriter : public StateFileWriter {
 public:
  PthWriter(std::span<const v1::StateNode> nodes, std::span<const v1::Tensor> tensors)
      : nodes_(nodes.begin(), nodes.end()), tensors_(tensors.begin(), tensors.end()) {}

  absl::Status Open(const std::string& path, const Options& options);
  absl::Status Write(std::uint64_t tensor, std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
  absl::StatusOr<std::uint64_t> Finish() override;

 private:
  struct Storage {
    std::uint64_t holder;  // number of the tensor that has its bytes
    std::uint64_t size_bytes;
    v1::DType dtype;                 // of its views, if they are all the same
    std::uint64_t offset_bytes = 0;  // in the file
    WrittenPieces pieces = {};
  };

  absl::Status PlaceTensors();
  absl::Status PlaceTensor(std::uint64_t number);
  absl::Status PlaceArray(std::uint64_t number);
  absl::Status PlanFile();
  [[nodiscard]] absl::StatusOr<std::string> Pickle() const;
  absl::StatusOr<std::uint32_t> StorageCrc32(const Storage& storage) const;

  std::vector<v1::StateNode> nodes_;
  std::vector<v1::Tensor> tensors_;
  std::vector<Storage> storages_;
  std::vector<std::size_t> storage_of_;   // tensor number → its storage, or the one that it shows; kNone: not written
  std::vector<std::string> array_bytes_;  // by tensor number
  std::vector<WrittenPieces> array_pieces_;
  std::string pickle_;  // complete unless there are arrays
  bool has_arrays_ = false;
  std::unique_ptr<OutputFile> file_;
};

// Gives a storage to every tensor that is in the tree, and to what a view shows.
absl::Status PthWriter::PlaceTensors() {
  storage_of_.assign(tensors_.size(), kNone);
  array_bytes_.resize(tensors_.size());
  array_pieces_.resize(tensors_.size());
  StateWalk walk;
  for (const v1::StateNode& node : nodes_) {
    CKPT_RETURN_IF_ERROR(walk.Next(node));
    if (!HasTensor(node.kind())) continue;
    if (node.tensor() >= tensors_.size())
      return UnsupportedValue(walk.path(), absl::StrCat("tensor number ", node.tensor()), "there is no such tensor");
    const absl::Status placed =
        node.kind() == v1::NODE_KIND_NUMPY_ARRAY ? PlaceArray(node.tensor()) : PlaceTensor(node.tensor());
    CKPT_RETURN_IF_ERROR(placed);
  }
  for (Storage& storage : storages_) {
    const std::uint64_t element = ElementSize(storage.dtype);
    if (element != 0 && storage.size_bytes % element != 0) storage.dtype = v1::DTYPE_UNSPECIFIED;
  }
  return absl::OkStatus();
}

absl::Status PthWriter::PlaceTensor(std::uint64_t number) {
  const v1::Tensor& tensor = tensors_[number];
  const std::uint64_t holder = tensor.has_view_of() ? tensor.view_of() : number;
  if (holder >= tensors_.size() || tensors_[holder].has_view_of())
    return UnsupportedValue(tensor.path(), "a view of a tensor that holds no bytes", "the checkpoint is malformed");
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t reach, client::ReachBytes(tensor));
  if (storage_of_[holder] == kNone) {
    CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(tensors_[holder]));
    storage_of_[holder] = storages_.size();
    storages_.push_back({.holder = holder, .size_bytes = size, .dtype = tensor.dtype()});
  }
  storage_of_[number] = storage_of_[holder];
  Storage& storage = storages_[storage_of_[holder]];
  if (tensor.view_offset_bytes() > storage.size_bytes || reach > storage.size_bytes - tensor.view_offset_bytes())
    return UnsupportedValue(tensor.path(), "a view beyond the bytes that it shows", "the checkpoint is malformed");
  if (storage.dtype != tensor.dtype()) storage.dtype = v1::DTYPE_UNSPECIFIED;
  return absl::OkStatus();
}

absl::Status PthWriter::PlaceArray(std::uint64_t number) {
  const v1::Tensor& tensor = tensors_[number];
  if (tensor.has_view_of()) return UnsupportedValue(tensor.path(), "a numpy.ndarray that is a view", "copy it first");
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(tensor));
  if (size > kMaxArrayBytes)
    return UnsupportedValue(tensor.path(), "a numpy.ndarray of more than 1 GiB", "save it as a tensor");
  array_bytes_[number].resize(size);
  has_arrays_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::string> PthWriter::Pickle() const {
  std::vector<PickledStorage> storages(tensors_.size());
  for (std::size_t number = 0; number < tensors_.size(); ++number) {
    if (storage_of_[number] == kNone) continue;
    const Storage& storage = storages_[storage_of_[number]];
    storages[number] = {storage_of_[number], storage.size_bytes, storage.dtype};
  }
  return WritePickle(nodes_, {tensors_, storages, array_bytes_});
}

std::string EntryName(std::string_view name) { return absl::StrCat("archive/", std::string(name)); }

absl::Status PthWriter::PlanFile() {
  ZipWriter layout(nullptr);
  CKPT_RETURN_IF_ERROR(layout.AddEntry({EntryName("byteorder"), kByteOrder.size()}).status());
  for (std::size_t key = 0; key < storages_.size(); ++key) {
    Storage& storage = storages_[key];
    CKPT_ASSIGN_OR_RETURN(storage.offset_bytes,
                          layout.AddEntry({EntryName(absl::StrCat("data/", key)), storage.size_bytes}));
  }
  CKPT_RETURN_IF_ERROR(layout.AddEntry({EntryName("data.pkl"), pickle_.size()}).status());
  CKPT_RETURN_IF_ERROR(layout.AddEntry({EntryName("version"), kVersion.size()}).status());
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, layout.Finish());
  return file_->Reserve(size);
}

absl::Status PthWriter::Open(const std::string& path, const Options& options) {
  CKPT_RETURN_IF_ERROR(PlaceTensors());
  CKPT_ASSIGN_OR_RETURN(pickle_, Pickle());
  if (!has_arrays_) nodes_ = {};
  CKPT_ASSIGN_OR_RETURN(file_, OutputFile::Create(path, {.overwrite = options.overwrite}));
  return PlanFile();
}

absl::Status PthWriter::Write(std::uint64_t tensor, std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  if (tensor >= tensors_.size())
    return MakeError(absl::StatusCode::kInvalidArgument, "WRONG_SIZE", absl::StrCat("there is no tensor ", tensor));
  const bool array = !array_bytes_[tensor].empty();
  const bool holder = storage_of_[tensor] != kNone && storages_[storage_of_[tensor]].holder == tensor;
  if (!array && !holder) return absl::OkStatus();  // not in this file
  const std::uint64_t size = array ? array_bytes_[tensor].size() : storages_[storage_of_[tensor]].size_bytes;
  if (offset_bytes > size || bytes.size() > size - offset_bytes)
    return MakeError(absl::StatusCode::kInvalidArgument, "WRONG_SIZE",
                     absl::StrCat("tensor ", tensors_[tensor].path(), ": bytes beyond its end"));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (array) {
    std::copy(text.begin(), text.end(), array_bytes_[tensor].begin() + static_cast<std::ptrdiff_t>(offset_bytes));
    array_pieces_[tensor].Add(offset_bytes, text.size(), 0);
    return absl::OkStatus();
  }
  Storage& storage = storages_[storage_of_[tensor]];
  CKPT_RETURN_IF_ERROR(file_->WriteAt(storage.offset_bytes + offset_bytes, text));
  storage.pieces.Add(offset_bytes, text.size(), Crc32(text));
  return absl::OkStatus();
}

absl::StatusOr<std::uint32_t> PthWriter::StorageCrc32(const Storage& storage) const {
  if (const auto crc = storage.pieces.Crc32()) return *crc;
  // Pieces that came again were cut elsewhere: ask the file.
  std::uint32_t crc = 0;
  for (std::uint64_t done = 0; done < storage.size_bytes;) {
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(kWindowSize, storage.size_bytes - done));
    CKPT_ASSIGN_OR_RETURN(const std::string window, file_->ReadAt(storage.offset_bytes + done, size));
    crc = libdeflate_crc32(crc, window.data(), window.size());
    done += size;
  }
  return crc;
}

absl::StatusOr<std::uint64_t> PthWriter::Finish() {
  const auto missing = [&](std::uint64_t tensor) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "BYTES_MISSING",
                     absl::StrCat("tensor ", tensors_[tensor].path(), ": not all of its bytes were written"));
  };
  for (const Storage& storage : storages_)
    if (!storage.pieces.Cover(storage.size_bytes)) return missing(storage.holder);
  for (std::size_t number = 0; number < tensors_.size(); ++number)
    if (!array_pieces_[number].Cover(array_bytes_[number].size())) return missing(number);
  if (has_arrays_) {
    CKPT_ASSIGN_OR_RETURN(pickle_, Pickle());
  }
  ZipWriter zip([&](std::uint64_t offset, std::string_view bytes) { return file_->WriteAt(offset, bytes); });
  const auto add = [&](std::string_view name, std::string_view content) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(const std::uint64_t offset, zip.AddEntry({EntryName(name), content.size(), Crc32(content)}));
    return file_->WriteAt(offset, content);
  };
  CKPT_RETURN_IF_ERROR(add("byteorder", kByteOrder));
  for (std::size_t key = 0; key < storages_.size(); ++key) {
    CKPT_ASSIGN_OR_RETURN(const std::uint32_t crc, StorageCrc32(storages_[key]));
    CKPT_ASSIGN_OR_RETURN(const std::uint64_t offset,
                          zip.AddEntry({EntryName(absl::StrCat("data/", key)), storages_[key].size_bytes, crc}));
    CKPT_CHECK(offset == storages_[key].offset_bytes);
  }
  CKPT_RETURN_IF_ERROR(add("data.pkl", pickle_));
  CKPT_RETURN_IF_ERROR(add("version", kVersion));
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, zip.Finish());
  CKPT_RETURN_IF_ERROR(file_->Finish(size));
  return size;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateFileWriter>> CreatePthWriter(const std::string& path,
                                                                 std::span<const v1::StateNode> nodes,
                                                                 std::span<const v1::Tensor> tensors,
                                                                 const StateFileWriter::Options& options) {
  auto writer = std::make_unique<PthWriter>(nodes, tensors);
  CKPT_RETURN_IF_ERROR(writer->Open(path, options));
  return writer;
}

}  // namespace ckpt::formats
