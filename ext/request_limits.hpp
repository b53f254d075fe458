// What one discovery request may ask for, looked at before it is parsed: a few octets can name millions of things.
// In: the octets of one message, the number of its node field. Out: what is too much of it, in words, or nothing.
// Never: a judgement of what is not well formed (protobuf has that); a look inside the node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fields.hpp"
#include "limits.hpp"

namespace kumafast::xds {

// Null where nothing is too much. Names are fields 3 of a DiscoveryRequest, 3 and 4 of a DeltaDiscoveryRequest, whose
// field 5 are versions; errors are 6 and 7. No message of xDS has a group. O(fields), and no more than the limits let.
inline const char* find_excess(std::span<const std::uint8_t> octets, bool is_delta) {
    const std::uint64_t node = is_delta ? 1 : 2, error = is_delta ? 7 : 6;
    std::size_t names = 0, versions = 0, others = 0;
    FieldReader reader(octets);
    while (reader.next()) {
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
    // Protobuf passes over groups, and reads on behind them.
    return reader.is_group() ? "a group of fields" : nullptr;
}

}  // namespace kumafast::xds
