// The ckptd client: save state dicts to a checkpoint server, list what it has, restore it.
//
//   auto client = ckpt::Client::Connect({.address = "127.0.0.1:7070"});
//   ckpt::SaveOptions options{.run = "resnet50", .epoch = 3};
//   options.metrics = {{"val_loss", 0.41}};
//   auto saved = (*client)->SaveState(options, state);           // durable when it returns OK
//   auto restore = (*client)->OpenRestore({.reference = "resnet50:best"});
//   absl::Status status = (*restore)->ReadInto(buffers);         // every byte checked
//   (*restore)->Pause();                                         // others may restore, while it is kept
//
// Every error says what happened and what to do; ckpt::ReasonOf (ckpt/status.h) gives its machine-readable reason.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/state.h"
#include "ckpt/v1/checkpoint.pb.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt {

struct ConnectOptions {
  // HOST:PORT.
  std::string address = "127.0.0.1:7070";

  // The dedup, access and quota boundary to work in.
  std::string domain = "default";

  // How long a call is retried with back-off, counted from its last progress, while the server cannot be reached. Then
  // it fails with Unavailable.
  std::chrono::milliseconds retry_for = std::chrono::seconds(30);

  // How long a connected server may keep a save or restore waiting, for an answer or for room to send, before the call
  // counts as broken and is retried like one that did not reach the server, once at least.
  std::chrono::milliseconds answer_within = std::chrono::seconds(60);

  // Asked some ten times a second by whichever thread is in a call of this client. True ends that call with Cancelled
  // (INTERRUPTED): an interrupted save has not become visible, unless its commit was on its way.
  std::function<bool()> interrupted = {};
};

// One trainer's part of a save that several make together: all begin it with the same options but for the rank. The
// checkpoint becomes visible with the last part's commit, whichever it is. Each part has the state as its trainer sees
// it: trees are merged by their keys, leaves that several have must be equal, and the boxes of all must tile each
// tensor (the same box with the same bytes may be there more than once).
struct SavePart {
  // 16 random bytes, drawn anew for each attempt to save, the same for all parts.
  std::string attempt_key = {};

  // This trainer's number, from 0, and how many they are.
  std::uint32_t rank = 0;
  std::uint32_t world_size = 1;

  // Besides the trainers a coordinator has a part, as rank world_size. It may be empty.
  bool coordinated = false;
};

struct SaveOptions {
  std::string run = {};
  std::int64_t epoch = 0;
  std::optional<std::int64_t> step = {};
  std::vector<std::pair<std::string, double>> metrics = {};
  std::vector<std::pair<std::string, std::string>> labels = {};

  // The run's primary metric from this checkpoint on, by which RUN:best is found: NAME, NAME:min or NAME:max. Empty:
  // what an earlier save of the run said, else the only metric that the run has.
  std::string primary_metric = {};

  // Several trainers save the checkpoint together, and this is one's part.
  std::optional<SavePart> part = {};

  // Called from the saving thread with the bytes dealt with so far and the bytes of all tensors.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress = {};
};

// What a save came to.
struct SaveResult {
  // Empty while `waiting` is not.
  v1::Checkpoint checkpoint;
  // Of a save in parts: the ranks that had not committed yet when this one did. What this one saved is durable.
  std::vector<std::uint32_t> waiting;
  std::uint64_t sent_bytes = 0;   // payload that crossed the wire
  std::uint64_t cited_bytes = 0;  // payload that the server had

  // What the client did to find out: bytes that it fingerprinted (each that it sends, and each of a tensor that it
  // remembers), and bytes that it hashed, of tensors that it does not remember and of which the server has some.
  std::uint64_t fingerprinted_bytes = 0;
  std::uint64_t hashed_bytes = 0;
};

// One save in progress. Not thread-safe. Destroying it before Commit abandons it: nothing becomes visible.
class Save {
 public:
  virtual ~Save() = default;

  // Adds a tensor and returns its number. Its memory must stay as it is until Commit has returned or this is destroyed.
  // Errors: InvalidArgument (dtype, shape, strides), FailedPrecondition (OUT_OF_ORDER: after Commit).
  virtual absl::StatusOr<std::uint64_t> AddTensor(const Tensor& tensor) = 0;

  // Makes the checkpoint visible, atomically and durably: after OK it survives power loss. `nodes` is the tree over the
  // tensors added, each of which must be in it or be what a view shows; metrics are added to those of the options. One
  // part of several becomes durable; the checkpoint is visible when it is the last (see SavePart).
  // Lost connections are retried, and what the server had acked is not sent again. Once: after an error of the save,
  // too, begin another. Errors: InvalidArgument (the tree, a name, a limit), ResourceExhausted (the server's disk or
  // streams; nothing is
  //   lost), Unavailable (retry the save later), AlreadyExists (the attempt is known with other content), Aborted
  //   (another stream took the save over), FailedPrecondition (the session ended, another store answers, or Commit was
  //   called before: begin a new save), DataLoss (bytes changed on the way, or a damaged store), Internal (the server
  //   failed).
  virtual absl::StatusOr<SaveResult> Commit(std::span<const v1::StateNode> nodes,
                                            std::span<const std::pair<std::string, double>> metrics) = 0;
};

struct RestoreOptions {
  // RUN@EPOCH, RUN@EPOCH#VERSION, RUN:latest, RUN:TAG, RUN:best, RUN:best:METRIC, RUN:best:METRIC:min or :max.
  std::string reference = {};

  // Top-level keys to restore; empty: all.
  std::vector<std::string> components = {};

  // Globs over the paths of leaves; empty: all.
  std::vector<std::string> include = {};

