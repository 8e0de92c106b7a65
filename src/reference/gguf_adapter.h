// A LoRA adapter as a GGUF file for llama.cpp's --lora (src/llama-adapter.cpp there): general.type "adapter",
// adapter.type "lora", adapter.lora.alpha, and of every changed weight NAME.lora_a [rank, in] and NAME.lora_b
// [out, rank], shapes row-major, in F32, F16 or BF16. It stands for x W^T + alpha / rank (x A^T) B^T.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "io/gguf.h"

namespace qat {

class GgufAdapter {
 public:
  struct Pair {
    const GgufTensor* a = nullptr;
    const GgufTensor* b = nullptr;
    float scaling = 1;
  };

  // Throws Error for a file that is no such adapter, naming the key or tensor.
  explicit GgufAdapter(const std::filesystem::path& path);

  // "gemma4": of the models that it changes.
  const std::string& architecture() const { return file_.metadata().text("general.architecture"); }
  // By the GGUF name of the weight.
  const std::map<std::string, Pair>& pairs() const { return pairs_; }
  std::string where() const { return file_.where(); }

 private:
  GgufFile file_;
  std::map<std::string, Pair> pairs_;
};

}  // namespace qat
