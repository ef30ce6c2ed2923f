// Save over as many streams as it takes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/client.h"
#include "client/connection.h"
#include "client/retry.h"
#include "client/save_chunks.h"
#include "client/save_stream.h"
#include "client/tensor_set.h"

namespace ckpt::client {

// Tensors are only noted as they are added; Commit sends them, so that a first attempt, one after a cut connection and
// one that finds most chunks at the server are one path.
class SaveJob final : public Save {
 public:
  // State::check.
  using Check = std::function<absl::Status()>;

  // Opens the first stream. The connection is shared with the client, which may be destroyed first.
  static absl::StatusOr<std::unique_ptr<Save>> Begin(std::shared_ptr<Connection> connection, SaveOptions options,
                                                     SaveChunks::Release release, Check check);

  absl::StatusOr<std::uint64_t> AddTensor(const Tensor& tensor) override;
  absl::StatusOr<SaveResult> Commit(std::span<const v1::StateNode> nodes,
                                    std::span<const std::pair<std::string, double>> metrics) override;

 private:
  SaveJob(std::shared_ptr<Connection> connection, SaveOptions options, SaveChunks::Release release, Check check);

  // OnStream, again and again while the server cannot be reached, until there is no progress for too long.
  absl::Status Retrying(const std::function<absl::Status(Backoff&)>& call);
  // Makes the call on an open stream; opens one where there is none, and drops it after an error.
  absl::Status OnStream(const std::function<absl::Status()>& call);
  absl::StatusOr<SaveStream::Outcome> CommitOnce(std::span<const v1::StateNode> nodes, const v1::SaveCommit& commit,
                                                 Backoff& backoff);
  absl::StatusOr<std::vector<bool>> Plan();
  SaveStream::Observer Observe(Backoff& backoff);
  SaveResult Result(SaveStream::Outcome outcome) const;

  const std::shared_ptr<Connection> connection_;  // shared: see Begin
  const SaveOptions options_;
  const SaveChunks::Release release_;
  const Check check_;
  v1::SaveBegin begin_;

  TensorSet tensors_;
  std::optional<SaveChunks> chunks_;  // once Commit has tensors and limits
  std::vector<bool> cited_;           // in the stream that committed
  bool over_ = false;                 // Commit has taken the tree
  bool sent_ = false;                 // a stream may have committed
  std::uint64_t streams_ = 0;         // opened so far
  bool probed_ = false;
  bool send_all_ = false;  // the server lost a chunk that was cited: cite nothing
  // How far any stream got.
  std::uint64_t most_done_bytes_ = 0;
  std::uint64_t most_acked_ = 0;

  LentMemory lent_;  // outlives the stream
  std::unique_ptr<SaveStream> stream_;
};

}  // namespace ckpt::client
