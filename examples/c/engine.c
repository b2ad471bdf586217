/*
 * An engine that has everything already: its own VkDevice, many tensors in a few buffers, descriptors written once, command buffers of
 * 100 dispatches recorded once. vkhmm gives it tensors that take twice the device memory they are given: each batch is acquired,
 * submitted and released, and no descriptor is touched again.
 *
 * usage: engine saxpy.spv [--in-place]     (cc engine.c -lvulkan $(pkg-config --cflags --libs vkhmm))
 *
 * It needs buffers that stay where they are: sparse buffers, or (--in-place) a device that works on host memory. Where neither can be
 * had it says why, and ends with 3.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vkhmm.h>
#include <vulkan/vulkan.h>

enum {
    TENSOR_BYTES = 256 << 10,
    WORDS = TENSOR_BYTES / 4,
    BUFFERS = 4,
    PER_BUFFER = 125,
    TENSORS = BUFFERS * PER_BUFFER, /* 125 MiB */
    BATCH = 100,
    BATCHES = TENSORS / BATCH,
    PASSES = 3,
    LIMIT = 62 << 20,
    WORDS_OF_A_BUFFER = PER_BUFFER * WORDS,
};

static void vk(VkResult result, const char *what)
{
    if (result == VK_SUCCESS) return;
    fprintf(stderr, "engine: %s: VkResult %d\n", what, result);
    exit(1);
}
#define VK(call) vk((call), #call)

static void ok(vkhmm_result result)
{
    if (result == VKHMM_OK) return;
    fprintf(stderr, "engine: %s: %s\n", vkhmm_result_name(result), vkhmm_last_error());
    exit(result == VKHMM_ERROR_NOT_STABLE ? 3 : 1);
}

/* What an engine has. */
static struct {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    uint32_t family;
    VkQueue queue;
    pthread_mutex_t lock; /* of the queue, where vkhmm uses it, too */
    VkSemaphore timeline; /* reaches n when the n-th submission is done */
    uint64_t submitted;
    VkShaderModule module;
    VkDescriptorSetLayout set_layout;
    VkPipelineLayout layout;
    VkPipeline pipeline;
    VkDescriptorPool descriptors;
    VkDescriptorSet sets[TENSORS];
    unsigned descriptor_writes;
    VkCommandPool pool;
    VkCommandBuffer commands[BATCHES];
} engine = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The tensors, and where they lie for the device, for good. */
static struct {
    vkhmm_buffer buffer;
    VkBuffer vk;
    VkDeviceSize start;
} memory[BUFFERS];

static void lock_queue(void *lock) { pthread_mutex_lock(lock); }
static void unlock_queue(void *lock) { pthread_mutex_unlock(lock); }

/* The queues for vkhmm, in the order of `created`, the number of queues of each family: the engine keeps the first of its own. */
static size_t plan_queues(const vkhmm_wanted_queue *wanted, size_t count, const VkQueueFamilyProperties *families,
    uint32_t *created, vkhmm_queue *own, uint32_t *index, int *own_compute)
{
    size_t planned = 0;
    created[engine.family] = 1;
    for (size_t i = 0; i < count; i++)
        for (uint32_t n = 0; n < wanted[i].count && planned < 15; n++) {
            uint32_t family = wanted[i].family;
            if (created[family] == families[family].queueCount) continue;
            own[planned] = (vkhmm_queue){.family = family};
            index[planned++] = created[family]++;
            *own_compute |= !!(families[family].queueFlags & VK_QUEUE_COMPUTE_BIT);
        }
    return planned;
}

