// The product, doing what the floor does and more: `product ADDRESS RUN MIB` saves a state that the server has not
// seen, saves it again as the next epoch, and restores it into memory. Prints the seconds of each, the bytes that the
// second save stored, and the most memory, in KiB, that this process had beyond the state itself while it saved, and
// while it restored.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "base/status.h"
#include "ckpt/client.h"
#include "tests/bench/bench_state.h"

namespace ckpt::bench {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The most memory that this process had since the last call of ResetPeak, and what it has now, in KiB.
long MemoryKib(const std::string& what) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(what)) return std::stol(line.substr(what.size() + 1));
  return 0;
}

void ResetPeak() { std::ofstream("/proc/self/clear_refs") << "5"; }

absl::Status Measure(const std::string& address, const std::string& run, std::size_t mib) {
  std::vector<std::string> data = MakeTensors(mib);
  // Other bytes for each run, so that nothing is there already.
  for (std::string& tensor : data)
    for (std::size_t at = 0; at < tensor.size(); at += 4096) tensor.replace(at, run.size(), run);
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
  CKPT_ASSIGN_OR_RETURN(const auto client, Client::Connect({.address = address}));
  double seconds[3];
  long added_kib[2];
  ResetPeak();
  long before = MemoryKib("VmRSS:");
  std::uint64_t new_bytes = 0;
  for (const int epoch : {1, 2}) {
    SaveOptions options;
    options.run = run;
    options.epoch = epoch;
    const auto start = Clock::now();
    CKPT_ASSIGN_OR_RETURN(const SaveResult saved, client->SaveState(options, state));
    seconds[epoch - 1] = SecondsSince(start);
    new_bytes = saved.checkpoint.new_bytes();
  }
  added_kib[0] = MemoryKib("VmHWM:") - before;
  std::vector<std::string> restored(data.size());
  std::vector<void*> buffers;
  for (std::size_t i = 0; i < data.size(); ++i) {
    restored[i].resize(data[i].size());
    buffers.push_back(restored[i].data());
  }
  ResetPeak();
  before = MemoryKib("VmRSS:");
  const auto start = Clock::now();
  CKPT_ASSIGN_OR_RETURN(const auto restore, client->OpenRestore({.reference = run + ":latest"}));
  CKPT_RETURN_IF_ERROR(restore->ReadInto(buffers));
  seconds[2] = SecondsSince(start);
  added_kib[1] = MemoryKib("VmHWM:") - before;
  CKPT_CHECK(restored == data);
  std::printf("%.6f %.6f %.6f %llu %ld %ld\n", seconds[0], seconds[1], seconds[2],
              static_cast<unsigned long long>(new_bytes), added_kib[0], added_kib[1]);
  return absl::OkStatus();
}

}  // namespace
}  // namespace ckpt::bench

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: product ADDRESS RUN MIB\n");
    return 2;
  }
  CKPT_CHECK_OK(ckpt::bench::Measure(argv[1], argv[2], std::stoul(argv[3])));
  return 0;
}
