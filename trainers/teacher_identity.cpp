#include "trainers/teacher_identity.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/mapped_file.h"
#include "core/sha256.h"
#include "data/chat_template.h"

namespace qat {

namespace {

// Bounds what one thread digests at a time.
constexpr size_t kPieceBytes = size_t{1} << 26;

std::string digest_of(std::span<const std::byte> bytes) {
  Sha256 digest;
  digest.update(bytes);
  return digest.finish();
}

std::string digest_of_file(const std::filesystem::path& path) { return digest_of(MappedFile(path).bytes()); }

void update(Sha256& digest, std::string_view text) { digest.update(std::as_bytes(std::span(text))); }

// The digest of the digests of 64-MiB pieces, so that all threads take part.
std::string digest_of_tensor(const TensorSource& source, std::span<const std::byte> bytes) {
  const size_t count = (bytes.size() + kPieceBytes - 1) / kPieceBytes;
  std::vector<std::string> pieces(count);
  at::parallel_for(0, static_cast<int64_t>(count), 1, [&](int64_t first, int64_t end) {
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(end); ++i) {
      const size_t start = i * kPieceBytes;
      pieces[i] = digest_of(bytes.subspan(start, std::min(kPieceBytes, bytes.size() - start)));
    }
  });
  source.release(bytes);
  Sha256 digest;
  for (const std::string& piece : pieces) update(digest, piece);
  return digest.finish();
}

std::string digest_of_weights(const ModelFolder& folder) {
  Sha256 digest;
  for (const WeightSpec& weight : folder.table().weights()) {
    const TensorView& tensor = folder.masters().of(weight);
    update(digest, join(weight.name, " ", element_name(tensor.type), " ", shape_text(tensor.shape), " ",
                        digest_of_tensor(folder.tensors(), tensor.bytes), "\n"));
  }
  return digest.finish();
}

std::string digest_of_documents(const std::vector<Example>& documents) {
  Sha256 digest;
  for (const Example& document : documents) {
    const std::array<size_t, 1> size{document.tokens.size()};
    digest.update(std::as_bytes(std::span(size)));
    digest.update(std::as_bytes(std::span(document.tokens)));
    digest.update(std::as_bytes(std::span(document.trained)));
  }
  return digest.finish();
}

std::string describe_template(const TrainConfig& config) {
  const auto found = load_chat_template(config.model, config.data.chat_template);
  if (!found) return "none";
  const bool is_earlier = found->kind != ChatTemplateKind::Gemma3 && !found->july_edition;
  return join(chat_template_name(found->kind), is_earlier ? ", an edition before July 2026" : "");
}

// Digests are told apart by their first digits.
std::string shortened(const nlohmann::ordered_json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end()) return "absent";
  if (!found->is_string()) return found->dump();
  const auto text = found->get<std::string>();
  return text.size() == 64 ? text.substr(0, 12) + "…" : text;
}

}  // namespace

nlohmann::ordered_json teacher_identity(const TrainConfig& config, const ModelFolder& teacher,
                                        const TrainingData& data) {
  nlohmann::ordered_json identity;
  identity["layout"] = 1;
  identity["teacher's config.json"] = digest_of_file(teacher.path() / "config.json");
  identity["teacher's weights"] = digest_of_weights(teacher);
  identity["dtype"] = config.dtype;
  identity["tokenizer.json"] = digest_of_file(std::filesystem::path(config.model) / "tokenizer.json");
  identity["chat template"] = describe_template(config);
  identity["data.enable_thinking"] = config.data.enable_thinking;
  identity["data.parse_special_in_content"] = config.data.parse_special_in_content;
  identity["sequence_length"] = config.sequence_length;
  identity["number of data.train files"] = config.data.train.size();
  for (size_t i = 0; i < config.data.train.size(); ++i) {
    identity[join("data.train, file ", i + 1)] = digest_of_file(config.data.train[i]);
  }
  identity["tokens of the documents"] = digest_of_documents(data.source().examples());
  return identity;
}

std::string identity_differences(const nlohmann::ordered_json& found, const nlohmann::ordered_json& wanted) {
  std::string differences;
  for (const auto& [key, value] : wanted.items()) {
    const auto other = found.find(key);
    if (other != found.end() && *other == value) continue;
    differences += join("\n  ", key, ": ", shortened(found, key), " in the cache, ", shortened(wanted, key), " now");
  }
  return differences;
}

}  // namespace qat
