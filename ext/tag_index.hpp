// Many dataplanes against one selector, or against all.
// In: ids with the tag lists of their inbounds; selectors. Out: ascending ids.
// Never: a scan over dataplanes or selectors that do not match; a wait for anything but its own lock, so that callers
// may hold the interpreter's lock or not.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "posting.hpp"
#include "selector_set.hpp"
#include "tag_table.hpp"

namespace kumafast {

// Rows of `match_all`: row i is ids[offsets[i] .. offsets[i + 1]), for selector_ids[i].
struct MatchRows {
    Block<Id> selector_ids;
    Block<std::uint64_t> offsets;
    Block<Id> ids;
};

enum class Change { kAdd, kUpdate, kRemove };

class TagIndex {
  public:
    TagIndex() = default;
    TagIndex(const TagIndex&) = delete;
    TagIndex& operator=(const TagIndex&) = delete;
    ~TagIndex() {
        for (auto& [tag, posting] : postings_) TagTable::shared().release({&tag, 1});
    }

    // False: the id is there (kAdd) or is not (kUpdate, kRemove), and nothing was changed. O(tags before and after).
    // Where memory runs out half-way, the id is not there afterwards, and nothing else is changed.
    bool change(Change change, Id id, std::vector<Terms> inbounds) {
        std::unique_lock guard(mutex_);
        auto held = dataplanes_.find(id);
        if ((held != dataplanes_.end()) != (change != Change::kAdd)) return false;
        if (change == Change::kUpdate && std::ranges::equal(held->second.all(), inbounds)) return true;
        if (change != Change::kAdd) {
            erase(id, held->second);
            dataplanes_.erase(held);
        }
        if (change != Change::kRemove) insert(id, std::move(inbounds));
        return true;
    }

    // Gives back what growing reserved; called once, after a bulk load.
    void shrink() {
        std::unique_lock guard(mutex_);
        for (auto& [tag, posting] : postings_) posting.shrink();
        all_.shrink();
    }

    std::size_t size() const {
        std::shared_lock guard(mutex_);
        return dataplanes_.size();
    }
    bool contains(Id id) const {
        std::shared_lock guard(mutex_);
        return dataplanes_.contains(id);
    }

    void match(const Terms& selector, Block<Id>& out) const {
        std::shared_lock guard(mutex_);
        write_matches(selector, out);
    }

    // What matches exactly one of the two; either may be absent and then matches nothing.
    void affected(const Terms& before, const Terms& after, Block<Id>& out) const {
        if (before && after && before == after) return;
        Block<Id> old_ids, new_ids;
        {
            std::shared_lock guard(mutex_);
            if (before) write_matches(before, old_ids);
            if (after) write_matches(after, new_ids);
        }
        out.reserve(old_ids.size() + new_ids.size());
        out.advance(std::ranges::set_symmetric_difference(old_ids.items(), new_ids.items(), out.end()).out);
        out.trim();
    }

    MatchRows match_all(const SelectorSet& selectors) const {
        std::shared_lock guard(mutex_);
        MatchRows rows;
        rows.selector_ids.reserve(selectors.size());
        rows.offsets.reserve(selectors.size() + 1);
        rows.offsets.push(0);
        // At most a gigabyte of addresses, of which only what is written is ever used.
        rows.ids.expect(std::min<std::uint64_t>(bound(selectors.base()) + bound(selectors.overlay()), 1u << 28));
        RowWriter base(*this, selectors.base()), overlay(*this, selectors.overlay());
        std::span<const Id> base_ids = selectors.base().ids(), more_ids = selectors.overlay().ids();
        std::vector<std::pair<RowWriter*, std::uint32_t>> parts;
        for (std::size_t at = 0, more = 0; at < base_ids.size() || more < more_ids.size();) {
            Id id = more == more_ids.size() || (at < base_ids.size() && base_ids[at] < more_ids[more]) ? base_ids[at]
                                                                                                       : more_ids[more];
            parts.clear();
            if (at < base_ids.size() && base_ids[at] == id) {
                bool hidden = std::ranges::binary_search(selectors.hidden(), id);
                for (std::uint32_t group : selectors.base().groups_at(at++)) {
                    if (!hidden) parts.emplace_back(&base, group);
                }
            }
            if (more < more_ids.size() && more_ids[more] == id) {
                for (std::uint32_t group : selectors.overlay().groups_at(more++)) parts.emplace_back(&overlay, group);
            }
            if (parts.empty()) continue;
            write_row(parts, rows.ids);
            rows.selector_ids.push(id);
            rows.offsets.push(rows.ids.size());
        }
        rows.ids.trim();
        return rows;
    }

    // Memory held for the dataplanes, the tag lists included (shared with whoever else holds them).
    std::size_t bytes() const {
        std::shared_lock guard(mutex_);
        constexpr std::size_t kNode = 16;  // a hash node's link and its allocation's header
        std::size_t total = sizeof(*this) + all_.bytes() + several_.bytes();
        total += (dataplanes_.bucket_count() + postings_.bucket_count()) * sizeof(void*);
        for (auto& [tag, posting] : postings_) total += kNode + sizeof(TagId) * 2 + posting.bytes();
        for (auto& [id, inbounds] : dataplanes_) {
            total += kNode + sizeof(std::pair<const Id, Inbounds>);
            for (const Terms& inbound : inbounds.all()) total += inbound.bytes() + sizeof(void*);
            if (inbounds.more != nullptr) total += sizeof(*inbounds.more) + inbounds.more->capacity() * sizeof(Terms);
        }
        return total;
    }

