// Rows of float32 as the JSON objects, or arrays, of an embeddings answer.
//
// Owns the texts of numbers: floats in the fewest digits that read back as the same float32, or
// whole rows in base64 (RFC 4648) of their little-endian bytes. Must not know what stands around.
#ifndef SMMF_VECTORS_JSON_HPP_
#define SMMF_VECTORS_JSON_HPP_

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

namespace smmf {

namespace vectors_internal {

inline constexpr size_t kFloatChars = 24;  // any float32 and ".0": "-1.17549435e-38"
inline constexpr size_t kUsualChars = 14;  // of a float and its comma
inline constexpr size_t kFrameChars = 64;  // around one row

// A number with a point or an exponent, so that readers take it for no integer.
inline char* PutFloat(char* at, float value) {
  if (!std::isfinite(value)) {  // JSON has none of these
    std::memcpy(at, "null", 4);
    return at + 4;
  }
  char* const end = std::to_chars(at, at + kFloatChars, value).ptr;
  for (const char* c = at; c != end; ++c) {
    if (*c == '.' || *c == 'e') return end;
  }
  end[0] = '.';
  end[1] = '0';
  return end + 2;
}

inline void AppendFloats(const char* row, size_t count, std::string* out) {
  char text[kFloatChars + 1];
  out->push_back('[');
  for (size_t i = 0; i < count; ++i) {
    float value;
    std::memcpy(&value, row + i * sizeof value, sizeof value);
    char* at = text;
    if (i > 0) *at++ = ',';
    out->append(text, static_cast<size_t>(PutFloat(at, value) - text));
  }
  out->push_back(']');
}

inline void AppendBase64(const char* row, size_t size, std::string* out) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto* bytes = reinterpret_cast<const unsigned char*>(row);
  out->push_back('"');
  for (size_t at = 0; at < size; at += 3) {
    const size_t left = size - at;
    const uint32_t group = uint32_t{bytes[at]} << 16 |
                           (left > 1 ? uint32_t{bytes[at + 1]} << 8 : 0u) |
                           (left > 2 ? uint32_t{bytes[at + 2]} : 0u);
    const char four[] = {kDigits[group >> 18], kDigits[group >> 12 & 63],
                         left > 1 ? kDigits[group >> 6 & 63] : '=',
                         left > 2 ? kDigits[group & 63] : '='};
    out->append(four, sizeof four);
  }
  out->push_back('"');
}

}  // namespace vectors_internal

// Appends `{"object":"embedding",...}` for every row of `dimensions` floats, with commas between.
inline void AppendEmbeddings(const char* data, size_t size, size_t dimensions, bool is_base64,
                             std::string* out) {
  const size_t row_bytes = dimensions * sizeof(float);
  const size_t rows = row_bytes == 0 ? 0 : size / row_bytes;
  const size_t per_float = is_base64 ? 6 : vectors_internal::kUsualChars;
  out->reserve(out->size() + size / sizeof(float) * per_float +
               rows * vectors_internal::kFrameChars);
  for (size_t row = 0; row < rows; ++row) {
    if (row > 0) out->push_back(',');
    out->append(R"({"object":"embedding","index":)");
    out->append(std::to_string(row));
    out->append(R"(,"embedding":)");
    const char* const from = data + row * row_bytes;
    if (is_base64) {
      vectors_internal::AppendBase64(from, row_bytes, out);
    } else {
      vectors_internal::AppendFloats(from, dimensions, out);
    }
    out->push_back('}');
  }
}

// Appends every row of `dimensions` floats as an array, with commas between.
inline void AppendRows(const char* data, size_t size, size_t dimensions, std::string* out) {
  const size_t row_bytes = dimensions * sizeof(float);
  const size_t rows = row_bytes == 0 ? 0 : size / row_bytes;
  out->reserve(out->size() + size / sizeof(float) * vectors_internal::kUsualChars + 3 * rows);
  for (size_t row = 0; row < rows; ++row) {
    if (row > 0) out->push_back(',');
    vectors_internal::AppendFloats(data + row * row_bytes, dimensions, out);
  }
}

}  // namespace smmf

#endif  // SMMF_VECTORS_JSON_HPP_