/* Creates the device with what vkhmm asks for, and gives it queues: of its own where there are any, else the engine's under a lock. */
static vkhmm_runtime open_device(int in_place)
{
    VkApplicationInfo app = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo instance = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app};
    VK(vkCreateInstance(&instance, NULL, &engine.instance));
    uint32_t one = 1, family_count = 16;
    VkResult found = vkEnumeratePhysicalDevices(engine.instance, &one, &engine.physical);
    if (found != VK_INCOMPLETE) vk(found, "vkEnumeratePhysicalDevices");
    VkQueueFamilyProperties families[16];
    vkGetPhysicalDeviceQueueFamilyProperties(engine.physical, &family_count, families);
    while (!(families[engine.family].queueFlags & VK_QUEUE_COMPUTE_BIT)) engine.family++;

    vkhmm_requirements asked;
    vkhmm_wanted extensions[32];
    vkhmm_wanted_queue wanted[16];
    size_t extension_count, wanted_count;
    const void *features;
    ok(vkhmm_requirements_query(vkGetInstanceProcAddr, engine.instance, engine.physical, app.apiVersion,
        VKHMM_LEVEL_EVERYTHING, &asked));
    ok(vkhmm_requirements_extensions(asked, extensions, 32, &extension_count));
    ok(vkhmm_requirements_queues(asked, wanted, 16, &wanted_count));
    ok(vkhmm_requirements_feature_chain(asked, &features));

    uint32_t created[16] = {0}, index[16], info_count = 0;
    vkhmm_queue own[16];
    int own_compute = 0;
    size_t own_count = plan_queues(wanted, wanted_count, families, created, own, index, &own_compute);
    float priorities[16];
    for (int i = 0; i < 16; i++) priorities[i] = 1;
    VkDeviceQueueCreateInfo infos[16];
    for (uint32_t family = 0; family < family_count; family++)
        if (created[family])
            infos[info_count++] = (VkDeviceQueueCreateInfo){.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                .queueFamilyIndex = family, .queueCount = created[family], .pQueuePriorities = priorities};
    const char *names[32];
    for (size_t i = 0; i < extension_count; i++) names[i] = extensions[i].name;
    VkDeviceCreateInfo device = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = features,
        .queueCreateInfoCount = info_count, .pQueueCreateInfos = infos,
        .enabledExtensionCount = (uint32_t)extension_count, .ppEnabledExtensionNames = names};
    VK(vkCreateDevice(engine.physical, &device, NULL, &engine.device));
    vkGetDeviceQueue(engine.device, engine.family, 0, &engine.queue);
    for (size_t i = 0; i < own_count; i++) vkGetDeviceQueue(engine.device, own[i].family, index[i], &own[i].queue);
    if (!own_compute)
        own[own_count++] = (vkhmm_queue){engine.queue, engine.family, 0, lock_queue, unlock_queue, &engine.lock};

    vkhmm_parts parts = {.size = sizeof parts, .get_instance_proc_addr = vkGetInstanceProcAddr,
        .instance = engine.instance, .physical_device = engine.physical, .device = engine.device,
        .extensions = names, .extension_count = extension_count, .features = features,
        .queues = own, .queue_count = own_count, .families = &engine.family, .family_count = 1,
        .limit = LIMIT, .api_version = app.apiVersion};
    vkhmm_runtime_options options = {.size = sizeof options};
    /* With one queue for both, touches must be answered without it: by memory that the CPU reads itself. */
    if (in_place) options.memory_kind = VKHMM_MEMORY_KIND_UNIFIED;
    else if (!own_compute) options.memory_kind = VKHMM_MEMORY_KIND_DEVICE_COHERENT;
    vkhmm_runtime rt;
    ok(vkhmm_runtime_from_vulkan(&parts, &options, &rt));
    ok(vkhmm_requirements_destroy(asked));
    return rt;
}

