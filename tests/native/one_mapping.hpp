// Both ends of a ring in one mapping, to be included before any header of ours.
//
// Writer and reader map a segment each. In one process that gives it two addresses, and TSan, which
// goes by address, could see no race between them; here both get the same one.
#ifndef SMMF_TESTS_ONE_MAPPING_HPP_
#define SMMF_TESTS_ONE_MAPPING_HPP_

#include <sys/mman.h>
#include <sys/stat.h>

#include <map>
#include <utility>

namespace one_mapping {

using Place = std::pair<ino_t, size_t>;

inline std::map<Place, void*>& Mapped() {
  static std::map<Place, void*> mapped;
  return mapped;
}

// Not for two threads at a time.
inline void* Map(void* at, size_t bytes, int protection, int flags, int fd, off_t offset) {
  struct stat status{};
  fstat(fd, &status);
  void*& known = Mapped()[{status.st_ino, bytes}];
  if (known == nullptr) known = ::mmap(at, bytes, protection, flags, fd, offset);
  return known;
}

// Mappings stay until the program ends: the other end may be using one.
inline int Unmap(void*, size_t) { return 0; }

}  // namespace one_mapping

#define mmap one_mapping::Map
#define munmap one_mapping::Unmap

#endif  // SMMF_TESTS_ONE_MAPPING_HPP_
