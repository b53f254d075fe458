// The node in a discovery request: where it stands, so that it is neither parsed nor compared again.
// In: the octets of one message. Out: the place of its node field. Never: a judgement of the rest; protobuf has that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace kumafast::xds {

// A client's node stands before its names, which can be 100,000: no more fields than this are looked at.
inline constexpr int kFieldsSearchedMax = 4;
inline constexpr unsigned kLengthDelimited = 2;
inline constexpr unsigned kVarintBitsMax = 63;

// A field from its key to its end; `content` is where its content begins. `end` is 0 where there is none.
struct Field {
    std::size_t start = 0;
    std::size_t content = 0;
    std::size_t end = 0;
};

// Takes a varint at `at`. False: it is cut off or too long.
inline bool read_varint(std::span<const std::uint8_t> octets, std::size_t& at, std::uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift <= kVarintBitsMax; shift += 7) {
        if (at == octets.size()) return false;
        std::uint8_t octet = octets[at++];
        value |= static_cast<std::uint64_t>(octet & 0x7f) << shift;
        if (octet < 0x80) return true;
    }
    return false;
}

// The first field `number` among the first few, which must be texts or messages. Where it is not found, or something
// before it is not well formed, there is none.
inline Field find_field(std::span<const std::uint8_t> octets, std::uint64_t number) {
    std::size_t at = 0;
    for (int count = 0; count < kFieldsSearchedMax; ++count) {
        std::size_t start = at;
        std::uint64_t key = 0, length = 0;
        if (!read_varint(octets, at, key) || (key & 7) != kLengthDelimited) return {};
        if (!read_varint(octets, at, length) || length > octets.size() - at) return {};
        if (key >> 3 == number) return {start, at, at + static_cast<std::size_t>(length)};
        at += static_cast<std::size_t>(length);
    }
    return {};
}

}  // namespace kumafast::xds