static void build_pipeline(const char *path)
{
    static uint32_t spirv[1 << 14];
    FILE *file = fopen(path, "rb");
    size_t bytes = file ? fread(spirv, 1, sizeof spirv, file) : 0;
    if (bytes == 0) fprintf(stderr, "engine: cannot read %s\n", path), exit(2);
    fclose(file);
    VkShaderModuleCreateInfo module = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = bytes, .pCode = spirv};
    VK(vkCreateShaderModule(engine.device, &module, NULL, &engine.module));
    VkDescriptorSetLayoutBinding bindings[2];
    for (uint32_t i = 0; i < 2; i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){.binding = i, .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .descriptorCount = 1, .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
    VkDescriptorSetLayoutCreateInfo set = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = 2, .pBindings = bindings};
    VK(vkCreateDescriptorSetLayout(engine.device, &set, NULL, &engine.set_layout));
    VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, 8};
    VkPipelineLayoutCreateInfo layout = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, .setLayoutCount = 1,
        .pSetLayouts = &engine.set_layout, .pushConstantRangeCount = 1, .pPushConstantRanges = &push};
    VK(vkCreatePipelineLayout(engine.device, &layout, NULL, &engine.layout));
    VkComputePipelineCreateInfo pipeline = {.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO, .layout = engine.layout,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO, .stage = VK_SHADER_STAGE_COMPUTE_BIT,
            .module = engine.module, .pName = "main"}};
    VK(vkCreateComputePipelines(engine.device, VK_NULL_HANDLE, 1, &pipeline, NULL, &engine.pipeline));
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    VK(vkCreateSemaphore(engine.device, &semaphore, NULL, &engine.timeline));
}

/* Waits until the n-th submission is done. */
static void wait_for(uint64_t value)
{
    VkSemaphoreWaitInfo wait = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO, .semaphoreCount = 1,
        .pSemaphores = &engine.timeline, .pValues = &value};
    VK(vkWaitSemaphores(engine.device, &wait, UINT64_MAX));
}

/* Tensors of one buffer. */
static vkhmm_access tensors(int first, int count, vkhmm_access_kind kind)
{
    return (vkhmm_access){.buffer = memory[first / PER_BUFFER].buffer,
        .offset = (uint64_t)(first % PER_BUFFER) * TENSOR_BYTES, .bytes = (uint64_t)count * TENSOR_BYTES, .kind = kind};
}

static unsigned busy;

/* An acquire never waits for the device by itself: where it would have to, the engine waits for what it submitted. */
static vkhmm_acquired acquire(vkhmm_runtime rt, const vkhmm_access *accesses, size_t count, vkhmm_placed *placed, vkhmm_wait *wait)
{
    vkhmm_acquired acquired;
    vkhmm_result result;
    while ((result = vkhmm_acquire(rt, accesses, count, "a batch", &acquired, placed, wait)) == VKHMM_ERROR_BUSY) {
        wait_for(engine.submitted);
        nanosleep(&(struct timespec){0, 100000}, NULL); /* and for copies on their way */
        busy++;
    }
    ok(result);
    return acquired;
}

static void allocate(vkhmm_runtime rt)
{
    for (int b = 0; b < BUFFERS; b++) {
        vkhmm_guard guard;
        float *words;
        ok(vkhmm_alloc_stable(rt, (uint64_t)PER_BUFFER * TENSOR_BYTES, "tensors", &memory[b].buffer));
        ok(vkhmm_host_begin(memory[b].buffer, 0, VKHMM_WHOLE_SIZE, VKHMM_ACCESS_WRITE, &guard, (void **)&words));
        for (int i = 0; i < WORDS_OF_A_BUFFER; i++) words[i] = (float)((i + b) % 64);
        ok(vkhmm_host_end(guard));
        /* Where it lies, once and for all. */
        vkhmm_access first = tensors(b * PER_BUFFER, 1, VKHMM_ACCESS_READ);
        vkhmm_placed placed;
        vkhmm_wait wait;
        vkhmm_acquired acquired = acquire(rt, &first, 1, &placed, &wait);
        memory[b].vk = placed.buffer;
        memory[b].start = placed.offset;
        ok(vkhmm_acquired_cancel(acquired));
    }
}

