/* A runtime on a device of the program's own: what is asked for before it is created, what it may be, and its end. */
#include "check.h"
#include <pthread.h>
#include <vulkan/vulkan.h>

/* A device as an application makes it: everything that vkhmm asked for is on, and it keeps one queue. */
struct own {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t family;
    vkhmm_requirements wanted;
    const char *names[64];
    vkhmm_parts parts;
    vkhmm_queue shared;
    pthread_mutex_t lock;
    int locked, times;
};

static void vk(VkResult result, int line)
{
    if (result != VK_SUCCESS) failed(__FILE__, line, "Vulkan", "refused");
}
#define VK(call) vk((call), __LINE__)

static void lock_queue(void *user)
{
    struct own *own = user;
    pthread_mutex_lock(&own->lock);
    CHECK(own->locked == 0);
    own->locked = 1, own->times++;
}

static void unlock_queue(void *user)
{
    struct own *own = user;
    CHECK(own->locked == 1);
    own->locked = 0;
    pthread_mutex_unlock(&own->lock);
}

static void make_instance(struct own *own)
{
    VkApplicationInfo app = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app};
    uint32_t one = 1;
    memset(own, 0, sizeof *own);
    pthread_mutex_init(&own->lock, NULL);
    VK(vkCreateInstance(&info, NULL, &own->instance));
    VkResult found = vkEnumeratePhysicalDevices(own->instance, &one, &own->physical);
    CHECK(one == 1 && (found == VK_SUCCESS || found == VK_INCOMPLETE));
}

static void make_device(struct own *own)
{
    vkhmm_wanted extensions[64];
    size_t count;
    float priority = 1;
    make_instance(own);
    OK(vkhmm_requirements_query(vkGetInstanceProcAddr, own->instance, own->physical, VK_API_VERSION_1_3, VKHMM_LEVEL_EVERYTHING, &own->wanted));
    OK(vkhmm_requirements_extensions(own->wanted, extensions, 64, &count));
    OK(vkhmm_requirements_feature_chain(own->wanted, &own->parts.features));
    for (size_t i = 0; i < count; i++) own->names[i] = extensions[i].name;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = 1, .pQueuePriorities = &priority};
    VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = own->parts.features,
        .queueCreateInfoCount = 1, .pQueueCreateInfos = &queue,
        .enabledExtensionCount = (uint32_t)count, .ppEnabledExtensionNames = own->names};
    VK(vkCreateDevice(own->physical, &info, NULL, &own->device));
    vkGetDeviceQueue(own->device, 0, 0, &own->queue);
    own->shared = (vkhmm_queue){own->queue, 0, 0, lock_queue, unlock_queue, own};
    own->parts = (vkhmm_parts){.size = sizeof own->parts, .get_instance_proc_addr = vkGetInstanceProcAddr, .instance = own->instance,
        .physical_device = own->physical, .device = own->device, .extensions = own->names, .extension_count = count,
        .features = own->parts.features, .queues = &own->shared, .queue_count = 1, .families = &own->family, .family_count = 1,
        .limit = 16 << 20, .api_version = VK_API_VERSION_1_3};
}

static void drop_device(struct own *own)
{
    vkDestroyDevice(own->device, NULL);
    vkDestroyInstance(own->instance, NULL);
    if (own->wanted.id) OK(vkhmm_requirements_destroy(own->wanted));
}

/* Memory that the CPU reads itself: then the only queue may be shared. */
static vkhmm_runtime_options coherent(void)
{
    vkhmm_runtime_options o = options();
    o.memory_kind = VKHMM_MEMORY_KIND_DEVICE_COHERENT;
    o.in_place = VKHMM_OFF;
    return o;
}

