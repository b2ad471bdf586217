/* Threads, forked children, a device that is lost: what concerns the whole process. */
#define _DEFAULT_SOURCE
#include "check.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 50 };

struct work {
    vkhmm_runtime rt;
    vkhmm_kernel kernel;
    float factor;
};

/* Allocates, launches, touches and frees, beside others that do the same. */
static void *worker(void *given)
{
    struct work *work = given;
    for (int round = 0; round < ROUNDS; round++) {
        vkhmm_buffer x = alloc_bytes(work->rt, 4 * PAGE, "of a thread");
        vkhmm_launch launch;
        number(x, 4 * WORDS);
        OK(scale(work->kernel, x, 4 * WORDS, work->factor, &launch));
        compare(x, 4 * WORDS, work->factor);
        OK(vkhmm_launch_wait(launch, VKHMM_FOREVER));
        OK(vkhmm_launch_destroy(launch));
        OK(vkhmm_free(x));
        ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_free(x));
    }
    return NULL;
}

static void threads_share_a_runtime(void)
{
    vkhmm_runtime rt = open_runtime();
    struct work work[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        work[i] = (struct work){rt, kernel(rt, "scale"), (float)(i + 2)};
        CHECK(pthread_create(&threads[i], NULL, worker, &work[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    close_runtime(rt);
}

static void *user(void *given)
{
    vkhmm_runtime rt = *(vkhmm_runtime *)given;
    vkhmm_result result;
    do {
        vkhmm_buffer x;
        result = vkhmm_alloc(rt, PAGE, "x", &x);
        if (result == VKHMM_OK) {
            vkhmm_result freed = vkhmm_free(x);
            CHECK(freed == VKHMM_OK || freed == VKHMM_ERROR_STALE_HANDLE);
        }
    } while (result == VKHMM_OK);
    CHECK(result == VKHMM_ERROR_STALE_HANDLE);
    return NULL;
}

static void a_runtime_may_be_destroyed_while_others_use_it(void)
{
    vkhmm_runtime rt = open_runtime();
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, user, &rt) == 0);
    usleep(20000);
    OK(vkhmm_runtime_destroy(rt));
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void *quiet(void *given)
{
    (void)given;
    CHECK(vkhmm_last_error()[0] == 0);
    ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_host_end((vkhmm_guard){0}));
    return NULL;
}

static void each_thread_has_its_own_last_error(void)
{
    pthread_t thread;
    ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_free((vkhmm_buffer){0}));
    CHECK(pthread_create(&thread, NULL, quiet, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    SAYS("is no vkhmm_buffer");
    /* Not a call that answers: it reads the text and leaves it. */
    CHECK(vkhmm_version()[0] && vkhmm_result_name(0)[0]);
    SAYS("is no vkhmm_buffer");
}

static void in_a_child(vkhmm_runtime rt, vkhmm_buffer x, vkhmm_kernel k, vkhmm_launch launch, vkhmm_guard guard,
    vkhmm_acquired acquired)
{
    void *pointer;
    size_t needed;
    const vkhmm_result forked = VKHMM_ERROR_FORKED;
    vkhmm_buffer y;
    ANSWERS(forked, vkhmm_alloc(rt, 1, NULL, &y));
    SAYS("forked child");
    ANSWERS(forked, vkhmm_buffer_pointer(x, &pointer));
    ANSWERS(forked, scale(k, x, 1, 2.0f, NULL));
    ANSWERS(forked, vkhmm_launch_wait(launch, VKHMM_FOREVER));
    ANSWERS(forked, vkhmm_runtime_doctor(rt, NULL, 0, &needed));
    ANSWERS(forked, vkhmm_runtime_sync(rt));
    /* Frees do nothing, as often as they are called. */
    for (int i = 0; i < 2; i++) {
        ANSWERS(forked, vkhmm_host_end(guard));
        ANSWERS(forked, vkhmm_acquired_cancel(acquired));
        ANSWERS(forked, vkhmm_launch_destroy(launch));
        ANSWERS(forked, vkhmm_kernel_destroy(k));
        ANSWERS(forked, vkhmm_free(x));
        ANSWERS(forked, vkhmm_runtime_close(rt, VKHMM_FOREVER));
        ANSWERS(forked, vkhmm_runtime_destroy(rt));
    }
}

static void a_forked_child_is_told_and_harms_nobody(void)
{
    vkhmm_runtime rt = open_runtime();
    vkhmm_buffer x = alloc_bytes(rt, 4 * PAGE, "x"), y = alloc_bytes(rt, PAGE, "y");
    vkhmm_kernel k = kernel(rt, "scale");
    vkhmm_launch launch;
    vkhmm_guard guard;
    vkhmm_acquired acquired;
    vkhmm_placed placed;
    vkhmm_wait wait;
    int status;
    vkhmm_access z = all(alloc_bytes(rt, PAGE, "z"), VKHMM_ACCESS_WRITE);
    OK(vkhmm_acquire(rt, &z, 1, "z", &acquired, &placed, &wait));
    number(x, 4 * WORDS);
    OK(scale(k, x, 4 * WORDS, 2.0f, &launch));
    OK(vkhmm_host_begin(y, 0, PAGE, VKHMM_ACCESS_WRITE, &guard, NULL));
#ifdef __SANITIZE_ADDRESS__
    /* Its allocator is not made usable in a child: nobody may be allocating while this forks. */
    OK(vkhmm_launch_wait(launch, VKHMM_FOREVER));
    usleep(50000);
#endif
    pid_t child = fork();
    if (child == 0) {
        in_a_child(rt, x, k, launch, guard, acquired);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(vkhmm_host_end(guard));
    OK(vkhmm_acquired_cancel(acquired));
    OK(vkhmm_launch_wait(launch, VKHMM_FOREVER));
    compare(x, 4 * WORDS, 2.0f);
    close_runtime(rt);
}

static void a_lost_device_is_named(void)
{
    vkhmm_runtime_options o = options();
    vkhmm_runtime rt;
    uint64_t calls = 0;
    /* How many calls it takes to run a kernel; then as often as it takes until the device is lost some time after that. */
    for (int round = 0; round < 2; round++) {
        o.in_place = VKHMM_OFF;
        o.test_lose_at_call = round ? 2 * calls : 0;
        OK(vkhmm_runtime_create(&o, &rt));
        vkhmm_buffer x = alloc_bytes(rt, 4 * PAGE, "x"), y = alloc_bytes(rt, PAGE, "y");
        vkhmm_kernel k = kernel(rt, "scale");
        number(x, 4 * WORDS);
        number(y, WORDS);
        if (round == 0) {
            OK(scale(k, x, 4 * WORDS, 2.0f, NULL));
            OK(vkhmm_runtime_sync(rt));
            OK(vkhmm_runtime_device_calls(rt, &calls));
        } else {
            vkhmm_result result;
            do result = scale(k, x, 4 * WORDS, 2.0f, NULL);
            while (result == VKHMM_OK && (result = vkhmm_runtime_sync(rt)) == VKHMM_OK);
            CHECK(result == VKHMM_ERROR_DEVICE_LOST);
            SAYS("lost");
            ANSWERS(VKHMM_ERROR_LOST, vkhmm_buffer_check(x, 0, VKHMM_WHOLE_SIZE));
            SAYS("`x`");
            OK(vkhmm_buffer_check(y, 0, VKHMM_WHOLE_SIZE));
            compare(y, WORDS, 1.0f);
            vkhmm_guard guard;
            vkhmm_result lost = vkhmm_host_begin(x, 0, VKHMM_WHOLE_SIZE, VKHMM_ACCESS_READ, &guard, NULL);
            CHECK(lost == VKHMM_ERROR_LOST || lost == VKHMM_ERROR_DEVICE_LOST);
        }
        OK(vkhmm_runtime_destroy(rt));
    }
}

const struct test PROCESS[] = {
    {"threads_share_a_runtime", threads_share_a_runtime},
    {"a_runtime_may_be_destroyed_while_others_use_it", a_runtime_may_be_destroyed_while_others_use_it},
    {"each_thread_has_its_own_last_error", each_thread_has_its_own_last_error},
    {"a_forked_child_is_told_and_harms_nobody", a_forked_child_is_told_and_harms_nobody},
    {"a_lost_device_is_named", a_lost_device_is_named},
    {NULL, NULL},
};
