// HPACK (RFC 7541): header blocks read with their dynamic table; the few response headers written without one.
// In: header blocks in the order of the connection. Out: (name, value) pairs; blocks of literals.
// Never: an index into what we send, so that what we send keeps no state and can be a constant.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "huffman.hpp"
#include "limits.hpp"

namespace kumafast {

namespace hpack {

struct Field {
    std::string_view name;
    std::string_view value;
};

// What each entry counts beyond its octets (RFC 7541 4.1).
inline constexpr std::size_t kEntryOverhead = 32;

inline constexpr std::array<Field, 61> kStatic = {{{":authority", ""},
                                                   {":method", "GET"},
                                                   {":method", "POST"},
                                                   {":path", "/"},
                                                   {":path", "/index.html"},
                                                   {":scheme", "http"},
                                                   {":scheme", "https"},
                                                   {":status", "200"},
                                                   {":status", "204"},
                                                   {":status", "206"},
                                                   {":status", "304"},
                                                   {":status", "400"},
                                                   {":status", "404"},
                                                   {":status", "500"},
                                                   {"accept-charset", ""},
                                                   {"accept-encoding", "gzip, deflate"},
                                                   {"accept-language", ""},
                                                   {"accept-ranges", ""},
                                                   {"accept", ""},
                                                   {"access-control-allow-origin", ""},
                                                   {"age", ""},
                                                   {"allow", ""},
                                                   {"authorization", ""},
                                                   {"cache-control", ""},
                                                   {"content-disposition", ""},
                                                   {"content-encoding", ""},
                                                   {"content-language", ""},
                                                   {"content-length", ""},
                                                   {"content-location", ""},
                                                   {"content-range", ""},
                                                   {"content-type", ""},
                                                   {"cookie", ""},
                                                   {"date", ""},
                                                   {"etag", ""},
                                                   {"expect", ""},
                                                   {"expires", ""},
                                                   {"from", ""},
                                                   {"host", ""},
                                                   {"if-match", ""},
                                                   {"if-modified-since", ""},
                                                   {"if-none-match", ""},
                                                   {"if-range", ""},
                                                   {"if-unmodified-since", ""},
                                                   {"last-modified", ""},
                                                   {"link", ""},
                                                   {"location", ""},
                                                   {"max-forwards", ""},
                                                   {"proxy-authenticate", ""},
                                                   {"proxy-authorization", ""},
                                                   {"range", ""},
                                                   {"referer", ""},
                                                   {"refresh", ""},
                                                   {"retry-after", ""},
                                                   {"server", ""},
                                                   {"set-cookie", ""},
                                                   {"strict-transport-security", ""},
                                                   {"transfer-encoding", ""},
                                                   {"user-agent", ""},
                                                   {"vary", ""},
                                                   {"via", ""},
                                                   {"www-authenticate", ""}}};

// Entries newest last, their octets in one string: a connection that idles holds what its client indexed, no more.
class DynamicTable {
  public:
    std::size_t size() const { return size_; }
    std::size_t capacity() const { return capacity_; }
    std::size_t count() const { return entries_.size() - first_; }
    std::size_t allocated() const { return octets_.capacity() + entries_.capacity() * sizeof(Entry); }

    // `index` counts from the newest, from 0. The views live until the next `add`.
    Field at(std::size_t index) const {
        const Entry& entry = entries_[entries_.size() - 1 - index];
        std::string_view all(octets_);
        return {all.substr(entry.begin, entry.name), all.substr(entry.begin + entry.name, entry.value)};
    }

    void set_capacity(std::size_t capacity) {
        capacity_ = capacity;
        evict(capacity);
        if (count() == 0) {
            std::vector<Entry>().swap(entries_);
            std::string().swap(octets_);
            first_ = 0;
        }
    }

    // An entry that is larger than the table empties it, and is no error (RFC 7541 4.4).
    // The strings must not point into the table.
    void add(std::string_view name, std::string_view value) {
        std::size_t cost = name.size() + value.size() + kEntryOverhead;
        evict(cost > capacity_ ? 0 : capacity_ - cost);
        if (cost > capacity_) return;
        compact();
        entries_.push_back({static_cast<std::uint32_t>(octets_.size()), static_cast<std::uint16_t>(name.size()),
                            static_cast<std::uint16_t>(value.size())});
        octets_.append(name).append(value);
        size_ += cost;
    }

  private:
    struct Entry {
        std::uint32_t begin;
        std::uint16_t name;
        std::uint16_t value;
    };
    static_assert(limits::kHeaderTableBytes <= UINT16_MAX);

    void evict(std::size_t bound) {
        while (size_ > bound) {
            const Entry& oldest = entries_[first_++];
            size_ -= oldest.name + oldest.value + kEntryOverhead;
        }
    }

