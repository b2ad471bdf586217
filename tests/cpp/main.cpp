// The C++ test of libvkhmm: vkhmm.hpp over the installed package.
//
// Usage: test FOLDER-WITH-SPIR-V

#include <vkhmm.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>

namespace {

std::string shaders = ".";

void require(bool right, const char *what, int line)
{
    if (right) return;
    std::fprintf(stderr, "main.cpp:%d: %s\n", line, what);
    std::printf("test result: FAILED. 0 passed; 1 failed; 0 ignored;\n");
    std::exit(1);
}
#define REQUIRE(condition) require(condition, #condition, __LINE__)

std::vector<char> spirv(const std::string &name)
{
    std::ifstream file(shaders + "/" + name + ".spv", std::ios::binary);
    REQUIRE(file.good());
    return {std::istreambuf_iterator<char>(file), {}};
}

vkhmm::Runtime small()
{
    auto options = vkhmm::options();
    options.device_memory_limit = 8 << 20;
    options.validation = VKHMM_ON;
    options.in_place = VKHMM_OFF; // small buffers move as large ones do
    return vkhmm::Runtime(options);
}

void a_kernel_runs()
{
    vkhmm::Runtime rt = small();
    auto x = rt.alloc<float>(1 << 16, "x"), y = rt.alloc<float>(1 << 16);
    {
        auto host = x.host_mut();
        std::iota(host.begin(), host.end(), 0.0f);
    }
    vkhmm::fill(y.overwrite(), 0);
    vkhmm::Kernel saxpy = rt.kernel(spirv("saxpy"));
    vkhmm::Launch launch = saxpy.launch(vkhmm::linear(x.size()), {x.read(), y.write()}, 3.0f, std::uint32_t(1 << 16));
    launch.wait();
    REQUIRE(launch.is_done() && launch.wait_for(std::chrono::seconds(0)));
    REQUIRE(!launch.elapsed() || launch.elapsed()->count() > 0);
    const auto host = y.host();
    for (std::size_t i = 0; i < host.size(); i++) REQUIRE(host[i] == 3.0f * float(i));
    REQUIRE(saxpy.name() == "main" && x.label() == "x");
    REQUIRE(rt.validation_messages().empty());
}

void plain_memory_between_launches()
{
    vkhmm::Runtime rt = small();
    if (rt.doctor().find("whole slices come home when they are borrowed") != std::string::npos) return; // declared: guards only
    auto x = rt.alloc<float>(1000);
    for (float &v : x) v = 1.0f;
    vkhmm::Kernel scale = rt.kernel(spirv("scale"));
    for (int i = 0; i < 3; i++) {
        scale.launch(vkhmm::linear(x.size()), {x.write()}, 2.0f);
        x[7] += 1.0f;
    }
    REQUIRE(x[0] == 8.0f && x[7] == 15.0f && x.span().size() == 1000);
}

void larger_than_the_device()
{
    vkhmm::Runtime rt = small();
    const std::size_t n = 8 << 20;
    auto x = rt.alloc<float>(n);
    {
        auto host = x.host_mut();
        for (float &v : host) v = 1.0f;
    }
    vkhmm::Kernel scale = rt.kernel(spirv("scale"));
    const std::size_t step = rt.window(n, sizeof(float));
    for (std::size_t at = 0; at < n; at += step) {
        const std::size_t count = std::min(step, n - at);
        scale.launch(vkhmm::linear(count), {x.write(at, count)}, 2.0f);
    }
    const auto host = x.host();
    for (float v : host) REQUIRE(v == 2.0f);
    REQUIRE(rt.counter("in_bytes") == n * sizeof(float));
}

void errors_are_exceptions()
{
    vkhmm::Runtime rt = small();
    auto x = rt.alloc<float>(1024, "x");
    vkhmm::Kernel scale = rt.kernel(spirv("scale"));
    try {
        scale.launch(vkhmm::linear(1024), {x.read()}, 2.0f);
        REQUIRE(!"refused");
    } catch (const vkhmm::Error &error) {
        REQUIRE(error.code() == VKHMM_ERROR_WRITES_READ_ONLY_ARGUMENT);
        REQUIRE(std::string(error.what()).find("pass write()") != std::string::npos);
    }
    // What concerns a device of the program's own: refused here, and all of it compiles.
    try {
        vkhmm::Requirements asked(nullptr, nullptr, nullptr, 0);
        REQUIRE(asked.extensions().empty() && asked.features().empty() && asked.queues().empty());
        REQUIRE(!asked.feature_chain() && asked.text().empty());
    } catch (const vkhmm::Error &error) {
        REQUIRE(error.code() == VKHMM_ERROR_INVALID_ARGUMENT);
    }
    try {
        vkhmm_parts parts{};
        parts.size = sizeof parts;
        vkhmm::Runtime::from_vulkan(parts);
        REQUIRE(!"made of nothing");
    } catch (const vkhmm::Error &error) {
        REQUIRE(error.code() == VKHMM_ERROR_INVALID_ARGUMENT);
    }
    // Owners move, and what outlives its runtime is stale and harmless.
    auto y = std::move(x);
    REQUIRE(x.get().id == 0 && y.get().id != 0);
    rt.reset();
    try {
        y.check_lost();
        REQUIRE(!"stale");
    } catch (const vkhmm::Error &error) {
        REQUIRE(error.code() == VKHMM_ERROR_STALE_HANDLE);
    }
}

void moving_ahead_of_time()
{
    vkhmm::Runtime rt = small();
    auto x = rt.alloc<float>(1 << 16), y = rt.alloc<float>(1 << 16);
    { x.host_mut()[0] = 5.0f; }
    x.prefetch_to_device(0, 1024).wait();
    REQUIRE(x.residency().front().location == VKHMM_LOCATION_SHARED);
    vkhmm::copy(x.read(), y.overwrite()).wait();
    y.prefetch_to_host().wait();
    REQUIRE(y.host()[0] == 5.0f);
    y.advise(VKHMM_ADVICE_READ_MOSTLY);
    {
        auto kept = y.pin(VKHMM_SIDE_DEVICE);
        REQUIRE(kept.get().id != 0);
    }
    REQUIRE(x.discard() == 0);
    rt.flush();
    rt.sync();
    rt.trim(1 << 20);
    REQUIRE(rt.set_device_memory_limit(4 << 20) <= (8u << 20));
    REQUIRE(rt.stats_json().front() == '{' && rt.waits_json().front() == '[' && rt.trace_json().front() == '[');
    REQUIRE(!rt.report().empty());
}

void acquired_and_given_back()
{
    vkhmm::Runtime rt = small();
    auto x = rt.alloc<float>(1 << 16, "x");
    { x.host_mut()[0] = 1.0f; }
    REQUIRE(x.placement().first >= VKHMM_PLACEMENT_SPAN && !x.placement().second.empty());
    REQUIRE(rt.can_acquire(1 << 20) && !rt.can_acquire(1 << 30));
    auto acquired = rt.acquire({x.read(), x.read(0, 1024)}, "twice");
    REQUIRE(acquired && acquired->places().size() == 2 && acquired->places()[1].size == 4096);
    REQUIRE(acquired->wait().value > 0);
    try {
        vkhmm::fill(x.overwrite(), 0);
        REQUIRE(!"acquired");
    } catch (const vkhmm::Error &error) {
        REQUIRE(error.code() == VKHMM_ERROR_ACQUIRED);
    }
    acquired->reset();
    vkhmm::fill(x.overwrite(), 0);
    try {
        auto y = rt.alloc_stable<float>(1 << 20);
        REQUIRE(y.placement().first != VKHMM_PLACEMENT_SPAN);
    } catch (const vkhmm::Error &error) {
        REQUIRE(error.code() == VKHMM_ERROR_NOT_STABLE);
    }
    while (!rt.close(std::chrono::seconds(1))) {}
    REQUIRE(rt.get().id == 0);
}

} // namespace

int main(int count, char **arguments)
{
    if (count > 1) shaders = arguments[1];
    const std::function<void()> tests[] = {
        a_kernel_runs, plain_memory_between_launches, larger_than_the_device, errors_are_exceptions, moving_ahead_of_time,
        acquired_and_given_back,
    };
    int passed = 0;
    try {
        for (const auto &test : tests) test(), passed++;
    } catch (const vkhmm::Error &error) {
        require(false, error.what(), __LINE__);
    }
    std::printf("test result: ok. %d passed; 0 failed; 0 ignored;\n", passed);
}