  private:
    // One inbound is the usual case and needs no array.
    struct Inbounds {
        Terms one;
        std::unique_ptr<std::vector<Terms>> more;

        std::span<const Terms> all() const {
            if (more != nullptr) return *more;
            return {&one, one ? 1u : 0u};
        }
    };

    // Each distinct selector is matched once; another id with the same selector copies the row.
    class RowWriter {
      public:
        RowWriter(const TagIndex& index, const SelectorTable& table)
            : index_(index), table_(table), rows_(table.groups().size(), {kUnwritten, 0}) {}

        void write(std::uint32_t group, Block<Id>& out) {
            auto& [begin, size] = rows_[group];
            if (begin != kUnwritten) {
                out.reserve(size);  // first, because growing moves what is copied from
                out.append(out.data() + begin, size);
                return;
            }
            std::size_t before = out.size();
            index_.write_matches(table_.groups()[group], out);
            rows_[group] = {before, out.size() - before};
        }

        // For a union of rows: the same ids, not written to the result on their own.
        void collect(std::uint32_t group, Block<Id>& out) const { index_.write_matches(table_.groups()[group], out); }

      private:
        static constexpr std::size_t kUnwritten = ~std::size_t{0};
        const TagIndex& index_;
        const SelectorTable& table_;
        std::vector<std::pair<std::size_t, std::size_t>> rows_;
    };

    static void write_row(std::span<const std::pair<RowWriter*, std::uint32_t>> parts, Block<Id>& out) {
        if (parts.size() == 1) return parts[0].first->write(parts[0].second, out);
        std::vector<Id> ids;
        for (auto [writer, group] : parts) {
            Block<Id> part;
            writer->collect(group, part);
            std::vector<Id> both;
            both.reserve(ids.size() + part.size());
            std::ranges::set_union(ids, part.items(), std::back_inserter(both));
            ids.swap(both);
        }
        out.append(ids.data(), ids.size());
    }

    // No fewer than the pairs that match: for each selector, as many as have its rarest tag.
    std::uint64_t bound(const SelectorTable& table) const {
        std::uint64_t total = 0;
        for (std::uint32_t group = 0; group < table.groups().size(); ++group) {
            std::uint64_t least = all_.size();
            for (TagId term : table.groups()[group].ids()) {
                auto found = postings_.find(term);
                least = std::min<std::uint64_t>(least, found == postings_.end() ? 0 : found->second.size());
            }
            total += least * table.ids_with(group);
        }
        return total;
    }

    void write_matches(const Terms& selector, Block<Id>& out) const {
        std::span<const TagId> terms = selector.ids();
        if (terms.empty()) return all_.write(out);
        const Posting* lead = nullptr;
        std::vector<const Posting*> others;
        for (TagId term : terms) {
            auto found = postings_.find(term);
            if (found == postings_.end()) return;
            const Posting* posting = &found->second;
            if (lead != nullptr && posting->size() < lead->size()) std::swap(lead, posting);
            if (lead == nullptr) {
                lead = posting;
            } else {
                others.push_back(posting);
            }
        }
        std::size_t begin = out.size();
        Posting::write_common(*lead, others, out);
        if (terms.size() > 1 && several_.size() > 0) keep_within_one(selector, begin, out);
    }

    // Postings know dataplanes, not inbounds: where there are several, one of them must have all the terms.
    void keep_within_one(const Terms& selector, std::size_t begin, Block<Id>& out) const {
        Id* kept = out.data() + begin;
        for (Id* each = kept; each != out.end(); ++each) {
            bool keep = true;
            if (several_.contains(*each)) {
                const std::vector<Terms>& inbounds = *dataplanes_.at(*each).more;
                keep = std::ranges::any_of(inbounds, [&](const Terms& inbound) { return selector.within(inbound); });
            }
            *kept = *each;
            kept += keep ? 1 : 0;
        }
        out.advance(kept);
    }

    void insert(Id id, std::vector<Terms> inbounds) {
        Inbounds made;
        if (inbounds.size() == 1) {
            made.one = std::move(inbounds[0]);
        } else if (inbounds.size() > 1) {
            made.more = std::make_unique<std::vector<Terms>>(std::move(inbounds));
        }
        Inbounds& held = dataplanes_[id] = std::move(made);
        try {
            all_.insert(id);
            if (held.more != nullptr) several_.insert(id);
            for (const Terms& inbound : held.all()) {
                for (TagId tag : inbound.ids()) posting_of(tag).insert(id);
            }
        } catch (...) {
            erase(id, held);
            dataplanes_.erase(id);
            throw;
        }
    }

    // The index holds a tag for as long as it has a posting for it, so an id cannot be recycled under it.
    Posting& posting_of(TagId tag) {
        auto [at, fresh] = postings_.try_emplace(tag);
        if (fresh) TagTable::shared().hold(tag);
        return at->second;
    }

    void erase(Id id, const Inbounds& held) {
        all_.erase(id);
        several_.erase(id);
        for (const Terms& inbound : held.all()) {
            for (TagId tag : inbound.ids()) {
                auto at = postings_.find(tag);
                if (at == postings_.end()) continue;  // another inbound's turn has emptied it
                at->second.erase(id);
                if (at->second.size() > 0) continue;
                postings_.erase(at);
                TagTable::shared().release({&tag, 1});
            }
        }
    }

    mutable std::shared_mutex mutex_;
    std::unordered_map<Id, Inbounds> dataplanes_;
    std::unordered_map<TagId, Posting> postings_;
    Posting all_;
    Posting several_;  // those with more than one inbound
};

}  // namespace kumafast
