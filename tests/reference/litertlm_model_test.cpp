#include "reference/litertlm_model.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/float_types.h"
#include "core/random.h"
#include "exporters/litertlm_exporter.h"
#include "reference/mobile_folder_weights.h"
#include "reference/mobile_golden.h"
#include "reference/reference_model.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using testing::EditableTensors;
using testing::expect_error;

class LitertlmModelTest : public ::testing::Test {
 protected:
  // The golden folder, changed, with a tokenizer.
  std::filesystem::path folder(const std::function<void(EditableTensors&, std::string&)>& edit = [](auto&, auto&) {}) {
    const auto path = temporary_ / ("folder" + std::to_string(count_++));
    testing::write_changed_golden(path, edit);
    std::filesystem::copy_file(std::filesystem::path(QAT_SOURCE_DIR) / "tests/golden/data/tokenizer.json",
                               path / "tokenizer.json");
    return path;
  }
  std::filesystem::path write(const LitertlmWeights& weights, const std::filesystem::path& folder,
                              EmbedderLayout embedder = EmbedderLayout::Separate) {
    LitertlmExportInputs inputs;
    inputs.weights = &weights;
    inputs.model_folder = folder;
    inputs.output = temporary_ / (std::to_string(count_++) + ".litertlm");
    inputs.context = 64;
    inputs.prefill_lengths = {8};
    inputs.embedder = embedder;
    export_litertlm(inputs);
    return inputs.output;
  }

  testing::TemporaryFolder temporary_;
  int count_ = 0;
};

template <class File>
std::vector<float> evaluate(const File& file, const ReferenceOptions& options) {
  const auto model = make_reference_model(file, options);
  SplitMix64 random(21);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 40; ++i) tokens.push_back(static_cast<int32_t>(random.below(96)));
  std::vector<float> logits;
  model->evaluate(tokens, 0,
                  [&](int64_t, std::span<const float> rows) { logits.insert(logits.end(), rows.begin(), rows.end()); });
  return logits;
}

// Both hold the same codes and scales, in other forms of bytes: every number must be the same.
TEST_F(LitertlmModelTest, EqualsTheFolderThatItWasMadeOf) {
  const MobileFolder source(folder());
  const testing::MobileFolderWeights weights(source);
  for (const EmbedderLayout embedder : {EmbedderLayout::Separate, EmbedderLayout::Shared}) {
    const LitertlmFile file(write(weights, source.path(), embedder));
    for (const ArithmeticKind arithmetic : {ArithmeticKind::Float, ArithmeticKind::Device}) {
      for (const std::optional<CacheType> cache : {std::optional<CacheType>(), std::optional(CacheType::F32)}) {
        const ReferenceOptions options{.arithmetic = arithmetic, .cache = cache};
        EXPECT_EQ(evaluate(file, options), evaluate(source, options));
      }
    }
  }
}

TEST_F(LitertlmModelTest, FindsScalesInTheGraph) {
  const MobileFolder source(folder());
  testing::MobileFolderWeights weights(source);
  // An int8 edge around a matrix of numbers, and a linear without edges.
  weights.changed_edges["per_layer_model_projection.weight"] = {0.04f, 0.002f};
  weights.changed_edges["layers.5.mlp.up_proj.weight"] = {};
  const LitertlmFile file(write(weights, source.path()));
  const LitertlmModel model(file);
  EXPECT_EQ(model.context(), 64);
  for (const WeightSpec& spec : source.table().weights()) {
    if (!is_matrix(spec.role) || spec.role == WeightRole::PerLayerEmbedding) continue;
    const WeightView& view = model.weight(spec.name);
    EXPECT_EQ(view.edges, weights.linear_scales(spec)) << spec.name;
    const auto scales = weights.scales(spec);
    EXPECT_EQ(std::vector(view.scales.begin(), view.scales.end()), std::vector(scales.begin(), scales.end()));
    std::vector<float> found(static_cast<size_t>(spec.elements()));
    std::vector<float> wanted(found.size());
    decode_rows(view, 0, spec.rows(), found);
    decode_rows(MobileFolderModel(source).weight(spec.name), 0, spec.rows(), wanted);
    EXPECT_EQ(found, wanted) << spec.name;
  }
  for (int64_t layer = 0; layer < source.config().layer_count(); ++layer) {
    EXPECT_EQ(model.cache_scales(layer), weights.cache_scales(layer));
  }
}

