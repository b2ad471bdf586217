/* What bindings for other languages stand on: buffers by address, finalisers, bounded waits, an allocator, the shipped kernels. */
#include "check.h"

static void buffers_are_found_by_address(void)
{
    vkhmm_runtime rt = open_runtime(), owner = {0};
    vkhmm_buffer x = alloc_bytes(rt, 3 * PAGE, "x"), found = {0};
    uint64_t offset = 7;
    char *bytes = NULL;
    OK(vkhmm_buffer_pointer(x, (void **)&bytes));
    OK(vkhmm_buffer_find(bytes + 5000, &owner, &found, &offset));
    CHECK(owner.id == rt.id && found.id == x.id && offset == 5000);
    OK(vkhmm_buffer_find(bytes, NULL, NULL, NULL));
    ANSWERS(VKHMM_NONE, vkhmm_buffer_find(bytes + 3 * PAGE, &owner, &found, &offset));
    ANSWERS(VKHMM_NONE, vkhmm_buffer_find(&offset, &owner, &found, &offset));
    ANSWERS(VKHMM_NONE, vkhmm_buffer_find(NULL, &owner, &found, &offset));
    OK(vkhmm_free(x));
    ANSWERS(VKHMM_NONE, vkhmm_buffer_find(bytes, &owner, &found, &offset));
    close_runtime(rt);
}

static void handles_are_released_without_a_word(void)
{
    vkhmm_runtime rt = open_runtime(), none = {0};
    vkhmm_buffer x = alloc_bytes(rt, PAGE, "x"), y = alloc_bytes(rt, PAGE, "y");
    ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_runtime_flush(none));
    vkhmm_release_handle(x.id);
    vkhmm_release_handle(x.id);
    vkhmm_release_handle(0);
    vkhmm_release_handle(UINT64_MAX);
    SAYS("zero names nothing");
    ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_free(x));
    vkhmm_release_handle(rt.id);
    ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_free(y));
}

static void waits_may_be_bounded(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_fault_engine engine = 0;
    vkhmm_kernel k = kernel(rt, "scale");
    vkhmm_buffer x = alloc_bytes(rt, 256 * PAGE, "x");
    OK(vkhmm_runtime_fault_engine(rt, &engine));
    CHECK((engine == VKHMM_FAULT_ENGINE_DECLARED) == is_declared() && engine >= 1 && engine <= 5);
    number(x, 256 * WORDS);
    OK(scale(k, x, 256 * WORDS, 2.0f, NULL));
    vkhmm_result result = VKHMM_TIMEOUT;
    while (result == VKHMM_TIMEOUT) result = vkhmm_runtime_wait(rt, 1000);
    CHECK(result == VKHMM_OK);
    OK(vkhmm_runtime_wait(rt, 0));
    OK(vkhmm_runtime_wait(rt, VKHMM_FOREVER));
    compare(x, 256 * WORDS, 2.0f);
    ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_runtime_wait((vkhmm_runtime){0}, 0));
    ANSWERS(VKHMM_ERROR_INVALID_ARGUMENT, vkhmm_runtime_fault_engine(rt, NULL));
    close_runtime(rt);
}

static void an_allocator_manages_what_is_large(void)
{
    vkhmm_runtime rt = open_runtime();
    void *context = (void *)(uintptr_t)rt.id;
    const size_t large = VKHMM_MEMORY_MANAGED_MIN;
    char *small = vkhmm_memory_malloc(context, large - 1), *big = vkhmm_memory_calloc(context, 2, large / 2);
    CHECK(small && big && (uintptr_t)small % 16 == 0);
    OK(vkhmm_buffer_find(big, NULL, NULL, NULL));
    ANSWERS(VKHMM_NONE, vkhmm_buffer_find(small, NULL, NULL, NULL));
    memset(small, 1, large - 1);
    if (!is_declared()) {
        small = vkhmm_memory_realloc(context, small, 3 * large);
        OK(vkhmm_buffer_find(small, NULL, NULL, NULL));
        CHECK(small[0] == 1 && small[large - 2] == 1 && big[large - 1] == 0);
        big = vkhmm_memory_realloc(context, big, 10);
        ANSWERS(VKHMM_NONE, vkhmm_buffer_find(big, NULL, NULL, NULL));
        CHECK(big[9] == 0);
    }
    CHECK(!vkhmm_memory_malloc(context, SIZE_MAX) && !vkhmm_memory_malloc(NULL, large));
    vkhmm_memory_free(context, small, 0);
    ANSWERS(VKHMM_NONE, vkhmm_buffer_find(small, NULL, NULL, NULL));
    vkhmm_memory_free(NULL, big, 10);
    vkhmm_memory_free(context, NULL, 0);
    close_runtime(rt);
}

/* The one float of a buffer. */
static float only(vkhmm_buffer buffer)
{
    struct touch t = touch(buffer, VKHMM_ACCESS_READ);
    float value = *(float *)t.bytes;
    release(t);
    return value;
}