  // Look first at what is in the memory that ReadInto and ReadSlices are given, and fetch only what is not right there:
  // for live tensors that may be those of the checkpoint, or nearly. One chunk in 16 is looked at, and no fewer than
  // 64: if none of them is right, all are fetched.
  bool compare = false;

  // Called from the reading thread.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress = {};
};

// Where restored bytes go.
class TensorSink {
 public:
  virtual ~TensorSink() = default;

  // Takes bytes of tensor number `tensor`, `offset_bytes` from its start in memory order. Each byte comes once (again
  // only after a lost connection), in any order, from one thread. An error ends the restore with it.
  virtual absl::Status Write(std::uint64_t tensor, std::uint64_t offset_bytes, std::span<const std::byte> bytes) = 0;
};

// An open restore: the whole description of a checkpoint is here, its payload comes with Read. Not thread-safe.
class Restore {
 public:
  virtual ~Restore() = default;

  [[nodiscard]] virtual const v1::Checkpoint& checkpoint() const = 0;

  // The state tree, cut down to what was selected. A node's `tensor` is an index into tensors().
  [[nodiscard]] virtual const std::vector<v1::StateNode>& nodes() const = 0;

  // All tensors of the checkpoint. Small ones have their bytes in inline_data.
  [[nodiscard]] virtual const std::vector<v1::Tensor>& tensors() const = 0;

  // Whether the tensor is among what was selected, or is what a selected view shows.
  [[nodiscard]] virtual bool selected(std::uint64_t tensor) const = 0;

  // Gives the sink every byte of the selected tensors (inline ones as well), each checked against its fingerprint.
  // Errors: DataLoss (names run, epoch and tensor), Unavailable, the sink's. After an error what the sink got is
  // partial.
  virtual absl::Status Read(TensorSink& sink) = 0;

  // The same into memory: buffers[i] takes all bytes of tensor i; null leaves it out. After an error the buffers are
  // torn: part of them holds restored bytes.
  virtual absl::Status ReadInto(std::span<void* const> buffers) = 0;

  // A part of a tensor, and where it goes.
  struct Slice {
    std::uint64_t tensor = 0;
    std::vector<std::uint64_t> offset;  // the first element's index in each dimension of the whole tensor
    std::vector<std::uint64_t> shape;
    std::vector<std::int64_t> strides_bytes;  // of each dimension in the memory at `data`
    void* data = nullptr;                     // where the first element goes
  };

  // Reads these parts, and of the payload only the chunks that they need, however the tensors were cut when they were
  // saved: a shard of another size, or a few rows. No slice may be of a view. Errors: as Read; InvalidArgument
  // (BAD_SLICE).
  virtual absl::Status ReadSlices(std::span<const Slice> slices) = 0;

  // Gives the server's stream back, which is open from OpenRestore on, also after reads: a server serves so many at
  // once. The next read opens another one, for which the whole description comes again. What is read then is the same
  // version still.
  virtual void Pause() = 0;

  // Bytes of payload that the server has sent so far.
  [[nodiscard]] virtual std::uint64_t fetched_bytes() const = 0;
};

// A page of a list.
template <typename T>
struct Page {
  std::vector<T> items;
  std::string next;  // for the next call; empty after the last page
};

// A connection to a server. Thread-safe; saves and restores of it may run at once.
class Client {
 public:
  // Makes a client; the server is first spoken to by the first call. InvalidArgument for a malformed address
  // or domain.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(ConnectOptions options);

  virtual ~Client() = default;

  // Opens a save. Errors: InvalidArgument (run, metric or label names, primary metric), Unavailable, ResourceExhausted.
  virtual absl::StatusOr<std::unique_ptr<Save>> BeginSave(SaveOptions options) = 0;

  // Saves a whole state; as BeginSave, AddTensor for each tensor, and Commit.
  virtual absl::StatusOr<SaveResult> SaveState(SaveOptions options, const State& state) = 0;

  // Waits until all parts of a save have committed, and returns the checkpoint. Keeps the save alive while it waits.
  // Errors: FailedPrecondition (SESSION_ENDED: a part did not come, for longer than the server keeps unfinished saves),
  // NotFound (no part of it has begun), Unavailable, DeadlineExceeded (WAITING, names the ranks that are missing after
  // `timeout`).
  virtual absl::StatusOr<v1::Checkpoint> AwaitSave(std::string_view attempt_key, std::chrono::milliseconds timeout) = 0;

  // Learns what the chunks of a stored checkpoint are, so that a save of a state like it sends only what differs. The
  // client remembers its own saves and restores by itself; this is for a new process. Fetches no payload.
  virtual absl::Status Remember(std::string_view reference) = 0;

  // Opens a restore. Errors: NotFound, InvalidArgument (reference), DataLoss (manifest), Unavailable.
  virtual absl::StatusOr<std::unique_ptr<Restore>> OpenRestore(RestoreOptions options) = 0;

  // The checkpoint that a reference names. Errors: NotFound, InvalidArgument, Unavailable.
  virtual absl::StatusOr<v1::Checkpoint> GetCheckpoint(std::string_view reference) = 0;

  virtual absl::StatusOr<v1::Run> GetRun(std::string_view run) = 0;

  // Runs by name. `page` is empty or what the page before has in `next`; page_size at most 1000, 0 for the default.
  virtual absl::StatusOr<Page<v1::Run>> ListRuns(std::string_view page = {}, std::uint32_t page_size = 0) = 0;

  // A run's checkpoints by epoch and version.
  virtual absl::StatusOr<Page<v1::Checkpoint>> ListCheckpoints(std::string_view run, std::string_view page = {},
                                                               std::uint32_t page_size = 0) = 0;
};

}  // namespace ckpt
