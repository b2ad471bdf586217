/* Whatever a program passes, the answer is a code and a text, and nothing has changed. */
#include "check.h"

/* Calls every function that takes a buffer, with one that is none. */
static void every_buffer_call(vkhmm_buffer b, vkhmm_kernel k, vkhmm_result code)
{
    void *pointer;
    uint64_t bytes;
    char text[8];
    vkhmm_residency run;
    vkhmm_guard guard;
    vkhmm_access x = all(b, VKHMM_ACCESS_WRITE);
    ANSWERS(code, vkhmm_buffer_pointer(b, &pointer));
    ANSWERS(code, vkhmm_buffer_size(b, &bytes));
    ANSWERS(code, vkhmm_buffer_label(b, text, sizeof text, NULL));
    ANSWERS(code, vkhmm_buffer_placement(b, NULL, text, sizeof text, NULL));
    ANSWERS(code, vkhmm_buffer_check(b, 0, 1));
    ANSWERS(code, vkhmm_prefetch_to_device(b, 0, 1, NULL));
    ANSWERS(code, vkhmm_prefetch_to_host(b, 0, 1, NULL));
    ANSWERS(code, vkhmm_advise(b, 0, 1, VKHMM_ADVICE_READ_MOSTLY));
    ANSWERS(code, vkhmm_discard(b, 0, 1, NULL));
    ANSWERS(code, vkhmm_pin(b, 0, 1, VKHMM_SIDE_HOST, &(vkhmm_pinned){0}));
    ANSWERS(code, vkhmm_buffer_attributes(b, 0, 1, NULL, 0, &(size_t){0}));
    ANSWERS(code, vkhmm_buffer_residency(b, 0, 1, &run, 1, NULL));
    ANSWERS(code, vkhmm_host_begin(b, 0, 1, VKHMM_ACCESS_READ, &guard, NULL));
    ANSWERS(code, scale(k, b, 1, 2.0f, NULL));
    ANSWERS(code, vkhmm_fill(&x, 0, NULL));
    ANSWERS(code, vkhmm_copy(&x, &x, NULL));
    ANSWERS(code, vkhmm_free(b));
}

static void every_kernel_call(vkhmm_kernel k, vkhmm_buffer x, vkhmm_result code)
{
    uint32_t local[3];
    char text[8];
    ANSWERS(code, vkhmm_kernel_name(k, text, sizeof text, NULL));
    ANSWERS(code, vkhmm_kernel_local_size(k, &local));
    ANSWERS(code, scale(k, x, 1, 2.0f, NULL));
    ANSWERS(code, vkhmm_kernel_destroy(k));
}

static void every_launch_call(vkhmm_launch l, vkhmm_result code)
{
    uint32_t done;
    uint64_t ns;
    ANSWERS(code, vkhmm_launch_wait(l, 0));
    ANSWERS(code, vkhmm_launch_wait(l, VKHMM_FOREVER));
    ANSWERS(code, vkhmm_launch_is_done(l, &done));
    ANSWERS(code, vkhmm_launch_elapsed(l, &ns));
    ANSWERS(code, vkhmm_launch_destroy(l));
}

