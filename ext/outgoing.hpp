// What a connection has to write, gathered: octets of many small pieces side by side, large payloads by reference.
// In: pieces, in order. Out: segments to write, in the same order. Never: a copy of a large payload.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "payload.hpp"

namespace kumafast {

class Outgoing {
  public:
    // From here on a reference costs less than a copy. Below it one write of one buffer is what is cheap.
    static constexpr std::size_t kShareBytesMin = 8192;

    // A part of `payload` where it has one, else of `text()`.
    struct Segment {
        std::size_t offset;
        std::size_t count;
        Payload payload;
    };

    void copy(std::span<const std::uint8_t> octets) {
        if (segments_.empty() || segments_.back().payload.owner()) segments_.push_back({text_.size(), 0, {}});
        segments_.back().count += octets.size();
        text_.append(reinterpret_cast<const char*>(octets.data()), octets.size());
    }
    void share(const Payload& payload, std::size_t offset, std::size_t count) {
        if (count < kShareBytesMin) return copy(payload.bytes().subspan(offset, count));
        segments_.push_back({offset, count, payload});
    }

    std::size_t bytes() const {
        std::size_t bytes = 0;
        for (auto& segment : segments_) bytes += segment.count;
        return bytes;
    }
    void clear() {
        text_.clear();
        segments_.clear();
    }

    const std::string& text() const { return text_; }
    std::span<const std::uint8_t> octets(const Segment& segment) const {
        if (segment.payload.owner()) return segment.payload.bytes().subspan(segment.offset, segment.count);
        return {reinterpret_cast<const std::uint8_t*>(text_.data()) + segment.offset, segment.count};
    }
    const std::vector<Segment>& segments() const { return segments_; }

  private:
    std::string text_;
    std::vector<Segment> segments_;
};

}  // namespace kumafast
