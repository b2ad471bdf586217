/* The C test of libvkhmm: every function, every refusal, over the installed header and library alone.
 *
 * Usage: test FOLDER-WITH-SPIR-V */
#include "check.h"

static const char *shaders = ".";

void failed(const char *file, int line, const char *what, const char *why)
{
    fprintf(stderr, "%s:%d: %s\n    %s\n", file, line, what, why);
    printf("test result: FAILED. 0 passed; 1 failed; 0 ignored;\n");
    fflush(stdout);
    _Exit(1);
}

vkhmm_runtime_options options(void)
{
    vkhmm_runtime_options o;
    memset(&o, 0, sizeof o);
    o.size = sizeof o;
    return o;
}

vkhmm_runtime open_runtime(void)
{
    vkhmm_runtime_options o = options();
    vkhmm_runtime rt;
    o.device_memory_limit = 16 << 20;
    o.validation = VKHMM_ON;
    o.in_place = VKHMM_OFF; /* small buffers move as large ones do */
    OK(vkhmm_runtime_create(&o, &rt));
    return rt;
}

void close_runtime(vkhmm_runtime rt)
{
    char messages[2000];
    OK(vkhmm_runtime_sync(rt));
    OK(vkhmm_runtime_validation_messages(rt, messages, sizeof messages, NULL));
    if (messages[0]) failed(__FILE__, __LINE__, "validation", messages);
    OK(vkhmm_runtime_destroy(rt));
}

vkhmm_buffer alloc_bytes(vkhmm_runtime rt, uint64_t bytes, const char *label)
{
    vkhmm_buffer buffer;
    OK(vkhmm_alloc(rt, bytes, label, &buffer));
    return buffer;
}

void *spirv(const char *shader, size_t *bytes)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.spv", shaders, shader);
    FILE *file = fopen(path, "rb");
    if (!file) failed(__FILE__, __LINE__, path, "cannot be opened");
    void *all = malloc(1 << 20);
    *bytes = fread(all, 1, 1 << 20, file);
    fclose(file);
    return all;
}

vkhmm_kernel kernel(vkhmm_runtime rt, const char *shader)
{
    size_t bytes;
    void *module = spirv(shader, &bytes);
    vkhmm_kernel made;
    OK(vkhmm_kernel_create(rt, module, bytes, NULL, &made));
    free(module);
    return made;
}

int is_declared(void)
{
    const char *engine = getenv("VKHMM_FAULT_ENGINE");
    return engine && strcmp(engine, "declared") == 0;
}

struct touch touch(vkhmm_buffer buffer, vkhmm_access_kind kind)
{
    struct touch t = {{0}, NULL};
    if (is_declared())
        OK(vkhmm_host_begin(buffer, 0, VKHMM_WHOLE_SIZE, kind, &t.guard, &t.bytes));
    else
        OK(vkhmm_buffer_pointer(buffer, &t.bytes));
    return t;
}

void release(struct touch t)
{
    if (t.guard.id) OK(vkhmm_host_end(t.guard));
}

void number(vkhmm_buffer buffer, size_t words)
{
    struct touch t = touch(buffer, VKHMM_ACCESS_WRITE);
    for (size_t i = 0; i < words; i++) ((float *)t.bytes)[i] = (float)i;
    release(t);
}

void compare(vkhmm_buffer buffer, size_t words, float factor)
{
    struct touch t = touch(buffer, VKHMM_ACCESS_READ);
    for (size_t i = 0; i < words; i++) CHECK(((float *)t.bytes)[i] == factor * (float)i);
    release(t);
}

vkhmm_access all(vkhmm_buffer buffer, vkhmm_access_kind kind)
{
    return (vkhmm_access){.buffer = buffer, .bytes = VKHMM_WHOLE_SIZE, .kind = kind};
}

vkhmm_result scale(vkhmm_kernel k, vkhmm_buffer buffer, size_t words, float by, vkhmm_launch *launch)
{
    vkhmm_access x = all(buffer, VKHMM_ACCESS_WRITE);
    vkhmm_value value = {&by, sizeof by};
    return vkhmm_kernel_launch(k, (vkhmm_grid){.items = words}, &x, 1, &value, 1, launch);
}

int main(int count, char **arguments)
{
    const struct test *suites[] = {CALLS, HANDLES, BINDINGS, VULKAN, PROCESS};
    int passed = 0;
    if (count > 1) shaders = arguments[1];
    for (size_t suite = 0; suite < sizeof suites / sizeof *suites; suite++)
        for (const struct test *test = suites[suite]; test->name; test++, passed++) {
            printf("test %s ... ", test->name);
            fflush(stdout);
            test->run();
            printf("ok\n");
        }
    printf("test result: ok. %d passed; 0 failed; 0 ignored;\n", passed);
    return 0;
}
