#include "base/random.h"

#include <openssl/rand.h>

#include "base/status.h"

namespace ckpt {

std::string RandomBytes(std::size_t size) {
  std::string out(size, '\0');
  CKPT_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(size)) == 1);
  return out;
}

}  // namespace ckpt
