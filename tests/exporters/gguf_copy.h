// A GGUF file in memory, to be changed and written again.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "io/gguf.h"

namespace qat::test {

struct GgufCopy {
  struct Tensor {
    std::string name;
    std::vector<int64_t> shape;
    Scheme scheme;
    std::vector<std::byte> bytes;
  };

  explicit GgufCopy(const std::filesystem::path& path) {
    const GgufFile file(path);
    metadata = file.metadata().entries();
    for (const GgufTensor& tensor : file.tensors()) {
      tensors.push_back({tensor.name, tensor.shape, tensor.scheme, {tensor.bytes.begin(), tensor.bytes.end()}});
    }
  }

  void write(const std::filesystem::path& path) const {
    GgufWriter writer(path);
    for (const auto& [key, held] : metadata) writer.add(key, held);
    for (const Tensor& tensor : tensors) writer.declare(tensor.name, tensor.shape, tensor.scheme);
    writer.begin_data();
    for (size_t i = 0; i < tensors.size(); ++i) writer.write(i, 0, tensors[i].bytes);
    writer.commit();
  }

  Tensor& find(const std::string& name) {
    const auto found = std::ranges::find(tensors, name, &Tensor::name);
    QAT_CHECK(found != tensors.end());
    return *found;
  }
  void drop(const std::string& name) {
    std::erase_if(tensors, [&](const Tensor& t) { return t.name == name; });
  }
  GgufValue& value(const std::string& key) {
    const auto found = std::ranges::find(metadata, key, &std::pair<std::string, GgufValue>::first);
    QAT_CHECK(found != metadata.end());
    return found->second;
  }

  std::vector<std::pair<std::string, GgufValue>> metadata;
  std::vector<Tensor> tensors;
};

}  // namespace qat::test
