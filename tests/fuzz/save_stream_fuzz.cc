// A Save stream against a real store, as a hostile client sends it, and what then can be read. The input is
// SaveRequests, each behind its length in two bytes, of which the first must be a begin. If that is one of several
// ranks', each further begin starts the stream of the rank that it names, in the same save.
//
// Two liberties, because random bytes seldom get far: the domain is a fresh one (one input must not depend on those
// before), and a chunk of one byte stands for a whole chunk of that byte.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/manifest.h"
#include "server/chunk_message.h"
#include "storage/checkpoint_reads.h"
#include "storage/names.h"
#include "storage/restore_reader.h"
#include "storage/save_stream.h"
#include "tests/fuzz/byte_buffer.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/scratch_folder.h"

namespace {

using namespace ckpt;
using namespace ckpt::storage;
using ckpt::fuzz::Require;

constexpr std::uint32_t kChunkSize = 4096;

std::unique_ptr<Store> OpenEmpty(const std::filesystem::path& dir) {
  spdlog::set_level(spdlog::level::err);
  std::filesystem::remove_all(dir);
  auto store = Store::Open({.dir = dir, .chunk_size = kChunkSize, .reserve_bytes = 1 << 20});
  CKPT_CHECK_OK(store.status());
  return *std::move(store);
}

// So that what was sent before can be cited: an ack comes some time after the chunk.
absl::Status SettleAll(SaveStream& save) {
  CKPT_RETURN_IF_ERROR(save.Flush(true));
  return save.Settle();
}

// The store is made anew now and then: each domain leaves a pack open. The pointer is made after the first store, and
// so the last one is closed before what RocksDB made for it goes.
Store& FreshStore() {
  static const fuzz::ScratchFolder folder;
  static std::unique_ptr<Store> store = OpenEmpty(folder.path() / "store");
  static std::uint64_t uses = 0;
  if (++uses % 256 == 0) {
    store.reset();
    store = OpenEmpty(folder.path() / "store");
  }
  return *store;
}

std::vector<server::ReceivedSave> Messages(fuzz::Input input) {
  std::vector<server::ReceivedSave> messages;
  while (!input.empty()) {
    auto message = server::ParseSave(fuzz::ToByteBuffer(input.Piece(), 0));
    if (!message.ok()) break;
    messages.push_back(*std::move(message));
  }
  return messages;
}

absl::Status SendChunk(SaveStream& save, Payload payload, const std::string& fingerprint) {
  if (payload.size() == 1) payload = Payload::Of(std::string(kChunkSize, static_cast<char>(payload.pieces[0][0])));
  return save.AddChunk(std::move(payload), fingerprint);
}

// As server/save_handler.cc does it.
absl::Status Send(SaveStream& save, const server::ReceivedSave& received, std::optional<v1::Checkpoint>& committed) {
  if (received.chunk.has_value()) return SendChunk(save, received.chunk->payload, received.chunk->fingerprint);
  const v1::SaveRequest& request = received.message;
  switch (request.message_case()) {
    case v1::SaveRequest::kHave: {
      const auto missing = save.Have(request.have().digests());
      CKPT_RETURN_IF_ERROR(missing.status());
      Require(missing->size() == (request.have().digests().size() / Digest::kSize + 7) / 8, "a bit for each digest");
      return absl::OkStatus();
    }
    case v1::SaveRequest::kTensors:
      if (!request.tensors().cited_digests().empty()) CKPT_RETURN_IF_ERROR(SettleAll(save));
      return save.AddTensors(request.tensors());
    case v1::SaveRequest::kChunk:
      return SendChunk(save, Payload::Of(request.chunk().payload()), request.chunk().fingerprint());
    case v1::SaveRequest::kCitations:
      CKPT_RETURN_IF_ERROR(SettleAll(save));
      return save.Cite(request.citations().digests());
    case v1::SaveRequest::kState: return save.AddState(request.state());
    case v1::SaveRequest::kCommit: {
      CKPT_ASSIGN_OR_RETURN(const v1::GetSaveResponse outcome, save.Commit(request.commit()));
      if (outcome.has_committed()) committed = outcome.committed().checkpoint();
      return absl::OkStatus();
    }
    default: return absl::FailedPreconditionError("out of order");
  }
}

// What was committed, if the stream came that far.
std::optional<v1::Checkpoint> Save(Store& store, const v1::SaveBegin& begin,
                                   const std::vector<server::ReceivedSave>& messages) {
  std::optional<v1::Checkpoint> committed;
  const auto save = SaveStream::Begin(store, begin, [](const std::string&, std::uint64_t) {});
  if (!save.ok()) return committed;
  for (std::size_t i = 1; i < messages.size() && !committed.has_value(); ++i)
    if (!Send(**save, messages[i], committed).ok()) break;
  return committed;
}

// What is committed can be restored, and is what a client takes.
void Restore(Store& store, const std::string& domain, const v1::Checkpoint& checkpoint) {
  const std::string name = absl::StrCat(checkpoint.run(), "@", checkpoint.epoch(), "#", checkpoint.version());
  v1::RestoreBegin begin;
  begin.set_domain(domain);
  begin.set_reference(name);
  const auto reader = RestoreReader::Open(store, begin);
  Require(reader.ok(), "what is committed can be opened");
  client::ManifestReader client;
  v1::RestoreResponse message;
  *message.mutable_header() = (*reader)->header();
  Require(client.Take(message).ok(), "a client takes the header");
  while (true) {
    const auto part = (*reader)->NextPart();
    Require(part.ok(), "each part can be read");
    if (!part->has_value()) break;
    const absl::Status taken = client.Take(**part);
    if (!taken.ok()) std::fprintf(stderr, "%s\n", taken.ToString().c_str());
    Require(taken.ok(), "a client takes each part");
  }
  message.mutable_start();
  const absl::Status whole = client.Take(message);
  if (!whole.ok()) std::fprintf(stderr, "%s\n", whole.ToString().c_str());
  Require(whole.ok() && client.complete(), "a client takes the whole");
  for (const v1::Tensor& tensor : client.manifest().tensors)
    Require(tensor.path().size() <= 4096 && tensor.component().size() <= 4096, "its names are short");
  Require((*reader)->PlanSelected().ok(), "its chunks are found");
  for (const ChunkToRead& chunk : (*reader)->plan()) {
    std::string record(kRecordHeaderSize + chunk.stored_length, '\0');
    Require((*reader)->Read(chunk, std::as_writable_bytes(std::span(record)), true).ok(), "its chunks can be read");
    Require(Xxh3(std::string_view(record).substr(kRecordHeaderSize)) ==
                client.manifest().fingerprint({chunk.tensor, chunk.index}),
            "its chunks have their fingerprints");
  }
  for (const char* form : {":latest", ":best"}) {
    const auto found = Resolve(store.engine(), domain, checkpoint.run() + form);
    Require(!found.ok() || found->sequence() == checkpoint.sequence(), "the one checkpoint is the latest and the best");
  }
}

// A save by several ranks, one after the other.
void SaveRanks(Store& store, v1::SaveBegin begin, const std::vector<server::ReceivedSave>& messages) {
  std::optional<v1::Checkpoint> committed;
  for (auto first = messages.begin(); first != messages.end();) {
    begin.set_rank(first->message.begin().rank());
    const auto end = std::find_if(first + 1, messages.end(), [](const auto& m) { return m.message.has_begin(); });
    const auto now = Save(store, begin, {first, end});
    Require(!committed.has_value() || !now.has_value() || now->SerializeAsString() == committed->SerializeAsString(),
            "a save makes one version");
    if (now.has_value()) committed = now;
    first = end;
  }
  if (committed.has_value()) Restore(store, begin.domain(), *committed);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static std::uint64_t number = 0;
  const std::vector<server::ReceivedSave> messages = Messages({data, size});
  if (messages.empty() || !messages[0].message.has_begin()) return 0;
  v1::SaveBegin begin = messages[0].message.begin();
  if (begin.domain().empty() || CheckDomain(begin.domain()).ok()) begin.set_domain(absl::StrCat("d", ++number));
  Store& store = FreshStore();
  if (begin.world_size() > 1 || begin.coordinated()) {
    SaveRanks(store, begin, messages);
    return 0;
  }
  const auto committed = Save(store, begin, messages);
  if (!committed.has_value()) return 0;
  Restore(store, begin.domain(), *committed);
  // The same again: nothing new comes of it. Citations are of chunks that the second stream need not have.
  const auto again = Save(store, begin, messages);
  Require(!again.has_value() || again->SerializeAsString() == committed->SerializeAsString(),
          "the same attempt again is the same version");
  return 0;
}
