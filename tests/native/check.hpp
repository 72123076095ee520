// A check that names the line where it does not hold.
#ifndef SMMF_TESTS_CHECK_HPP_
#define SMMF_TESTS_CHECK_HPP_

#include <cstdio>

#define CHECK(condition)                                          \
  do {                                                            \
    if (!(condition)) {                                           \
      std::printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      return false;                                               \
    }                                                             \
  } while (0)

#endif  // SMMF_TESTS_CHECK_HPP_