static void every_runtime_call(vkhmm_runtime rt, vkhmm_result code)
{
    vkhmm_buffer b;
    vkhmm_kernel k;
    vkhmm_pagemap map;
    char text[8];
    size_t step;
    uint64_t value;
    uint32_t yes;
    ANSWERS(code, vkhmm_runtime_flush(rt));
    ANSWERS(code, vkhmm_runtime_sync(rt));
    ANSWERS(code, vkhmm_runtime_device_memory(rt, &value, NULL));
    ANSWERS(code, vkhmm_runtime_set_device_memory_limit(rt, 1 << 20, NULL));
    ANSWERS(code, vkhmm_runtime_trim(rt, 1, &value));
    ANSWERS(code, vkhmm_runtime_window(rt, 1, 1, 1, &step));
    ANSWERS(code, vkhmm_runtime_doctor(rt, text, sizeof text, NULL));
    ANSWERS(code, vkhmm_runtime_stats_json(rt, text, sizeof text, NULL));
    ANSWERS(code, vkhmm_runtime_counter(rt, "launches", &value));
    ANSWERS(code, vkhmm_runtime_waits_json(rt, text, sizeof text, NULL));
    ANSWERS(code, vkhmm_runtime_report(rt, text, sizeof text, NULL));
    ANSWERS(code, vkhmm_runtime_trace_json(rt, text, sizeof text, NULL));
    ANSWERS(code, vkhmm_runtime_validation_messages(rt, text, sizeof text, NULL));
    ANSWERS(code, vkhmm_runtime_device_calls(rt, &value));
    ANSWERS(code, vkhmm_runtime_pagemaps(rt, &map, 1, NULL));
    ANSWERS(code, vkhmm_runtime_find_pagemap(rt, 1, &map));
    ANSWERS(code, vkhmm_runtime_kill_pagemap(rt, 1));
    ANSWERS(code, vkhmm_runtime_unregister_pagemap(rt, 1, 0));
    ANSWERS(code, vkhmm_runtime_page_flags(rt, &rt, NULL, NULL));
    ANSWERS(code, vkhmm_runtime_is_addressable(rt, &rt, &yes));
    ANSWERS(code, vkhmm_alloc(rt, 1, NULL, &b));
    ANSWERS(code, vkhmm_alloc_stable(rt, 1, NULL, &b));
    ANSWERS(code, vkhmm_kernel_create(rt, "1234", 4, NULL, &k));
    ANSWERS(code, vkhmm_runtime_close(rt, 0));
    ANSWERS(code, vkhmm_runtime_destroy(rt));
}

static void no_handles(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_buffer x = alloc_bytes(rt, PAGE, "x");
    vkhmm_kernel k = kernel(rt, "scale");
    /* Nothing, small numbers, all bits, and a handle of another type. */
    uint64_t wrong[] = {0, 1, 0xffff, UINT64_MAX, UINT64_MAX >> 4, 0};
    for (size_t i = 0; i < 6; i++) {
        every_buffer_call((vkhmm_buffer){i == 5 ? k.id : wrong[i]}, k, VKHMM_ERROR_INVALID_HANDLE);
        every_kernel_call((vkhmm_kernel){i == 5 ? x.id : wrong[i]}, x, VKHMM_ERROR_INVALID_HANDLE);
        every_launch_call((vkhmm_launch){i == 5 ? x.id : wrong[i]}, VKHMM_ERROR_INVALID_HANDLE);
        every_runtime_call((vkhmm_runtime){i == 5 ? x.id : wrong[i]}, VKHMM_ERROR_INVALID_HANDLE);
        ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_host_end((vkhmm_guard){i == 5 ? x.id : wrong[i]}));
    }
    SAYS("is no vkhmm_guard: it is a vkhmm_buffer");
    /* A generation that is still to come. */
    ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_free((vkhmm_buffer){x.id + (1ull << 40)}));
    OK(vkhmm_buffer_check(x, 0, PAGE));
    close_runtime(rt);
}

static void stale_handles(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_buffer x = alloc_bytes(rt, PAGE, "x"), y = alloc_bytes(rt, PAGE, "y");
    vkhmm_kernel k = kernel(rt, "scale"), other = kernel(rt, "scale");
    vkhmm_launch launch;
    vkhmm_guard guard;
    OK(scale(k, x, WORDS, 2.0f, &launch));
    OK(vkhmm_launch_destroy(launch));
    every_launch_call(launch, VKHMM_ERROR_STALE_HANDLE);
    OK(vkhmm_host_begin(x, 0, PAGE, VKHMM_ACCESS_READ, &guard, NULL));
    OK(vkhmm_host_end(guard));
    ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_host_end(guard));
    OK(vkhmm_free(x));
    every_buffer_call(x, k, VKHMM_ERROR_STALE_HANDLE);
    OK(vkhmm_kernel_destroy(other));
    every_kernel_call(other, y, VKHMM_ERROR_STALE_HANDLE);
    /* Whoever gets the slots next, the old numbers do not name it. */
    for (int i = 0; i < 64; i++) {
        vkhmm_buffer next = alloc_bytes(rt, PAGE, "next");
        CHECK(next.id != x.id);
        ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_free(x));
        OK(vkhmm_free(next));
    }
    /* What goes with a runtime goes with it. */
    OK(scale(k, y, WORDS, 2.0f, &launch));
    OK(vkhmm_host_begin(alloc_bytes(rt, PAGE, "z"), 0, PAGE, VKHMM_ACCESS_WRITE, &guard, NULL));
    close_runtime(rt);
    every_runtime_call(rt, VKHMM_ERROR_STALE_HANDLE);
    every_buffer_call(y, k, VKHMM_ERROR_STALE_HANDLE);
    every_kernel_call(k, y, VKHMM_ERROR_STALE_HANDLE);
    every_launch_call(launch, VKHMM_ERROR_STALE_HANDLE);
    ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_host_end(guard));
    SAYS("or its runtime was");
}

