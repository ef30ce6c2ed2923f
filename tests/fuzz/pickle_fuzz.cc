// A pickle by itself, as a hostile .pth has it, over storages of a few sizes.
#include <array>
#include <optional>
#include <string_view>

#include "client/formats/pickle_reader.h"
#include "client/formats/pickle_state.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/state_round_trip.h"

namespace {

// The storage "0" has 64 bytes, "1" has 16, "2" has 4, "3" has none.
std::optional<std::string_view> Storage(std::string_view key) {
  static constexpr auto kSizes = std::to_array<std::size_t>({64, 16, 4, 0});
  static constexpr std::string_view kBytes = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/";
  if (key.size() != 1 || key[0] < '0' || key[0] > '3') return std::nullopt;
  return kBytes.substr(0, kSizes[static_cast<std::size_t>(key[0] - '0')]);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view pickle(reinterpret_cast<const char*>(data), size);
  const auto graph = ckpt::formats::ReadPickle(pickle);
  if (!graph.ok()) return 0;
  const auto state = ckpt::formats::LayOutState(*graph, pickle.size(), Storage);
  if (state.ok()) ckpt::fuzz::CheckRoundTrip(*state, ckpt::FileFormat::kPth);
  return 0;
}
