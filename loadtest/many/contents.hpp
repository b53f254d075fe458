// What resources say, kept once for all Envoys that hold it: thousands of them differ in a listener.
//
// In: resources of responses. Out: small numbers for names and for contents. Never: a message that is not protobuf's.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "delta_client.hpp"

namespace load {

// Calls `take(field, bytes, number)` for each field of a message; false where it is none.
template <class Take>
bool for_each_field(std::string_view message, Take take) {
    while (!message.empty()) {
        std::uint64_t tag = 0, number = 0;
        if (!take_varint(message, tag)) return false;
        std::string_view bytes;
        const auto kind = static_cast<unsigned>(tag & 7);
        if (kind == 0) {
            if (!take_varint(message, number)) return false;
        } else {
            if (kind == 2) {
                if (!take_varint(message, number)) return false;
            } else if (kind == 1 || kind == 5) {
                number = kind == 1 ? 8 : 4;
            } else {
                return false;
            }
            if (number > message.size()) return false;
            bytes = message.substr(0, number);
            message.remove_prefix(number);
        }
        take(static_cast<std::uint32_t>(tag >> 3), bytes, number);
    }
    return true;
}

// A `Resource` of a response, not copied.
struct ResourceView {
    std::string_view name, version, body;
};

// `Resource`: version 1, resource (an `Any`: value 2) 2, name 3.
inline bool read_resource(std::string_view bytes, ResourceView& into) {
    return for_each_field(bytes, [&into](std::uint32_t field, std::string_view value, std::uint64_t) {
        if (field == 1) into.version = value;
        if (field == 3) into.name = value;
        if (field == 2) {
            for_each_field(value, [&into](std::uint32_t part, std::string_view body, std::uint64_t) {
                if (part == 2) into.body = body;
            });
        }
    });
}

class Contents {
  public:
    struct Content {
        unsigned type;
        std::uint32_t name;
        // Of a cluster: whether its endpoints come by EDS.
        bool is_eds;
        std::size_t body_hash;
        std::string version, body;
    };

    std::uint32_t name(std::string_view text) { return number_in(names_, name_texts_, text); }
    const std::string& name_text(std::uint32_t name) const { return *name_texts_[name]; }
    const std::vector<Content>& all() const { return contents_; }
    const Content& at(std::uint32_t content) const { return contents_[content]; }

    // The number of this content. `is_other` is set where a version comes with another body than it came with before.
    std::uint32_t take(unsigned type, const ResourceView& resource, bool& is_other) {
        const std::size_t body_hash = std::hash<std::string_view>{}(resource.body);
        key_.assign(1, static_cast<char>('0' + type)).append(resource.version).append(1, '\0').append(resource.name);
        const auto found = numbers_.find(key_);
        if (found != numbers_.end()) {
            is_other |= contents_[found->second].body_hash != body_hash;
            return found->second;
        }
        const auto number = static_cast<std::uint32_t>(contents_.size());
        contents_.push_back({type, name(resource.name), type == kCluster && is_eds(resource.body), body_hash,
                             std::string(resource.version), std::string(resource.body)});
        numbers_.emplace(key_, number);
        return number;
    }

    static constexpr unsigned kCluster = 0, kEndpoint = 1, kListener = 2, kTypes = 3;

  private:
    // `Cluster.type` is field 2, and EDS its value 3.
    static bool is_eds(std::string_view cluster) {
        bool is = false;
        for_each_field(cluster, [&is](std::uint32_t field, std::string_view bytes, std::uint64_t number) {
            if (field == 2 && bytes.empty()) is = number == 3;
        });
        return is;
    }

    static std::uint32_t number_in(std::unordered_map<std::string, std::uint32_t>& numbers,
                                   std::vector<const std::string*>& texts, std::string_view text) {
        const auto [at, is_new] = numbers.try_emplace(std::string(text), static_cast<std::uint32_t>(texts.size()));
        // Keys of a map stay where they are.
        if (is_new) texts.push_back(&at->first);
        return at->second;
    }

    std::unordered_map<std::string, std::uint32_t> names_, numbers_;
    std::vector<const std::string*> name_texts_;
    std::vector<Content> contents_;
    std::string key_;
};

}  // namespace load
