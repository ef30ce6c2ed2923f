// Bytes on their way into a pack, wherever they lie.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/digest.h"

namespace ckpt::storage {

// The pieces together are the payload. They live as long as `owner`, which this shares with whoever received them.
struct Payload {
  std::vector<Bytes> pieces;
  std::shared_ptr<const void> owner;

  [[nodiscard]] std::uint64_t size() const {
    std::uint64_t total = 0;
    for (const Bytes piece : pieces) total += piece.size();
    return total;
  }

  static Payload Of(std::string text) {
    auto owner = std::make_shared<const std::string>(std::move(text));
    return {{AsBytes(*owner)}, owner};
  }
};

}  // namespace ckpt::storage
