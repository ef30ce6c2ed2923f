// A .pth file: its zip directory, its entries, its pickle.
#include "tests/fuzz/file_fuzz.h"
#include "tests/fuzz/oracle.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ckpt::fuzz::ReadAsFile(data, size, ckpt::FileFormat::kPth);
  return 0;
}
