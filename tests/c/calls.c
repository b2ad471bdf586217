/* Every function does what the header says. */
#include "check.h"

static void version_and_names(void)
{
    char header[32];
    snprintf(header, sizeof header, "%d.%d.%d", VKHMM_VERSION_MAJOR, VKHMM_VERSION_MINOR, VKHMM_VERSION_PATCH);
    CHECK(strcmp(vkhmm_version(), header) == 0);
    CHECK(strcmp(vkhmm_result_name(VKHMM_ERROR_LOST), "VKHMM_ERROR_LOST") == 0);
    CHECK(strcmp(vkhmm_result_name(12345), "unknown") == 0);
}

/* What other languages write down by hand. */
static void structs_have_their_sizes(void)
{
    CHECK(sizeof(vkhmm_runtime) == 8 && sizeof(vkhmm_buffer) == 8 && sizeof(vkhmm_kernel) == 8);
    CHECK(sizeof(vkhmm_launch) == 8 && sizeof(vkhmm_guard) == 8);
    CHECK(sizeof(vkhmm_access) == 32 && sizeof(vkhmm_value) == 16 && sizeof(vkhmm_grid) == 24);
    CHECK(sizeof(vkhmm_spec) == 16 && sizeof(vkhmm_kernel_options) == 48 && sizeof(vkhmm_residency) == 32);
    CHECK(sizeof(vkhmm_pagemap) == 40 && sizeof(vkhmm_result) == 4 && sizeof(vkhmm_location) == 4);
    CHECK(sizeof(vkhmm_acquired) == 8 && sizeof(vkhmm_requirements) == 8 && sizeof(vkhmm_placed) == 40);
    CHECK(sizeof(vkhmm_wait) == 16 && sizeof(vkhmm_queue) == 40 && sizeof(vkhmm_wanted) == 16);
    CHECK(sizeof(vkhmm_wanted_queue) == 16 && sizeof(vkhmm_placement_kind) == 4);
    CHECK(offsetof(vkhmm_runtime_options, device_memory_limit) == 8);
}

static void a_kernel_runs_and_the_host_sees_it(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_kernel k = kernel(rt, "scale");
    const size_t words = 64 * WORDS;
    vkhmm_buffer x = alloc_bytes(rt, words * 4, "x");
    number(x, words);
    OK(scale(k, x, words, 2.0f, NULL));
    compare(x, words, 2.0f);
    /* Groups in place of items, half of the bytes, an empty grid, no bytes. */
    vkhmm_access half = {.buffer = x, .bytes = words * 2, .kind = VKHMM_ACCESS_WRITE};
    float three = 3.0f;
    vkhmm_value value = {&three, sizeof three};
    OK(vkhmm_kernel_launch(k, (vkhmm_grid){.groups = {64, 1, 1}}, &half, 1, &value, 1, NULL));
    OK(vkhmm_kernel_launch(k, (vkhmm_grid){.groups = {0, 1, 1}}, &half, 1, &value, 1, NULL));
    half.bytes = 0;
    OK(vkhmm_kernel_launch(k, (vkhmm_grid){.items = 1}, &half, 1, &value, 1, NULL));
    compare(x, words / 2, 6.0f);
    close_runtime(rt);
}

static void launches_are_waited_for(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_kernel k = kernel(rt, "scale");
    const size_t words = 256 * WORDS;
    vkhmm_buffer x = alloc_bytes(rt, words * 4, "x");
    vkhmm_launch launch;
    uint32_t done = 7;
    uint64_t ns = 0;
    number(x, words);
    OK(scale(k, x, words, 2.0f, &launch));
    OK(vkhmm_runtime_flush(rt));
    while (1) {
        vkhmm_result result = vkhmm_launch_wait(launch, 1000);
        if (result == VKHMM_OK) break;
        CHECK(result == VKHMM_TIMEOUT);
    }
    OK(vkhmm_launch_wait(launch, VKHMM_FOREVER));
    OK(vkhmm_launch_is_done(launch, &done));
    CHECK(done == 1);
    vkhmm_result elapsed = vkhmm_launch_elapsed(launch, &ns);
    CHECK((elapsed == VKHMM_OK && ns > 0) || elapsed == VKHMM_NONE);
    OK(vkhmm_launch_destroy(launch));
    OK(vkhmm_runtime_sync(rt));
    close_runtime(rt);
}

