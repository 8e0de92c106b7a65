#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "quant/grid.h"
#include "reference/mobile_golden.h"
#include "reference/reference_model.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using testing::EditableTensors;
using testing::expect_error;

struct Expected {
  std::vector<int32_t> tokens;
  std::vector<float> logits;
};

Expected expected() {
  const SafetensorsSource source(testing::mobile_golden() / "expected.safetensors");
  Expected result;
  const auto bytes = source.find("tokens")->bytes;
  for (size_t i = 0; i < bytes.size(); i += sizeof(int64_t)) {
    int64_t token;
    std::memcpy(&token, bytes.data() + i, sizeof(token));
    result.tokens.push_back(static_cast<int32_t>(token));
  }
  result.logits.resize(source.find("logits")->bytes.size() / sizeof(float));
  std::memcpy(result.logits.data(), source.find("logits")->bytes.data(), source.find("logits")->bytes.size());
  return result;
}

std::vector<float> evaluate(LanguageModel& model, std::span<const int32_t> tokens) {
  std::vector<float> logits;
  model.evaluate(tokens, 0,
                 [&](int64_t, std::span<const float> rows) { logits.insert(logits.end(), rows.begin(), rows.end()); });
  return logits;
}

// The largest difference of each token's logits.
std::vector<double> differences(std::span<const float> a, std::span<const float> b, size_t tokens) {
  EXPECT_EQ(a.size(), b.size());
  std::vector<double> largest(tokens, 0.0);
  for (size_t i = 0; i < a.size(); ++i) {
    double& token = largest[i / (a.size() / tokens)];
    token = std::max(token, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return largest;
}

// Of the tokens' differences: a single one may be far off, since random models enlarge small differences.
double middle(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

class MobileModelTest : public ::testing::Test {
 protected:
  MobileFolder folder_{testing::mobile_golden()};
  Expected expected_ = expected();
};

// A sum in another order may put an activation on the other side of a rounding edge, which moves the logits from that
// token on.
TEST_F(MobileModelTest, FloatEqualsTransformers) {
  const auto model = make_reference_model(folder_, {.cache = CacheType::F32});
  const auto found = differences(evaluate(*model, expected_.tokens), expected_.logits, expected_.tokens.size());
  const auto equal = std::count_if(found.begin(), found.end(), [](double d) { return d <= 1e-3; });
  EXPECT_GE(equal, 10) << "of " << found.size() << " tokens";
  EXPECT_LE(middle(found), 0.3);
}

TEST_F(MobileModelTest, DeviceIsCloseToFloat) {
  const auto device = make_reference_model(folder_, {.arithmetic = ArithmeticKind::Device, .cache = CacheType::F32});
  const auto found = differences(evaluate(*device, expected_.tokens), expected_.logits, expected_.tokens.size());
  EXPECT_GT(middle(found), 0.0);
  EXPECT_LE(middle(found), 0.3);
}

TEST_F(MobileModelTest, ResultsDoNotDependOnThreads) {
  for (const ArithmeticKind arithmetic : {ArithmeticKind::Float, ArithmeticKind::Device}) {
    const auto one = make_reference_model(folder_, {.arithmetic = arithmetic, .threads = 1});
    const auto three = make_reference_model(folder_, {.arithmetic = arithmetic, .threads = 3});
    EXPECT_EQ(evaluate(*one, expected_.tokens), evaluate(*three, expected_.tokens));
  }
}

// Keeps the codes of the cache, and what linears computed.
class Watch final : public CacheObserver, public LinearObserver {
 public:
  void appended(int64_t layer, int64_t, int64_t positions, std::span<std::byte> keys,
                std::span<std::byte> values) override {
    layers.push_back(layer);
    cached += keys.size() + values.size();
    positions_seen = positions;
    for (const std::byte value : values) saturated += static_cast<int8_t>(value) == 127 ? 1 : 0;
  }
  void computed(std::string_view weight, const Matrix& input, const Matrix& output) override {
    EXPECT_EQ(input.rows(), output.rows());
    ++linears;
    if (weight != "layers.0.mlp.up_proj.weight") return;
    for (const float value : row_of(output, 0)) up.push_back(value);
  }

  std::vector<int64_t> layers;
  size_t cached = 0;
  int64_t positions_seen = 0;
  int64_t saturated = 0;
  int linears = 0;
  std::vector<float> up;
};

TEST_F(MobileModelTest, Int8CacheIsTheDefaultAndHoldsCodesOfDonors) {
  Watch watch;
  const auto model = make_reference_model(folder_, {.observer = &watch, .linears = &watch});
  const auto logits = evaluate(*model, expected_.tokens);
  EXPECT_EQ(watch.layers, (std::vector<int64_t>{0, 1, 2, 3}));
  size_t bytes = 0;
  for (int64_t layer = 0; layer < 4; ++layer) {
    bytes += 2 * expected_.tokens.size() *
             static_cast<size_t>(folder_.config().layers[static_cast<size_t>(layer)].key_value_width());
  }
  EXPECT_EQ(watch.cached, bytes);
  EXPECT_EQ(watch.positions_seen, static_cast<int64_t>(expected_.tokens.size()));
  EXPECT_EQ(watch.linears, 1 + 4 * 9 + 4 * 7);
  const float scale = folder_.weight("layers.0.mlp.up_proj.weight").edges.output;
  ASSERT_FALSE(watch.up.empty());
  for (const float value : watch.up) {
    const int8_t code = grid::integer_code(value, grid::inverse_scale(scale), -128, 127);
    EXPECT_EQ(grid::integer_value(code, scale), value);
  }
  const auto without = evaluate(*make_reference_model(folder_, {.cache = CacheType::F32}), expected_.tokens);
  const auto found = differences(logits, without, expected_.tokens.size());
  EXPECT_GT(middle(found), 1e-4);
  EXPECT_LE(middle(found), 1.0);
}

TEST_F(MobileModelTest, DecodingIsCloseToEvaluation) {
  for (const ArithmeticKind arithmetic : {ArithmeticKind::Float, ArithmeticKind::Device}) {
    const auto model = make_reference_model(folder_, {.arithmetic = arithmetic});
    const auto all = evaluate(*model, expected_.tokens);
    const auto session = model->start();
    std::vector<float> steps;
    const std::span<const int32_t> tokens(expected_.tokens);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto row = session->append(tokens.subspan(i, 1));
      steps.insert(steps.end(), row.begin(), row.end());
    }
    const auto found = differences(steps, all, tokens.size());
    const auto equal = std::count_if(found.begin(), found.end(), [](double d) { return d <= 1e-3; });
    EXPECT_GE(equal, 10) << "of " << found.size() << " tokens";
    EXPECT_LE(middle(found), 0.3);
  }
}

TEST_F(MobileModelTest, WithoutCacheScalesTheCacheIsFloat) {
  testing::TemporaryFolder temporary;
  testing::write_changed_golden(temporary / "model", [](EditableTensors& tensors, std::string&) {
    std::erase_if(tensors, [](const auto& entry) { return entry.first.ends_with("_cache_scale"); });
  });
  const MobileFolder folder(temporary / "model");
  EXPECT_EQ(evaluate(*make_reference_model(folder, {}), expected_.tokens),
            evaluate(*make_reference_model(folder_, {.cache = CacheType::F32}), expected_.tokens));
  expect_error([&] { make_reference_model(folder, {.cache = CacheType::Int8}); },
               {"layer 0 has no static scales of its keys and values", "use a float cache"});
}

}  // namespace
}  // namespace qat
