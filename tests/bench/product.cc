// The C++ library, doing what the floor does and more: a state of so many tensors of so many KiB is saved, or restored
// into memory that is there already. When its memory is ready it says "ready" and waits for a line on its standard
// input, so that many of them begin at once.
//
//   product save ADDRESS RUN TENSORS KIB TIMES    saves it as epochs 1, 2, … of the run
//   product restore ADDRESS RUN TENSORS KIB       restores the run's latest, and compares
//
// Prints JSON, before it compares: of each save, or of the restore, what it came to; and the most memory, in bytes,
// that the process had meanwhile beyond the state.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "ckpt/client.h"
#include "tests/bench/bench_state.h"

namespace ckpt::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// A line of this process's status, in bytes.
std::int64_t MemoryBytes(const std::string& what) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(what)) return std::stol(line.substr(what.size() + 1)) << 10;
  return 0;
}

// The most memory that the process takes from here on beyond what it has now.
class PeakMemory {
 public:
  PeakMemory() { std::ofstream("/proc/self/clear_refs") << "5"; }  // VmHWM starts anew
  [[nodiscard]] std::int64_t bytes() const { return MemoryBytes("VmHWM:") - before_; }

 private:
  const std::int64_t before_ = MemoryBytes("VmRSS:");
};

void AwaitStart() {
  std::puts("ready");
  std::fflush(stdout);
  std::string line;
  CKPT_CHECK(std::getline(std::cin, line).good());
}

void Print(const Json& out) {
  std::puts(out.dump().c_str());
  std::fflush(stdout);
}

absl::Status SaveState(Client& client, const std::string& run, const StateShape& shape, int times) {
  TensorMaker maker(run, shape.tensor_bytes);
  std::vector<std::string> data;
  for (std::size_t i = 0; i < shape.tensors; ++i) data.push_back(maker.Next());
  StateBuilder builder;
  builder.Dict().Key("model").OrderedDict();
  for (std::size_t i = 0; i < data.size(); ++i) {
    Tensor tensor;
    tensor.meta.set_dtype(v1::DTYPE_FLOAT32);
    tensor.meta.add_shape(data[i].size() / 4);
    tensor.data = data[i].data();
    builder.Key("weight" + std::to_string(i)).Tensor(tensor);
  }
  CKPT_ASSIGN_OR_RETURN(const State state, std::move(builder.End().Key("epoch").Int(1).End()).Build());
  AwaitStart();
  const PeakMemory memory;
  Json saves = Json::array();
  for (int epoch = 1; epoch <= times; ++epoch) {
    SaveOptions options;
    options.run = run;
    options.epoch = epoch;
    const auto start = Clock::now();
    CKPT_ASSIGN_OR_RETURN(const SaveResult saved, client.SaveState(options, state));
    saves.push_back({{"seconds", SecondsSince(start)},
                     {"sent_bytes", saved.sent_bytes},
                     {"new_bytes", saved.checkpoint.new_bytes()}});
  }
  Print({{"saves", saves}, {"memory_bytes", memory.bytes()}});
  return absl::OkStatus();
}

absl::Status RestoreState(Client& client, const std::string& run, const StateShape& shape) {
  std::vector<std::string> data(shape.tensors);
  std::vector<void*> buffers;
  for (std::string& tensor : data) {
    tensor.resize(shape.tensor_bytes);
    buffers.push_back(tensor.data());
  }
  AwaitStart();
  const PeakMemory memory;
  const auto start = Clock::now();
  CKPT_ASSIGN_OR_RETURN(const auto restore, client.OpenRestore({.reference = run + ":latest"}));
  CKPT_RETURN_IF_ERROR(restore->ReadInto(buffers));
  Print({{"seconds", SecondsSince(start)}, {"memory_bytes", memory.bytes()}});
  TensorMaker maker(run, shape.tensor_bytes);
  for (const std::string& tensor : data) CKPT_CHECK(tensor == maker.Next());
  return absl::OkStatus();
}

absl::Status Run(const std::vector<std::string>& words) {
  const StateShape shape{std::stoul(words[3]), std::stoul(words[4]) << 10};
  CKPT_ASSIGN_OR_RETURN(const auto client, Client::Connect({.address = words[1]}));
  return words[0] == "save" ? SaveState(*client, words[2], shape, std::stoi(words[5]))
                            : RestoreState(*client, words[2], shape);
}

}  // namespace
}  // namespace ckpt::bench

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): it may end as it likes
  const std::vector<std::string> words(argv + 1, argv + argc);
  if ((words.size() != 6 || words[0] != "save") && (words.size() != 5 || words[0] != "restore")) {
    std::fprintf(stderr,
                 "usage: product save ADDRESS RUN TENSORS KIB TIMES | product restore ADDRESS RUN TENSORS KIB\n");
    return 2;
  }
  CKPT_CHECK_OK(ckpt::bench::Run(words));
  return 0;
}
