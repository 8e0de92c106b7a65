#include "trainers/stochastic_rounding.h"

#include <span>
#include <string>

#include "core/error.h"
#include "core/sha256.h"

namespace qat {

ElementRandom::ElementRandom(uint64_t seed, int64_t step, std::string_view weight) {
  // A digest, so that the sequences of neighbouring seeds, steps and names have nothing to do with each other.
  Sha256 digest;
  const std::string text = join(seed, " ", step, " ", weight);
  digest.update(std::as_bytes(std::span(text)));
  key_ = std::stoull(digest.finish().substr(0, 16), nullptr, 16);
}

}  // namespace qat
