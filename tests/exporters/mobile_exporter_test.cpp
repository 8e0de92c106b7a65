// A checkpoint with known scales as a mobile folder: what a reader finds in it, and what is refused.
#include "exporters/mobile_exporter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "core/error.h"
#include "core/output_file.h"
#include "data/small_tokenizer.h"
#include "exporters/export_checkpoint.h"
#include "exporters/litertlm_exporter.h"
#include "exporters/mobile_checkpoint.h"
#include "gemma4/mobile_folder.h"
#include "quant/grid.h"
#include "quant/packing.h"
#include "support/expect_error.h"
#include "support/integer_checkpoint.h"

namespace qat {
namespace {

using testing::CheckpointScales;
using testing::expect_error;
using testing::IntegerCheckpoint;
namespace fs = std::filesystem;

// By the scalar rule, from the master and the checkpoint's scales.
std::vector<int8_t> codes_of(const IntegerCheckpoint& checkpoint, const CheckpointScales& scales,
                             const WeightSpec& weight) {
  const QuantScheme& row = scheme(checkpoint.plan().of(weight.name).scheme);
  const std::vector<BFloat16> master = checkpoint.master(weight);
  std::vector<int8_t> codes;
  for (size_t i = 0; i < master.size(); ++i) {
    const float scale = scales.rows.at(weight.name)[i / static_cast<size_t>(weight.scale_width)];
    codes.push_back(grid::integer_code(to_float(master[i]), grid::inverse_scale(scale), row.code_min, row.code_max));
  }
  return codes;
}

std::vector<int8_t> codes_of(const MobileWeight& weight) {
  std::vector<int8_t> codes(weight.bytes.size() * static_cast<size_t>(weight.scheme->block_size));
  unpack_codes(weight.scheme->id, CodeBytes::Offset, weight.bytes, codes);
  return codes;
}

class MobileExporter : public ::testing::TestWithParam<const char*> {};

TEST_P(MobileExporter, AReaderFindsTheCodesAndScalesOfTheCheckpoint) {
  const IntegerCheckpoint checkpoint(GetParam());
  const CheckpointScales scales = checkpoint.good_scales();
  const ModelFolder folder(checkpoint.write(scales));
  const auto figures = export_mobile_folder(MobileCheckpoint(folder), checkpoint.folder() / "out");
  EXPECT_EQ(figures.file_bytes, fs::file_size(checkpoint.folder() / "out/model.safetensors"));

  const MobileFolder exported(checkpoint.folder() / "out");
  std::set<Scheme> schemes;
  for (const WeightSpec& weight : exported.table().weights()) {
    if (weight.role == WeightRole::OutputHead) continue;
    const MobileWeight& found = exported.weight(weight.name);
    const QuantScheme& wanted = scheme(checkpoint.plan().of(weight.name).scheme);
    // Folders hold the per-layer model projection in BF16, quantized or not.
    if (!wanted.has_row_scales() || weight.role == WeightRole::PerLayerModelProjection) continue;
    schemes.insert(wanted.id);
    ASSERT_EQ(found.scheme->id, wanted.id) << weight.name;
    EXPECT_EQ(codes_of(found), codes_of(checkpoint, scales, weight)) << weight.name;
    EXPECT_TRUE(std::ranges::equal(found.scales, scales.rows.at(weight.name))) << weight.name;
    if (is_linear(weight.role)) {
      EXPECT_EQ(found.edges, scales.edges.linears.at(weight.name)) << weight.name;
    }
  }
  EXPECT_EQ(schemes.size(), std::string(GetParam()) == "mobile-w4" ? 1U : 3U);
  for (const auto& [layer, cache] : scales.edges.caches) EXPECT_EQ(exported.static_scales().caches.at(layer), cache);
}

TEST_P(MobileExporter, UnquantizedWeightsAreTheMasters) {
  const IntegerCheckpoint checkpoint(GetParam());
  const CheckpointScales scales = checkpoint.good_scales();
  const ModelFolder folder(checkpoint.write(scales));
  export_mobile_folder(MobileCheckpoint(folder), checkpoint.folder() / "out");
  const MobileFolder exported(checkpoint.folder() / "out");
  int compared = 0;
  for (const WeightSpec& weight : checkpoint.base().table().weights()) {
    if (scheme(checkpoint.plan().of(weight.name).scheme).has_row_scales()) continue;
    const MobileWeight& found = exported.weight(weight.name);
    const auto master = checkpoint.master(weight);
    ASSERT_EQ(found.scheme->id, Scheme::BF16) << weight.name;
    EXPECT_TRUE(std::ranges::equal(found.bytes, std::as_bytes(std::span(master)))) << weight.name;
    ++compared;
  }
  EXPECT_GT(compared, 10);
}

TEST_P(MobileExporter, TheTiedHeadIsATensorOfItsOwnWithTheTablesCodes) {
  const IntegerCheckpoint checkpoint(GetParam());
  const ModelFolder folder(checkpoint.write(checkpoint.good_scales()));
  export_mobile_folder(MobileCheckpoint(folder), checkpoint.folder() / "out");
  const SafetensorsSource tensors(checkpoint.folder() / "out");
  const auto same = [&](const char* head, const char* table) {
    const TensorView* left = tensors.find(head);
    const TensorView* right = tensors.find(table);
    ASSERT_TRUE(left != nullptr && right != nullptr) << head;
    EXPECT_TRUE(std::ranges::equal(left->bytes, right->bytes)) << head;
  };
  const std::string table = MobileFolder(checkpoint.folder() / "out").prefix() + "embed_tokens.embedding_";
  same("lm_head.weight", (table + "quantized").c_str());
  same("lm_head.weight_scale", (table + "scale").c_str());
}

INSTANTIATE_TEST_SUITE_P(Plans, MobileExporter, ::testing::Values("mobile-w4", "mobile-e2b", "mobile-e2b-litert"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(MobileExporterTest, AQuantizedModelProjectionIsWrittenAsItsValues) {
  const IntegerCheckpoint checkpoint("mobile-e2b-litert");
  const CheckpointScales scales = checkpoint.good_scales();
  const ModelFolder folder(checkpoint.write(scales));
  export_mobile_folder(MobileCheckpoint(folder), checkpoint.folder() / "out");
  const MobileFolder exported(checkpoint.folder() / "out");
  const WeightSpec& weight = *checkpoint.base().table().find("per_layer_model_projection.weight");
  const auto codes = codes_of(checkpoint, scales, weight);
  std::vector<BFloat16> wanted;
  for (size_t i = 0; i < codes.size(); ++i) {
    const float scale = scales.rows.at(weight.name)[i / static_cast<size_t>(weight.columns())];
    wanted.push_back(to_bfloat16(grid::integer_value(codes[i], scale)));
  }
  EXPECT_TRUE(std::ranges::equal(exported.weight(weight.name).bytes, std::as_bytes(std::span(wanted))));
}

TEST(MobileExporterTest, SlicesOfARowKeepTheirOwnScales) {
  const IntegerCheckpoint checkpoint("mobile-w4");
  CheckpointScales scales = checkpoint.good_scales();
  const char* const name = "embed_tokens_per_layer.weight";
  for (size_t i = 0; i < scales.rows.at(name).size(); ++i)
    scales.rows.at(name)[i] *= 1.0F + 0.01F * static_cast<float>(i % 4);
  const WeightSpec& weight = *checkpoint.base().table().find(name);
  // What is stored decides, whatever the plan wanted.
  const fs::path path = checkpoint.write(scales);
  const ModelFolder folder(path);
  export_mobile_folder(MobileCheckpoint(folder), checkpoint.folder() / "out");
  const MobileFolder exported(checkpoint.folder() / "out");
  EXPECT_TRUE(std::ranges::equal(exported.weight(name).scales, scales.rows.at(name)));
  EXPECT_EQ(codes_of(exported.weight(name)), codes_of(checkpoint, scales, weight));
}

// Layers that share keys and values repeat the scales of the layer whose they are.
TEST(MobileExporterTest, SharedLayersRepeatCacheScales) {
  const IntegerCheckpoint checkpoint("mobile-w4");
  const CheckpointScales scales = checkpoint.good_scales();
  const ModelFolder folder(checkpoint.write(scales));
  export_mobile_folder(MobileCheckpoint(folder), checkpoint.folder() / "out");
  const SafetensorsSource tensors(checkpoint.folder() / "out");
  for (const auto& [layer, donor] : {std::pair(0, 0), std::pair(1, 1), std::pair(2, 0), std::pair(3, 1)}) {
    const TensorView* key = tensors.find("model.layers." + std::to_string(layer) + ".self_attn.k_cache_scale");
    ASSERT_NE(key, nullptr) << layer;
    float value = 0;
    std::memcpy(&value, key->bytes.data(), sizeof(value));
    EXPECT_EQ(value, scales.edges.caches.at(donor).key) << layer;
  }
}

class RefusedExport : public ::testing::Test {
 protected:
  void expect_refused(const std::function<void(const ModelFolder&)>& run, const fs::path& path,
                      std::initializer_list<std::string> parts) {
    std::set<fs::path> before;
    for (const auto& entry : fs::directory_iterator(checkpoint_.folder())) before.insert(entry.path());
    expect_error([&] { run(ModelFolder(path)); }, parts);
    for (const auto& entry : fs::directory_iterator(checkpoint_.folder())) {
      EXPECT_TRUE(before.contains(entry.path())) << entry.path() << " was left on the disk";
    }
  }

  const std::function<void(const ModelFolder&)> to_folder_ = [this](const ModelFolder& folder) {
    export_mobile_folder(MobileCheckpoint(folder), checkpoint_.folder() / "out");
  };
  const std::function<void(const ModelFolder&)> to_litertlm_ = [this](const ModelFolder& folder) {
    const MobileCheckpoint checkpoint(folder);
    LitertlmExportInputs inputs;
    inputs.weights = &checkpoint;
    inputs.model_folder = folder.path();
    inputs.output = checkpoint_.folder() / "out.litertlm";
    inputs.context = 64;
    export_litertlm(inputs);
  };

  IntegerCheckpoint checkpoint_{"mobile-w4", testing::golden_data("tokenizer.json")};
};

TEST_F(RefusedExport, AGoodCheckpointIsWritten) {
  const ModelFolder folder(checkpoint_.write(checkpoint_.good_scales()));
  EXPECT_NO_THROW(to_folder_(folder));
  EXPECT_NO_THROW(to_litertlm_(folder));
}

TEST_F(RefusedExport, AMasterThatIsNoNumberIsNamedWithItsPlace) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const char* name :
         {"layers.2.mlp.down_proj.weight", "embed_tokens.weight", "layers.1.input_layernorm.weight"}) {
      const WeightSpec& weight = *checkpoint_.base().table().find(name);
      const int64_t row = weight.rows() - 1;
      const fs::path path = checkpoint_.write(checkpoint_.good_scales(), [&](const WeightSpec& other, auto& values) {
        if (other.name == name) values[static_cast<size_t>(row * weight.columns() + 3)] = to_bfloat16(bad);
      });
      const std::string place = "row " + std::to_string(row) + ", column 3";
      expect_refused(to_folder_, path, {name, place});
      expect_refused(to_litertlm_, path, {name, place});
    }
  }
}

TEST_F(RefusedExport, AnEdgeWithoutAScaleIsNamed) {
  CheckpointScales scales = checkpoint_.good_scales();
  scales.edges.linears.at("layers.2.mlp.down_proj.weight").input = 0;
  const fs::path path = checkpoint_.write(scales);
  for (const auto& run : {to_folder_, to_litertlm_}) {
    expect_refused(run, path, {"layers.2.mlp.down_proj.input_activation_scale"});
  }
}

TEST_F(RefusedExport, GgufHasNoIntegerSchemes) {
  const fs::path path = checkpoint_.write(checkpoint_.good_scales());
  expect_refused(
      [&](const ModelFolder& folder) {
        export_checkpoint(folder, checkpoint_.folder() / "out.gguf", {"", 1});
      },
      path, {"int4", "GGUF"});
}

TEST_F(RefusedExport, OtherPlansAndPlainModelsAreNoMobileModels) {
  expect_refused(to_folder_, checkpoint_.base().path(), {"quantization.json", "mobile plan"});
  const ModelFolder& base = checkpoint_.base();
  const ResolvedPlan plan = QuantPlan::load("q4_0").resolve(base.table());
  CheckpointContents contents;
  contents.base_folder = &base.path();
  contents.base_tensors = &base.tensors();
  contents.table = &base.table();
  contents.plan = &plan;
  contents.write_master = [&](const WeightSpec& weight, const auto& write) { write(checkpoint_.master(weight)); };
  const fs::path path = checkpoint_.folder() / "q4_0";
  write_checkpoint(path, contents);
  for (const auto& run : {to_folder_, to_litertlm_}) {
    expect_refused(run, path, {"q4_0", "layers.0.mlp.up_proj.weight", "no scheme of the mobile format"});
  }
}

}  // namespace
}  // namespace qat
