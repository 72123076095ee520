// Vectors as JSON: every float32 reads back as itself, base64 as a plain encoder has it.
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "smmf/vectors_json.hpp"

namespace {

std::string rendered(const std::vector<float>& values, size_t dimensions, bool is_base64) {
  const size_t size = values.size() * sizeof(float);
  const auto exact = std::make_unique<char[]>(size);  // a read beyond it is an error
  if (size > 0) std::memcpy(exact.get(), values.data(), size);
  std::string out;
  smmf::AppendEmbeddings(exact.get(), size, dimensions, is_base64, &out);
  return out;
}

std::string rows(const std::vector<float>& values, size_t dimensions) {
  std::string out;
  const auto* data = reinterpret_cast<const char*>(values.data());
  smmf::AppendRows(data, values.size() * sizeof(float), dimensions, &out);
  return out;
}

std::string number(float value) {
  const std::string row = rendered({value}, 1, false);
  const size_t from = row.find('[') + 1;
  return row.substr(from, row.find(']') - from);
}

bool holds() {
  CHECK(rendered({1, -2}, 1, false) == R"({"object":"embedding","index":0,"embedding":[1.0]},)"
                                       R"({"object":"embedding","index":1,"embedding":[-2.0]})");
  CHECK(rendered({1}, 1, true) == R"({"object":"embedding","index":0,"embedding":"AACAPw=="})");
  CHECK(rendered({1, 2}, 2, true) ==
        R"({"object":"embedding","index":0,"embedding":"AACAPwAAAEA="})");
  CHECK(rendered({1, 2, 3}, 3, true) ==
        R"({"object":"embedding","index":0,"embedding":"AACAPwAAAEAAAEBA"})");
  CHECK(rendered({}, 3, false).empty());
  CHECK(rows({1, -2, 3, 0.1f}, 2) == "[1.0,-2.0],[3.0,0.1]");
  CHECK(rows({}, 3).empty() && rows({}, 0).empty());
  CHECK(number(0.1f) == "0.1");
  CHECK(number(-0.0f) == "-0.0");
  CHECK(number(std::numeric_limits<float>::infinity()) == "null");
  CHECK(number(std::numeric_limits<float>::quiet_NaN()) == "null");
  std::mt19937 random(7);
  for (int i = 0; i < 200000; ++i) {
    const uint32_t bits = static_cast<uint32_t>(random());
    float value;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    const std::string text = number(value);
    CHECK(text.find_first_of(".e") != std::string::npos);
    CHECK(static_cast<float>(std::strtod(text.c_str(), nullptr)) == value);
  }
  return true;
}

}  // namespace

int main() { return holds() ? 0 : 1; }
