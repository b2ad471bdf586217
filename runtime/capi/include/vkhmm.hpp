// vkhmm for C++17: owners for the handles of vkhmm.h, and exceptions in place of its codes. Header only.
//
//     vkhmm::Runtime rt;
//     auto x = rt.alloc<float>(n);                          // x[i], x.begin(), x.data(): ordinary memory
//     vkhmm::Kernel scale = rt.kernel(spirv);
//     scale.launch(vkhmm::linear(n), {x.write()}, 2.0f);    // asynchronous; touching x waits for it
//
// The borrow law and everything else is as vkhmm.h says. Owners move and do not copy; what outlives its runtime is stale, and harmless.
// With C++20 `vkhmm::Span` is std::span.
#ifndef VKHMM_HPP
#define VKHMM_HPP

#include "vkhmm.h"

#include <chrono>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif

namespace vkhmm {

/// A refused or failed call; nothing has changed. what() says what was wrong, what was allowed and what to do.
class Error : public std::runtime_error {
public:
    explicit Error(vkhmm_result code) : std::runtime_error(vkhmm_last_error()), code_(code) {}
    vkhmm_result code() const noexcept { return code_; }

private:
    vkhmm_result code_;
};

/// Throws for an error; gives any other answer back.
inline vkhmm_result check(vkhmm_result result)
{
    if (result < 0) throw Error(result);
    return result;
}

#if __cplusplus >= 202002L
template <class T> using Span = std::span<T>;
#else
/// What std::span is in C++20, as far as it is needed here.
template <class T> class Span {
public:
    Span() = default;
    Span(T *data, std::size_t size) : data_(data), size_(size) {}
    T *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    T *begin() const noexcept { return data_; }
    T *end() const noexcept { return data_ + size_; }
    T &operator[](std::size_t i) const { return data_[i]; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};
#endif

/// Owns a handle: ends with `Destroy`, whose answer nobody can use.
template <class Handle, vkhmm_result (*Destroy)(Handle)> class Owner {
public:
    Owner() = default;
    explicit Owner(Handle handle) : handle_(handle) {}
    Owner(Owner &&from) noexcept : handle_(std::exchange(from.handle_, Handle{})) {}
    Owner &operator=(Owner &&from) noexcept
    {
        std::swap(handle_, from.handle_);
        return *this;
    }
    ~Owner() { reset(); }
    /// For calls of vkhmm.h.
    Handle get() const noexcept { return handle_; }
    /// Gives it up now.
    void reset() noexcept
    {
        if (handle_.id) Destroy(std::exchange(handle_, Handle{}));
    }

protected:
    /// It is gone already.
    void forget() noexcept { handle_ = Handle{}; }

private:
    Handle handle_{};
};

/// Text of a function that writes one, as often asked as it takes: what runs may have more to say the second time.
template <class Function> std::string text(Function function)
{
    std::string all;
    std::size_t needed = 0;
    check(function(nullptr, std::size_t{0}, &needed));
    do all.resize(needed);
    while (check(function(all.data(), all.size(), &needed)) == VKHMM_INCOMPLETE);
    all.resize(needed - 1);
    return all;
}

/// Elements of an array of a function that writes one, likewise.
template <class T, class Function> std::vector<T> list(Function function)
{
    std::vector<T> all;
    std::size_t needed = 0;
    check(function(nullptr, std::size_t{0}, &needed));
    do all.resize(needed + 1);
    while (check(function(all.data(), all.size(), &needed)) == VKHMM_INCOMPLETE);
    all.resize(needed);
    return all;
}

/// Enough invocations for that many items.
inline vkhmm_grid linear(std::uint64_t items) { return vkhmm_grid{items, {0, 0, 0}, 0}; }
/// Exactly these groups.
inline vkhmm_grid groups(std::uint32_t x, std::uint32_t y = 1, std::uint32_t z = 1) { return vkhmm_grid{0, {x, y, z}, 0}; }

/// Work on its way. Letting it go changes nothing.
class Launch : public Owner<vkhmm_launch, vkhmm_launch_destroy> {
public:
    using Owner::Owner;
    void wait() const { check(vkhmm_launch_wait(get(), VKHMM_FOREVER)); }
    /// Whether it is over.
    bool wait_for(std::chrono::nanoseconds timeout) const
    {
        auto ns = timeout.count() < 0 ? 0 : static_cast<std::uint64_t>(timeout.count());
        return check(vkhmm_launch_wait(get(), ns)) == VKHMM_OK;
    }
    bool is_done() const
    {
        std::uint32_t done = 0;
        check(vkhmm_launch_is_done(get(), &done));
        return done != 0;
    }
    /// How long the kernel ran, once it is over and where the device has a clock.
    std::optional<std::chrono::nanoseconds> elapsed() const
    {
        std::uint64_t ns = 0;
        if (check(vkhmm_launch_elapsed(get(), &ns)) == VKHMM_NONE) return std::nullopt;
        return std::chrono::nanoseconds(ns);
    }
};

/// Elements kept on the host while it lives: system calls on them work. T is const for reading.
template <class T> class HostGuard : public Owner<vkhmm_guard, vkhmm_host_end> {
public:
    HostGuard(vkhmm_guard guard, Span<T> elements) : Owner(guard), elements_(elements) {}
    Span<T> span() const noexcept { return elements_; }
    T *data() const noexcept { return elements_.data(); }
    std::size_t size() const noexcept { return elements_.size(); }
    auto begin() const noexcept { return elements_.begin(); }
    auto end() const noexcept { return elements_.end(); }
    T &operator[](std::size_t i) const { return elements_[i]; }

private:
    Span<T> elements_;
};

/// Elements kept on one side while it lives.
class Pinned : public Owner<vkhmm_pinned, vkhmm_unpin> {
public:
    using Owner::Owner;
};

/// As a number of elements: up to the end.
constexpr std::size_t all = static_cast<std::size_t>(-1);

/// Elements that host and device share. Where touches do not fault (VKHMM_FAULT_ENGINE_DECLARED) use host() and host_mut() to touch them.
template <class T> class Buffer : public Owner<vkhmm_buffer, vkhmm_free> {
    static_assert(std::is_trivially_copyable<T>::value, "a kernel can leave any bytes in managed memory");

public:
    Buffer() = default;
    Buffer(vkhmm_buffer buffer, std::size_t size) : Owner(buffer), size_(size)
    {
        void *pointer = nullptr;
        check(vkhmm_buffer_pointer(buffer, &pointer));
        data_ = static_cast<T *>(pointer);
    }
    T *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    Span<T> span() const noexcept { return Span<T>(data_, size_); }
    T *begin() const noexcept { return data_; }
    T *end() const noexcept { return data_ + size_; }
    T &operator[](std::size_t i) const { return data_[i]; }

    /// For a kernel to read, to read and write, to write.
    vkhmm_access read(std::size_t first = 0, std::size_t count = all) const { return access(VKHMM_ACCESS_READ, first, count); }
    vkhmm_access write(std::size_t first = 0, std::size_t count = all) const { return access(VKHMM_ACCESS_WRITE, first, count); }
    vkhmm_access overwrite(std::size_t first = 0, std::size_t count = all) const
    {
        return access(VKHMM_ACCESS_OVERWRITE, first, count);
    }

    HostGuard<const T> host(std::size_t first = 0, std::size_t count = all) const
    {
        return hold<const T>(VKHMM_ACCESS_READ, first, count);
    }
    HostGuard<T> host_mut(std::size_t first = 0, std::size_t count = all) const { return hold<T>(VKHMM_ACCESS_WRITE, first, count); }

    Launch prefetch_to_device(std::size_t first = 0, std::size_t count = all) const
    {
        vkhmm_launch launch{};
        check(vkhmm_prefetch_to_device(this->get(), first * sizeof(T), bytes(count), &launch));
        return Launch(launch);
    }
    Launch prefetch_to_host(std::size_t first = 0, std::size_t count = all) const
    {
        vkhmm_launch launch{};
        check(vkhmm_prefetch_to_host(this->get(), first * sizeof(T), bytes(count), &launch));
        return Launch(launch);
    }
    /// A hint: one of VKHMM_ADVICE_.
    void advise(vkhmm_advice advice, std::size_t first = 0, std::size_t count = all) const
    {
        check(vkhmm_advise(this->get(), first * sizeof(T), bytes(count), advice));
    }
    /// Nobody needs what the elements are. The bytes whose copy home is saved.
    std::uint64_t discard(std::size_t first = 0, std::size_t count = all) const
    {
        std::uint64_t saved = 0;
        check(vkhmm_discard(this->get(), first * sizeof(T), bytes(count), &saved));
        return saved;
    }
    /// Keeps them on VKHMM_SIDE_HOST or VKHMM_SIDE_DEVICE.
    Pinned pin(vkhmm_side side, std::size_t first = 0, std::size_t count = all) const
    {
        vkhmm_pinned pinned{};
        check(vkhmm_pin(this->get(), first * sizeof(T), bytes(count), side, &pinned));
        return Pinned(pinned);
    }
    /// How kernels reach it, and why so.
    std::pair<vkhmm_placement_kind, std::string> placement() const
    {
        vkhmm_placement_kind kind{};
        auto why = text([this, &kind](char *to, std::size_t capacity, std::size_t *needed) {
            return vkhmm_buffer_placement(this->get(), &kind, to, capacity, needed);
        });
        return {kind, why};
    }
    /// Throws if any byte was lost with the device.
    void check_lost() const { check(vkhmm_buffer_check(this->get(), 0, VKHMM_WHOLE_SIZE)); }
    std::vector<vkhmm_residency> residency() const
    {
        return list<vkhmm_residency>([this](vkhmm_residency *runs, std::size_t capacity, std::size_t *needed) {
            return vkhmm_buffer_residency(this->get(), 0, VKHMM_WHOLE_SIZE, runs, capacity, needed);
        });
    }
    std::string label() const
    {
        return text([this](char *to, std::size_t capacity, std::size_t *needed) {
            return vkhmm_buffer_label(this->get(), to, capacity, needed);
        });
    }

private:
    static std::uint64_t bytes(std::size_t count) { return count == all ? VKHMM_WHOLE_SIZE : count * sizeof(T); }
    vkhmm_access access(vkhmm_access_kind kind, std::size_t first, std::size_t count) const
    {
        return vkhmm_access{this->get(), first * sizeof(T), bytes(count), kind, 0};
    }
    template <class E> HostGuard<E> hold(vkhmm_access_kind kind, std::size_t first, std::size_t count) const
    {
        vkhmm_guard guard{};
        void *pointer = nullptr;
        check(vkhmm_host_begin(this->get(), first * sizeof(T), bytes(count), kind, &guard, &pointer));
        return HostGuard<E>(guard, Span<E>(static_cast<E *>(pointer), count == all ? size_ - first : count));
    }

    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// A compiled kernel.
class Kernel : public Owner<vkhmm_kernel, vkhmm_kernel_destroy> {
public:
    using Owner::Owner;
    /// Runs it. Accesses as Buffer's read, write and overwrite make them; values for the push constants follow in order.
    template <class... Values>
    Launch launch(vkhmm_grid grid, std::initializer_list<vkhmm_access> accesses, const Values &...values) const
    {
        static_assert((std::is_trivially_copyable<Values>::value && ...), "push constants are plain bytes");
        const vkhmm_value given[] = {{&values, sizeof values}..., {nullptr, 0}};
        vkhmm_launch made{};
        check(vkhmm_kernel_launch(get(), grid, accesses.begin(), accesses.size(), given, sizeof...(values), &made));
        return Launch(made);
    }
    std::string name() const
    {
        return text([this](char *to, std::size_t capacity, std::size_t *needed) {
            return vkhmm_kernel_name(get(), to, capacity, needed);
        });
    }
};

/// Bytes in the application's hands. What is not released when it goes is cancelled: nothing may have been submitted that uses it.
class Acquired : public Owner<vkhmm_acquired, vkhmm_acquired_cancel> {
public:
    Acquired() = default;
    Acquired(vkhmm_acquired acquired, std::vector<vkhmm_placed> places, vkhmm_wait wait)
        : Owner(acquired), places_(std::move(places)), wait_(wait)
    {
    }
    /// Where the accesses lie, in their order.
    const std::vector<vkhmm_placed> &places() const noexcept { return places_; }
    /// What submissions that use them wait for.
    vkhmm_wait wait() const noexcept { return wait_; }
    /// Gives them back after work that is submitted: see vkhmm_release.
    void release(VkSemaphore semaphore, std::uint64_t value)
    {
        check(vkhmm_release(get(), semaphore, value));
        forget();
    }

private:
    std::vector<vkhmm_placed> places_;
    vkhmm_wait wait_{};
};

/// What vkhmm asks of a device that is about to be created. Texts and chain live as long as this.
class Requirements : public Owner<vkhmm_requirements, vkhmm_requirements_destroy> {
public:
    Requirements(PFN_vkGetInstanceProcAddr get, VkInstance instance, VkPhysicalDevice physical_device, std::uint32_t api_version,
        vkhmm_level level = VKHMM_LEVEL_EVERYTHING)
        : Owner(made(get, instance, physical_device, api_version, level))
    {
    }
    std::vector<vkhmm_wanted> extensions() const { return listed<vkhmm_wanted>(vkhmm_requirements_extensions); }
    std::vector<vkhmm_wanted> features() const { return listed<vkhmm_wanted>(vkhmm_requirements_features); }
    std::vector<vkhmm_wanted_queue> queues() const { return listed<vkhmm_wanted_queue>(vkhmm_requirements_queues); }
    const void *feature_chain() const
    {
        const void *chain = nullptr;
        check(vkhmm_requirements_feature_chain(get(), &chain));
        return chain;
    }
    std::string text() const
    {
        return vkhmm::text([this](char *to, std::size_t capacity, std::size_t *needed) {
            return vkhmm_requirements_text(get(), to, capacity, needed);
        });
    }

private:
    static vkhmm_requirements made(PFN_vkGetInstanceProcAddr get, VkInstance instance, VkPhysicalDevice physical_device,
        std::uint32_t api_version, vkhmm_level level)
    {
        vkhmm_requirements asked{};
        check(vkhmm_requirements_query(get, instance, physical_device, api_version, level, &asked));
        return asked;
    }
    template <class T> std::vector<T> listed(vkhmm_result (*of)(vkhmm_requirements, T *, std::size_t, std::size_t *)) const
    {
        return list<T>([this, of](T *to, std::size_t capacity, std::size_t *needed) { return of(get(), to, capacity, needed); });
    }
};

/// Options with their size set, and everything else left open.
inline vkhmm_runtime_options options()
{
    vkhmm_runtime_options all{};
    all.size = sizeof all;
    return all;
}

/// A runtime. When it goes, everything that goes with it does.
class Runtime : public Owner<vkhmm_runtime, vkhmm_runtime_destroy> {
public:
    using Owner::Owner;
    Runtime() : Runtime(options()) {}
    explicit Runtime(const vkhmm_runtime_options &options) : Owner(made(options)) {}
    /// Over a device that the application made and keeps; the promises of vkhmm_parts are the caller's. Ends with close.
    static Runtime from_vulkan(const vkhmm_parts &parts, const vkhmm_runtime_options &options = vkhmm::options())
    {
        vkhmm_runtime runtime{};
        check(vkhmm_runtime_from_vulkan(&parts, &options, &runtime));
        return Runtime(runtime);
    }
    /// Ends it with everything that goes with it, and waits until nothing uses the device. Whether that is so: if not, call it again.
    bool close(std::chrono::nanoseconds timeout)
    {
        auto ns = timeout.count() < 0 ? 0 : static_cast<std::uint64_t>(timeout.count());
        if (check(vkhmm_runtime_close(get(), ns)) == VKHMM_TIMEOUT) return false;
        forget();
        return true;
    }

    template <class T> Buffer<T> alloc(std::size_t count, const char *label = nullptr) const
    {
        vkhmm_buffer buffer{};
        check(vkhmm_alloc(get(), std::uint64_t{count} * sizeof(T), label, &buffer));
        return Buffer<T>(buffer, count);
    }
    /// Memory whose device address never changes.
    template <class T> Buffer<T> alloc_stable(std::size_t count, const char *label = nullptr) const
    {
        vkhmm_buffer buffer{};
        check(vkhmm_alloc_stable(get(), std::uint64_t{count} * sizeof(T), label, &buffer));
        return Buffer<T>(buffer, count);
    }
    /// Brings bytes to the device for the application's own command buffers, never waiting for it: see vkhmm_acquire. Empty where it would
    /// have to wait.
    std::optional<Acquired> acquire(std::initializer_list<vkhmm_access> accesses, const char *label = nullptr) const
    {
        vkhmm_acquired acquired{};
        std::vector<vkhmm_placed> places(accesses.size());
        vkhmm_wait wait{};
        vkhmm_result result =
            vkhmm_acquire(get(), accesses.begin(), accesses.size(), label, &acquired, places.data(), &wait);
        if (result == VKHMM_ERROR_BUSY) return std::nullopt;
        check(result);
        return Acquired(acquired, std::move(places), wait);
    }
    bool can_acquire(std::uint64_t bytes) const
    {
        std::uint32_t yes = 0;
        check(vkhmm_can_acquire(get(), bytes, &yes));
        return yes != 0;
    }
    /// The module's contract is the caller's: see vkhmm_kernel_create. `spirv` is a container of bytes or words.
    template <class Spirv> Kernel kernel(const Spirv &spirv, const vkhmm_kernel_options *options = nullptr) const
    {
        vkhmm_kernel kernel{};
        check(vkhmm_kernel_create(get(), spirv.data(), spirv.size() * sizeof(*spirv.data()), options, &kernel));
        return Kernel(kernel);
    }
    void flush() const { check(vkhmm_runtime_flush(get())); }
    void sync() const { check(vkhmm_runtime_sync(get())); }
    /// Bytes evicted.
    std::uint64_t trim(std::uint64_t bytes) const
    {
        std::uint64_t evicted = 0;
        check(vkhmm_runtime_trim(get(), bytes, &evicted));
        return evicted;
    }
    std::uint64_t set_device_memory_limit(std::uint64_t bytes) const
    {
        std::uint64_t evicted = 0;
        check(vkhmm_runtime_set_device_memory_limit(get(), bytes, &evicted));
        return evicted;
    }
    std::uint64_t counter(const char *name) const
    {
        std::uint64_t value = 0;
        check(vkhmm_runtime_counter(get(), name, &value));
        return value;
    }
    /// Items of one window of a loop over `len`; see vkhmm_runtime_window.
    std::size_t window(std::size_t len, std::size_t bytes_per_item, std::size_t depth = 2) const
    {
        std::size_t step = 0;
        check(vkhmm_runtime_window(get(), len, bytes_per_item, depth, &step));
        return step;
    }
    std::string doctor() const { return say(vkhmm_runtime_doctor); }
    std::string stats_json() const { return say(vkhmm_runtime_stats_json); }
    std::string waits_json() const { return say(vkhmm_runtime_waits_json); }
    std::string trace_json() const { return say(vkhmm_runtime_trace_json); }
    std::string report() const { return say(vkhmm_runtime_report); }
    std::string validation_messages() const { return say(vkhmm_runtime_validation_messages); }

private:
    static vkhmm_runtime made(const vkhmm_runtime_options &options)
    {
        vkhmm_runtime runtime{};
        check(vkhmm_runtime_create(&options, &runtime));
        return runtime;
    }
    std::string say(vkhmm_result (*of)(vkhmm_runtime, char *, std::size_t, std::size_t *)) const
    {
        return text([this, of](char *to, std::size_t capacity, std::size_t *needed) { return of(get(), to, capacity, needed); });
    }
};

/// Sets every 32-bit word of `to`, on the device.
inline Launch fill(vkhmm_access to, std::uint32_t word)
{
    vkhmm_launch launch{};
    check(vkhmm_fill(&to, word, &launch));
    return Launch(launch);
}

/// Copies all of `from` to `to`, on the device.
inline Launch copy(vkhmm_access from, vkhmm_access to)
{
    vkhmm_launch launch{};
    check(vkhmm_copy(&from, &to, &launch));
    return Launch(launch);
}

} // namespace vkhmm

#endif
