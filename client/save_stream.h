// One Save call, driven from one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/v1/service.pb.h"
#include "client/citation_plan.h"
#include "client/connection.h"
#include "client/raw_stream.h"
#include "client/save_chunks.h"
#include "client/wire_message.h"

namespace ckpt::client {

class SaveStream {
 public:
  // What Send tells and asks as it goes.
  struct Observer {
    // Bytes of tensors dealt with so far in this stream.
    std::function<void(std::uint64_t done_bytes)> sent;
    // Chunks of this stream that are durable by now.
    std::function<void(std::uint64_t acked_chunks)> acked;
    // All bytes have been read; an error ends the stream before the commit.
    std::function<absl::Status()> all_read;
  };

  // What a commit came to: the checkpoint, or the ranks that it waits for.
  struct Outcome {
    v1::Checkpoint checkpoint;
    std::vector<std::uint32_t> waiting;
  };

  // Opens the call and waits until the server has begun. Errors: the call's.
  static absl::StatusOr<std::unique_ptr<SaveStream>> Open(Connection& connection, v1::SaveBegin begin);

  [[nodiscard]] const v1::Begun& begun() const { return begun_; }
  [[nodiscard]] const AckedChunks& acked() const { return acked_; }

  // Asks for chunks, however many; see AskServer.
  absl::StatusOr<std::vector<bool>> Ask(std::span<const Digest> digests);

  // Sends the tensors, citing the chunks that are marked, and then the nodes and the commit, and waits for the answer.
  // Digests that acks give go into `chunks`. `lent` counts the slices over the tensors' memory.
  absl::StatusOr<Outcome> Send(SaveChunks& chunks, const std::vector<bool>& cite, std::span<const v1::StateNode> nodes,
                               const v1::SaveCommit& commit, LentMemory& lent, const Observer& observer);

 private:
  explicit SaveStream(Connection& connection)
      : stream_(connection.raw, "/ckpt.v1.CheckpointService/Save", connection.options) {}

  absl::Status ReadBegun();
  absl::Status Write(grpc::ByteBuffer message);
  // Takes messages until the condition holds.
  absl::Status Await(const std::function<bool()>& condition);
  absl::Status TakeMessage();
  absl::Status TakeAcked(const v1::AckedChunks& acked);
  absl::Status TakeAck(const v1::Ack& ack);
  absl::Status Ended();

  absl::Status SendTensor(std::uint64_t tensor, const std::vector<bool>& cite, LentMemory& lent);
  absl::Status FlushHeaders();
  absl::Status FlushCitations();
  absl::Status SendNodes(std::span<const v1::StateNode> nodes);

  RawStream stream_;
  v1::Begun begun_;
  bool has_begun_ = false;
  AckedChunks acked_;
  std::uint64_t acked_left_ = 0;  // chunks that AckedChunks messages are still to bring
  std::deque<std::string> answers_;
  std::optional<Outcome> outcome_;

  // Send's.
  SaveChunks* chunks_ = nullptr;
  const Observer* observer_ = nullptr;
  std::uint64_t next_chunk_ = 0;  // the first that was not given to the stream
  std::uint64_t next_acked_ = 0;  // the first that is not acked
  std::uint64_t done_bytes_ = 0;
  v1::SaveRequest headers_;
  std::size_t headers_bytes_ = 0;
  v1::SaveRequest citations_;
};

}  // namespace ckpt::client