static void buffers_say_what_they_are(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_buffer x = alloc_bytes(rt, 100, "ten times ten"), none = alloc_bytes(rt, 0, NULL);
    uint64_t bytes = 0;
    void *pointer = NULL;
    char label[64];
    size_t needed = 0;
    OK(vkhmm_buffer_size(x, &bytes));
    CHECK(bytes == 100);
    OK(vkhmm_buffer_pointer(x, &pointer));
    CHECK(pointer && (uintptr_t)pointer % (2 << 20) == 0);
    OK(vkhmm_buffer_label(x, label, sizeof label, &needed));
    CHECK(strcmp(label, "ten times ten") == 0 && needed == 14);
    ANSWERS(VKHMM_INCOMPLETE, vkhmm_buffer_label(x, label, 4, &needed));
    CHECK(strcmp(label, "ten") == 0 && needed == 14);
    OK(vkhmm_buffer_label(x, NULL, 0, &needed));
    CHECK(needed == 14);
    OK(vkhmm_buffer_check(x, 0, VKHMM_WHOLE_SIZE));
    OK(vkhmm_buffer_size(none, &bytes));
    CHECK(bytes == 0);
    OK(vkhmm_buffer_pointer(none, &pointer));
    CHECK(pointer == NULL);
    OK(vkhmm_buffer_check(none, 0, VKHMM_WHOLE_SIZE));
    OK(vkhmm_free(none));
    OK(vkhmm_free(x));
    close_runtime(rt);
}

static void pages_move_where_they_are_sent(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_kernel k = kernel(rt, "scale");
    vkhmm_buffer x = alloc_bytes(rt, 32 * PAGE, "x");
    vkhmm_residency runs[8];
    vkhmm_launch launch;
    size_t needed = 0;
    OK(vkhmm_buffer_residency(x, 0, VKHMM_WHOLE_SIZE, runs, 8, &needed));
    CHECK(needed == 1 && runs[0].location == VKHMM_LOCATION_ABSENT && runs[0].bytes == 32 * PAGE);
    number(x, 32 * WORDS);
    OK(vkhmm_prefetch_to_device(x, 16 * PAGE, 16 * PAGE, &launch));
    OK(vkhmm_launch_wait(launch, VKHMM_FOREVER));
    ANSWERS(VKHMM_INCOMPLETE, vkhmm_buffer_residency(x, 0, VKHMM_WHOLE_SIZE, runs, 1, &needed));
    CHECK(needed == 2 && runs[0].location == VKHMM_LOCATION_HOST);
    OK(vkhmm_buffer_residency(x, 16 * PAGE, VKHMM_WHOLE_SIZE, runs, 8, NULL));
    CHECK(runs[0].location == VKHMM_LOCATION_SHARED && runs[0].offset == 16 * PAGE);
    OK(scale(k, x, 32 * WORDS, 1.0f, NULL));
    OK(vkhmm_runtime_sync(rt));
    OK(vkhmm_buffer_residency(x, 0, VKHMM_WHOLE_SIZE, runs, 8, &needed));
    CHECK(needed == 1 && runs[0].location == VKHMM_LOCATION_DEVICE && runs[0].dirty == 1 && runs[0].pinned == 0);
    uint32_t addressable = 7;
    vkhmm_page_flags flags = 0;
    vkhmm_location place = VKHMM_LOCATION_LOST;
    void *pointer;
    OK(vkhmm_buffer_pointer(x, &pointer));
    OK(vkhmm_runtime_is_addressable(rt, pointer, &addressable));
    CHECK(addressable == 0);
    OK(vkhmm_runtime_page_flags(rt, pointer, &flags, &place));
    CHECK(flags == VKHMM_PAGE_DEVICE_VALID && place == VKHMM_LOCATION_DEVICE);
    OK(vkhmm_prefetch_to_host(x, 0, VKHMM_WHOLE_SIZE, NULL));
    OK(vkhmm_runtime_sync(rt));
    compare(x, 32 * WORDS, 1.0f);
    OK(vkhmm_runtime_is_addressable(rt, pointer, &addressable));
    CHECK(addressable == 1);
    ANSWERS(VKHMM_NONE, vkhmm_runtime_page_flags(rt, &rt, &flags, &place));
    OK(vkhmm_runtime_is_addressable(rt, &rt, &addressable));
    CHECK(addressable == 1);
    close_runtime(rt);
}

