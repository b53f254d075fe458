// The Huffman code of HPACK (RFC 7541, appendix B), decoded.
// In: encoded octets. Out: octets. Never: a table of codes: the code is canonical, so that the lengths are all of it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

namespace kumafast::huffman {

inline constexpr int kSymbols = 257;
inline constexpr int kEndOfString = 256;
inline constexpr int kShortest = 5;
inline constexpr int kLongest = 30;

// Bits of the code of each octet, and of the end of the string.
inline constexpr std::array<std::uint8_t, kSymbols> kLengths = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6,  10, 10, 12, 13, 6,  8,  11, 10, 10, 8,  11, 8,  6,  6,  6,  5,  5,  5,  6,  6,  6,  6,  6,  6,  6,
    7,  8,  15, 6,  12, 10, 13, 6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
    7,  8,  7,  8,  13, 19, 13, 14, 6,  15, 5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,  6,  7,  6,  5,
    5,  6,  7,  7,  7,  7,  7,  15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24,
    24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22,
    23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26,
    27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23,
    22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30};

// A canonical code gives its codes in the order of (length, symbol): of each length, the first code, how far codes of
// that length reach, and where its symbols begin are enough.
struct Code {
    std::array<std::uint16_t, kSymbols> symbols{};
    std::array<std::uint16_t, kLongest + 2> begins{};
    std::array<std::uint32_t, kLongest + 1> firsts{};
    // The first 30-bit number above all codes of at most that length: the length of the next code is found by
    // comparing.
    std::array<std::uint32_t, kLongest + 1> limits{};
};

constexpr Code make_code() {
    Code code;
    std::uint32_t next = 0;
    std::uint16_t at = 0;
    for (int length = 1; length <= kLongest; ++length) {
        next <<= 1;
        code.firsts[length] = next;
        code.begins[length] = at;
        for (int symbol = 0; symbol < kSymbols; ++symbol) {
            if (kLengths[symbol] != length) continue;
            code.symbols[at++] = static_cast<std::uint16_t>(symbol);
            ++next;
        }
        code.limits[length] = next << (kLongest - length);
    }
    return code;
}

inline constexpr Code kCode = make_code();
// A complete code uses every number: Kraft's sum is one.
static_assert(kCode.limits[kLongest] == 1u << kLongest);

// False: padding of a whole octet or not of ones, or the end of the string within it (RFC 7541 5.2).
inline bool decode(std::span<const std::uint8_t> encoded, std::string& decoded) {
    std::uint64_t bits = 0;
    int count = 0;
    std::size_t at = 0;
    for (;;) {
        while (count < kLongest && at < encoded.size()) {
            bits = bits << 8 | encoded[at++];
            count += 8;
        }
        if (count < kShortest) break;
        // Where fewer than 30 bits are left, ones follow: the padding never completes a code that is not there.
        std::uint64_t window = count >= kLongest ? bits >> (count - kLongest)
                                                 : bits << (kLongest - count) | ((1u << (kLongest - count)) - 1);
        std::uint32_t prefix = static_cast<std::uint32_t>(window & ((1u << kLongest) - 1));
        int length = kShortest;
        while (length < kLongest && prefix >= kCode.limits[length]) ++length;
        if (length > count) break;
        int symbol = kCode.symbols[kCode.begins[length] + (prefix >> (kLongest - length)) - kCode.firsts[length]];
        if (symbol == kEndOfString) return false;
        decoded.push_back(static_cast<char>(symbol));
        count -= length;
        bits &= (std::uint64_t{1} << count) - 1;
    }
    return count < 8 && bits == (std::uint64_t{1} << count) - 1;
}

}  // namespace kumafast::huffman
