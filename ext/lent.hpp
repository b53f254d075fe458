// Something that grows, lent to one call after another: what it allocates, it allocates once for each thread.
// In: nothing. Out: an empty object, with room from before. Never: the same object to two that use it at a time.
#pragma once

#include <utility>

namespace kumafast {

// `T` can be moved, cleared, and is empty once it was moved from.
template <class T>
class Lent {
  public:
    Lent() : value_(std::move(spare())) { value_.clear(); }
    Lent(const Lent&) = delete;
    Lent& operator=(const Lent&) = delete;
    ~Lent() {
        value_.clear();
        spare() = std::move(value_);
    }
    T& get() { return value_; }

  private:
    static T& spare() {
        static thread_local T spare;
        return spare;
    }

    T value_;
};

}  // namespace kumafast
