// A request's header list: what is malformed (RFC 9113 8.2 and 8.3), and what a gRPC server wants of the rest.
// In: decoded fields, in order. Out: method, path, chosen headers, whether the list is malformed.
// Never: frames; a header that nobody asked for is checked and dropped.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kumafast::http2 {

// The headers that the application is given, with `:authority`.
inline constexpr std::array<std::string_view, 6> kChosenHeaders = {"authorization", "content-type", "grpc-encoding",
                                                                   "grpc-timeout",  "te",           "user-agent"};

struct Request {
    std::string method;
    std::string path;
    std::vector<std::pair<std::string, std::string>> headers;
    std::int64_t content_length = -1;

    std::string_view header(std::string_view name) const {
        for (auto& [each, value] : headers) {
            if (each == name) return value;
        }
        return {};
    }
};

class RequestReader {
  public:
    explicit RequestReader(bool is_trailers) : is_trailers_(is_trailers) {}

    void take(std::string_view name, std::string_view value) {
        if (name.empty() || !is_name(name) || !is_value(value)) {
            is_malformed_ = true;
        } else if (name[0] == ':') {
            take_pseudo(name, value);
        } else {
            has_regular_ = true;
            take_regular(name, value);
        }
    }

    // Trailers have no pseudo-headers; a request has all three (CONNECT, which has others, is not served).
    bool is_malformed() const { return is_malformed_ || (!is_trailers_ && (pseudo_ & 7) != 7); }
    Request& request() { return request_; }

  private:
    static bool is_name(std::string_view name) {
        for (std::size_t at = 0; at < name.size(); ++at) {
            unsigned char octet = static_cast<unsigned char>(name[at]);
            if (octet <= 0x20 || octet >= 0x7f || (octet >= 'A' && octet <= 'Z')) return false;
            if (octet == ':' && at != 0) return false;
        }
        return true;
    }
    static bool is_value(std::string_view value) {
        auto is_blank = [](char each) { return each == ' ' || each == '\t'; };
        if (!value.empty() && (is_blank(value.front()) || is_blank(value.back()))) return false;
        return value.find_first_of(std::string_view("\0\r\n", 3)) == value.npos;
    }

    void take_pseudo(std::string_view name, std::string_view value) {
        unsigned which = name == ":method" ? 1 : name == ":path" ? 2 : name == ":scheme" ? 4 : 0;
        if (name == ":authority") which = 8;
        if (which == 0 || is_trailers_ || has_regular_ || (pseudo_ & which)) {
            is_malformed_ = true;
            return;
        }
        pseudo_ |= which;
        if (which == 1) request_.method = value;
        if (which == 2) {
            if (value.empty()) is_malformed_ = true;
            request_.path = value;
        }
        if (which == 8) request_.headers.emplace_back(name, value);
    }

    void take_regular(std::string_view name, std::string_view value) {
        if (name == "connection" || name == "keep-alive" || name == "proxy-connection" || name == "transfer-encoding" ||
            name == "upgrade" || (name == "te" && value != "trailers")) {
            is_malformed_ = true;
        } else if (name == "content-length") {
            take_length(value);
        } else if (!is_trailers_) {
            for (std::string_view chosen : kChosenHeaders) {
                if (name == chosen) request_.headers.emplace_back(name, value);
            }
        }
    }

    void take_length(std::string_view value) {
        std::int64_t length = 0;
        for (char digit : value) {
            if (digit < '0' || digit > '9' || length > (INT64_MAX - 9) / 10) {
                is_malformed_ = true;
                return;
            }
            length = length * 10 + (digit - '0');
        }
        if (value.empty() || (request_.content_length >= 0 && request_.content_length != length)) is_malformed_ = true;
        request_.content_length = length;
    }

    Request request_;
    unsigned pseudo_ = 0;
    bool is_trailers_;
    bool has_regular_ = false;
    bool is_malformed_ = false;
};

}  // namespace kumafast::http2
