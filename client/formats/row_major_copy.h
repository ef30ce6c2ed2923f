// Copies a tensor within a file, from the order that its strides say to row-major.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "ckpt/v1/state.pb.h"
#include "client/formats/output_file.h"

namespace ckpt::formats {

struct RowMajorCopy {
  std::uint64_t from = 0;  // of the tensor's first element in the file
  std::uint64_t to = 0;    // where its elements go in row-major order, apart from where they are
};

// Any strides that ReachBytes takes will do; all the bytes that they reach are in the file. Takes some 20 MiB of
// memory, however large the tensor. Errors: those of OutputFile.
absl::Status CopyRowMajor(const v1::Tensor& meta, const RowMajorCopy& copy, OutputFile& file);

}  // namespace ckpt::formats