static void requirements_are_asked_before_the_device(void)
{
    struct own own;
    vkhmm_wanted list[256], few[256];
    vkhmm_wanted_queue queues[16];
    vkhmm_requirements all, least;
    size_t count, least_count, queue_count, needed;
    const void *chain;
    char text[20000];
    make_instance(&own);
    OK(vkhmm_requirements_query(vkGetInstanceProcAddr, own.instance, own.physical, VK_API_VERSION_1_3, VKHMM_LEVEL_EVERYTHING, &all));
    OK(vkhmm_requirements_query(vkGetInstanceProcAddr, own.instance, own.physical, VK_API_VERSION_1_3, VKHMM_LEVEL_REQUIRED, &least));
    OK(vkhmm_requirements_features(all, list, 256, &count));
    OK(vkhmm_requirements_features(least, few, 256, &least_count));
    CHECK(count > least_count && least_count > 0);
    int timeline = 0;
    for (size_t i = 0; i < least_count; i++) {
        CHECK(few[i].lost == NULL);
        timeline |= strcmp(few[i].name, "timelineSemaphore") == 0;
    }
    CHECK(timeline);
    for (size_t i = 0; i < count; i++) CHECK(list[i].name[0] && (!list[i].lost || list[i].lost[0]));
    OK(vkhmm_requirements_extensions(all, list, 256, &count));
    OK(vkhmm_requirements_queues(all, queues, 16, &queue_count));
    CHECK(queue_count > 0 && queues[0].required == 1 && queues[0].count == 1 && queues[0].roles & VKHMM_ROLE_COMPUTE);
    OK(vkhmm_requirements_feature_chain(all, &chain));
    CHECK(((const VkBaseInStructure *)chain)->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2);
    OK(vkhmm_requirements_text(all, text, sizeof text, &needed));
    CHECK(strstr(text, "timelineSemaphore: required") && needed == strlen(text) + 1);
    /* What cannot be asked. */
    const vkhmm_result wrong = VKHMM_ERROR_INVALID_ARGUMENT;
    vkhmm_requirements none;
    ANSWERS(wrong, vkhmm_requirements_query(NULL, own.instance, own.physical, VK_API_VERSION_1_3, VKHMM_LEVEL_REQUIRED, &none));
    ANSWERS(wrong, vkhmm_requirements_query(vkGetInstanceProcAddr, NULL, own.physical, VK_API_VERSION_1_3, VKHMM_LEVEL_REQUIRED, &none));
    ANSWERS(wrong, vkhmm_requirements_query(vkGetInstanceProcAddr, own.instance, NULL, VK_API_VERSION_1_3, VKHMM_LEVEL_REQUIRED, &none));
    ANSWERS(wrong, vkhmm_requirements_query(vkGetInstanceProcAddr, own.instance, own.physical, VK_API_VERSION_1_3, 0, &none));
    ANSWERS(wrong, vkhmm_requirements_query(vkGetInstanceProcAddr, own.instance, own.physical, VK_API_VERSION_1_3, VKHMM_LEVEL_REQUIRED, NULL));
    ANSWERS(VKHMM_ERROR_NO_DEVICE, vkhmm_requirements_query(vkGetInstanceProcAddr, own.instance, own.physical, VK_API_VERSION_1_0, VKHMM_LEVEL_REQUIRED, &none));
    OK(vkhmm_requirements_destroy(least));
    OK(vkhmm_requirements_destroy(all));
    vkhmm_requirements bad[] = {all, {0}};
    for (int i = 0; i < 2; i++) {
        const vkhmm_result code = i ? VKHMM_ERROR_INVALID_HANDLE : VKHMM_ERROR_STALE_HANDLE;
        ANSWERS(code, vkhmm_requirements_extensions(bad[i], list, 1, NULL));
        ANSWERS(code, vkhmm_requirements_features(bad[i], list, 1, NULL));
        ANSWERS(code, vkhmm_requirements_queues(bad[i], queues, 1, NULL));
        ANSWERS(code, vkhmm_requirements_feature_chain(bad[i], &chain));
        ANSWERS(code, vkhmm_requirements_text(bad[i], text, sizeof text, NULL));
        ANSWERS(code, vkhmm_requirements_destroy(bad[i]));
    }
    vkDestroyInstance(own.instance, NULL);
}

static void a_runtime_on_the_programs_device(void)
{
    struct own own;
    vkhmm_runtime rt;
    vkhmm_runtime_options o = coherent();
    uint64_t limit;
    make_device(&own);
    OK(vkhmm_runtime_from_vulkan(&own.parts, &o, &rt));
    OK(vkhmm_runtime_device_memory(rt, &limit, NULL));
    CHECK(limit == 16 << 20);
    vkhmm_kernel k = kernel(rt, "scale");
    vkhmm_buffer x = alloc_bytes(rt, 64 * PAGE, "x");
    number(x, 64 * WORDS);
    for (int i = 0; i < 3; i++) OK(scale(k, x, 64 * WORDS, 2.0f, NULL));
    compare(x, 64 * WORDS, 8.0f);
    CHECK(own.times > 0 && own.locked == 0);
    OK(scale(k, x, 64 * WORDS, 2.0f, NULL));
    /* The end takes everything along, finishes what was launched, and can be waited for in steps. */
    vkhmm_result closed;
    while ((closed = vkhmm_runtime_close(rt, 1000000)) == VKHMM_TIMEOUT)
        ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_runtime_sync(rt));
    CHECK(closed == VKHMM_OK);
    ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_runtime_close(rt, VKHMM_FOREVER));
    ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_free(x));
    int times = own.times;
    drop_device(&own);
    CHECK(own.times == times);
}

