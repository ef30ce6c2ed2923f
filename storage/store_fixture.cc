#include "storage/store_fixture.h"

#include <cstdlib>

#include "base/box.h"
#include "base/random.h"
#include "base/status.h"
#include "storage/pin_table.h"
#include "storage/record_bitmap.h"

namespace ckpt::storage {
namespace {

std::string ComponentOf(const std::string& path) { return path.substr(0, path.find('.')); }

}  // namespace

StoreTest::StoreTest() {
  std::string pattern = (std::filesystem::temp_directory_path() / "ckpt-store-XXXXXX").string();
  CKPT_CHECK(mkdtemp(pattern.data()) != nullptr);
  dir_ = pattern;
  options_.dir = dir_ / "store";
  options_.chunk_size = kChunk;
  options_.reserve_bytes = 1 << 20;
  options_.clock = &clock_;
  OpenStore();
}

StoreTest::~StoreTest() {
  store_.reset();
  std::filesystem::remove_all(dir_);
}

void StoreTest::OpenStore() {
  auto store = Store::Open(options_);
  CKPT_CHECK_OK(store.status());
  store_ = *std::move(store);
}

v1::SaveBegin StoreTest::BeginOf(const std::string& run, std::int64_t epoch, std::string attempt_key) {
  v1::SaveBegin begin;
  begin.set_run(run);
  begin.set_epoch(epoch);
  begin.set_attempt_key(attempt_key.empty() ? RandomBytes(16) : std::move(attempt_key));
  return begin;
}

std::unique_ptr<SaveStream> StoreTest::Begin(const v1::SaveBegin& begin) {
  auto save = SaveStream::Begin(*store_, begin, [](const std::string&, std::uint64_t) {});
  CKPT_CHECK_OK(save.status());
  return *std::move(save);
}

v1::Tensor StoreTest::HeaderOf(const std::string& path, const std::string& bytes) {
  v1::Tensor tensor;
  tensor.set_path(path);
  tensor.set_component(ComponentOf(path));
  tensor.set_dtype(v1::DTYPE_UINT8);
  tensor.add_shape(bytes.size());
  if (bytes.size() < kInlineLimit) {
    tensor.set_inline_data(bytes);
  } else {
    *tensor.add_boxes() = WholeBox(tensor);
  }
  return tensor;
}

absl::Status StoreTest::SendTensors(SaveStream& save, const Tensors& tensors) {
  for (const auto& [path, bytes] : tensors) {
    v1::TensorBatch batch;
    *batch.add_tensors() = HeaderOf(path, bytes);
    CKPT_RETURN_IF_ERROR(save.AddTensors(std::move(batch)));
    if (bytes.size() < kInlineLimit) continue;
    for (std::size_t at = 0; at < bytes.size(); at += kChunk) {
      const std::string chunk = bytes.substr(at, kChunk);
      CKPT_RETURN_IF_ERROR(save.AddChunk(Payload::Of(chunk), Xxh3(chunk).view()));
    }
  }
  return absl::OkStatus();
}

absl::Status StoreTest::SendTree(SaveStream& save, const Tensors& tensors) {
  // Each component is a mapping of the names below it; tensors of one stand together.
  v1::StatePart part;
  v1::StateNode& root = *part.add_nodes();
  root.set_kind(v1::NODE_KIND_DICT);
  int component = -1;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string& path = tensors[i].first;
    if (component < 0 || part.nodes(component).key().str_value() != ComponentOf(path)) {
      component = part.nodes_size();
      part.mutable_nodes(0)->set_child_count(part.nodes(0).child_count() + 1);
      v1::StateNode& node = *part.add_nodes();
      node.set_kind(v1::NODE_KIND_DICT);
      node.mutable_key()->set_str_value(ComponentOf(path));
    }
    v1::StateNode& parent = *part.mutable_nodes(component);
    parent.set_child_count(parent.child_count() + 1);
    v1::StateNode& leaf = *part.add_nodes();
    leaf.set_kind(v1::NODE_KIND_TENSOR);
    leaf.mutable_key()->set_str_value(path.substr(path.find('.') + 1));
    leaf.set_tensor(i);
  }
  return save.AddState(part);
}

