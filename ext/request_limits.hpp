// What one discovery request may ask for, looked at before it is parsed: a few octets can name millions of things.
// In: the octets of one message, the number of its node field. Out: what is too much of it, in words, or nothing.
// Never: a judgement of what is not well formed (protobuf has that); a look inside the node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "limits.hpp"

namespace kumafast::xds {

// Takes fields off the front of a message, one at a time.
class FieldReader {
  public:
    explicit FieldReader(std::span<const std::uint8_t> octets) : octets_(octets) {}

    // False: there is none, or it is not well formed.
    bool next() {
        std::uint64_t key = 0;
        size_ = 0;
        if (at_ == octets_.size() || !read(key)) return false;
        number_ = key >> 3;
        switch (key & 7) {
            case 0: {
                std::uint64_t value = 0;
                return read(value);
            }
            case 1:
                return skip(8);
            case 2:
                return read(size_) && skip(size_);
            case 5:
                return skip(4);
        }
        return false;
    }
    std::uint64_t number() const { return number_; }
    // Octets of a text or message; 0 of anything else.
    std::uint64_t size() const { return size_; }

  private:
    bool read(std::uint64_t& value) {
        value = 0;
        for (unsigned shift = 0; shift < 64 && at_ < octets_.size(); shift += 7) {
            std::uint8_t octet = octets_[at_++];
            value |= static_cast<std::uint64_t>(octet & 0x7f) << shift;
            if (octet < 0x80) return true;
        }
        return false;
    }
    bool skip(std::uint64_t count) {
        if (count > octets_.size() - at_) return false;
        at_ += static_cast<std::size_t>(count);
        return true;
    }

    std::span<const std::uint8_t> octets_;
    std::size_t at_ = 0;
    std::uint64_t number_ = 0;
    std::uint64_t size_ = 0;
};

// Null where nothing is too much. Names are fields 3 of a DiscoveryRequest, 3 and 4 of a DeltaDiscoveryRequest, whose
// field 5 are versions; errors are 6 and 7. O(fields), and no more fields than the limits let.
inline const char* find_excess(std::span<const std::uint8_t> octets, bool is_delta) {
    const std::uint64_t node = is_delta ? 1 : 2, error = is_delta ? 7 : 6;
    std::size_t names = 0, versions = 0, others = 0;
    for (FieldReader reader(octets); reader.next();) {
        if (reader.number() == node) {
            if (reader.size() > limits::kNodeBytesMax) return "a node of too many bytes";
        } else if (reader.number() == error) {
            if (reader.size() > limits::kErrorBytesMax) return "an error of too many bytes";
        } else if (reader.size() > limits::kTextBytesMax) {
            return "a name, type, version or nonce of too many bytes";
        }
        if (reader.number() == 3 || (is_delta && reader.number() == 4)) {
            if (++names > limits::kNamesMax) return "too many names";
        } else if (is_delta && reader.number() == 5) {
            if (++versions > limits::kVersionsMax) return "too many versions";
        } else if (++others > limits::kOtherFieldsMax) {
            return "too many fields";
        }
    }
    return nullptr;
}

}  // namespace kumafast::xds
