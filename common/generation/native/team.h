// Threads that compute one forward pass together, and the barrier between its phases.
//
// The threads are started once and sleep between two passes. Within a pass they spin at barriers, because a phase takes
// only microseconds; after a while they yield, so that a thread that waits for the processor is not held up.
#pragma once

#include <immintrin.h>
#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tidal {

constexpr int SPINS = 4000;

class Team {
  public:
    // Run `work(index)` on `size` threads, index 0 on the calling one. One pass runs at a time.
    void run(int size, const std::function<void(int)>& work) {
        std::lock_guard<std::mutex> lock(one_pass_);
        size_ = size;
        arrived_.store(0, std::memory_order_relaxed);
        if (size > 1) {
            while (static_cast<int>(workers_.size()) < size - 1) {
                int index = static_cast<int>(workers_.size()) + 1;
                workers_.emplace_back([this, index, seen = pass_.load()] { serve(index, seen); });
                workers_.back().detach();
            }
            work_ = &work;
            running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
            pass_.fetch_add(1, std::memory_order_release);
            pass_.notify_all();
        }
        work(0);
        if (size > 1) wait_while([this] { return running_.load(std::memory_order_acquire) != 0; });
    }

    // Wait until all threads of the pass have arrived.
    void barrier() {
        if (size_ == 1) return;
        std::uint32_t turn = turn_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            turn_.store(turn + 1, std::memory_order_release);
        } else {
            wait_while([&] { return turn_.load(std::memory_order_acquire) == turn; });
        }
    }

    // Return the team of this process. A forked process has no threads, so it gets a new team.
    static Team& of_process() {
        static std::once_flag once;
        std::call_once(once, [] {
            current() = new Team;
            pthread_atfork(nullptr, nullptr, [] { current() = new Team; });
        });
        return *current();
    }

  private:
    static Team*& current() {
        static Team* team = nullptr;
        return team;
    }

    template <class Condition>
    static void wait_while(Condition condition) {
        for (int spins = 0; condition();) {
            if (++spins < SPINS)
                _mm_pause();
            else
                std::this_thread::yield();
        }
    }

    void serve(int index, std::uint32_t seen) {
        for (;;) {
            for (int spins = 0; pass_.load(std::memory_order_acquire) == seen && spins < SPINS; ++spins) _mm_pause();
            pass_.wait(seen, std::memory_order_acquire);
            seen = pass_.load(std::memory_order_acquire);
            if (index < size_) (*work_)(index);
            running_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::mutex one_pass_;
    std::vector<std::thread> workers_;
    const std::function<void(int)>* work_ = nullptr;
    int size_ = 1;
    std::atomic<std::uint32_t> pass_{0}, turn_{0};
    std::atomic<int> running_{0}, arrived_{0};
};

}  // namespace tidal
