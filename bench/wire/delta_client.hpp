// What a delta ADS client says, as bytes: its subscription and its acknowledgements.
//
// In: a serialised node, a type, names, the bytes of a response. Out: serialised `DeltaDiscoveryRequest`s.
// Never: a look at resources; which of them came is the server's tests' affair.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace load {

inline constexpr std::string_view kDeltaPath =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

inline void append_varint(std::string& to, std::uint64_t number) {
    for (; number > 127; number >>= 7) to.push_back(static_cast<char>(number | 128));
    to.push_back(static_cast<char>(number));
}

inline void append_field(std::string& to, std::uint32_t field, std::string_view bytes) {
    append_varint(to, field << 3 | 2);
    append_varint(to, bytes.size());
    to += bytes;
}

inline bool take_varint(std::string_view& from, std::uint64_t& number) {
    number = 0;
    for (int shift = 0; shift < 64 && !from.empty(); shift += 7) {
        const auto byte = static_cast<std::uint8_t>(from.front());
        from.remove_prefix(1);
        number |= static_cast<std::uint64_t>(byte & 127) << shift;
        if (byte < 128) return true;
    }
    return false;
}

// The nonce (field 5) of a `DeltaDiscoveryResponse`; empty where the bytes are none, or have none.
inline std::string_view nonce_of(std::string_view response) {
    std::string_view nonce;
    while (!response.empty()) {
        std::uint64_t tag = 0, length = 0;
        if (!take_varint(response, tag) || (tag & 7) != 2) return {};
        if (!take_varint(response, length) || length > response.size()) return {};
        if (tag >> 3 == 5) nonce = response.substr(0, length);
        response.remove_prefix(length);
    }
    return nonce;
}

// The client of one type. Nodes differ in the six digits that follow `-` in their id, and in nothing else.
class DeltaClient {
  public:
    DeltaClient(std::string node, std::string type_url, std::vector<std::string> names, bool repeats_node)
        : node_(std::move(node)),
          type_url_(std::move(type_url)),
          names_(std::move(names)),
          repeats_node_(repeats_node),
          digits_at_(node_.find("-000000")) {}

    bool has_numbered_node() const { return digits_at_ != std::string::npos; }

    std::string subscription(unsigned number) const {
        std::string request;
        append_field(request, 1, numbered_node(number));
        append_field(request, 2, type_url_);
        for (const std::string& name : names_) append_field(request, 3, name);
        return request;
    }

    std::string acknowledgement(unsigned number, std::string_view nonce) const {
        std::string request;
        if (repeats_node_) append_field(request, 1, numbered_node(number));
        append_field(request, 2, type_url_);
        append_field(request, 6, nonce);
        return request;
    }

  private:
    std::string numbered_node(unsigned number) const {
        std::string node = node_;
        char digits[16];
        std::snprintf(digits, sizeof digits, "%06u", number % 1000000u);
        return node.replace(digits_at_ + 1, 6, digits, 6);
    }

    std::string node_, type_url_;
    std::vector<std::string> names_;
    bool repeats_node_;
    std::size_t digits_at_;
};

}  // namespace load
