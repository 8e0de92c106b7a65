// Numbers of the GGUF format that reader and writer share.
#pragma once

#include <cstdint>
#include <string_view>

namespace qat::gguf {

inline constexpr std::string_view kMagic = "GGUF";
inline constexpr uint32_t kVersion = 3;
inline constexpr uint64_t kAlignment = 32;  // where general.alignment does not say otherwise
inline constexpr std::string_view kAlignmentKey = "general.alignment";
inline constexpr uint32_t kMaxDimensions = 4;
inline constexpr size_t kMaxNameBytes = 63;

}  // namespace qat::gguf
