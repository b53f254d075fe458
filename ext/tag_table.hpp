// Tags as small integers: the process-wide table, and the sorted lists of them that sets and selectors are.
// In: key and value as UTF-8, each with a 64-bit hash chosen by the caller. Out: `TagId`s, equal where the tags are.
// Never: Python objects; text that nobody holds. A tag is counted by its holders and freed with the last of them, so
// the table is bounded by the tags that are alive at once; ids are recycled, and the arrays stay at their high mark.
// Two kinds share one id space: (key, value), and the key alone, which stands for "this key is present".
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kumafast {

using TagId = std::uint32_t;

// One tag on its way in. The hashes may be randomised (Python's are), so nobody can choose tags that collide.
struct TagText {
    std::string_view key;
    std::string_view value;
    std::uint64_t key_hash;
    std::uint64_t value_hash;
};

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    std::uint64_t x = (a ^ (b * 0x9E3779B97F4A7C15ull)) * 0xBF58476D1CE4E5B9ull;
    return x ^ (x >> 32);
}

class TagTable {
  public:
    // Never destroyed: objects of the interpreter may outlive the statics of this library.
    static TagTable& shared() {
        static TagTable& table = *new TagTable;
        return table;
    }

    // Writes for each tag its key's id and its own to `ids`, holding one reference on each; `count` says how many were
    // written, also when this throws. O(bytes of the tags).
    void hold_tags(std::span<const TagText> tags, TagId* ids, std::uint32_t& count) {
        std::lock_guard guard(mutex_);
        for (const TagText& tag : tags) {
            TagId key = hold_key(tag);
            ids[count++] = key;
            ids[count] = hold_value(key, tag);
            ++count;
        }
    }

    // As `hold_tags`, for a selector: one id for each term, the key's where the value is "*".
    void hold_terms(std::span<const TagText> terms, TagId* ids, std::uint32_t& count) {
        std::lock_guard guard(mutex_);
        for (const TagText& term : terms) {
            TagId key = hold_key(term);
            ids[count++] = key;
            if (term.value != "*") {
                ids[count - 1] = hold_value(key, term, /*transfer=*/true);
            }
        }
    }

    void hold(TagId id) {
        std::lock_guard guard(mutex_);
        ++tags_[id].references;
    }

    void release(std::span<const TagId> ids) noexcept {
        std::lock_guard guard(mutex_);
        for (TagId id : ids) release_one(id);
    }

    // The (key, value) pairs among `ids`; keys that stand alone come with "*" if `keys_too`.
    std::vector<std::pair<std::string, std::string>> describe(std::span<const TagId> ids, bool keys_too) {
        std::lock_guard guard(mutex_);
        std::vector<std::pair<std::string, std::string>> found;
        for (TagId id : ids) {
            const Tag& tag = tags_[id];
            if (tag.key != id) {
                found.emplace_back(tags_[tag.key].text, tag.text);
            } else if (keys_too) {
                found.emplace_back(tag.text, "*");
            }
        }
        std::ranges::sort(found);
        return found;
    }

    // Tags alive now: what the tests for leaks count.
    std::size_t size() {
        std::lock_guard guard(mutex_);
        return live_;
    }

  private:
    struct Tag {
        std::string text;              // of the value, or of the key where the key stands alone
        std::uint64_t hash = 0;        // full, so that growing and erasing never touch the text
        std::uint32_t references = 0;  // cannot wrap: 2**32 holders are more memory than there is
        TagId key = 0;                 // its key's id; its own where the key stands alone
    };
    static constexpr std::uint32_t kEmpty = std::numeric_limits<std::uint32_t>::max();

    TagId hold_key(const TagText& tag) {
        TagId* slot = find(tag.key_hash, tag.key, kEmpty);
        TagId id = slot != nullptr ? *slot : insert(tag.key_hash, tag.key, kEmpty);
        ++tags_[id].references;
        return id;
    }

    // A value holds its key. With `transfer` the caller's reference on the key is given up.
    TagId hold_value(TagId key, const TagText& tag, bool transfer = false) {
        std::uint64_t hash = mix(tag.value_hash, key + 1ull);
        TagId* slot = find(hash, tag.value, key);
        TagId id;
        if (slot != nullptr) {
            id = *slot;
            if (transfer) release_one(key);
        } else {
            id = insert(hash, tag.value, key);
            if (!transfer) ++tags_[key].references;
        }
        ++tags_[id].references;
        return id;
    }

    // Linear probing over ids. `key` is kEmpty when a key itself is sought.
    TagId* find(std::uint64_t hash, std::string_view text, TagId key) {
        if (slots_.empty()) return nullptr;
        std::size_t mask = slots_.size() - 1;
        for (std::size_t at = hash & mask;; at = (at + 1) & mask) {
            TagId id = slots_[at];
            if (id == kEmpty) return nullptr;
            const Tag& tag = tags_[id];
            bool of_kind = key == kEmpty ? tag.key == id : tag.key == key && id != key;
            if (of_kind && tag.hash == hash && tag.text == text) return &slots_[at];
        }
    }

    TagId insert(std::uint64_t hash, std::string_view text, TagId key) {
        if ((live_ + 1) * 2 > slots_.size()) grow();
        if (free_.capacity() < tags_.size() + 1)
            free_.reserve(tags_.size() * 2 + 16);  // so that releasing never throws
        TagId id;
        if (free_.empty()) {
            if (tags_.size() >= kEmpty) throw std::overflow_error("too many different tags");
            id = static_cast<TagId>(tags_.size());
            tags_.push_back(Tag{std::string(text), hash, 0, key == kEmpty ? id : key});
        } else {
            id = free_.back();
            tags_[id] = Tag{std::string(text), hash, 0, key == kEmpty ? id : key};
            free_.pop_back();
        }
        place(slots_, hash, id);
        ++live_;
        return id;
    }

