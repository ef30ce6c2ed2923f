#include "base/digest.h"

#include <openssl/evp.h>
#if defined(CKPT_XXH_DISPATCH)
#include <xxh_x86dispatch.h>  // XXH3 with the widest vectors that the processor has
#else
#include <xxhash.h>
#endif

#include <memory>

#include "base/status.h"

namespace ckpt {
namespace {

// Fetching an algorithm by name is dear in OpenSSL 3; one fetched object serves all threads.
const EVP_MD* Sha256Algorithm() {
  static const EVP_MD* const algorithm = [] {
    const EVP_MD* fetched = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    CKPT_CHECK(fetched != nullptr);
    return fetched;
  }();
  return algorithm;
}

struct ContextDeleter {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

Fingerprint Canonical(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  Fingerprint out;
  static_assert(sizeof canonical.digest == Fingerprint::kSize);
  std::memcpy(out.bytes.data(), canonical.digest, Fingerprint::kSize);
  return out;
}

}  // namespace

Digest Sha256(std::span<const Bytes> pieces) {
  thread_local const std::unique_ptr<EVP_MD_CTX, ContextDeleter> context(EVP_MD_CTX_new());
  CKPT_CHECK(context != nullptr);
  CKPT_CHECK(EVP_DigestInit_ex2(context.get(), Sha256Algorithm(), nullptr) == 1);
  for (const Bytes piece : pieces) CKPT_CHECK(EVP_DigestUpdate(context.get(), piece.data(), piece.size()) == 1);
  Digest out;
  unsigned int size = 0;
  CKPT_CHECK(EVP_DigestFinal_ex(context.get(), out.bytes.data(), &size) == 1 && size == Digest::kSize);
  return out;
}

Digest Sha256(Bytes data) { return Sha256(std::span(&data, 1)); }

Fingerprint Xxh3(std::span<const Bytes> pieces) {
  if (pieces.size() == 1) return Xxh3(pieces[0]);
  thread_local const std::unique_ptr<XXH3_state_t, ContextDeleter> state(XXH3_createState());
  CKPT_CHECK(state != nullptr && XXH3_128bits_reset(state.get()) == XXH_OK);
  for (const Bytes piece : pieces) CKPT_CHECK(XXH3_128bits_update(state.get(), piece.data(), piece.size()) == XXH_OK);
  return Canonical(XXH3_128bits_digest(state.get()));
}

Fingerprint Xxh3(Bytes data) { return Canonical(XXH3_128bits(data.data(), data.size())); }

std::string ToHex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    out.push_back(kDigits[static_cast<unsigned char>(c) >> 4]);
    out.push_back(kDigits[static_cast<unsigned char>(c) & 15]);
  }
  return out;
}

}  // namespace ckpt
