/* y = 2x + y on memory that is ordinary to the CPU. cc saxpy.c $(pkg-config --cflags --libs vkhmm); ./a.out shaders/spv/saxpy.spv */
#include <stdio.h>
#include <stdlib.h>
#include <vkhmm.h>

static void ok(vkhmm_result result)
{
    if (result == VKHMM_OK) return;
    fprintf(stderr, "%s: %s\n", vkhmm_result_name(result), vkhmm_last_error());
    exit(1);
}

int main(int count, char **arguments)
{
    enum { N = 1 << 20 };
    static char spirv[1 << 16];
    FILE *file = count > 1 ? fopen(arguments[1], "rb") : NULL;
    if (!file) return fprintf(stderr, "usage: saxpy shaders/spv/saxpy.spv\n"), 2;
    size_t bytes = fread(spirv, 1, sizeof spirv, file);

    vkhmm_runtime rt;
    vkhmm_buffer x, y;
    vkhmm_kernel saxpy;
    float *in, *out;
    vkhmm_guard guard;
    ok(vkhmm_runtime_create(NULL, &rt));
    ok(vkhmm_alloc(rt, N * sizeof(float), "x", &x));
    ok(vkhmm_alloc(rt, N * sizeof(float), "y", &y));
    ok(vkhmm_kernel_create(rt, spirv, bytes, NULL, &saxpy));
    ok(vkhmm_host_begin(x, 0, VKHMM_WHOLE_SIZE, VKHMM_ACCESS_WRITE, &guard, (void **)&in));
    for (int i = 0; i < N; i++) in[i] = (float)i;
    ok(vkhmm_host_end(guard)); /* needed where touches do not fault; elsewhere the pointer alone will do */

    float a = 2;
    unsigned n = N;
    vkhmm_access accesses[] = {{x, 0, VKHMM_WHOLE_SIZE, VKHMM_ACCESS_READ, 0}, {y, 0, VKHMM_WHOLE_SIZE, VKHMM_ACCESS_WRITE, 0}};
    vkhmm_value values[] = {{&a, sizeof a}, {&n, sizeof n}};
    ok(vkhmm_kernel_launch(saxpy, (vkhmm_grid){.items = N}, accesses, 2, values, 2, NULL)); /* asynchronous */

    ok(vkhmm_host_begin(y, 0, VKHMM_WHOLE_SIZE, VKHMM_ACCESS_READ, &guard, (void **)&out)); /* waits, and brings y home */
    for (int i = 0; i < N; i++)
        if (out[i] != 2.0f * (float)i) return fprintf(stderr, "y[%d] is %g\n", i, (double)out[i]), 1;
    ok(vkhmm_host_end(guard));
    printf("%d elements right\n", N);
    ok(vkhmm_runtime_destroy(rt));
    return 0;
}