static void foreign_handles(void)
{
    vkhmm_runtime rt = open_runtime(), other = open_runtime();
    vkhmm_buffer x = alloc_bytes(rt, PAGE, "x"), theirs = alloc_bytes(other, PAGE, "theirs");
    vkhmm_kernel k = kernel(rt, "scale");
    vkhmm_access from = all(theirs, VKHMM_ACCESS_READ), to = all(x, VKHMM_ACCESS_WRITE);
    ANSWERS(VKHMM_ERROR_FOREIGN, scale(k, theirs, WORDS, 2.0f, NULL));
    SAYS("another runtime");
    ANSWERS(VKHMM_ERROR_FOREIGN, vkhmm_copy(&from, &to, NULL));
    /* The address of another runtime's memory is as any address. */
    void *pointer;
    OK(vkhmm_buffer_pointer(theirs, &pointer));
    ANSWERS(VKHMM_NONE, vkhmm_runtime_page_flags(rt, pointer, NULL, NULL));
    close_runtime(other);
    number(x, WORDS);
    OK(scale(k, x, WORDS, 2.0f, NULL));
    compare(x, WORDS, 2.0f);
    close_runtime(rt);
}

static void pointers(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_buffer x = alloc_bytes(rt, PAGE, "x");
    vkhmm_kernel k = kernel(rt, "scale");
    vkhmm_launch launch;
    vkhmm_guard guard;
    const vkhmm_result wrong = VKHMM_ERROR_INVALID_ARGUMENT;
    union { uint64_t aligned[2]; char bytes[16]; } odd;
    OK(scale(k, x, WORDS, 1.0f, &launch));
    ANSWERS(wrong, vkhmm_runtime_create(NULL, NULL));
    SAYS("runtime is NULL");
    ANSWERS(wrong, vkhmm_alloc(rt, 1, NULL, NULL));
    ANSWERS(wrong, vkhmm_alloc(rt, 1, NULL, (vkhmm_buffer *)(odd.bytes + 1)));
    SAYS("multiple of 8");
    ANSWERS(wrong, vkhmm_alloc(rt, 1, "\xff", &x));
    SAYS("UTF-8");
    ANSWERS(wrong, vkhmm_buffer_pointer(x, NULL));
    ANSWERS(wrong, vkhmm_buffer_size(x, NULL));
    ANSWERS(wrong, vkhmm_buffer_placement(x, NULL, NULL, 0, NULL));
    ANSWERS(wrong, vkhmm_buffer_label(x, NULL, 0, NULL));
    ANSWERS(wrong, vkhmm_buffer_label(x, NULL, 8, NULL));
    ANSWERS(wrong, vkhmm_buffer_residency(x, 0, 1, NULL, 8, NULL));
    ANSWERS(wrong, vkhmm_host_begin(x, 0, 1, VKHMM_ACCESS_READ, NULL, NULL));
    ANSWERS(wrong, vkhmm_host_begin(x, 0, 1, VKHMM_ACCESS_OVERWRITE, &guard, NULL));
    ANSWERS(wrong, vkhmm_kernel_create(rt, NULL, 4, NULL, &k));
    ANSWERS(wrong, vkhmm_kernel_create(rt, "1234", 4, NULL, NULL));
    ANSWERS(wrong, vkhmm_kernel_name(k, NULL, 0, NULL));
    ANSWERS(wrong, vkhmm_kernel_local_size(k, NULL));
    ANSWERS(wrong, vkhmm_kernel_launch(k, (vkhmm_grid){.items = 1}, NULL, 1, NULL, 0, NULL));
    SAYS("accesses is NULL");
    vkhmm_access a = all(x, VKHMM_ACCESS_WRITE);
    vkhmm_value none = {NULL, 4};
    ANSWERS(wrong, vkhmm_kernel_launch(k, (vkhmm_grid){.items = 1}, &a, 1, NULL, 1, NULL));
    ANSWERS(wrong, vkhmm_kernel_launch(k, (vkhmm_grid){.items = 1}, &a, 1, &none, 1, NULL));
    ANSWERS(wrong, vkhmm_kernel_launch(k, (vkhmm_grid){.items = 1}, &a, SIZE_MAX, NULL, 0, NULL));
    ANSWERS(wrong, vkhmm_kernel_launch(k, (vkhmm_grid){.items = 1, .reserved = 1}, &a, 1, NULL, 0, NULL));
    a.kind = 0;
    ANSWERS(wrong, vkhmm_kernel_launch(k, (vkhmm_grid){.items = 1}, &a, 1, NULL, 0, NULL));
    SAYS("kind of access 0 is 0");
    a.kind = VKHMM_ACCESS_WRITE, a.reserved = 1;
    ANSWERS(wrong, vkhmm_fill(&a, 0, NULL));
    ANSWERS(wrong, vkhmm_fill(NULL, 0, NULL));
    ANSWERS(wrong, vkhmm_copy(NULL, NULL, NULL));
    ANSWERS(wrong, vkhmm_launch_is_done(launch, NULL));
    ANSWERS(wrong, vkhmm_launch_elapsed(launch, NULL));
    ANSWERS(wrong, vkhmm_runtime_doctor(rt, NULL, 0, NULL));
    ANSWERS(wrong, vkhmm_runtime_counter(rt, NULL, &odd.aligned[0]));
    ANSWERS(wrong, vkhmm_runtime_counter(rt, "launches", NULL));
    ANSWERS(wrong, vkhmm_runtime_window(rt, 1, 1, 1, NULL));
    ANSWERS(wrong, vkhmm_runtime_device_calls(rt, NULL));
    ANSWERS(wrong, vkhmm_runtime_pagemaps(rt, NULL, 0, NULL));
    ANSWERS(wrong, vkhmm_runtime_find_pagemap(rt, 1, NULL));
    ANSWERS(wrong, vkhmm_runtime_is_addressable(rt, &rt, NULL));
    close_runtime(rt);
}