static void hints_are_taken_and_told(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_kernel k = kernel(rt, "scale");
    vkhmm_buffer x = alloc_bytes(rt, 32 * PAGE, "x");
    vkhmm_attributes runs[4];
    vkhmm_pinned pinned;
    size_t needed = 0;
    uint64_t saved = 7;
    number(x, 32 * WORDS);
    OK(vkhmm_advise(x, 16 * PAGE, 16 * PAGE, VKHMM_ADVICE_READ_MOSTLY));
    OK(vkhmm_advise(x, 16 * PAGE, 16 * PAGE, VKHMM_ADVICE_PREFER_DEVICE));
    ANSWERS(VKHMM_ERROR_INVALID_ARGUMENT, vkhmm_advise(x, 0, PAGE, 99));
    SAYS("99");
    OK(vkhmm_buffer_attributes(x, 0, VKHMM_WHOLE_SIZE, runs, 4, &needed));
    CHECK(needed == 2 && runs[0].offset == 0 && runs[0].bytes == 16 * PAGE && runs[0].preferred == VKHMM_SIDE_NONE);
    CHECK(runs[1].read_mostly == 1 && runs[1].preferred == VKHMM_SIDE_DEVICE && runs[1].accessed_by == 0);
    OK(vkhmm_pin(x, 0, VKHMM_WHOLE_SIZE, VKHMM_SIDE_DEVICE, &pinned));
    OK(vkhmm_buffer_attributes(x, 0, PAGE, runs, 4, &needed));
    CHECK(needed == 1 && runs[0].pinned_device == 1 && runs[0].pinned_host == 0);
    OK(vkhmm_unpin(pinned));
    ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_unpin(pinned));
    ANSWERS(VKHMM_ERROR_INVALID_ARGUMENT, vkhmm_pin(x, 0, PAGE, VKHMM_SIDE_NONE, &pinned));
    OK(vkhmm_pin(x, 0, VKHMM_WHOLE_SIZE, VKHMM_SIDE_HOST, &pinned));
    ANSWERS(VKHMM_ERROR_GUARDED, scale(k, x, 32 * WORDS, 1.0f, NULL));
    OK(vkhmm_unpin(pinned));
    compare(x, 32 * WORDS, 1.0f);
    OK(scale(k, x, 32 * WORDS, 1.0f, NULL));
    OK(vkhmm_runtime_sync(rt));
    OK(vkhmm_discard(x, 0, VKHMM_WHOLE_SIZE, &saved));
    CHECK(saved == 32 * PAGE);
    close_runtime(rt);
}

static void guards_make_system_calls_work(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_kernel k = kernel(rt, "scale");
    const size_t words = 16 * WORDS;
    vkhmm_buffer x = alloc_bytes(rt, words * 4, "x"), y = alloc_bytes(rt, words * 4, "y");
    vkhmm_guard guard, other;
    vkhmm_residency run;
    void *bytes;
    FILE *file = tmpfile();
    CHECK(file);
    number(x, words);
    OK(scale(k, x, words, 2.0f, NULL));
    /* The bytes are on the device: the guard brings them home, and the system call finds them. */
    OK(vkhmm_host_begin(x, 0, VKHMM_WHOLE_SIZE, VKHMM_ACCESS_READ, &guard, &bytes));
    setvbuf(file, NULL, _IONBF, 0);
    CHECK(fwrite(bytes, 4, words, file) == words);
    OK(vkhmm_buffer_residency(x, 0, VKHMM_WHOLE_SIZE, &run, 1, NULL));
    CHECK(run.pinned == 1);
    ANSWERS(VKHMM_ERROR_GUARDED, scale(k, x, words, 2.0f, NULL));
    SAYS("`x`");
    OK(vkhmm_host_begin(x, PAGE, PAGE, VKHMM_ACCESS_READ, &other, NULL));
    OK(vkhmm_host_end(other));
    OK(vkhmm_host_end(guard));
    OK(scale(k, x, words, 1.0f, NULL));
    rewind(file);
    OK(vkhmm_host_begin(y, 0, VKHMM_WHOLE_SIZE, VKHMM_ACCESS_WRITE, &guard, &bytes));
    CHECK(fread(bytes, 4, words, file) == words);
    ANSWERS(VKHMM_ERROR_GUARDED, scale(k, y, words, 2.0f, NULL));
    OK(vkhmm_host_end(guard));
    fclose(file);
    OK(scale(k, y, words, 2.0f, NULL));
    compare(y, words, 4.0f);
    close_runtime(rt);
}