    static void place(std::vector<TagId>& slots, std::uint64_t hash, TagId id) {
        std::size_t mask = slots.size() - 1;
        std::size_t at = hash & mask;
        while (slots[at] != kEmpty) at = (at + 1) & mask;
        slots[at] = id;
    }

    void grow() {
        std::vector<TagId> larger(std::max<std::size_t>(64, slots_.size() * 2), kEmpty);
        for (TagId id : slots_) {
            if (id != kEmpty) place(larger, tags_[id].hash, id);
        }
        slots_.swap(larger);
    }

    void release_one(TagId id) noexcept {
        while (--tags_[id].references == 0) {
            TagId key = tags_[id].key;
            erase(id);
            if (key == id) return;
            id = key;  // the value held its key
        }
    }

    // Backward-shift deletion: no tombstones, so that probing stays short for as long as the process lives.
    void erase(TagId id) noexcept {
        std::size_t mask = slots_.size() - 1;
        std::size_t hole = tags_[id].hash & mask;
        while (slots_[hole] != id) hole = (hole + 1) & mask;
        for (std::size_t at = (hole + 1) & mask; slots_[at] != kEmpty; at = (at + 1) & mask) {
            std::size_t home = tags_[slots_[at]].hash & mask;
            if (((at - home) & mask) >= ((at - hole) & mask)) {
                slots_[hole] = slots_[at];
                hole = at;
            }
        }
        slots_[hole] = kEmpty;
        std::string().swap(tags_[id].text);
        free_.push_back(id);
        --live_;
    }

    std::mutex mutex_;
    std::vector<Tag> tags_;
    std::vector<TagId> slots_;
    std::vector<TagId> free_;
    std::size_t live_ = 0;
};

// An immutable, shared, ascending list of tag ids: all of one inbound's tags and keys, or the terms of one selector.
// One block of memory with a counted handle, because an index holds one for each dataplane.
class Terms {
  public:
    Terms() = default;
    Terms(const Terms& other) noexcept : block_(other.block_) {
        if (block_ != nullptr) block_->references.fetch_add(1, std::memory_order_relaxed);
    }
    Terms(Terms&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
    Terms& operator=(Terms other) noexcept {
        std::swap(block_, other.block_);
        return *this;
    }
    ~Terms() { drop(); }

    static Terms of_tags(std::span<const TagText> tags) {
        Terms made(tags.size() * 2);
        TagTable::shared().hold_tags(tags, made.ids_begin(), made.block_->size);
        made.finish(tags.size());
        return made;
    }

    static Terms of_selector(std::span<const TagText> terms) {
        Terms made(terms.size());
        TagTable::shared().hold_terms(terms, made.ids_begin(), made.block_->size);
        made.finish(std::ranges::count_if(terms, [](const TagText& term) { return term.value != "*"; }));
        return made;
    }

    std::span<const TagId> ids() const { return {ids_begin(), block_->size}; }
    std::uint32_t size() const { return block_->size; }
    // How many of the ids are (key, value), not a key alone.
    std::uint32_t exact() const { return block_->exact; }
    // One bit for each id: a list whose bits are not all in another's is no part of it.
    std::uint64_t signature() const { return block_->signature; }
    std::uint64_t hash() const { return block_->hash; }
    std::size_t bytes() const { return sizeof(Block) + block_->size * sizeof(TagId); }
    explicit operator bool() const { return block_ != nullptr; }

    bool operator==(const Terms& other) const {
        return block_ == other.block_ || (hash() == other.hash() && std::ranges::equal(ids(), other.ids()));
    }

    // Whether every id of this is in `whole`. O(sizes).
    bool within(const Terms& whole) const {
        if ((signature() & ~whole.signature()) != 0 || size() > whole.size()) return false;
        const TagId* at = whole.ids_begin();
        const TagId* end = at + whole.size();
        for (TagId id : ids()) {
            while (at != end && *at < id) ++at;
            if (at == end || *at != id) return false;
        }
        return true;
    }

  private:
    struct Block {
        std::atomic<std::uint32_t> references;
        std::uint32_t size;
        std::uint64_t signature;
        std::uint64_t hash;
        std::uint32_t exact;
    };

    explicit Terms(std::size_t capacity) {
        if (capacity > std::numeric_limits<std::uint32_t>::max() / 2) throw std::overflow_error("too many tags");
        void* memory = ::operator new(sizeof(Block) + capacity * sizeof(TagId));
        block_ = new (memory) Block{{1}, 0, 0, 0, 0};
    }

    TagId* ids_begin() const { return reinterpret_cast<TagId*>(block_ + 1); }

    void finish(std::size_t exact) {
        std::sort(ids_begin(), ids_begin() + block_->size);
        block_->exact = static_cast<std::uint32_t>(exact);
        for (TagId id : ids()) {
            block_->signature |= 1ull << ((id * 0x9E3779B1u) >> 26);
            block_->hash = mix(block_->hash, id + 1ull);
        }
    }

    void drop() noexcept {
        if (block_ == nullptr || block_->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
        TagTable::shared().release(ids());
        block_->~Block();
        ::operator delete(block_);
    }

    Block* block_ = nullptr;
};

}  // namespace kumafast