static void option_values(void)
{
    vkhmm_runtime rt = {0};
    const vkhmm_result wrong = VKHMM_ERROR_INVALID_ARGUMENT;
    vkhmm_runtime_options o = options();
    struct { vkhmm_runtime_options known; uint64_t newer; } later = {options(), 0};
    size_t sizes[] = {0, 8, sizeof o - 1, 1 << 20, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        o.size = sizes[i];
        ANSWERS(wrong, vkhmm_runtime_create(&o, &rt));
        SAYS("size is");
    }
    later.known.size = sizeof later, later.newer = 1;
    ANSWERS(wrong, vkhmm_runtime_create(&later.known, &rt));
    SAYS("use a newer library");
    o = options(), o.fault_engine = 99;
    ANSWERS(wrong, vkhmm_runtime_create(&o, &rt));
    o = options(), o.memory_kind = 99;
    ANSWERS(wrong, vkhmm_runtime_create(&o, &rt));
    o = options(), o.strict_io = 3;
    ANSWERS(wrong, vkhmm_runtime_create(&o, &rt));
    SAYS("strict_io is 3");
    o = options(), o.placement = 3;
    ANSWERS(wrong, vkhmm_runtime_create(&o, &rt));
    o = options(), o.test_failure = 4;
    ANSWERS(wrong, vkhmm_runtime_create(&o, &rt));
    o = options(), o.device_memory_limit = 1;
    ANSWERS(VKHMM_ERROR_SETTING, vkhmm_runtime_create(&o, &rt));
    SAYS("at least one frame");
    o = options(), o.device = "no such device";
    ANSWERS(VKHMM_ERROR_NO_DEVICE, vkhmm_runtime_create(&o, &rt));
    SAYS("no such device");
    o = options(), o.record_launches = "/no/such/folder/trace";
    ANSWERS(VKHMM_ERROR_SYSTEM, vkhmm_runtime_create(&o, &rt));
    o = options(), o.reservation = 1ull << 62;
    ANSWERS(VKHMM_ERROR_NO_HOST, vkhmm_runtime_create(&o, &rt));
    CHECK(rt.id == 0);
    /* What a newer program leaves unset an older library does not miss. */
    later.newer = 0;
    OK(vkhmm_runtime_create(&later.known, &rt));
    close_runtime(rt);
}

