// The batcher's limits under random events. Built with sanitizers.
#include <cstdio>
#include <map>
#include <random>
#include <vector>

#include "check.hpp"
#include "smmf/batcher.hpp"

namespace {

using Keys = std::vector<uint64_t>;

Keys next(smmf::Batcher& batcher, double now) {
  Keys joining = {123};  // what was in it is replaced
  batcher.next(now, joining);
  return joining;
}

bool joins_and_leaves_between_steps() {
  smmf::Batcher batcher({4, 100, 0, false});
  batcher.add(1, 3, 40, 0, 0);
  batcher.add(2, 2, 40, 0, 0);
  batcher.add(3, 9, 10, 1, 0);  // first by priority, clamped to the whole batch
  CHECK((next(batcher, 0) == Keys{3}) && batcher.running() == 4);
  CHECK(batcher.finish(3) && !batcher.finish(3) && !batcher.finish(1));
  CHECK((next(batcher, 1) == Keys{1}) && batcher.cancel(1));
  CHECK((next(batcher, 2) == Keys{2}) && batcher.running() == 2);
  return true;
}

bool waits_for_its_window() {
  smmf::Batcher batcher({2, 0, 0.5, true});
  batcher.add(1, 1, 10, 0, 10.0);
  CHECK(batcher.next_deadline() == 10.5 && next(batcher, 10.25).empty());
  CHECK((next(batcher, 10.5) == Keys{1}));
  batcher.add(2, 1, 10, 0, 11.0);
  batcher.add(3, 1, 10, 0, 11.0);
  CHECK(next(batcher, 99.0).empty() && batcher.finish(1));
  CHECK((next(batcher, 11.0) == Keys{2, 3}));
  return true;
}

bool keeps_its_limits(uint32_t seed, bool is_static) {
  std::mt19937 random(seed);
  const auto pick = [&](uint32_t n) { return static_cast<int64_t>(random() % n); };
  smmf::Batcher batcher({8, 64, 0.5, is_static});
  std::map<uint64_t, int64_t> waiting, running, size;
  for (uint64_t key = 0; key < 20000; ++key) {
    const double now = static_cast<double>(key) / 8;
    waiting[key] = 1 + pick(8);
    size[key] = pick(80);
    batcher.add(key, waiting[key], size[key], pick(3), now);
    const bool was_empty = running.empty();
    const Keys joining = next(batcher, now);
    int64_t width = 0, tokens = 0;
    for (const uint64_t joined : joining) {
      running[joined] = waiting.at(joined);
      waiting.erase(joined);
      tokens += size[joined];
    }
    for (const auto& [one, its_width] : running) width += its_width;
    CHECK(width <= 8 && width == batcher.running());
    CHECK(tokens <= 64 || (was_empty && joining.size() == 1));
    CHECK(!is_static || was_empty || joining.empty());
    CHECK(batcher.waiting() == static_cast<int64_t>(waiting.size()));
    for (auto& kind : {&waiting, &running, &running}) {
      if (kind->empty() || pick(3) == 0) continue;
      const uint64_t left = std::next(kind->begin(), pick(kind->size()))->first;
      CHECK(batcher.finish(left) == (kind == &running));
      CHECK(batcher.cancel(left) == (kind != &running));
      kind->erase(left);
    }
  }
  return true;
}

}  // namespace

int main() {
  bool good = joins_and_leaves_between_steps();
  good = waits_for_its_window() && good;
  good = keeps_its_limits(1, false) && good;
  good = keeps_its_limits(2, true) && good;
  return good ? 0 : 1;
}