/* Tensor i += half of the tensor before it: binding 0 is that, binding 1 this. */
static void write_descriptors(void)
{
    VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 2 * TENSORS};
    VkDescriptorPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO, .maxSets = TENSORS,
        .poolSizeCount = 1, .pPoolSizes = &size};
    VK(vkCreateDescriptorPool(engine.device, &pool, NULL, &engine.descriptors));
    for (int i = 0; i < TENSORS; i++) {
        VkDescriptorSetAllocateInfo set = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
            .descriptorPool = engine.descriptors, .descriptorSetCount = 1, .pSetLayouts = &engine.set_layout};
        VK(vkAllocateDescriptorSets(engine.device, &set, &engine.sets[i]));
        for (uint32_t binding = 0; binding < 2; binding++) {
            int tensor = binding == 0 ? (i + TENSORS - 1) % TENSORS : i;
            VkDescriptorBufferInfo buffer = {memory[tensor / PER_BUFFER].vk,
                memory[tensor / PER_BUFFER].start + (VkDeviceSize)(tensor % PER_BUFFER) * TENSOR_BYTES, TENSOR_BYTES};
            VkWriteDescriptorSet write = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET, .dstSet = engine.sets[i],
                .dstBinding = binding, .descriptorCount = 1, .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                .pBufferInfo = &buffer};
            vkUpdateDescriptorSets(engine.device, 1, &write, 0, NULL);
            engine.descriptor_writes++;
        }
    }
}

static void record(void)
{
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .queueFamilyIndex = engine.family};
    VK(vkCreateCommandPool(engine.device, &pool, NULL, &engine.pool));
    VkCommandBufferAllocateInfo all = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = engine.pool,
        .commandBufferCount = BATCHES};
    VK(vkAllocateCommandBuffers(engine.device, &all, engine.commands));
    for (int b = 0; b < BATCHES; b++) {
        VkCommandBuffer commands = engine.commands[b];
        VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
        struct {
            float a;
            uint32_t n;
        } push = {0.5f, WORDS};
        VK(vkBeginCommandBuffer(commands, &begin));
        vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, engine.pipeline);
        vkCmdPushConstants(commands, engine.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof push, &push);
        for (int i = b * BATCH; i < (b + 1) * BATCH; i++) {
            VkMemoryBarrier before = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
                .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT};
            vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, 0,
                1, &before, 0, NULL, 0, NULL);
            vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, engine.layout, 0, 1, &engine.sets[i], 0, NULL);
            vkCmdDispatch(commands, WORDS / 64, 1, 1);
        }
        VK(vkEndCommandBuffer(commands));
    }
}

/* Submits the batch's commands: after `wait`, and before everything that waits for the engine's timeline. */
static void submit(int batch, vkhmm_wait wait)
{
    VkSemaphoreSubmitInfo before = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO, .semaphore = wait.semaphore,
        .value = wait.value, .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    VkSemaphoreSubmitInfo after = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO, .semaphore = engine.timeline,
        .value = ++engine.submitted, .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    VkCommandBufferSubmitInfo commands = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
        .commandBuffer = engine.commands[batch]};
    VkSubmitInfo2 info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2, .waitSemaphoreInfoCount = 1, .pWaitSemaphoreInfos = &before,
        .commandBufferInfoCount = 1, .pCommandBufferInfos = &commands, .signalSemaphoreInfoCount = 1,
        .pSignalSemaphoreInfos = &after};
    pthread_mutex_lock(&engine.lock);
    VkResult result = vkQueueSubmit2(engine.queue, 1, &info, VK_NULL_HANDLE);
    pthread_mutex_unlock(&engine.lock);
    vk(result, "vkQueueSubmit2");
}

static void run_batch(vkhmm_runtime rt, int batch)
{
    vkhmm_access accesses[BUFFERS + 1];
    vkhmm_placed placed[BUFFERS + 1];
    vkhmm_wait wait;
    size_t count = 0;
    int at = batch * BATCH, end = at + BATCH;
    accesses[count++] = tensors((at + TENSORS - 1) % TENSORS, 1, VKHMM_ACCESS_READ);
    while (at < end) { /* a batch may lie in two buffers */
        int until = (at / PER_BUFFER + 1) * PER_BUFFER;
        if (until > end) until = end;
        accesses[count++] = tensors(at, until - at, VKHMM_ACCESS_WRITE);
        at = until;
    }
    vkhmm_acquired acquired = acquire(rt, accesses, count, placed, &wait);
    for (size_t i = 0; i < count; i++)
        for (int b = 0; b < BUFFERS; b++) {
            if (memory[b].buffer.id != accesses[i].buffer.id) continue;
            int same = placed[i].buffer == memory[b].vk && placed[i].offset == memory[b].start + accesses[i].offset;
            if (!placed[i].stable || !same) fprintf(stderr, "engine: tensors moved\n"), exit(1);
        }
    /* A command buffer is not submitted again before it is done. */
    if (engine.submitted >= BATCHES) wait_for(engine.submitted - BATCHES + 1);
    submit(batch, wait);
    ok(vkhmm_release(acquired, engine.timeline, engine.submitted));
}

