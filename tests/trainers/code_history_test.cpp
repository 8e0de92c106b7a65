#include "trainers/code_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace qat {
namespace {

using Codes = std::vector<int8_t>;

TEST(CodeHistoryTest, CountsWhatChangedAndWhatOnlyWentBack) {
  CodeHistory history;
  EXPECT_EQ(history.update("w", Codes{1, 2, 3, 4}).compared, 0);  // nothing to compare with
  const CodeChanges first = history.update("w", Codes{1, 3, 5, 4});
  EXPECT_EQ(first.compared, 4);
  EXPECT_EQ(first.changed, 2);
  EXPECT_EQ(first.returned, 0);
  // The second goes back; the third goes on; the fourth moves for the first time.
  const CodeChanges second = history.update("w", Codes{1, 2, 6, 5});
  EXPECT_EQ(second.changed, 3);
  EXPECT_EQ(second.returned, 1);
  EXPECT_EQ(history.update("w", Codes{1, 2, 6, 5}).changed, 0);
  // A code that stood still in between still returns to the one before its last change.
  const CodeChanges last = history.update("w", Codes{1, 3, 5, 4});
  EXPECT_EQ(last.changed, 3);
  EXPECT_EQ(last.returned, 3);
  EXPECT_DOUBLE_EQ(last.changed_share(), 0.75);
}

TEST(CodeHistoryTest, WeightsHaveHistoriesOfTheirOwn) {
  CodeHistory history;
  history.update("a", Codes{1, 1});
  history.update("b", Codes{2, 2, 2});
  CodeChanges total = history.update("a", Codes{1, 2});
  total += history.update("b", Codes{2, 2, 2});
  EXPECT_EQ(total.compared, 5);
  EXPECT_DOUBLE_EQ(total.changed_share(), 0.2);
  EXPECT_THAT(history.samples().at("a").before, ::testing::ElementsAre(1, 1));
}

}  // namespace
}  // namespace qat