static void memory_freed_in_a_guard_stays_until_its_end(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_buffer x = alloc_bytes(rt, PAGE, "x");
    vkhmm_guard guard;
    void *bytes;
    OK(vkhmm_host_begin(x, 0, VKHMM_WHOLE_SIZE, VKHMM_ACCESS_WRITE, &guard, &bytes));
    OK(vkhmm_free(x));
    memset(bytes, 5, PAGE);
    CHECK(((char *)bytes)[PAGE - 1] == 5);
    OK(vkhmm_host_end(guard));
    close_runtime(rt);
}

static void fill_and_copy(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_buffer x = alloc_bytes(rt, 4 * PAGE, "x"), y = alloc_bytes(rt, 4 * PAGE, "y");
    vkhmm_launch launch;
    vkhmm_access to = all(x, VKHMM_ACCESS_OVERWRITE), from = all(x, VKHMM_ACCESS_READ);
    OK(vkhmm_fill(&to, 0x01020304, &launch));
    OK(vkhmm_launch_wait(launch, VKHMM_FOREVER));
    to = all(y, VKHMM_ACCESS_OVERWRITE);
    OK(vkhmm_copy(&from, &to, NULL));
    struct touch t = touch(y, VKHMM_ACCESS_READ);
    for (int i = 0; i < 4 * WORDS; i++) CHECK(((uint32_t *)t.bytes)[i] == 0x01020304);
    release(t);
    ANSWERS(VKHMM_ERROR_WORDS, vkhmm_fill(&from, 1, NULL));
    to.bytes = 4;
    ANSWERS(VKHMM_ERROR_WORDS, vkhmm_copy(&from, &to, NULL));
    close_runtime(rt);
}

static void placements_are_said_and_stable_ones_are_stable(void)
{
    vkhmm_runtime_options o = options();
    vkhmm_runtime rt;
    vkhmm_placement_kind kind;
    vkhmm_buffer x;
    char why[500];
    o.placement = VKHMM_PLACEMENT_CHOICE_SPAN;
    o.in_place = VKHMM_OFF;
    OK(vkhmm_runtime_create(&o, &rt));
    OK(vkhmm_buffer_placement(alloc_bytes(rt, PAGE, "x"), &kind, why, sizeof why, NULL));
    CHECK(kind == VKHMM_PLACEMENT_SPAN && why[0]);
    ANSWERS(VKHMM_ERROR_NOT_STABLE, vkhmm_alloc_stable(rt, PAGE, "x", &x));
    SAYS("cannot keep its device address");
    OK(vkhmm_runtime_destroy(rt));
    /* Where the device can, a small one is: in place, or sparse. */
    OK(vkhmm_runtime_create(NULL, &rt));
    vkhmm_result answer = vkhmm_alloc_stable(rt, PAGE, "x", &x);
    CHECK(answer == VKHMM_OK || answer == VKHMM_ERROR_NOT_STABLE);
    if (answer == VKHMM_OK) {
        OK(vkhmm_buffer_placement(x, &kind, why, sizeof why, NULL));
        CHECK(kind != VKHMM_PLACEMENT_SPAN);
    }
    OK(vkhmm_runtime_destroy(rt));
}

