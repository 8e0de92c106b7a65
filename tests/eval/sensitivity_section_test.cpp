#include "eval/sensitivity_section.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <variant>

#include "core/error.h"

namespace qat {
namespace {

nlohmann::json figures() {
  return nlohmann::json::parse(R"({"plan": "q4_0", "tokens": 1234,
    "parts": [{"part": "mlp_up", "values": 64, "scheme": "q4_0",
               "choices": [{"scheme": "q6_k", "bytes": 52, "kl": 0.001}, {"scheme": "q4_0", "bytes": 36, "kl": 0.0123}]},
              {"part": "mlp_down", "values": 64, "scheme": "q8_0", "choices": [{"scheme": "q8_0", "bytes": 68, "kl": 0.5}]}],
    "layers": [0.25, 0.125], "whole": {"bytes": 104, "kl": 0.75, "sum_of_parts": 0.5123}})");
}

TEST(SensitivitySection, ShowsEachRoleAsPlannedAndEachLayer) {
  const ReportSection section = sensitivity_section(figures());
  const auto& text = std::get<std::string>(section.items.at(0));
  EXPECT_NE(text.find("1234 tokens"), std::string::npos) << text;
  EXPECT_NE(text.find("0.75"), std::string::npos) << text;
  const auto& roles = std::get<Table>(section.items.at(1));
  ASSERT_EQ(roles.rows.size(), 2U);
  EXPECT_EQ(roles.rows[0], (std::vector<std::string>{"mlp_up", "q4_0", "36 B", "0.0123"}));
  EXPECT_EQ(roles.rows[1].at(1), "q8_0");
  const auto& plot = std::get<LinePlot>(section.items.at(2));
  EXPECT_EQ(plot.series.at(0).x, (std::vector<double>{0, 1}));
  EXPECT_EQ(plot.series.at(0).y, (std::vector<double>{0.25, 0.125}));
}

TEST(SensitivitySection, RefusesOtherFigures) {
  auto without_layers = figures();
  without_layers.erase("layers");
  auto word = figures();
  word["whole"]["kl"] = "much";
  for (const nlohmann::json& wrong : {without_layers, word, nlohmann::json::array()}) {
    EXPECT_THROW(sensitivity_section(wrong), Error) << wrong;
  }
}

}  // namespace
}  // namespace qat
