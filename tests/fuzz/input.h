// Cuts a fuzzer's input into the parts that a target wants.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ckpt::fuzz {

// At its end an input goes on with nothing: zeros and empty texts.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : left_(reinterpret_cast<const char*>(data), size) {}

  [[nodiscard]] bool empty() const { return left_.empty(); }

  std::uint8_t Byte() {
    const std::string_view taken = Take(1);
    return taken.empty() ? 0 : static_cast<std::uint8_t>(taken[0]);
  }

  std::uint64_t Number() {
    std::uint64_t number = 0;
    for (int i = 0; i < 8; ++i) number = number << 8 | Byte();
    return number;
  }

  std::string_view Take(std::size_t size) {
    const std::string_view taken = left_.substr(0, size);
    left_.remove_prefix(taken.size());
    return taken;
  }

  // Two bytes say how many follow.
  std::string_view Piece() {
    const std::size_t low = Byte();
    return Take(low | static_cast<std::size_t>(Byte()) << 8);
  }

  // Up to the mark, which goes too, or to the end.
  std::string_view Until(char mark) {
    const std::string_view taken = Take(std::min(left_.find(mark), left_.size()));
    Take(1);
    return taken;
  }

  std::string_view Rest() { return Take(left_.size()); }

 private:
  std::string_view left_;
};

}  // namespace ckpt::fuzz