    // Moves what is left to the front once the dead part outweighs it, so that each octet is moved once on average.
    void compact() {
        if (first_ == 0 || first_ < entries_.size() - first_) return;
        std::uint32_t dead = first_ < entries_.size() ? entries_[first_].begin : octets_.size();
        octets_.erase(0, dead);
        entries_.erase(entries_.begin(), entries_.begin() + first_);
        for (Entry& entry : entries_) entry.begin -= dead;
        first_ = 0;
    }

    std::string octets_;
    std::vector<Entry> entries_;
    std::uint32_t first_ = 0;
    std::uint32_t size_ = 0;
    std::uint32_t capacity_ = limits::kHeaderTableBytes;
};

// Decodes an integer with a prefix of `bits` (RFC 7541 5.1). False: cut off, or larger than anything that is allowed.
inline bool read_integer(std::span<const std::uint8_t>& block, int bits, std::uint32_t& value) {
    if (block.empty()) return false;
    std::uint32_t mask = (1u << bits) - 1;
    value = block[0] & mask;
    block = block.subspan(1);
    if (value < mask) return true;
    for (int shift = 0; shift <= 21; shift += 7) {
        if (block.empty()) return false;
        std::uint8_t octet = block[0];
        block = block.subspan(1);
        value += static_cast<std::uint32_t>(octet & 0x7f) << shift;
        if (!(octet & 0x80)) return true;
    }
    return false;
}

inline bool read_string(std::span<const std::uint8_t>& block, std::string& text) {
    if (block.empty()) return false;
    bool is_huffman = block[0] & 0x80;
    std::uint32_t length = 0;
    if (!read_integer(block, 7, length) || length > block.size()) return false;
    std::span<const std::uint8_t> octets = block.first(length);
    block = block.subspan(length);
    text.clear();
    if (is_huffman) return huffman::decode(octets, text);
    text.assign(octets.begin(), octets.end());
    return true;
}

}  // namespace hpack

class HpackDecoder {
  public:
    std::size_t allocated() const { return table_.allocated(); }
    std::size_t table_size() const { return table_.size(); }

    // Calls `visit(name, value)` for each field, in order; the views live for the call. False: COMPRESSION_ERROR, and
    // the connection cannot go on. Beyond `kHeaderListBytesMax` fields still enter the table, which both sides must
    // keep alike, but are not visited. `listed` is set to the size of the whole list.
    template <class Visit>
    bool decode(std::span<const std::uint8_t> block, std::size_t& listed, Visit&& visit) {
        listed = 0;
        bool may_resize = true;
        std::string name, value;
        while (!block.empty()) {
            std::uint8_t octet = block[0];
            if ((octet & 0xe0) == 0x20) {
                // Only at the beginning of a block (RFC 7541 4.2).
                std::uint32_t capacity = 0;
                if (!may_resize || !hpack::read_integer(block, 5, capacity) || capacity > limits::kHeaderTableBytes) {
                    return false;
                }
                table_.set_capacity(capacity);
                continue;
            }
            may_resize = false;
            hpack::Field field;
            bool is_indexed = octet & 0x80;
            bool is_added = !is_indexed && octet & 0x40;
            std::uint32_t index = 0;
            if (!hpack::read_integer(block, is_indexed ? 7 : is_added ? 6 : 4, index)) return false;
            if (index == 0) {
                if (is_indexed || !hpack::read_string(block, name)) return false;
                field.name = name;
            } else if (!look_up(index, field)) {
                return false;
            }
            if (!is_indexed) {
                if (!hpack::read_string(block, value)) return false;
                field.value = value;
            }
            listed += field.name.size() + field.value.size() + hpack::kEntryOverhead;
            if (listed <= limits::kHeaderListBytesMax) visit(field.name, field.value);
            if (is_added) {
                // The name may be that of an entry which is evicted to make room (RFC 7541 4.4).
                if (index > hpack::kStatic.size()) field.name = name.assign(field.name);
                table_.add(field.name, field.value);
            }
        }
        return true;
    }

  private:
    bool look_up(std::uint32_t index, hpack::Field& field) const {
        if (index <= hpack::kStatic.size()) {
            field = hpack::kStatic[index - 1];
            return true;
        }
        index -= hpack::kStatic.size() + 1;
        if (index >= table_.count()) return false;
        field = table_.at(index);
        return true;
    }

    hpack::DynamicTable table_;
};

// Appends a literal field that is never indexed by the peer; `name` is a static index, or 0 with `text` as the name.
inline void write_field(std::string& block, std::uint8_t name, std::string_view text, std::string_view value) {
    auto write_length = [&block](std::size_t length, std::uint8_t flags, std::size_t mask) {
        if (length < mask) {
            block.push_back(static_cast<char>(flags | length));
            return;
        }
        block.push_back(static_cast<char>(flags | mask));
        for (length -= mask; length >= 0x80; length >>= 7) block.push_back(static_cast<char>(length | 0x80));
        block.push_back(static_cast<char>(length));
    };
    write_length(name, 0, 15);
    if (name == 0) {
        write_length(text.size(), 0, 127);
        block.append(text);
    }
    write_length(value.size(), 0, 127);
    block.append(value);
}

}  // namespace kumafast
