#include "core/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "support/expect_error.h"

namespace qat {
namespace {

using testing::expect_error;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Inner {
  double rate = 0.5;
  std::string kind = "plain";
  void visit_fields(FieldVisitor& v) {
    v.field("rate", rate, "share of everything");
    v.choice("kind", kind, {"plain", "fancy"}, "how");
  }
};
struct Outer {
  int64_t steps = 3;
  bool loud = false;
  std::vector<std::string> files{"a"};
  Inner inner;
  void visit_fields(FieldVisitor& v) {
    v.field("steps", steps, "how many");
    v.field("loud", loud, "whether to shout");
    v.field("files", files, "what to read");
    v.object("inner", "details", [&](FieldVisitor& nested) { inner.visit_fields(nested); });
  }
};

std::vector<std::string> read(Outer& outer, const char* text) {
  std::vector<std::string> problems;
  read_fields(nlohmann::json::parse(text), [&](FieldVisitor& v) { outer.visit_fields(v); }, problems);
  return problems;
}

TEST(Fields, WhatIsWrittenReadsBack) {
  Outer outer;
  outer.steps = 77;
  outer.inner.kind = "fancy";
  const auto json = write_fields([&](FieldVisitor& v) { outer.visit_fields(v); });
  Outer again;
  EXPECT_TRUE(read(again, json.dump().c_str()).empty());
  EXPECT_EQ(again.steps, 77);
  EXPECT_EQ(again.inner.kind, "fancy");
}

TEST(Fields, AllFaultsAreReportedAtOnceWithTheNearestName) {
  Outer outer;
  const auto problems =
      read(outer, R"({"stepz": 1, "loud": 3, "files": [1], "inner": {"rate": "x", "kind": "odd", "rat": 1}})");
  EXPECT_THAT(problems, ElementsAre(HasSubstr("loud: must be true or false"), HasSubstr("files: must be a list of strings"),
                                    HasSubstr("inner.rate: must be a number"),
                                    HasSubstr("inner.kind: must be one of plain, fancy"),
                                    HasSubstr("inner.rat: no such field; did you mean \"rate\"?"),
                                    HasSubstr("stepz: no such field; did you mean \"steps\"?")));
}

TEST(Fields, NumbersOutOfRangeAreRefused) {
  Outer outer;
  EXPECT_THAT(read(outer, R"({"steps": 18446744073709551615})"), ElementsAre(HasSubstr("steps")));
  EXPECT_THAT(read(outer, R"({"steps": 1.5})"), ElementsAre(HasSubstr("steps")));
  EXPECT_THAT(read(outer, R"([1])"), ElementsAre(HasSubstr("must be an object")));
}

TEST(Overrides, ReachNestedFieldsAndKeepTypes) {
  nlohmann::json json = nlohmann::json::object();
  apply_override(json, "inner.rate=1e-5");
  apply_override(json, "loud=true");
  apply_override(json, "files=[\"x\",\"y\"]");
  apply_override(json, "inner.kind=fancy");
  Outer outer;
  EXPECT_TRUE(read(outer, json.dump().c_str()).empty());
  EXPECT_DOUBLE_EQ(outer.inner.rate, 1e-5);
  EXPECT_EQ(outer.inner.kind, "fancy");
  EXPECT_THAT(outer.files, ElementsAre("x", "y"));
  expect_error([&] { apply_override(json, "loud"); }, {"key=value"});
  expect_error([&] { apply_override(json, "loud.x=1"); }, {"not inside an object"});
}

TEST(Json, SyntaxErrorsNameLineAndColumn) {
  expect_error([] { parse_json("{\n  \"a\": 1,\n  oops\n}", "file.json"); }, {"file.json:3:3"});
  expect_error([] { parse_json("", "empty.json"); }, {"empty.json:1"});
}

TEST(NearestName, FindsTypingErrorsOnly) {
  EXPECT_EQ(nearest_name("learning_rat", {"warmup", "learning_rate"}), "learning_rate");
  EXPECT_EQ(nearest_name("zebra", {"warmup", "learning_rate"}), std::nullopt);
}

}  // namespace
}  // namespace qat
