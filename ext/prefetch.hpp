// Memory asked for before it is used: of ten thousand connections none is in the caches when its turn comes, and to
// wait for one line after another takes as long as all that is then done with them. In: where an object is. Out:
// nothing that can be seen. Never: an access; any address may be given.
#pragma once

#include <cstddef>

namespace kumafast {

inline constexpr std::size_t kCacheLineBytes = 64;

inline void prefetch(const void* object, std::size_t bytes) {
#if defined(__GNUC__) || defined(__clang__)
    const char* at = static_cast<const char*>(object);
    for (std::size_t offset = 0; offset < bytes; offset += kCacheLineBytes) __builtin_prefetch(at + offset);
#else
    (void)object, (void)bytes;
#endif
}

}  // namespace kumafast
