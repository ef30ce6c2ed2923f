#include "tests/fuzz/file_fuzz.h"

#include <fstream>
#include <string>

#include "tests/fuzz/oracle.h"
#include "tests/fuzz/scratch_folder.h"
#include "tests/fuzz/state_round_trip.h"

namespace ckpt::fuzz {

void ReadAsFile(const std::uint8_t* data, std::size_t size, FileFormat format) {
  static const ScratchFolder folder;
  const std::string path = folder.path() / "in";
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  const auto checked = ReadStateFile(path, format, {.check_crc = true});
  const auto file = ReadStateFile(path, format, {.check_crc = false});
  Require(file.ok() || !checked.ok(), "the check of CRCs never lets more pass");
  if (file.ok()) CheckRoundTrip((*file)->state(), format);
}

}  // namespace ckpt::fuzz
