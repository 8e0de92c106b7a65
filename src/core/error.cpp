#include "core/error.h"

#include <cstdio>
#include <cstdlib>

namespace qat {

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "internal error: %s is false (%s:%d)\nplease report this\n", condition, file, line);
  std::abort();
}

}  // namespace qat