static void refusals_change_nothing(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_buffer x = alloc_bytes(rt, 4 * PAGE, "x"), big, none = {0};
    vkhmm_kernel k = kernel(rt, "scale"), saxpy = kernel(rt, "saxpy");
    uint64_t launches = 7;
    number(x, 4 * WORDS);
    ANSWERS(VKHMM_ERROR_OUT_OF_ADDRESS_SPACE, vkhmm_alloc(rt, 1ull << 46, NULL, &none));
    ANSWERS(VKHMM_ERROR_OUT_OF_ADDRESS_SPACE, vkhmm_alloc(rt, UINT64_MAX, NULL, &none));
    CHECK(none.id == 0);
    ANSWERS(VKHMM_ERROR_OUT_OF_RANGE, vkhmm_buffer_check(x, 4 * PAGE + 1, 0));
    ANSWERS(VKHMM_ERROR_OUT_OF_RANGE, vkhmm_buffer_check(x, 1, UINT64_MAX - 1));
    ANSWERS(VKHMM_ERROR_OUT_OF_RANGE, vkhmm_buffer_check(x, 4 * PAGE + 1, VKHMM_WHOLE_SIZE));
    SAYS("`x` of 16384 bytes");
    ANSWERS(VKHMM_ERROR_OUT_OF_RANGE, vkhmm_prefetch_to_device(x, 0, 4 * PAGE + 1, NULL));
    vkhmm_access read = all(x, VKHMM_ACCESS_READ), write = all(x, VKHMM_ACCESS_WRITE);
    float by = 2.0f;
    vkhmm_value value = {&by, sizeof by};
    vkhmm_grid grid = {.items = WORDS};
    ANSWERS(VKHMM_ERROR_WRITES_READ_ONLY_ARGUMENT, vkhmm_kernel_launch(k, grid, &read, 1, &value, 1, NULL));
    ANSWERS(VKHMM_ERROR_ARGUMENTS, vkhmm_kernel_launch(saxpy, grid, &write, 1, &value, 1, NULL));
    ANSWERS(VKHMM_ERROR_ARGUMENTS, vkhmm_kernel_launch(k, grid, &write, 1, NULL, 0, NULL));
    ANSWERS(VKHMM_ERROR_GRID_TOO_LARGE,
        vkhmm_kernel_launch(k, (vkhmm_grid){.groups = {1, UINT32_MAX, 1}}, &write, 1, &value, 1, NULL));
    ANSWERS(VKHMM_ERROR_GRID_TOO_LARGE,
        vkhmm_kernel_launch(k, (vkhmm_grid){.items = UINT64_MAX}, &write, 1, &value, 1, NULL));
    write.offset = 4;
    ANSWERS(VKHMM_ERROR_MISALIGNED, vkhmm_kernel_launch(k, grid, &write, 1, &value, 1, NULL));
    big = alloc_bytes(rt, 1ull << 30, "big");
    ANSWERS(VKHMM_ERROR_BINDING_TOO_LARGE, scale(k, big, 1, 2.0f, NULL));
    vkhmm_access part = {.buffer = big, .bytes = 64 << 20, .kind = VKHMM_ACCESS_OVERWRITE};
    ANSWERS(VKHMM_ERROR_WORKING_SET_TOO_LARGE, vkhmm_kernel_launch(k, grid, &part, 1, &value, 1, NULL));
    SAYS("use windows");
    OK(vkhmm_runtime_counter(rt, "launches", &launches));
    CHECK(launches == 0);
    compare(x, 4 * WORDS, 1.0f);
    close_runtime(rt);
}

const struct test HANDLES[] = {
    {"no_handles", no_handles},
    {"stale_handles", stale_handles},
    {"foreign_handles", foreign_handles},
    {"pointers", pointers},
    {"option_values", option_values},
    {"refusals_change_nothing", refusals_change_nothing},
    {NULL, NULL},
};
