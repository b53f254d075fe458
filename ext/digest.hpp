// 128-bit digests: XXH3-128 of short inputs, and order-free sums of them.
// In: bytes. Out: 16 bytes, big-endian, the same as the xxhash package's.
// Never: more than kShortMax bytes (the package does those), secrets, seeds; a promise against somebody who picks the
// input to collide: XXH3 is fast, not cryptographic.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kumafast {

static_assert(std::endian::native == std::endian::little, "digests are read as little-endian words");

struct Digest {
    std::uint64_t high = 0;
    std::uint64_t low = 0;

    // Sums are modulo 2**128: adding and taking away commute, whatever the order.
    void add(const Digest& other) {
        std::uint64_t before = low;
        low += other.low;
        high += other.high + (low < before ? 1 : 0);
    }
    void subtract(const Digest& other) {
        std::uint64_t before = low;
        low -= other.low;
        high -= other.high + (low > before ? 1 : 0);
    }

    void write(unsigned char* out) const {
        std::uint64_t words[2] = {__builtin_bswap64(high), __builtin_bswap64(low)};
        std::memcpy(out, words, sizeof words);
    }
    static Digest read(const unsigned char* in) {
        std::uint64_t words[2];
        std::memcpy(words, in, sizeof words);
        return {__builtin_bswap64(words[0]), __builtin_bswap64(words[1])};
    }
};

// XXH3-128 as its specification defines it for up to 240 bytes, with the default secret and seed 0. It is here, and
// not called, because a snapshot's element is a name and a version of under a hundred bytes: the way through Python
// objects to the package costs several times the digest itself.
namespace xxh3 {

inline constexpr std::size_t kShortMax = 240;

inline constexpr unsigned char kSecret[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4,
    0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e,
    0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43,
    0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb,
    0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19,
    0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7,
    0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78,
    0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16,
    0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f,
    0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};
inline constexpr std::uint64_t kPrime32_2 = 0x85EBCA77;
inline constexpr std::uint64_t kPrime64_1 = 0x9E3779B185EBCA87;
inline constexpr std::uint64_t kPrime64_2 = 0xC2B2AE3D27D4EB4F;
inline constexpr std::uint64_t kPrime64_3 = 0x165667B19E3779F9;
inline constexpr std::uint64_t kPrime64_4 = 0x85EBCA77C2B2AE63;
inline constexpr std::uint64_t kMix1 = 0x165667919E3779F9;
inline constexpr std::uint64_t kMix2 = 0x9FB21C651E98DF25;

inline std::uint64_t read64(const unsigned char* at) {
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    return word;
}
inline std::uint32_t read32(const unsigned char* at) {
    std::uint32_t word;
    std::memcpy(&word, at, sizeof word);
    return word;
}
// Two words of the secret folded into one, at the offset where each length class keeps its own.
inline std::uint64_t flip64(std::size_t offset) { return read64(kSecret + offset) ^ read64(kSecret + offset + 8); }
inline std::uint64_t flip32(std::size_t offset) { return read32(kSecret + offset) ^ read32(kSecret + offset + 4); }

__extension__ using Wide = unsigned __int128;

inline Digest multiply(std::uint64_t a, std::uint64_t b) {
    Wide product = static_cast<Wide>(a) * b;
    return {static_cast<std::uint64_t>(product >> 64), static_cast<std::uint64_t>(product)};
}
inline std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
    Digest product = multiply(a, b);
    return product.high ^ product.low;
}
inline std::uint64_t avalanche(std::uint64_t x) {
    x = (x ^ (x >> 37)) * kMix1;
    return x ^ (x >> 32);
}
inline std::uint64_t avalanche64(std::uint64_t x) {
    x = (x ^ (x >> 33)) * kPrime64_2;
    x = (x ^ (x >> 29)) * kPrime64_3;
    return x ^ (x >> 32);
}

inline Digest up_to_3(const unsigned char* in, std::size_t size) {
    if (size == 0) return {avalanche64(flip64(80)), avalanche64(flip64(64))};
    std::uint32_t low = static_cast<std::uint32_t>(in[0]) << 16 | static_cast<std::uint32_t>(in[size >> 1]) << 24 |
                        static_cast<std::uint32_t>(in[size - 1]) | static_cast<std::uint32_t>(size) << 8;
    std::uint32_t high = std::rotl(__builtin_bswap32(low), 13);
    return {avalanche64(high ^ flip32(8)), avalanche64(low ^ flip32(0))};
}

inline Digest up_to_8(const unsigned char* in, std::size_t size) {
    std::uint64_t word = read32(in) + (static_cast<std::uint64_t>(read32(in + size - 4)) << 32);
    Digest sum = multiply(word ^ flip64(16), kPrime64_1 + (size << 2));
    sum.high += sum.low << 1;
    sum.low ^= sum.high >> 3;
    sum.low = (sum.low ^ (sum.low >> 35)) * kMix2;
    return {avalanche(sum.high), sum.low ^ (sum.low >> 28)};
}

inline Digest up_to_16(const unsigned char* in, std::size_t size) {
    std::uint64_t last = read64(in + size - 8);
    Digest sum = multiply(read64(in) ^ last ^ flip64(32), kPrime64_1);
    sum.low += static_cast<std::uint64_t>(size - 1) << 54;
    last ^= flip64(48);
    sum.high += last + (last & 0xFFFFFFFF) * (kPrime32_2 - 1);
    sum.low ^= __builtin_bswap64(sum.high);
    Digest product = multiply(sum.low, kPrime64_2);
    product.high += sum.high * kPrime64_2;
    return {avalanche(product.high), avalanche(product.low)};
}

inline std::uint64_t mix_16(const unsigned char* in, const unsigned char* secret) {
    return fold(read64(in) ^ read64(secret), read64(in + 8) ^ read64(secret + 8));
}
inline void mix_32(Digest& sum, const unsigned char* a, const unsigned char* b, const unsigned char* secret) {
    sum.low = (sum.low + mix_16(a, secret)) ^ (read64(b) + read64(b + 8));
    sum.high = (sum.high + mix_16(b, secret + 16)) ^ (read64(a) + read64(a + 8));
}

inline Digest up_to_240(const unsigned char* in, std::size_t size) {
    Digest sum{0, size * kPrime64_1};
    if (size <= 128) {
        // Pairs of 16 bytes from both ends, the innermost first.
        for (std::size_t pair = (size - 1) / 32 + 1; pair-- > 0;) {
            mix_32(sum, in + 16 * pair, in + size - 16 * (pair + 1), kSecret + 32 * pair);
        }
    } else {
        for (std::size_t at = 0; at < 128; at += 32) mix_32(sum, in + at, in + at + 16, kSecret + at);
        sum = {avalanche(sum.high), avalanche(sum.low)};
        for (std::size_t at = 128; at + 32 <= size; at += 32)
            mix_32(sum, in + at, in + at + 16, kSecret + 3 + at - 128);
        mix_32(sum, in + size - 16, in + size - 32, kSecret + 136 - 17 - 16);
    }
    std::uint64_t high = sum.low * kPrime64_1 + sum.high * kPrime64_4 + size * kPrime64_2;
    return {0 - avalanche(high), avalanche(sum.low + sum.high)};
}

// `size` <= kShortMax.
inline Digest short_digest(const unsigned char* in, std::size_t size) {
    if (size <= 3) return up_to_3(in, size);
    if (size <= 8) return up_to_8(in, size);
    if (size <= 16) return up_to_16(in, size);
    return up_to_240(in, size);
}

}  // namespace xxh3
}  // namespace kumafast
