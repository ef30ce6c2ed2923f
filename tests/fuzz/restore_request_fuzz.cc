// What ckptd receives besides saves, against a store with a few checkpoints: RestoreRequests, and the requests of lists
// with their page tokens. The input is messages, each behind its length in two bytes: a RestoreBegin, a
// ListRunsRequest, a ListCheckpointsRequest, a reference, and then Wants.
#include <spdlog/spdlog.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "storage/checkpoint_reads.h"
#include "storage/restore_reader.h"
#include "storage/save_stream.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/parse_message.h"
#include "tests/fuzz/scratch_folder.h"

namespace {

using namespace ckpt;
using namespace ckpt::storage;
using ckpt::fuzz::Require;

constexpr std::uint32_t kChunkSize = 4096;

// {"model": {"w": 3 chunks, "v": a view of it}, "optimizer": {"m": 8 bytes inline}}
void AddCheckpoint(Store& store, const std::string& run, std::int64_t epoch) {
  v1::SaveBegin begin;
  begin.set_run(run);
  begin.set_epoch(epoch);
  begin.set_attempt_key(std::string(Sha256(absl::StrCat(run, "@", epoch)).view().substr(0, 16)));
  const auto save = SaveStream::Begin(store, begin, [](const std::string&, std::uint64_t) {});
  CKPT_CHECK_OK(save.status());
  const auto tensor = [](const char* path, const char* component, std::uint64_t size) {
    v1::Tensor out;
    out.set_path(path);
    out.set_component(component);
    out.set_dtype(v1::DTYPE_UINT8);
    out.add_shape(size);
    return out;
  };
  v1::TensorBatch batch;
  *batch.add_tensors() = tensor("model.w", "model", 10'000);
  CKPT_CHECK_OK((*save)->AddTensors(batch));
  for (const std::size_t size : {4096U, 4096U, 1808U})
    CKPT_CHECK_OK((*save)->AddChunk(Payload::Of(std::string(size, 'w')), {}));
  batch.Clear();
  *batch.add_tensors() = tensor("model.v", "model", 100);
  batch.mutable_tensors(0)->set_view_of(0);
  *batch.add_tensors() = tensor("optimizer.m", "optimizer", 8);
  batch.mutable_tensors(1)->set_inline_data("12345678");
  CKPT_CHECK_OK((*save)->AddTensors(batch));
  v1::StatePart part;
  const auto node = [&](v1::NodeKind kind, const char* key, std::uint64_t children, std::uint64_t number) {
    v1::StateNode& out = *part.add_nodes();
    out.set_kind(kind);
    if (*key != '\0') out.mutable_key()->set_str_value(key);
    out.set_child_count(children);
    out.set_tensor(number);
  };
  node(v1::NODE_KIND_DICT, "", 2, 0);
  node(v1::NODE_KIND_DICT, "model", 2, 0);
  node(v1::NODE_KIND_TENSOR, "w", 0, 0);
  node(v1::NODE_KIND_TENSOR, "v", 0, 1);
  node(v1::NODE_KIND_DICT, "optimizer", 1, 0);
  node(v1::NODE_KIND_TENSOR, "m", 0, 2);
  CKPT_CHECK_OK((*save)->AddState(part));
  v1::SaveCommit commit;
  v1::Metric& metric = *commit.add_metrics();
  metric.set_name("loss");
  metric.set_value(1.0 / static_cast<double>(epoch + 1));
  CKPT_CHECK_OK((*save)->Commit(commit).status());
}

// Filled once; nothing that this target does changes it.
Store& FilledStore() {
  static const fuzz::ScratchFolder folder;
  static const std::unique_ptr<Store> store = [] {
    spdlog::set_level(spdlog::level::err);
    auto opened = Store::Open({.dir = folder.path() / "store", .chunk_size = kChunkSize, .reserve_bytes = 1 << 20});
    CKPT_CHECK_OK(opened.status());
    for (const char* run : {"a", "b/c", "z"})
      for (std::int64_t epoch = 0; epoch < 3; ++epoch) AddCheckpoint(**opened, run, epoch);
    return *std::move(opened);
  }();
  return *store;
}

template <typename Message>
Message Parse(fuzz::Input& input) {
  const std::string_view piece = input.Piece();
  Message message;
  if (!ckpt::fuzz::ParseMessage(piece, message)) message.Clear();
  return message;
}

void ReadPlan(const RestoreReader& reader) {
  for (const ChunkToRead& chunk : reader.plan()) {
    Require(chunk.stored_length <= kChunkSize, "chunks have their size");
    std::string record(kRecordHeaderSize + chunk.stored_length, '\0');
    Require(reader.Read(chunk, std::as_writable_bytes(std::span(record)), true).ok(), "planned chunks can be read");
  }
}

void Restore(Store& store, const v1::RestoreBegin& begin, fuzz::Input& input) {
  const auto reader = RestoreReader::Open(store, begin);
  if (!reader.ok()) return;
  while (true) {
    const auto part = (*reader)->NextPart();
    Require(part.ok(), "each part can be read");
    if (!part->has_value()) break;
  }
  Require((*reader)->PlanSelected().ok(), "what is selected can be planned");
  ReadPlan(**reader);
  while (!input.empty()) {
    if (!(*reader)->PlanWant(Parse<v1::Want>(input)).ok()) return;
    ReadPlan(**reader);
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Store& store = FilledStore();
  fuzz::Input input(data, size);
  const auto begin = Parse<v1::RestoreBegin>(input);
  const auto runs = ListRuns(store.engine(), Parse<v1::ListRunsRequest>(input));
  if (runs.ok())
    for (const v1::Run& run : runs->runs())
      Require(GetRun(store.engine(), "", run.name()).ok(), "a listed run is there");
  const auto checkpoints = ListCheckpoints(store.engine(), Parse<v1::ListCheckpointsRequest>(input));
  if (checkpoints.ok())
    for (const v1::Checkpoint& listed : checkpoints->checkpoints())
      Require(listed.epoch() >= 0 && listed.epoch() < 3, "a listed checkpoint is one of those that were saved");
  const std::string_view reference = input.Piece();
  Require(Resolve(store.engine(), "", reference).ok() || !reference.starts_with("a:latest") || reference != "a:latest",
          "a run that is there has a latest checkpoint");
  Restore(store, begin, input);
  return 0;
}
