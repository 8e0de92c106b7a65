// `parameters`, `freeze` and `freeze_tables`: which weights learn.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "gemma4/model_folder.h"
#include "support/expect_error.h"
#include "trainers/base_model.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

using ::testing::ElementsAre;
using testing::expect_error;
using testing::TinyRun;
using testing::train;

// Roles of which a weight learns.
std::set<std::string> trained_roles(const TrainConfig& config) {
  const BaseModel base(config);
  const std::vector<std::string> frozen = frozen_weights(config, base);
  std::set<std::string> roles;
  for (const WeightSpec& weight : base.table().weights()) {
    if (std::find(frozen.begin(), frozen.end(), weight.name) == frozen.end()) roles.emplace(role_name(weight.role));
  }
  return roles;
}

TEST(TrainedRoles, AreThoseNamedTablesOnlyIfNamed) {
  const TinyRun run;
  EXPECT_THAT(trained_roles(run.config("a", {"parameters=[\"norm\",\"attention_query\"]"})),
              ElementsAre("attention_query", "norm"));
  EXPECT_THAT(trained_roles(run.config("a", {"parameters=[\"norm\"]", "freeze_tables=yes", "freeze=[\"mlp_up\"]"})),
              ElementsAre("norm"));
  // A plan that freezes tables does not outweigh a name.
  const std::string plan = "plan=q4_0-q8-tables";
  EXPECT_THAT(trained_roles(run.config("a", {plan, "parameters=[\"token_embedding\"]"})),
              ElementsAre("token_embedding"));
  EXPECT_FALSE(trained_roles(run.config("a", {plan})).contains("token_embedding"));
  EXPECT_TRUE(trained_roles(run.config("a")).contains("token_embedding"));
}

TEST(TrainedRoles, ContradictionsAreNamed) {
  const TinyRun run;
  const auto refused = [&](const std::vector<std::string>& overrides, std::initializer_list<std::string> parts) {
    expect_error([&] { run.config("a", overrides); }, parts);
  };
  refused({"parameters=[\"norms\"]"}, {"parameters: there is no role \"norms\"; did you mean \"norm\"?"});
  refused({"parameters=[\"mlp_up\"]", "freeze=[\"mlp_up\"]"}, {"parameters: \"mlp_up\" is in freeze, too"});
  refused({"parameters=[\"token_embedding\"]", "freeze_tables=yes"},
          {"\"token_embedding\" is a table", "freeze_tables = yes"});
  refused({"parameters=[\"mlp_up\"]", "freeze_tables=no"}, {"freeze_tables: no has no effect", "names no table"});
  refused({"parameters=[\"mlp_up\"]", "initialize=pretrained", "lora.rank=4"}, {"parameters: contradicts lora.rank"});
  const TrainConfig absent = run.config("a", {"parameters=[\"norm\",\"expert_down\"]"});
  expect_error([&] { trained_roles(absent); }, {"parameters: the model in", "has no weight of role \"expert_down\""});
}

TEST(TrainedRoles, OnlyTheNamedWeightsMove) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("base", {"steps=2"})), 0);
  const std::string base = (run.folder("base") / "checkpoint").string();
  for (const char* plan : {"q4_0", "mobile-w4"}) {
    SCOPED_TRACE(plan);
    ASSERT_EQ(train(run.config(plan, {"model=" + base, "initialize=pretrained", join("plan=", plan), "kv_cache=plan",
                                      "parameters=[\"mlp_down\",\"attention_query\"]"})),
              0);
    const ModelFolder before(base);
    const ModelFolder after(run.folder(plan) / "checkpoint");
    for (const WeightSpec& weight : before.table().weights()) {
      const auto old_bytes = before.masters().of(weight).bytes;
      const auto new_bytes = after.masters().of(weight).bytes;
      const bool same = std::equal(old_bytes.begin(), old_bytes.end(), new_bytes.begin(), new_bytes.end());
      const bool named = weight.role == WeightRole::MlpDown || weight.role == WeightRole::AttentionQuery;
      EXPECT_EQ(!same, named) << weight.name;
    }
  }
}

}  // namespace
}  // namespace qat
