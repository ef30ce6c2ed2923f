// Keys of the catalog: one that is taken is written the same, and one that was written is taken. The input is a key.
#include <string>

#include "storage/keys.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace ckpt::storage;
using ckpt::fuzz::Require;

void CheckTaken(std::string_view key) {
  if (const auto pack = keys::PackOf(key); pack.ok()) Require(keys::Pack(*pack) == key, "the same pack's key");
  if (const auto session = keys::SessionOf(key); session.ok())
    Require(keys::Session(*session) == key, "the same session's key");
  const auto reference = keys::ParseReference(key);
  if (reference.ok())
    Require(keys::Reference(reference->pack, reference->version, reference->component) == key, "the same reference");
  if (const auto session = keys::PinningSessionOf(key); session.ok())
    Require(key.starts_with(keys::PinsOfSession(*session)), "the pins' session");
}

void CheckWritten(ckpt::fuzz::Input input) {
  std::string id(input.Take(PackId::kSize));
  id.resize(PackId::kSize);
  const PackId pack = *PackId::From(id);
  const SessionId session = *SessionId::From(id);
  const VersionId version{input.Number(), input.Number()};
  const auto epoch_a = static_cast<std::int64_t>(input.Number());
  const auto epoch_b = static_cast<std::int64_t>(input.Number());
  const std::string component(input.Rest());
  Require(*keys::PackOf(keys::Pack(pack)) == pack, "a pack's key is taken");
  Require(*keys::SessionOf(keys::Session(session)) == session, "a session's key is taken");
  Require(*keys::PinningSessionOf(keys::Pins(session, ckpt::Sha256(component))) == session, "a pins' key is taken");
  const auto reference = keys::ParseReference(keys::Reference(pack, version, component));
  Require(reference.ok() && reference->pack == pack && reference->version.run_id == version.run_id &&
              reference->version.sequence == version.sequence && reference->component == component,
          "a reference's key is taken");
  Require((epoch_a < epoch_b) == (keys::Checkpoint(1, epoch_a, 1) < keys::Checkpoint(1, epoch_b, 1)),
          "keys sort as epochs do");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  CheckTaken({reinterpret_cast<const char*>(data), size});
  CheckWritten({data, size});
  return 0;
}