static void kernels_are_built_as_asked(void)
{
    vkhmm_runtime rt = open_runtime();
    size_t bytes, needed;
    void *module = spirv("scale", &bytes);
    vkhmm_kernel_options o = {.size = sizeof o, .entry = "main", .name = "twice"};
    vkhmm_kernel k;
    char name[16];
    uint32_t local[3] = {0, 0, 0};
    OK(vkhmm_kernel_create(rt, module, bytes, &o, &k));
    OK(vkhmm_kernel_name(k, name, sizeof name, &needed));
    CHECK(strcmp(name, "twice") == 0 && needed == 6);
    OK(vkhmm_kernel_local_size(k, &local));
    CHECK(local[0] > 0 && local[1] > 0 && local[2] > 0);
    o.entry = "nobody";
    ANSWERS(VKHMM_ERROR_KERNEL, vkhmm_kernel_create(rt, module, bytes, &o, &k));
    SAYS("nobody");
    /* A constant that the module does not have, and one of no size. */
    vkhmm_spec spec = {.id = 99, .bytes = 4, .bits = 1};
    o = (vkhmm_kernel_options){.size = sizeof o, .specs = &spec, .spec_count = 1};
    ANSWERS(VKHMM_ERROR_KERNEL, vkhmm_kernel_create(rt, module, bytes, &o, &k));
    SAYS("99");
    spec.bytes = 3;
    ANSWERS(VKHMM_ERROR_INVALID_ARGUMENT, vkhmm_kernel_create(rt, module, bytes, &o, &k));
    o = (vkhmm_kernel_options){.size = sizeof o, .subgroup_size = 3};
    ANSWERS(VKHMM_ERROR_UNSUPPORTED, vkhmm_kernel_create(rt, module, bytes, &o, &k));
    ANSWERS(VKHMM_ERROR_KERNEL, vkhmm_kernel_create(rt, "not SPIR-V", 10, NULL, &k));
    ANSWERS(VKHMM_ERROR_KERNEL, vkhmm_kernel_create(rt, module, 0, NULL, &k));
    free(module);
    close_runtime(rt);
}

static void device_memory_is_limited_and_trimmed(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_kernel k = kernel(rt, "scale");
    const size_t words = 1 << 20;
    vkhmm_buffer x = alloc_bytes(rt, words * 4, "x");
    uint64_t limit = 0, used = 0, evicted = 0, moved = 0;
    size_t step = 0;
    number(x, words);
    OK(scale(k, x, words, 2.0f, NULL));
    OK(vkhmm_runtime_device_memory(rt, &limit, &used));
    CHECK(limit == 16 << 20 && used >= words * 4);
    OK(vkhmm_runtime_device_memory(rt, NULL, NULL));
    OK(vkhmm_runtime_sync(rt));
    OK(vkhmm_runtime_trim(rt, 1 << 20, &evicted));
    CHECK(evicted >= 1 << 20);
    OK(vkhmm_runtime_set_device_memory_limit(rt, 2 << 20, NULL));
    ANSWERS(VKHMM_ERROR_WORKING_SET_TOO_LARGE, scale(k, x, words, 2.0f, NULL));
    OK(vkhmm_runtime_window(rt, words, 4, 2, &step));
    CHECK(step > 0 && step * 4 * 2 <= 2 << 20);
    for (size_t at = 0; at < words; at += step) {
        size_t count = words - at < step ? words - at : step;
        vkhmm_access part = {.buffer = x, .offset = at * 4, .bytes = count * 4, .kind = VKHMM_ACCESS_WRITE};
        float by = 2.0f;
        vkhmm_value value = {&by, sizeof by};
        OK(vkhmm_kernel_launch(k, (vkhmm_grid){.items = count}, &part, 1, &value, 1, NULL));
    }
    compare(x, words, 4.0f);
    OK(vkhmm_runtime_counter(rt, "in_bytes", &moved));
    CHECK(moved >= 2 * words * 4);
    close_runtime(rt);
}

/* A text that is asked for its length first, as programs do. */
static char *text(vkhmm_result (*of)(vkhmm_runtime, char *, size_t, size_t *), vkhmm_runtime rt)
{
    size_t needed = 0;
    OK(of(rt, NULL, 0, &needed));
    CHECK(needed > 0);
    char *all = malloc(needed + 64);
    OK(of(rt, all, needed + 64, &needed));
    CHECK(strlen(all) + 1 == needed);
    return all;
}

