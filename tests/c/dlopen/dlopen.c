/* libvkhmm opened by dlopen, as plugins and interpreters do: managed memory touched by plain pthreads with small stacks, with and
 * without an alternate stack, moved to the device and touched again; the program's own SIGSEGV handler, installed before, gets what
 * is not managed memory, also after the library is closed.
 *
 * Usage: dlopen LIBRARY FOLDER-WITH-SPIR-V [ENGINE]: the engine that must have been chosen, by its name in doctor. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vkhmm.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            printf("test result: FAILED. 0 passed; 1 failed; 0 ignored;\n"); \
            fflush(stdout); \
            _Exit(1); \
        } \
    } while (0)

/* Functions of the library, looked up by name. */
#define LOOK_UP(name) \
    __typeof__(&name) name##_; \
    *(void **)&name##_ = dlsym(library, #name); \
    CHECK(name##_)

enum { WORDS = 64 << 10, STRIDE = 1024, STACK = 64 << 10, ALTERNATE = 8192 };

static volatile sig_atomic_t foreign_faults;
static char *foreign;

static void own_handler(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    if (info->si_addr != foreign) _Exit(3);
    foreign_faults++;
    mprotect(foreign, 4096, PROT_READ | PROT_WRITE);
}

static void touch_foreign(void)
{
    int before = foreign_faults;
    CHECK(mprotect(foreign, 4096, PROT_NONE) == 0);
    *(volatile char *)foreign = 1;
    CHECK(foreign_faults == before + 1);
}

struct work {
    volatile float *words;
    float expected, next;
    int alternate;
};

static void *toucher(void *given)
{
    struct work *work = given;
    char alternate[ALTERNATE];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    if (work->alternate) CHECK(sigaltstack(&stack, NULL) == 0);
    for (int i = 0; i < WORDS; i += STRIDE) {
        CHECK(work->words[i] == work->expected);
        work->words[i] = work->next;
    }
    stack.ss_flags = SS_DISABLE;
    if (work->alternate) CHECK(sigaltstack(&stack, NULL) == 0);
    return NULL;
}

static void on_plain_thread(struct work work)
{
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, STACK) == 0);
    CHECK(pthread_create(&thread, &attributes, toucher, &work) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    pthread_attr_destroy(&attributes);
}

static void *read_all(const char *folder, const char *name, size_t *bytes)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.spv", folder, name);
    FILE *file = fopen(path, "rb");
    CHECK(file);
    void *all = malloc(1 << 20);
    *bytes = fread(all, 1, 1 << 20, file);
    fclose(file);
    return all;
}

int main(int count, char **arguments)
{
    CHECK(count >= 3);
    foreign = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = own_handler;
    action.sa_flags = SA_SIGINFO;
    CHECK(foreign != MAP_FAILED && sigaction(SIGSEGV, &action, NULL) == 0);

    void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) fprintf(stderr, "%s\n", dlerror());
    CHECK(library);
    LOOK_UP(vkhmm_runtime_create);
    LOOK_UP(vkhmm_runtime_doctor);
    LOOK_UP(vkhmm_runtime_close);
    LOOK_UP(vkhmm_last_error);
    LOOK_UP(vkhmm_alloc);
    LOOK_UP(vkhmm_buffer_pointer);
    LOOK_UP(vkhmm_kernel_create);
    LOOK_UP(vkhmm_kernel_launch);

    vkhmm_runtime_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.device_memory_limit = 16 << 20;
    options.in_place = VKHMM_OFF;
    vkhmm_runtime runtime;
    vkhmm_result made = vkhmm_runtime_create_(&options, &runtime);
    if (made != VKHMM_OK) fprintf(stderr, "%s\n", vkhmm_last_error_());
    CHECK(made == VKHMM_OK);
    char doctor[1 << 16], expected[256];
    CHECK(vkhmm_runtime_doctor_(runtime, doctor, sizeof doctor, NULL) == VKHMM_OK);
    snprintf(expected, sizeof expected, "fault engine: %s (", count > 3 ? arguments[3] : "");
    if (count > 3 && !strstr(doctor, expected)) fprintf(stderr, "%s\n", doctor);
    CHECK(count <= 3 || strstr(doctor, expected));
    touch_foreign();

    vkhmm_buffer buffer;
    void *pointer;
    CHECK(vkhmm_alloc_(runtime, WORDS * sizeof(float), "of a plugin", &buffer) == VKHMM_OK);
    CHECK(vkhmm_buffer_pointer_(buffer, &pointer) == VKHMM_OK);
    size_t bytes;
    void *module = read_all(arguments[2], "scale", &bytes);
    vkhmm_kernel kernel;
    CHECK(vkhmm_kernel_create_(runtime, module, bytes, NULL, &kernel) == VKHMM_OK);
    free(module);
    float two = 2, value = 0;
    for (int round = 0; round < 6; round++) {
        on_plain_thread((struct work){pointer, value, value + 1, round % 2});
        value = (value + 1) * two;
        vkhmm_access all = {.buffer = buffer, .bytes = VKHMM_WHOLE_SIZE, .kind = VKHMM_ACCESS_WRITE};
        vkhmm_value by = {&two, sizeof two};
        CHECK(vkhmm_kernel_launch_(kernel, (vkhmm_grid){.items = WORDS}, &all, 1, &by, 1, NULL) == VKHMM_OK);
        touch_foreign();
    }
    on_plain_thread((struct work){pointer, value, 0, 0});
    CHECK(vkhmm_runtime_close_(runtime, VKHMM_FOREVER) == VKHMM_OK);
    CHECK(dlclose(library) == 0);
    touch_foreign();
    printf("test result: ok. 1 passed; 0 failed; 0 ignored;\n");
    return 0;
}
