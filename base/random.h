// Random bytes for names that must never repeat.
#pragma once

#include <cstddef>
#include <string>

namespace ckpt {

// Bytes from the system's cryptographic generator.
std::string RandomBytes(std::size_t size);

}  // namespace ckpt