/* The same on the CPU. Halves are exact, so every bit must agree. */
static void check(void)
{
    float *want = malloc((size_t)TENSORS * TENSOR_BYTES);
    for (int i = 0; i < TENSORS * WORDS; i++) want[i] = (float)((i % WORDS_OF_A_BUFFER + i / WORDS_OF_A_BUFFER) % 64);
    for (int pass = 0; pass < PASSES; pass++)
        for (int t = 0; t < TENSORS; t++)
            for (int i = 0; i < WORDS; i++) want[t * WORDS + i] += 0.5f * want[(t + TENSORS - 1) % TENSORS * WORDS + i];
    for (int b = 0; b < BUFFERS; b++) {
        vkhmm_guard guard;
        float *words;
        ok(vkhmm_host_begin(memory[b].buffer, 0, VKHMM_WHOLE_SIZE, VKHMM_ACCESS_READ, &guard, (void **)&words));
        if (memcmp(words, want + b * WORDS_OF_A_BUFFER, WORDS_OF_A_BUFFER * sizeof *want) != 0)
            fprintf(stderr, "engine: a wrong result in buffer %d\n", b), exit(1);
        ok(vkhmm_host_end(guard));
    }
    free(want);
}

static double mib(vkhmm_runtime rt, const char *counter)
{
    uint64_t bytes = 0;
    ok(vkhmm_runtime_counter(rt, counter, &bytes));
    return (double)bytes / (1 << 20);
}

static void close_device(void)
{
    vkDeviceWaitIdle(engine.device);
    vkDestroySemaphore(engine.device, engine.timeline, NULL);
    vkDestroyCommandPool(engine.device, engine.pool, NULL);
    vkDestroyDescriptorPool(engine.device, engine.descriptors, NULL);
    vkDestroyPipeline(engine.device, engine.pipeline, NULL);
    vkDestroyPipelineLayout(engine.device, engine.layout, NULL);
    vkDestroyDescriptorSetLayout(engine.device, engine.set_layout, NULL);
    vkDestroyShaderModule(engine.device, engine.module, NULL);
    vkDestroyDevice(engine.device, NULL);
    vkDestroyInstance(engine.instance, NULL);
}

int main(int count, char **arguments)
{
    if (count < 2) return fprintf(stderr, "usage: engine saxpy.spv [--in-place]\n"), 2;
    vkhmm_runtime rt = open_device(count > 2 && strcmp(arguments[2], "--in-place") == 0);
    build_pipeline(arguments[1]);
    allocate(rt);
    write_descriptors();
    record();
    for (int pass = 0; pass < PASSES; pass++)
        for (int batch = 0; batch < BATCHES; batch++) run_batch(rt, batch);
    wait_for(engine.submitted);
    check();
    double all = (double)TENSORS * TENSOR_BYTES / (1 << 20);
    printf("%d tensors in %d buffers, %.0f MiB on %d MiB of device memory (%.2f times the limit): right\n", TENSORS, BUFFERS,
        all, LIMIT >> 20, all / (LIMIT >> 20));
    printf("%llu submits of %d dispatches, %u descriptor writes, all before the first submit; busy %u times\n",
        (unsigned long long)engine.submitted, BATCH, engine.descriptor_writes, busy);
    printf("moved %.1f MiB to the device, %.1f MiB home\n", mib(rt, "in_bytes"), mib(rt, "out_bytes"));
    ok(vkhmm_runtime_close(rt, 30000000000ull)); /* now nothing of vkhmm's uses the device */
    close_device();
    return 0;
}
