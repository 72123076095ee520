// Latency histogram of fixed memory: log-linear buckets, as in HdrHistogram (G. Tene).
//
// A value in nanoseconds below 2^kSubBits has a bucket of its own; above, each power of two is cut
// into 2^(kSubBits-1) equal buckets, so the middle of a bucket is within 1/32 of its values.
// Thread safety: none.
#ifndef SMMF_HISTOGRAM_HPP_
#define SMMF_HISTOGRAM_HPP_

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

namespace smmf {

class Histogram {
 public:
  static constexpr int kSubBits = 5;
  static constexpr int kMaxBits = 44;  // 2^44 ns are almost five hours; above counts as that
  static constexpr int kHalf = 1 << (kSubBits - 1);
  static constexpr size_t kBuckets = (kMaxBits - kSubBits + 2) * kHalf;

  // Negative and NaN count as zero.
  void Record(double seconds) {
    const double clean = seconds > 0 ? seconds : 0;
    ++counts_[Index(clean)];
    ++count_;
    sum_ += clean;
  }

  uint64_t count() const { return count_; }
  double sum() const { return sum_; }

  // The value below which a share q of all lies; 0 when empty.
  double Quantile(double q) const {
    if (count_ == 0) return 0;
    const double wanted = std::ceil(std::min(1.0, std::max(0.0, q)) * static_cast<double>(count_));
    const uint64_t rank = std::max<uint64_t>(1, static_cast<uint64_t>(wanted));
    uint64_t seen = 0;
    for (size_t i = 0; i < kBuckets; ++i) {
      seen += counts_[i];
      if (seen >= rank) return Middle(i);
    }
    return Middle(kBuckets - 1);
  }

  // How many values are at most `seconds`; exact to the bucket that holds the bound.
  uint64_t AtMost(double seconds) const {
    uint64_t seen = 0;
    for (size_t i = 0; i < kBuckets && Middle(i) <= seconds; ++i) seen += counts_[i];
    return seen;
  }

  void Merge(const Histogram& other) {
    for (size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
    count_ += other.count_;
    sum_ += other.sum_;
  }

  // Little-endian: sum (f64), then (u16 bucket, u64 count) of each bucket that is not empty.
  std::string Dump() const {
    std::string out(reinterpret_cast<const char*>(&sum_), sizeof sum_);
    for (uint16_t i = 0; i < kBuckets; ++i) {
      if (counts_[i] == 0) continue;
      out.append(reinterpret_cast<const char*>(&i), sizeof i);
      out.append(reinterpret_cast<const char*>(&counts_[i]), sizeof counts_[i]);
    }
    return out;
  }

  // False for bytes that no Dump made; the histogram is unchanged then.
  bool Load(const char* data, size_t size) {
    constexpr size_t kEntry = sizeof(uint16_t) + sizeof(uint64_t);
    if (size < sizeof sum_ || (size - sizeof sum_) % kEntry != 0) return false;
    Histogram loaded;
    std::memcpy(&loaded.sum_, data, sizeof sum_);
    for (size_t at = sizeof sum_; at < size; at += kEntry) {
      uint16_t bucket;
      uint64_t count;
      std::memcpy(&bucket, data + at, sizeof bucket);
      std::memcpy(&count, data + at + sizeof bucket, sizeof count);
      if (bucket >= kBuckets) return false;
      loaded.counts_[bucket] += count;
      loaded.count_ += count;
    }
    *this = loaded;
    return true;
  }

 private:
  static size_t Index(double seconds) {
    const double limit = static_cast<double>((uint64_t{1} << kMaxBits) - 1);
    const auto ns = static_cast<uint64_t>(std::min(seconds * 1e9, limit));
    if (ns < (1u << kSubBits)) return ns;
    const int shift = 63 - __builtin_clzll(ns) - (kSubBits - 1);
    return static_cast<size_t>(shift * kHalf) + (ns >> shift);
  }

  static double Middle(size_t index) {
    if (index < (1u << kSubBits)) return static_cast<double>(index) / 1e9;
    const size_t shift = index / kHalf - 1;
    const uint64_t low = static_cast<uint64_t>(index - shift * kHalf) << shift;
    return (static_cast<double>(low) + static_cast<double>(uint64_t{1} << shift) / 2) / 1e9;
  }

  std::array<uint64_t, kBuckets> counts_{};
  uint64_t count_ = 0;
  double sum_ = 0;
};

}  // namespace smmf

#endif  // SMMF_HISTOGRAM_HPP_