static void shipped_kernels_need_no_module(void)
{
    vkhmm_runtime rt = open_runtime();
    const uint64_t n = 300;
    vkhmm_buffer x = alloc_bytes(rt, n * n * 4, "x"), y = alloc_bytes(rt, n * n * 4, "y"), one = alloc_bytes(rt, 4, "one");
    vkhmm_access in = all(x, VKHMM_ACCESS_READ), out = all(y, VKHMM_ACCESS_WRITE), result = all(one, VKHMM_ACCESS_OVERWRITE);
    vkhmm_access written = all(x, VKHMM_ACCESS_WRITE);
    vkhmm_launch launch;
    OK(vkhmm_kernels_fill(&written, 2.0f, NULL));
    OK(vkhmm_kernels_copy(&in, &out, NULL));
    OK(vkhmm_kernels_scale(3.0f, &out, NULL));
    OK(vkhmm_kernels_axpy(10.0f, &in, &out, &launch));
    OK(vkhmm_launch_wait(launch, VKHMM_FOREVER));
    vkhmm_access read = all(y, VKHMM_ACCESS_READ);
    OK(vkhmm_kernels_max(&read, &result, NULL));
    CHECK(only(one) == 26.0f);
    OK(vkhmm_kernels_sum(&in, &result, NULL));
    CHECK(only(one) == 2.0f * n * n);
    OK(vkhmm_kernels_dot(&in, &read, &result, NULL));
    CHECK(only(one) == 52.0f * n * n);
    OK(vkhmm_kernels_arg_min(&in, &result, NULL));
    CHECK(only(one) == 0.0f);
    vkhmm_matrix a = {.access = in, .rows = n, .cols = n}, t = a, c = {.access = out, .rows = n, .cols = n};
    t.transposed = 1;
    OK(vkhmm_kernels_gemm(1.0f, &a, &t, 0.0f, &c, NULL));
    CHECK(only(y) == 4.0f * n);
    OK(vkhmm_kernels_gram(&a, &c, NULL));
    OK(vkhmm_kernels_syrk(-1.0f, &a, 1.0f, &c, NULL));
    CHECK(only(y) == 0.0f);
    OK(vkhmm_kernels_transpose(&a, &c, NULL));
    OK(vkhmm_kernels_softmax(&a, &c, NULL));
    CHECK(only(y) > 0.00333f && only(y) < 0.00334f);
    vkhmm_matrix filter = {.access = in, .rows = 3, .cols = 3};
    OK(vkhmm_kernels_conv2d(&a, &filter, &c, NULL));
    CHECK(only(y) == 36.0f);
    /* A part: every row 2 elements of 300, from the first on. */
    vkhmm_matrix part = {.access = in, .rows = 5, .cols = 2, .stride = n}, wrong = part;
    vkhmm_matrix square = {.access = out, .rows = 5, .cols = 5};
    OK(vkhmm_kernels_gram(&part, &square, NULL));
    CHECK(only(y) == 8.0f);
    ANSWERS(VKHMM_ERROR_SHAPE, vkhmm_kernels_gram(&part, &part, NULL));
    SAYS("gram: c is");
    wrong.reserved = 1;
    ANSWERS(VKHMM_ERROR_INVALID_ARGUMENT, vkhmm_kernels_gram(&wrong, &square, NULL));
    ANSWERS(VKHMM_ERROR_INVALID_ARGUMENT, vkhmm_kernels_sum(&in, NULL, NULL));
    SAYS("access 1 is NULL");
    /* One row whose only element is in the last column. */
    vkhmm_buffer index = alloc_bytes(rt, 12, "index"), single = alloc_bytes(rt, 4, "single");
    struct touch words = touch(index, VKHMM_ACCESS_WRITE);
    memcpy(words.bytes, (uint32_t[]){0, 1, n - 1}, 12);
    release(words);
    vkhmm_csr sparse = {.rows = 1,
                        .cols = n,
                        .row_start = {.buffer = index, .bytes = 8, .kind = VKHMM_ACCESS_READ},
                        .columns = {.buffer = index, .offset = 8, .bytes = 4, .kind = VKHMM_ACCESS_READ},
                        .values = {.buffer = x, .bytes = 4, .kind = VKHMM_ACCESS_READ}};
    vkhmm_access row = {.buffer = x, .bytes = n * 4, .kind = VKHMM_ACCESS_READ}, product = all(single, VKHMM_ACCESS_OVERWRITE);
    OK(vkhmm_kernels_spmv(&sparse, &row, &product, NULL));
    CHECK(only(single) == 4.0f);
    ANSWERS(VKHMM_ERROR_INVALID_ARGUMENT, vkhmm_kernels_spmv(NULL, &row, &product, NULL));
    close_runtime(rt);
}

const struct test BINDINGS[] = {
    {"buffers_are_found_by_address", buffers_are_found_by_address},
    {"handles_are_released_without_a_word", handles_are_released_without_a_word},
    {"waits_may_be_bounded", waits_may_be_bounded},
    {"an_allocator_manages_what_is_large", an_allocator_manages_what_is_large},
    {"shipped_kernels_need_no_module", shipped_kernels_need_no_module},
    {NULL, NULL},
};