static void the_runtime_explains_itself(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_kernel k = kernel(rt, "scale");
    vkhmm_buffer x = alloc_bytes(rt, 4 * PAGE, "a \"label\"");
    uint64_t value = 0, calls = 0;
    number(x, 4 * WORDS);
    OK(scale(k, x, 4 * WORDS, 2.0f, NULL));
    compare(x, 4 * WORDS, 2.0f);
    char *said = text(vkhmm_runtime_doctor, rt);
    CHECK(strstr(said, "Verdict: ") && strstr(said, "arena"));
    free(said);
    said = text(vkhmm_runtime_stats_json, rt);
    CHECK(said[0] == '{' && strstr(said, "\"launches\":1"));
    free(said);
    said = text(vkhmm_runtime_waits_json, rt);
    CHECK(said[0] == '[' && said[strlen(said) - 1] == ']');
    free(said);
    said = text(vkhmm_runtime_trace_json, rt);
    CHECK(said[0] == '[' && strstr(said, "ToDevice"));
    free(said);
    said = text(vkhmm_runtime_report, rt);
    CHECK(said[0]);
    free(said);
    OK(vkhmm_runtime_counter(rt, "launches", &value));
    CHECK(value == 1);
    ANSWERS(VKHMM_ERROR_INVALID_ARGUMENT, vkhmm_runtime_counter(rt, "lunches", &value));
    SAYS("launches_resident");
    OK(vkhmm_runtime_device_calls(rt, &calls));
    CHECK(calls > 0);
    close_runtime(rt);
}

static void pagemaps_are_listed_and_killed(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_kernel k = kernel(rt, "scale");
    vkhmm_buffer x = alloc_bytes(rt, 4 * PAGE, "x");
    vkhmm_pagemap maps[16], found;
    size_t needed = 0;
    number(x, 4 * WORDS);
    OK(scale(k, x, 4 * WORDS, 2.0f, NULL));
    OK(vkhmm_runtime_sync(rt));
    OK(vkhmm_runtime_pagemaps(rt, maps, 16, &needed));
    CHECK(needed > 0 && maps[0].live == 1 && maps[0].kind > 0 && maps[0].flags & VKHMM_PAGEMAP_DEVICE_MEMORY);
    OK(vkhmm_runtime_find_pagemap(rt, maps[0].address + 1, &found));
    CHECK(found.id == maps[0].id && found.bytes == maps[0].bytes);
    ANSWERS(VKHMM_NONE, vkhmm_runtime_find_pagemap(rt, 1, &found));
    ANSWERS(VKHMM_ERROR_PAGEMAP, vkhmm_runtime_unregister_pagemap(rt, maps[0].id, 0));
    SAYS("live");
    ANSWERS(VKHMM_ERROR_PAGEMAP, vkhmm_runtime_kill_pagemap(rt, 12345));
    OK(vkhmm_runtime_kill_pagemap(rt, maps[0].id));
    OK(vkhmm_runtime_unregister_pagemap(rt, maps[0].id, VKHMM_FOREVER));
    compare(x, 4 * WORDS, 2.0f);
    close_runtime(rt);
}

const struct test CALLS[] = {
    {"version_and_names", version_and_names},
    {"structs_have_their_sizes", structs_have_their_sizes},
    {"a_kernel_runs_and_the_host_sees_it", a_kernel_runs_and_the_host_sees_it},
    {"launches_are_waited_for", launches_are_waited_for},
    {"buffers_say_what_they_are", buffers_say_what_they_are},
    {"pages_move_where_they_are_sent", pages_move_where_they_are_sent},
    {"hints_are_taken_and_told", hints_are_taken_and_told},
    {"guards_make_system_calls_work", guards_make_system_calls_work},
    {"memory_freed_in_a_guard_stays_until_its_end", memory_freed_in_a_guard_stays_until_its_end},
    {"fill_and_copy", fill_and_copy},
    {"placements_are_said_and_stable_ones_are_stable", placements_are_said_and_stable_ones_are_stable},
    {"kernels_are_built_as_asked", kernels_are_built_as_asked},
    {"device_memory_is_limited_and_trimmed", device_memory_is_limited_and_trimmed},
    {"the_runtime_explains_itself", the_runtime_explains_itself},
    {"pagemaps_are_listed_and_killed", pagemaps_are_listed_and_killed},
    {NULL, NULL},
};
