// The node in a discovery request: where it stands, so that it is neither parsed nor compared again.
// In: the octets of one message. Out: the place of its node field. Never: a judgement of the rest; protobuf has that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fields.hpp"

namespace kumafast::xds {

// A client's node stands before its names, which can be 100,000: no more fields than this are looked at.
inline constexpr int kFieldsSearchedMax = 4;

// A field from its key to its end; `content` is where its content begins. `end` is 0 where there is none.
struct Field {
    std::size_t start = 0;
    std::size_t content = 0;
    std::size_t end = 0;
};

// The first field `number` among the first few, which must be texts or messages. Where it is not found, or something
// before it is not well formed, there is none.
inline Field find_field(std::span<const std::uint8_t> octets, std::uint64_t number) {
    FieldReader reader(octets);
    for (int count = 0; count < kFieldsSearchedMax && reader.next() && reader.is_text(); ++count) {
        if (reader.number() == number) return {reader.start(), reader.end() - reader.content().size(), reader.end()};
    }
    return {};
}

}  // namespace kumafast::xds
