// gRPC over HTTP/2, the server's half of one stream: messages out of DATA, deadlines, statuses, response headers.
// In: octets and header values. Out: whole messages; header blocks. Never: frames, windows, connections.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "hpack.hpp"
#include "limits.hpp"

namespace kumafast::grpc {

enum class Status : std::uint8_t {
    kOk = 0,
    kCancelled = 1,
    kUnknown = 2,
    kInvalidArgument = 3,
    kDeadlineExceeded = 4,
    kResourceExhausted = 8,
    kUnimplemented = 12,
    kInternal = 13,
    kUnavailable = 14,
};
inline constexpr std::uint8_t kStatusMax = 16;

// One flag octet, four of the length, before each message.
inline constexpr std::size_t kPrefixBytes = 5;

struct Refusal {
    Status status = Status::kOk;
    std::string_view text;
    explicit operator bool() const { return status != Status::kOk; }
};

// Messages of one stream, reassembled; holds nothing between messages.
class MessageReader {
  public:
    // Octets of a message that is not complete.
    std::size_t held() const { return partial_.size(); }
    std::size_t allocated() const { return partial_.capacity(); }
    bool is_between_messages() const { return have_ == 0; }

    // Calls `deliver(span)` for each message that is complete by now. `limit` bounds a message, `room` what may be held
    // of one that is not complete. After a refusal the reader is of no further use.
    template <class Deliver>
    Refusal read(std::span<const std::uint8_t> octets, std::size_t limit, std::size_t room, Deliver&& deliver) {
        while (!octets.empty()) {
            if (have_ < kPrefixBytes) {
                std::size_t part = std::min(kPrefixBytes - have_, octets.size());
                std::memcpy(prefix_ + have_, octets.data(), part);
                have_ += static_cast<std::uint8_t>(part);
                octets = octets.subspan(part);
                if (have_ < kPrefixBytes) return {};
                if (Refusal refusal = check_prefix(limit)) return refusal;
            }
            std::size_t missing = length() - partial_.size();
            if (partial_.empty() && octets.size() >= missing) {
                deliver(octets.first(missing));
                octets = octets.subspan(missing);
                have_ = 0;
                continue;
            }
            std::size_t part = std::min(missing, octets.size());
            if (partial_.size() + part > room) {
                return {Status::kResourceExhausted, "too much of unfinished messages on one connection"};
            }
            // The memory grows with what has come, not with what was announced.
            partial_.append(reinterpret_cast<const char*>(octets.data()), part);
            octets = octets.subspan(part);
            if (part == missing) finish(deliver);
        }
        // An empty message is complete with its prefix.
        if (have_ == kPrefixBytes && length() == 0) finish(deliver);
        return {};
    }

  private:
    std::size_t length() const {
        return static_cast<std::size_t>(prefix_[1]) << 24 | static_cast<std::size_t>(prefix_[2]) << 16 |
               static_cast<std::size_t>(prefix_[3]) << 8 | prefix_[4];
    }

    Refusal check_prefix(std::size_t limit) const {
        if (prefix_[0] == 1) return {Status::kUnimplemented, "compressed messages are not supported"};
        if (prefix_[0] != 0) return {Status::kInternal, "a message's first octet must be 0 or 1"};
        if (length() > limit) return {Status::kResourceExhausted, "a message is larger than the server takes"};
        return {};
    }

    template <class Deliver>
    void finish(Deliver&& deliver) {
        std::string whole;
        whole.swap(partial_);
        have_ = 0;
        deliver(std::span(reinterpret_cast<const std::uint8_t*>(whole.data()), whole.size()));
    }

    std::string partial_;
    std::uint8_t prefix_[kPrefixBytes] = {};
    std::uint8_t have_ = 0;
};

// application/grpc, also with a suffix (+proto) or parameters.
inline bool is_content_type(std::string_view value) {
    constexpr std::string_view kName = "application/grpc";
    if (!value.starts_with(kName)) return false;
    return value.size() == kName.size() || value[kName.size()] == '+' || value[kName.size()] == ';';
}

// The value of grpc-timeout in nanoseconds: at most eight digits and a unit. None where it is not one.
inline std::optional<std::int64_t> parse_timeout(std::string_view value) {
    if (value.size() < 2 || value.size() > 9) return std::nullopt;
    std::int64_t unit = 0;
    switch (value.back()) {
        case 'H':
            unit = 3'600'000'000'000;
            break;
        case 'M':
            unit = 60'000'000'000;
            break;
        case 'S':
            unit = 1'000'000'000;
            break;
        case 'm':
            unit = 1'000'000;
            break;
        case 'u':
            unit = 1'000;
            break;
        case 'n':
            unit = 1;
            break;
        default:
            return std::nullopt;
    }
    std::int64_t number = 0;
    for (char digit : value.substr(0, value.size() - 1)) {
        if (digit < '0' || digit > '9') return std::nullopt;
        number = number * 10 + (digit - '0');
    }
    // 99999999 hours are more than 63 bits of nanoseconds.
    return number > INT64_MAX / unit ? INT64_MAX : number * unit;
}

// The form of grpc-message: printable ASCII stays, the rest and % become %XX, octet by octet.
inline std::string percent_encode(std::string_view text) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    std::string encoded;
    for (char each : text.substr(0, limits::kStatusTextMax)) {
        std::uint8_t octet = static_cast<std::uint8_t>(each);
        if (octet >= 0x20 && octet <= 0x7e && octet != '%') {
            encoded.push_back(each);
        } else {
            encoded += {'%', kDigits[octet >> 4], kDigits[octet & 15]};
        }
    }
    return encoded;
}

namespace index {
inline constexpr std::uint8_t kContentType = 31;
inline constexpr char kStatus200 = '\x88';
}  // namespace index

inline void write_headers(std::string& block) {
    block.push_back(index::kStatus200);
    write_field(block, index::kContentType, {}, "application/grpc");
}
inline void write_trailers(std::string& block, std::uint8_t status, std::string_view text) {
    write_field(block, 0, "grpc-status", std::to_string(status));
    if (!text.empty()) write_field(block, 0, "grpc-message", percent_encode(text));
}

}  // namespace kumafast::grpc
