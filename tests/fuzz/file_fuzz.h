// A whole file of a format, from any bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ckpt/formats.h"

namespace ckpt::fuzz {

// Reads the bytes as such a file; if it is one, checks the round trip. Without the check of CRCs as well, because a
// mutation that has no right CRC-32 would else try nothing but that.
void ReadAsFile(const std::uint8_t* data, std::size_t size, FileFormat format);

}  // namespace ckpt::fuzz
