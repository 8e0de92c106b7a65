// Reads lines of JSON strings from stdin, prints each one's ids as a JSON list (tests/interop/tokenizer_against_hf.py).
// Usage: qat_tokenizer_dump TOKENIZER_JSON [--time] [--decode] [--text-specials]
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "data/tokenizer.h"

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int run(const std::vector<std::string>& arguments) {
  bool timed = false;
  bool decode = false;
  bool parse_special = true;
  for (size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i] == "--time") timed = true;
    if (arguments[i] == "--decode") decode = true;
    if (arguments[i] == "--text-specials") parse_special = false;
  }
  const auto load_start = std::chrono::steady_clock::now();
  const qat::Tokenizer tokenizer = qat::Tokenizer::load(arguments.at(0));
  const double load_seconds = seconds_since(load_start);
  double encode_seconds = 0;
  size_t bytes = 0;
  for (std::string line; std::getline(std::cin, line);) {
    const auto text = qat::parse_json(line, "stdin").get<std::string>();
    const auto start = std::chrono::steady_clock::now();
    const auto ids = tokenizer.encode(text, parse_special);
    encode_seconds += seconds_since(start);
    bytes += text.size();
    std::cout << (decode ? nlohmann::json{ids, tokenizer.decode(ids), tokenizer.decode(ids, true)}
                         : nlohmann::json(ids))
              << '\n';
  }
  if (timed) {
    std::fprintf(stderr, "load %.2f s, encode %.2f MB in %.2f s: %.1f MB/s\n", load_seconds,
                 static_cast<double>(bytes) * 1e-6, encode_seconds,
                 static_cast<double>(bytes) * 1e-6 / std::max(encode_seconds, 1e-9));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 2) qat::fail_usage("usage: qat_tokenizer_dump TOKENIZER_JSON [--time] [--decode] [--text-specials]");
    return run({argv + 1, argv + argc});
  } catch (const qat::Error& error) {
    std::cerr << error.what() << '\n';
    return static_cast<int>(error.exit_code());
  }
}