// Numbers outside float16's range are stored times a power of two, which the graph takes back.
TEST_F(LitertlmModelTest, ReadsMatricesThatAreStoredScaled) {
  for (const float smallest : {1e-7f, 3e-9f}) {
    const MobileFolder source(folder([&](EditableTensors& tensors, std::string&) {
      auto& projection = tensors.at("model.language_model.per_layer_model_projection.weight");
      const BFloat16 tiny = to_bfloat16(smallest);
      std::memcpy(projection.bytes.data() + 10, &tiny, sizeof(tiny));
    }));
    const testing::MobileFolderWeights weights(source);
    const LitertlmFile file(write(weights, source.path()));
    EXPECT_EQ(evaluate(file, {}), evaluate(source, {}));
    std::vector<float> found(32);
    decode_rows(LitertlmModel(file).weight("per_layer_model_projection.weight"), 0, 1, found);
    EXPECT_EQ(found[5], to_float(to_bfloat16(smallest)));
  }
}

TEST_F(LitertlmModelTest, AFloatCacheStaysOne) {
  const MobileFolder source(folder([](EditableTensors& tensors, std::string&) {
    std::erase_if(tensors, [](const auto& entry) { return entry.first.ends_with("_cache_scale"); });
  }));
  const testing::MobileFolderWeights weights(source);
  const LitertlmFile file(write(weights, source.path()));
  EXPECT_EQ(evaluate(file, {}), evaluate(source, {}));
  expect_error([&] { make_reference_model(file, {.cache = CacheType::Int8}); }, {"layer 0 has no static scales"});
}

// config.json inside is compared with what the graphs hold.
TEST_F(LitertlmModelTest, WrongFilesAreErrors) {
  const auto path = folder();
  const MobileFolder source(path);
  const testing::MobileFolderWeights weights(source);
  const auto expect_fault = [&](const std::string& found, const std::string& wanted,
                                std::initializer_list<std::string> parts) {
    std::string config = read_text_file(testing::mobile_golden() / "config.json");
    testing::replace_text(config, found, wanted);
    std::filesystem::remove(path / "config.json");
    write_file(path / "config.json", config);
    const LitertlmFile file(write(weights, path));
    expect_error([&] { LitertlmModel model(file); }, parts);
  };
  expect_fault("\"intermediate_size\": 40", "\"intermediate_size\": 44",
               {"layers.0.mlp.gate_proj.weight is int4 [40, 32], config.json wants [44, 32]"});
  expect_fault("\"vocab_size\": 96", "\"vocab_size\": 97",
               {"embed_tokens.weight is int2 [96, 32], config.json wants [97, 32]"});
  expect_fault("\"num_hidden_layers\": 8", "\"num_hidden_layers\": 9",
               {"layer_types must have an entry for each of the 9"});
  expect_fault("\"num_kv_shared_layers\": 4", "\"num_kv_shared_layers\": 3",
               {"no linear of the decode graph uses a constant layers.4.self_attn.k_proj.weight"});
}

TEST_F(LitertlmModelTest, AFileCutAnywhereIsAnError) {
  const MobileFolder source(folder());
  const testing::MobileFolderWeights weights(source);
  const auto path = write(weights, source.path());
  const auto size = std::filesystem::file_size(path);
  // The rest of the last section's page may be missing: only zeros lie there.
  for (uintmax_t left = 0; left + 16384 < size; left += 7001) {
    const auto cut = temporary_ / "cut.litertlm";
    std::filesystem::copy_file(path, cut, std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(cut, left);
    expect_error(
        [&] {
          const LitertlmFile file(cut);
          LitertlmModel model(file);
        },
        {"cut.litertlm"});
  }
}

}  // namespace
}  // namespace qat
