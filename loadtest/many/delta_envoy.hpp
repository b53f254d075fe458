// An Envoy as a delta control plane sees it, as `bench/real_wires/simulated_envoy.py` is one: clusters by wildcard, the
// endpoints of those that come by name, listeners once all clusters are warm, an ACK for each response.
//
// In: responses. Out: serialised requests, in order; what is held. Never: sockets, clocks.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "contents.hpp"
#include "delta_client.hpp"

namespace load {

inline constexpr std::array<std::string_view, Contents::kTypes> kTypeUrls = {
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "type.googleapis.com/envoy.config.listener.v3.Listener"};

// What has come, of all Envoys together.
struct Received {
    std::uint64_t messages = 0, bytes = 0, removed = 0;
    std::array<std::uint64_t, Contents::kTypes> resources{};
    // Of resources: in the version that is held, and for no reason; the same, of endpoints whose cluster came again.
    std::uint64_t held_already = 0, for_warming = 0;
    // Of resources: in a version that had another content before.
    std::uint64_t wrong_versions = 0;
};

class DeltaEnvoy {
  public:
    using Requests = std::vector<std::string>;
    // By name: the content that is held.
    using Held = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

    bool is_configured() const { return !held_[Contents::kListener].empty() && warming_.empty(); }
    const Held& held(unsigned type) const { return held_[type]; }
    const std::vector<std::uint32_t>& warming() const { return warming_; }

    // The first request of its stream; `node` is what all have in common of it.
    static std::string opened(std::string_view id, std::string_view common) {
        std::string node, request;
        append_field(node, 1, id);
        node += common;
        append_field(request, 1, node);
        append_field(request, 2, kTypeUrls[Contents::kCluster]);
        return request;
    }

    // Takes a response, and adds what is answered. `arrived(name)` is told of each assignment of endpoints. False where
    // it is no response.
    template <class Arrived>
    bool receive(std::string_view message, Contents& contents, Received& received, Requests& requests,
                 Arrived arrived) {
        std::string_view type_url, nonce;
        items_.clear();
        removed_.clear();
        const bool is_whole = for_each_field(message, [&](std::uint32_t field, std::string_view bytes, std::uint64_t) {
            if (field == 2) items_.push_back(bytes);
            if (field == 4) type_url = bytes;
            if (field == 5) nonce = bytes;
            if (field == 6) removed_.push_back(contents.name(bytes));
        });
        const auto known = std::find(kTypeUrls.begin(), kTypeUrls.end(), type_url);
        if (!is_whole || nonce.empty() || known == kTypeUrls.end()) return false;
        const auto type = static_cast<unsigned>(known - kTypeUrls.begin());
        ++received.messages;
        received.bytes += message.size() + 5;
        received.removed += removed_.size();
        bool has_new_names = false;
        for (const std::string_view bytes : items_) {
            ResourceView resource;
            if (!read_resource(bytes, resource)) return false;
            has_new_names |= take(type, resource, contents, received);
            if (type == Contents::kEndpoint) arrived(contents.name(resource.name));
        }
        for (const std::uint32_t name : removed_) drop(held_[type], name);
        acknowledge(type, nonce, requests);
        if (type == Contents::kCluster && (has_new_names || !removed_.empty())) follow_clusters(contents, requests);
        if (warming_.empty() && !asks_listeners_) {
            asks_listeners_ = true;
            requests.push_back(asked(Contents::kListener, {}, {}, contents));
        }
        return true;
    }

  private:
    static Held::iterator find(Held& held, std::uint32_t name) {
        return std::find_if(held.begin(), held.end(), [name](const auto& each) { return each.first == name; });
    }

    static bool drop(Held& held, std::uint32_t name) {
        const auto at = find(held, name);
        if (at == held.end()) return false;
        held.erase(at);
        return true;
    }

    // Whether its name was not held.
    bool take(unsigned type, const ResourceView& resource, Contents& contents, Received& received) {
        bool is_other = false;
        const std::uint32_t content = contents.take(type, resource, is_other);
        const std::uint32_t name = contents.at(content).name;
        const auto warm = std::find(warming_.begin(), warming_.end(), name);
        const auto at = find(held_[type], name);
        const bool is_new = at == held_[type].end();
        ++received.resources[type];
        received.wrong_versions += is_other;
        if (!is_new && at->second == content) {
            ++(type == Contents::kEndpoint && warm != warming_.end() ? received.for_warming : received.held_already);
        }
        if (is_new) {
            held_[type].emplace_back(name, content);
        } else {
            at->second = content;
        }
        if (contents.at(content).is_eds && warm == warming_.end()) warming_.push_back(name);
        if (type == Contents::kEndpoint && warm != warming_.end()) warming_.erase(warm);
        return is_new;
    }

    static void acknowledge(unsigned type, std::string_view nonce, Requests& requests) {
        std::string& request = requests.emplace_back();
        append_field(request, 2, kTypeUrls[type]);
        append_field(request, 6, nonce);
    }

    // Asks for the endpoints of clusters that are new, and no more for those that have gone.
    void follow_clusters(const Contents& contents, Requests& requests) {
        std::vector<std::uint32_t> fresh, gone;
        Held& endpoints = held_[Contents::kEndpoint];
        for (const std::uint32_t name : removed_) {
            if (drop(endpoints, name)) gone.push_back(name);
            std::erase(warming_, name);
        }
        for (const std::uint32_t name : warming_) {
            if (find(endpoints, name) == endpoints.end()) fresh.push_back(name);
        }
        if (!fresh.empty() || !gone.empty()) requests.push_back(asked(Contents::kEndpoint, fresh, gone, contents));
    }

    static std::string asked(unsigned type, const std::vector<std::uint32_t>& subscribe,
                             const std::vector<std::uint32_t>& unsubscribe, const Contents& contents) {
        std::string request;
        append_field(request, 2, kTypeUrls[type]);
        for (const std::uint32_t name : subscribe) append_field(request, 3, contents.name_text(name));
        for (const std::uint32_t name : unsubscribe) append_field(request, 4, contents.name_text(name));
        return request;
    }

    std::array<Held, Contents::kTypes> held_;
    std::vector<std::uint32_t> warming_;
    bool asks_listeners_ = false;
    // Of the response that is being taken, of whichever Envoy: this process has one thread.
    static inline std::vector<std::string_view> items_;
    static inline std::vector<std::uint32_t> removed_;
};

}  // namespace load
