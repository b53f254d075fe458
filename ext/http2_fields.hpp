// What a field of a header list may look like (RFC 9113 8.2), in requests and in answers.
// In: names and values. Out: whether they are allowed; an answer's head as a block of literals.
// Never: which fields somebody wants; the dynamic table.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "hpack.hpp"
#include "limits.hpp"

namespace kumafast::http2 {

using Fields = std::vector<std::pair<std::string, std::string>>;

// Visible ASCII without capitals; a colon only where it begins a pseudo-header.
inline bool is_field_name(std::string_view name) {
    for (std::size_t at = 0; at < name.size(); ++at) {
        unsigned char octet = static_cast<unsigned char>(name[at]);
        if (octet <= 0x20 || octet >= 0x7f || (octet >= 'A' && octet <= 'Z')) return false;
        if (octet == ':' && at != 0) return false;
    }
    return !name.empty();
}

inline bool is_field_value(std::string_view value) {
    auto is_blank = [](char each) { return each == ' ' || each == '\t'; };
    if (!value.empty() && (is_blank(value.front()) || is_blank(value.back()))) return false;
    return value.find_first_of(std::string_view("\0\r\n", 3)) == value.npos;
}

// Fields of HTTP/1.1 about its connection, which HTTP/2 says by frames.
inline bool is_of_connection(std::string_view name) {
    return name == "connection" || name == "keep-alive" || name == "proxy-connection" || name == "transfer-encoding" ||
           name == "upgrade";
}

// Appends the head of an answer. False: the status is not a final one, a field is not allowed, or all of them are too
// large; then `block` is of no use.
inline bool write_head(std::string& block, std::uint16_t status, const Fields& fields) {
    constexpr std::uint8_t kStatusIndex = 8;
    if (status < 200 || status > 599) return false;
    write_field(block, kStatusIndex, {}, std::to_string(status));
    for (auto& [name, value] : fields) {
        if (!is_field_name(name) || name[0] == ':' || is_of_connection(name) || !is_field_value(value)) return false;
        write_field(block, 0, name, value);
        if (block.size() > limits::kHeadBytesMax) return false;
    }
    return true;
}

}  // namespace kumafast::http2