static void runtimes_of_their_own_close_too(void)
{
    vkhmm_runtime rt = open_runtime();
    number(alloc_bytes(rt, PAGE, "x"), WORDS);
    OK(vkhmm_runtime_close(rt, VKHMM_FOREVER));
    ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_runtime_destroy(rt));
    ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_runtime_close((vkhmm_runtime){0}, 0));
}

static void parts_that_do_not_fit(void)
{
    struct own own;
    vkhmm_runtime rt;
    vkhmm_runtime_options o = coherent();
    const vkhmm_result wrong = VKHMM_ERROR_INVALID_ARGUMENT;
    make_device(&own);
    vkhmm_parts p = own.parts;
    ANSWERS(wrong, vkhmm_runtime_from_vulkan(NULL, &o, &rt));
    ANSWERS(wrong, vkhmm_runtime_from_vulkan(&p, &o, NULL));
    p.size = 0;
    ANSWERS(wrong, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    p = own.parts, p.get_instance_proc_addr = NULL;
    ANSWERS(wrong, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    p = own.parts, p.instance = NULL;
    ANSWERS(wrong, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    p = own.parts, p.physical_device = NULL;
    ANSWERS(wrong, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    p = own.parts, p.device = NULL;
    ANSWERS(wrong, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    p = own.parts, p.queues = NULL;
    ANSWERS(wrong, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    vkhmm_queue half = own.shared;
    half.unlock = NULL;
    p = own.parts, p.queues = &half;
    ANSWERS(wrong, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    SAYS("one of lock and unlock");
    half.queue = NULL;
    ANSWERS(wrong, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    const char *nothing = NULL;
    p = own.parts, p.extensions = &nothing, p.extension_count = 1;
    ANSWERS(wrong, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    /* Features that are required and off. */
    p = own.parts, p.features = NULL;
    ANSWERS(VKHMM_ERROR_NO_DEVICE, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    SAYS("timelineSemaphore");
    uint32_t far = 99;
    p = own.parts, p.families = &far;
    ANSWERS(VKHMM_ERROR_NO_DEVICE, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    SAYS("queue family 99");
    p = own.parts, p.queue_count = 0;
    ANSWERS(VKHMM_ERROR_NO_DEVICE, vkhmm_runtime_from_vulkan(&p, &o, &rt));
    o.device = "any";
    ANSWERS(VKHMM_ERROR_SETTING, vkhmm_runtime_from_vulkan(&own.parts, &o, &rt));
    /* One queue for both, and memory that only the queue can read. */
    o = coherent(), o.memory_kind = VKHMM_MEMORY_KIND_DEVICE_PRIVATE;
    if (!is_declared()) {
        ANSWERS(VKHMM_ERROR_SHARED_QUEUE, vkhmm_runtime_from_vulkan(&own.parts, &o, &rt));
        SAYS("DeviceCoherent");
    }
    drop_device(&own);
}

/* What a program submits for itself: a fill of what was acquired, after `wait`, and a timeline of its own. */
struct work {
    VkCommandPool pool;
    VkSemaphore timeline;
    uint64_t value;
};

static struct work make_work(struct own *own)
{
    struct work work = {0};
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO, .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    VK(vkCreateCommandPool(own->device, &pool, NULL, &work.pool));
    VK(vkCreateSemaphore(own->device, &semaphore, NULL, &work.timeline));
    return work;
}

static void submit_fill(struct own *own, struct work *work, vkhmm_placed to, vkhmm_wait wait, uint32_t word)
{
    VkCommandBufferAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = work->pool, .commandBufferCount = 1};
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VkCommandBuffer commands;
    VK(vkAllocateCommandBuffers(own->device, &allocate, &commands));
    VK(vkBeginCommandBuffer(commands, &begin));
    vkCmdFillBuffer(commands, to.buffer, to.offset, to.size, word);
    VK(vkEndCommandBuffer(commands));
    VkSemaphoreSubmitInfo before = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO, .semaphore = wait.semaphore, .value = wait.value, .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    VkSemaphoreSubmitInfo after = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO, .semaphore = work->timeline, .value = ++work->value, .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    VkCommandBufferSubmitInfo buffer = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO, .commandBuffer = commands};
    VkSubmitInfo2 info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2, .waitSemaphoreInfoCount = 1, .pWaitSemaphoreInfos = &before,
        .commandBufferInfoCount = 1, .pCommandBufferInfos = &buffer, .signalSemaphoreInfoCount = 1, .pSignalSemaphoreInfos = &after};
    lock_queue(own);
    VkResult result = vkQueueSubmit2(own->queue, 1, &info, VK_NULL_HANDLE);
    unlock_queue(own);
    VK(result);
}

static void drop_work(struct own *own, struct work *work)
{
    /* lavapipe's queue thread looks at the semaphores of a submission once more after it has signalled its last. */
    vkDeviceWaitIdle(own->device);
    vkDestroySemaphore(own->device, work->timeline, NULL);
    vkDestroyCommandPool(own->device, work->pool, NULL);
}

static void expect_words(vkhmm_buffer buffer, size_t from, size_t to, uint32_t word)
{
    struct touch t = touch(buffer, VKHMM_ACCESS_READ);
    for (size_t i = from; i < to; i++) CHECK(((uint32_t *)t.bytes)[i] == word);
    release(t);
}

static void acquired_bytes_are_the_programs_until_released(void)
{
    struct own own;
    vkhmm_runtime rt;
    vkhmm_runtime_options o = coherent();
    vkhmm_acquired acquired, other;
    vkhmm_placed placed[2], again;
    vkhmm_wait wait;
    uint32_t yes;
    make_device(&own);
    OK(vkhmm_runtime_from_vulkan(&own.parts, &o, &rt));
    struct work work = make_work(&own);
    vkhmm_kernel k = kernel(rt, "scale");
    vkhmm_buffer x = alloc_bytes(rt, 64 * PAGE, "x"), y = alloc_bytes(rt, 64 * PAGE, "y");
    number(x, 64 * WORDS);
    OK(scale(k, x, 64 * WORDS, 2.0f, NULL));
    vkhmm_access accesses[] = {all(x, VKHMM_ACCESS_WRITE), all(y, VKHMM_ACCESS_READ)};
    accesses[0].bytes = 32 * PAGE;
    OK(vkhmm_can_acquire(rt, 1 << 20, &yes));
    CHECK(yes == 1);
    OK(vkhmm_can_acquire(rt, 1 << 30, &yes));
    CHECK(yes == 0);
    OK(vkhmm_acquire(rt, accesses, 2, "two", &acquired, placed, &wait));
    CHECK(placed[0].buffer && placed[0].size == 32 * PAGE && placed[0].address && placed[1].buffer && wait.semaphore && wait.value);
    vkhmm_placement_kind kind;
    size_t needed;
    OK(vkhmm_buffer_placement(x, &kind, NULL, 0, &needed));
    CHECK(placed[0].stable == (kind != VKHMM_PLACEMENT_SPAN));
    /* Nobody gets in between; reads beside reads do. */
    ANSWERS(VKHMM_ERROR_ACQUIRED, scale(k, x, 64 * WORDS, 2.0f, NULL));
    SAYS("`x` is acquired by `two`");
    ANSWERS(VKHMM_ERROR_ACQUIRED, vkhmm_acquire(rt, accesses, 1, NULL, &other, &again, &wait));
    vkhmm_wait second;
    OK(vkhmm_acquire(rt, accesses + 1, 1, NULL, &other, &again, &second));
    OK(vkhmm_acquired_cancel(other));
    submit_fill(&own, &work, placed[0], wait, 0x40400000);
    OK(vkhmm_release(acquired, work.timeline, work.value));
    ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_release(acquired, work.timeline, work.value));
    ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_acquired_cancel(acquired));
    /* What comes later, a kernel or a touch, comes after the program's work: 3 * 2, beside 2 * i * 2. */
    OK(scale(k, x, 64 * WORDS, 2.0f, NULL));
    expect_words(x, 0, 32 * WORDS, 0x40c00000);
    /* Cancelled: nothing was done; what was to be overwritten is zero. */
    accesses[0].kind = VKHMM_ACCESS_OVERWRITE;
    OK(vkhmm_acquire(rt, accesses, 1, "nothing", &acquired, placed, &wait));
    OK(vkhmm_acquired_cancel(acquired));
    expect_words(x, 0, 32 * WORDS, 0);
    /* No bytes, no accesses. */
    accesses[0].bytes = 0;
    OK(vkhmm_acquire(rt, accesses, 1, "none", &acquired, placed, &wait));
    CHECK(placed[0].buffer == VK_NULL_HANDLE && placed[0].size == 0);
    OK(vkhmm_acquired_cancel(acquired));
    OK(vkhmm_acquire(rt, NULL, 0, "none", &acquired, NULL, &wait));
    OK(vkhmm_acquired_cancel(acquired));
    /* Freed in between: the memory stays until the release. */
    accesses[1].kind = VKHMM_ACCESS_WRITE;
    OK(vkhmm_acquire(rt, accesses + 1, 1, "freed", &acquired, placed, &wait));
    OK(vkhmm_free(y));
    submit_fill(&own, &work, placed[0], wait, 1);
    OK(vkhmm_release(acquired, work.timeline, work.value));
    ANSWERS(VKHMM_OK, vkhmm_runtime_close(rt, 10000000000ull));
    drop_work(&own, &work);
    drop_device(&own);
}

static void acquires_that_cannot_be(void)
{
    struct own own;
    vkhmm_runtime rt, theirs = open_runtime();
    vkhmm_runtime_options o = coherent();
    vkhmm_acquired acquired = {0};
    vkhmm_placed placed[2];
    vkhmm_wait wait;
    uint32_t yes;
    const vkhmm_result wrong = VKHMM_ERROR_INVALID_ARGUMENT;
    make_device(&own);
    OK(vkhmm_runtime_from_vulkan(&own.parts, &o, &rt));
    vkhmm_buffer x = alloc_bytes(rt, 64 * PAGE, "x"), big = alloc_bytes(rt, 64 << 20, "big");
    vkhmm_access a = all(x, VKHMM_ACCESS_WRITE), b = all(big, VKHMM_ACCESS_READ), foreign;
    ANSWERS(wrong, vkhmm_acquire(rt, NULL, 1, NULL, &acquired, placed, &wait));
    ANSWERS(wrong, vkhmm_acquire(rt, &a, 1, NULL, NULL, placed, &wait));
    ANSWERS(wrong, vkhmm_acquire(rt, &a, 1, NULL, &acquired, NULL, &wait));
    ANSWERS(wrong, vkhmm_acquire(rt, &a, 1, NULL, &acquired, placed, NULL));
    ANSWERS(wrong, vkhmm_can_acquire(rt, 1, NULL));
    ANSWERS(VKHMM_ERROR_WORKING_SET_TOO_LARGE, vkhmm_acquire(rt, &b, 1, NULL, &acquired, placed, &wait));
    foreign = all(alloc_bytes(theirs, PAGE, "theirs"), VKHMM_ACCESS_READ);
    ANSWERS(VKHMM_ERROR_FOREIGN, vkhmm_acquire(rt, &foreign, 1, NULL, &acquired, placed, &wait));
    a.bytes = 65 * PAGE;
    ANSWERS(VKHMM_ERROR_OUT_OF_RANGE, vkhmm_acquire(rt, &a, 1, NULL, &acquired, placed, &wait));
    a.buffer.id = 0;
    ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_acquire(rt, &a, 1, NULL, &acquired, placed, &wait));
    CHECK(acquired.id == 0);
    VkSemaphore any = (VkSemaphore)&own;
    vkhmm_acquired bad[] = {{0}, {x.id}};
    for (int i = 0; i < 2; i++) {
        ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_release(bad[i], any, 1));
        ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_acquired_cancel(bad[i]));
    }
    vkhmm_runtime none = {0};
    a = all(x, VKHMM_ACCESS_WRITE);
    ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_acquire(none, &a, 1, NULL, &acquired, placed, &wait));
    ANSWERS(VKHMM_ERROR_INVALID_HANDLE, vkhmm_can_acquire(none, 1, &yes));
    OK(vkhmm_acquire(rt, &a, 1, "kept", &acquired, placed, &wait));
    ANSWERS(wrong, vkhmm_release(acquired, VK_NULL_HANDLE, 1));
    SAYS("vkhmm_acquired_cancel");
    /* Goes with its runtime: it is cancelled, and reported. */
    ANSWERS(VKHMM_OK, vkhmm_runtime_close(rt, 10000000000ull));
    ANSWERS(VKHMM_ERROR_STALE_HANDLE, vkhmm_acquired_cancel(acquired));
    drop_device(&own);
    close_runtime(theirs);
}

const struct test VULKAN[] = {
    {"requirements_are_asked_before_the_device", requirements_are_asked_before_the_device},
    {"a_runtime_on_the_programs_device", a_runtime_on_the_programs_device},
    {"runtimes_of_their_own_close_too", runtimes_of_their_own_close_too},
    {"acquired_bytes_are_the_programs_until_released", acquired_bytes_are_the_programs_until_released},
    {"acquires_that_cannot_be", acquires_that_cannot_be},
    {"parts_that_do_not_fit", parts_that_do_not_fit},
    {NULL, NULL},
};