absl::Status StoreTest::Send(SaveStream& save, const Tensors& tensors) {
  CKPT_RETURN_IF_ERROR(SendTensors(save, tensors));
  return SendTree(save, tensors);
}

absl::StatusOr<v1::Checkpoint> StoreTest::Save(const v1::SaveBegin& begin, const Tensors& tensors,
                                               const std::map<std::string, double>& metrics) {
  auto save = Begin(begin);
  CKPT_RETURN_IF_ERROR(Send(*save, tensors));
  v1::SaveCommit commit;
  for (const auto& [name, value] : metrics) {
    v1::Metric& metric = *commit.add_metrics();
    metric.set_name(name);
    metric.set_value(value);
  }
  CKPT_ASSIGN_OR_RETURN(v1::GetSaveResponse outcome, save->Commit(commit));
  return std::move(*outcome.mutable_committed()->mutable_checkpoint());
}

absl::StatusOr<std::map<std::string, std::string>> StoreTest::Restore(const std::string& reference) {
  v1::RestoreBegin begin;
  begin.set_reference(reference);
  CKPT_ASSIGN_OR_RETURN(const auto reader, RestoreReader::Open(*store_, begin));
  std::vector<v1::Tensor> tensors;
  while (true) {
    CKPT_ASSIGN_OR_RETURN(const auto part, reader->NextPart());
    if (!part.has_value()) break;
    tensors.insert(tensors.end(), part->tensors().tensors().begin(), part->tensors().tensors().end());
  }
  std::map<std::string, std::string> out;
  for (const v1::Tensor& tensor : tensors) {
    out[tensor.path()] = tensor.inline_data();
    if (!tensor.boxes().empty()) out[tensor.path()].resize(tensor.shape(0));
  }
  CKPT_RETURN_IF_ERROR(reader->PlanSelected().status());
  for (const ChunkToRead& chunk : reader->plan()) {
    std::string record(kRecordHeaderSize + chunk.stored_length, '\0');
    CKPT_RETURN_IF_ERROR(reader->Read(chunk, std::as_writable_bytes(std::span(record)), true));
    out[tensors[chunk.tensor].path()].replace(chunk.index * kChunk, chunk.stored_length,
                                              record.substr(kRecordHeaderSize));
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> StoreTest::Rows(const std::string& prefix) {
  std::vector<std::pair<std::string, std::string>> out;
  CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
    out.clear();
    return ForEachRow(txn, prefix, [&](const std::string& key, const std::string& value) {
      out.emplace_back(key, value);
      return absl::OkStatus();
    });
  }));
  return out;
}

std::set<PackId> StoreTest::Pins(const SessionId& session) {
  std::set<PackId> out;
  CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(out, PinnedPacks(txn, session));
    return absl::OkStatus();
  }));
  return out;
}

void StoreTest::ExpectReferences(const VersionId& version, const std::string& component,
                                 const std::vector<std::string>& chunks) {
  std::map<PackId, std::string> expected;
  for (const std::string& chunk : chunks) {
    const v1::ChunkRow row = ChunkRowOf(chunk);
    AddRecord(expected[PackIdOf(row)], row.ordinal());
  }
  std::map<PackId, std::string> found;
  for (const auto& [pack_key, row] : Rows(keys::Packs())) {
    const PackId pack = *keys::PackOf(pack_key);
    for (const auto& [key, value] : Rows(keys::Reference(pack, version, component)))
      found[pack] = ParseRow<v1::ReferenceRow>(key, value)->records();
  }
  EXPECT_EQ(found, expected);
}

std::string StoreTest::Data(char seed, std::size_t chunks) {
  std::string out(chunks * kChunk, seed);
  for (std::size_t i = 0; i < chunks; ++i) out[i * kChunk] = static_cast<char>(i);
  return out;
}

}  // namespace ckpt::storage
