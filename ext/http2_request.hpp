// A request's header list: what is malformed (RFC 9113 8.2 and 8.3), and what a gRPC server wants of the rest.
// In: decoded fields, in order. Out: method, path, headers, whether the list is malformed.
// Never: frames; more of a gRPC request's headers than those that somebody asks for.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http2_fields.hpp"

namespace kumafast::http2 {

// The headers of a gRPC request that the application is given. Of a plain one it is given all.
inline constexpr std::array<std::string_view, 7> kChosenHeaders = {
    ":authority", "authorization", "content-type", "grpc-encoding", "grpc-timeout", "te", "user-agent"};

struct Request {
    std::string method;
    std::string path;
    // With `:authority`, in the order in which they came.
    Fields headers;
    std::int64_t content_length = -1;

    std::string_view header(std::string_view name) const {
        for (auto& [each, value] : headers) {
            if (each == name) return value;
        }
        return {};
    }
    void keep_chosen() {
        std::erase_if(headers, [](auto& field) {
            return std::ranges::find(kChosenHeaders, std::string_view(field.first)) == kChosenHeaders.end();
        });
    }
};

class RequestReader {
  public:
    explicit RequestReader(bool is_trailers) : is_trailers_(is_trailers) {}

    void take(std::string_view name, std::string_view value) {
        if (!is_field_name(name) || !is_field_value(value)) {
            is_malformed_ = true;
        } else if (name[0] == ':') {
            take_pseudo(name, value);
        } else {
            has_regular_ = true;
            take_regular(name, value);
        }
    }

    // Trailers have no pseudo-headers; CONNECT has a method and an authority (RFC 9113 8.5), any other request has
    // method, path and scheme.
    bool is_malformed() const {
        if (is_malformed_ || is_trailers_) return is_malformed_;
        return request_.method == "CONNECT" ? pseudo_ != (1 | 8) : (pseudo_ & 7) != 7;
    }
    Request& request() { return request_; }

  private:
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
        if (is_of_connection(name) || (name == "te" && value != "trailers")) {
            is_malformed_ = true;
            return;
        }
        if (name == "content-length") take_length(value);
        if (!is_trailers_) request_.headers.emplace_back(name, value);
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
