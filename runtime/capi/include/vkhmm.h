/*
 * vkhmm: memory that the CPU reads and writes through an ordinary pointer, that any Vulkan kernel can use, and whose pages move
 * between host and device by themselves. C11; C++17 can include it too, and vkhmm.hpp wraps it.
 *
 * The borrow law, which a C compiler cannot check:
 *   1. While a launch call runs, no thread touches what it writes, and no thread stores to what it reads.
 *   2. After it returned, touch anything: a touch waits for the launches before it, and sees what they did.
 *   3. With VKHMM_FAULT_ENGINE_DECLARED touch only between vkhmm_host_begin and vkhmm_host_end.
 *   4. Give managed memory to system calls between vkhmm_host_begin and vkhmm_host_end, to Vulkan entry points never.
 *   5. Bytes that were acquired are the application's queues' until their release: touching them waits for it.
 *
 * Handles are numbers: zero names nothing; a handle of something that was destroyed, of another type, or made up, is an error and
 * never a crash. Any thread may call any function at any time; a handle may be destroyed while another thread uses it.
 * A function that returns vkhmm_result says with vkhmm_last_error what was wrong, and changes nothing on an error.
 * Errors "of handles" are INVALID_HANDLE and STALE_HANDLE. In a child made by fork every handle of the parent is FORKED, and freeing
 * or destroying one does nothing; exec and posix_spawn are not affected.
 *
 * Pointers are good for what they are declared as, for the time of the call; results may not be NULL unless said. NULL or a misaligned
 * pointer is INVALID_ARGUMENT. Texts are UTF-8 and end with a NUL. Structs of options start with their size: zero the rest.
 *
 * A function that answers with a text or an array writes what fits into the caller's `capacity` characters or elements (a text always
 * ends with a NUL) and sets *needed to how many there are, a text's NUL included. Too small is INCOMPLETE, which is no error.
 * Capacity 0 asks for *needed alone; otherwise `needed` may be NULL. Errors "of texts" are INVALID_ARGUMENT.
 */

#ifndef VKHMM_H
#define VKHMM_H

/* Made from runtime/capi by ./x header: change the sources, not this file. */

#include <stddef.h>
#include <stdint.h>

/*
 * Vulkan's types are Vulkan's: include vulkan.h before or after this header, or not at all. These are the declarations of
 * vulkan_core.h (64-bit platforms), which C11 and C++ let stand twice.
 */
#ifndef VULKAN_CORE_H_
typedef struct VkInstance_T *VkInstance;
typedef struct VkPhysicalDevice_T *VkPhysicalDevice;
typedef struct VkDevice_T *VkDevice;
typedef struct VkQueue_T *VkQueue;
typedef struct VkBuffer_T *VkBuffer;
typedef struct VkSemaphore_T *VkSemaphore;
typedef uint32_t VkFlags;
typedef VkFlags VkBufferUsageFlags;
typedef struct VkPhysicalDeviceFeatures VkPhysicalDeviceFeatures;
typedef void (*PFN_vkVoidFunction)(void);
typedef PFN_vkVoidFunction (*PFN_vkGetInstanceProcAddr)(VkInstance instance, const char *pName);
#endif

/// Version of this header: a major number, which the soname has, too, a minor and a patch number.
#define VKHMM_VERSION_MAJOR 0

/// See VKHMM_VERSION_MAJOR.
#define VKHMM_VERSION_MINOR 1

/// See VKHMM_VERSION_MAJOR.
#define VKHMM_VERSION_PATCH 0

/// Left open: the environment decides, then the machine.
#define VKHMM_DEFAULT 0

/// No.
#define VKHMM_OFF 1

/// Yes.
#define VKHMM_ON 2

/// Userfaultfd with handler threads; system calls on absent pages work.
#define VKHMM_FAULT_ENGINE_UFFD_THREAD 1

/// The same for ordinary users: system calls on absent pages fail with EFAULT outside host guards.
#define VKHMM_FAULT_ENGINE_UFFD_THREAD_USER 2

/// No faults: memory may be touched between vkhmm_host_begin and vkhmm_host_end only.
#define VKHMM_FAULT_ENGINE_DECLARED 3

/// Userfaultfd whose touches are answered by a handler of SIGBUS in the threads that make them; system calls as with
/// VKHMM_FAULT_ENGINE_UFFD_THREAD_USER. Install handlers of SIGBUS before the first runtime, or pass on what is not yours.
#define VKHMM_FAULT_ENGINE_UFFD_SIGBUS 4

/// Without userfaultfd: touches are answered by a handler of SIGSEGV in the threads that make them, 2 MiB at a time; system calls
/// and handlers as above. Allocations and separate pieces in use are limited by vm.max_map_count.
#define VKHMM_FAULT_ENGINE_SEGV_MPROTECT 5

/// No host access; copy queues only.
#define VKHMM_MEMORY_KIND_DEVICE_PRIVATE 1

/// Host-visible, not host-cached: the CPU may write it, never read it.
#define VKHMM_MEMORY_KIND_DEVICE_BAR 2

/// Host-cached: the CPU may read and write it.
#define VKHMM_MEMORY_KIND_DEVICE_COHERENT 3

/// The device's heap is the host's.
#define VKHMM_MEMORY_KIND_UNIFIED 4

/// A buffer over whatever neighbouring frames are free; addresses change when data comes and goes.
#define VKHMM_PLACEMENT_CHOICE_SPAN 1

/// One sparse buffer for life; addresses never change.
#define VKHMM_PLACEMENT_CHOICE_SPARSE 2

/// No device memory.
#define VKHMM_FAILURE_OUT_OF_DEVICE_MEMORY 1

/// No host memory for the driver.
#define VKHMM_FAILURE_OUT_OF_HOST_MEMORY 2

/// Any other refusal of the driver's.
#define VKHMM_FAILURE_REFUSED 3

/// As a number of bytes: up to the end of the buffer.
#define VKHMM_WHOLE_SIZE UINT64_MAX

/// They are read. Several launches and host threads may read at a time.
#define VKHMM_ACCESS_READ 1

/// They are read and written.
#define VKHMM_ACCESS_WRITE 2

/// They are written; what they were is dead, and nothing is copied in. What the kernel leaves out is unspecified afterwards.
#define VKHMM_ACCESS_OVERWRITE 3

/// As a timeout: as long as it takes.
#define VKHMM_FOREVER UINT64_MAX

/// Neither: in attributes, that nothing was said.
#define VKHMM_SIDE_NONE 0

/// Host memory.
#define VKHMM_SIDE_HOST 1

/// Device memory.
#define VKHMM_SIDE_DEVICE 2

/// They had better be on the host when nobody needs them elsewhere: touches bring whole blocks, and their frames are given up first.
#define VKHMM_ADVICE_PREFER_HOST 1

/// They had better be on the device: touches bring home only what they need, and their frames are given up last.
#define VKHMM_ADVICE_PREFER_DEVICE 2

/// Takes back either of the above.
#define VKHMM_ADVICE_PREFER_NONE 3

/// They are read far more often than written, by both sides: a store takes only its 64 KiB from the device.
#define VKHMM_ADVICE_READ_MOSTLY 4

/// Takes that back.
#define VKHMM_ADVICE_NOT_READ_MOSTLY 5

/// Kernels are to work on the host's bytes in place. Of a whole buffer only, before its first use on the device; otherwise it is noted,
/// and has no effect.
#define VKHMM_ADVICE_ACCESSED_BY 6

/// Takes that back.
#define VKHMM_ADVICE_NOT_ACCESSED_BY 7

/// The host's copy is current.
#define VKHMM_PAGE_HOST_VALID 1

/// The device's copy is current.
#define VKHMM_PAGE_DEVICE_VALID 2

/// The application's view may have the page mapped.
#define VKHMM_PAGE_MAY_BE_MAPPED 4

/// The application's view may have the page mapped writable.
#define VKHMM_PAGE_MAY_BE_WRITABLE 8

/// Somebody reads one of the copies.
#define VKHMM_PAGE_HELD_SHARED 16

/// Somebody changes the page or its mapping.
#define VKHMM_PAGE_HELD_EXCLUSIVE 32

/// The page stays where it is until it is unpinned.
#define VKHMM_PAGE_PINNED 64

/// The only copy is gone with the device.
#define VKHMM_PAGE_LOST 128

/// It is device memory.
#define VKHMM_PAGEMAP_DEVICE_MEMORY 1

/// The CPU cannot address it.
#define VKHMM_PAGEMAP_UNADDRESSABLE 2

/// The CPU may store to it.
#define VKHMM_PAGEMAP_HOST_WRITABLE 4

/// The CPU may load from it at memory speed.
#define VKHMM_PAGEMAP_HOST_READABLE 8

/// The descriptors live in the device memory itself.
#define VKHMM_PAGEMAP_DESCRIPTORS_IN_DEVICE 16

/// What vkhmm does not run without, and nothing else.
#define VKHMM_LEVEL_REQUIRED 1

/// Everything that it can use.
#define VKHMM_LEVEL_EVERYTHING 2

/// Copies to the device.
#define VKHMM_ROLE_COPY_IN 1

/// Copies to the host.
#define VKHMM_ROLE_COPY_OUT 2

/// Kernels.
#define VKHMM_ROLE_COMPUTE 4

/// Binding of sparse memory.
#define VKHMM_ROLE_BIND 8

/// Saying when acquired memory may be used.
#define VKHMM_ROLE_GRANT 16

/// Waiting until released memory may be used again.
#define VKHMM_ROLE_RELEASE 32

/// Allocations of the allocator's from this many bytes on are managed.
#define VKHMM_MEMORY_MANAGED_MIN (1 << 20)

/// What a call answers: zero for success, positive for an answer that is not an error, negative for an error. On every error nothing
/// has changed, and vkhmm_last_error says what was wrong, what was allowed and what to do.
enum vkhmm_result
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /// Done.
    VKHMM_OK = 0,
    /// The time was over before the work was.
    VKHMM_TIMEOUT = 1,
    /// The caller's array or text was too small: it has what fits, and *needed says how much there is.
    VKHMM_INCOMPLETE = 2,
    /// There is no such thing: no clock, no pagemap at that address, no managed memory at that pointer.
    VKHMM_NONE = 3,
    /// A bug of vkhmm: a broken invariant. Nothing of this runtime should be used any more.
    VKHMM_ERROR_INTERNAL = -1,
    /// A pointer that is NULL or misaligned, a size, a kind or an option that cannot be.
    VKHMM_ERROR_INVALID_ARGUMENT = -2,
    /// No handle: zero, or of another type.
    VKHMM_ERROR_INVALID_HANDLE = -3,
    /// A handle of something that was destroyed or freed.
    VKHMM_ERROR_STALE_HANDLE = -4,
    /// Memory or a kernel of another runtime.
    VKHMM_ERROR_FOREIGN = -5,
    /// This process was forked from the one that owns the handle.
    VKHMM_ERROR_FORKED = -6,
    /// The device is gone.
    VKHMM_ERROR_DEVICE_LOST = -7,
    /// The bytes existed on a lost device only.
    VKHMM_ERROR_LOST = -8,
    /// More than can be on the device at once.
    VKHMM_ERROR_WORKING_SET_TOO_LARGE = -9,
    /// A host guard keeps the pages on the host.
    VKHMM_ERROR_GUARDED = -10,
    /// No host memory.
    VKHMM_ERROR_OUT_OF_HOST_MEMORY = -11,
    /// No device memory.
    VKHMM_ERROR_OUT_OF_DEVICE_MEMORY = -12,
    /// The reservation is full, or no allocation can be that large.
    VKHMM_ERROR_OUT_OF_ADDRESS_SPACE = -13,
    /// Bytes that are not inside the buffer.
    VKHMM_ERROR_OUT_OF_RANGE = -14,
    /// No usable Vulkan device.
    VKHMM_ERROR_NO_DEVICE = -15,
    /// No usable host memory or fault engine.
    VKHMM_ERROR_NO_HOST = -16,
    /// The module cannot become a kernel.
    VKHMM_ERROR_KERNEL = -17,
    /// The module needs what the device lacks.
    VKHMM_ERROR_UNSUPPORTED = -18,
    /// A setting, in the options or the environment, has a value that it cannot have.
    VKHMM_ERROR_SETTING = -19,
    /// The system has no thread, or no file.
    VKHMM_ERROR_SYSTEM = -20,
    /// The kernel can write a binding that is given to it for reading.
    VKHMM_ERROR_WRITES_READ_ONLY_ARGUMENT = -21,
    /// Number or sizes of arguments do not fit the kernel.
    VKHMM_ERROR_ARGUMENTS = -22,
    /// More groups than the device runs.
    VKHMM_ERROR_GRID_TOO_LARGE = -23,
    /// A binding longer than the device can bind.
    VKHMM_ERROR_BINDING_TOO_LARGE = -24,
    /// A binding that starts where the device cannot bind.
    VKHMM_ERROR_MISALIGNED = -25,
    /// A fill or copy of something that is not whole 32-bit words, or of two lengths.
    VKHMM_ERROR_WORDS = -26,
    /// A pagemap that is unknown, live, dead or in use.
    VKHMM_ERROR_PAGEMAP = -27,
    /// The driver or the system refused.
    VKHMM_ERROR_REFUSED = -28,
    /// The buffer cannot keep its device address.
    VKHMM_ERROR_NOT_STABLE = -29,
    /// The pages are acquired by the application, whose queues may be using them.
    VKHMM_ERROR_ACQUIRED = -30,
    /// It would have to wait for the device, and never does: ask again later.
    VKHMM_ERROR_BUSY = -31,
    /// The process is ending.
    VKHMM_ERROR_ENDING = -32,
    /// The application shares its only queue, and CPU touches of this kind of memory would have to use it.
    VKHMM_ERROR_SHARED_QUEUE = -33,
    /// An operand of a vkhmm_kernels_ function has a size, a stride or a kind of access that it cannot work with.
    VKHMM_ERROR_SHAPE = -34,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vkhmm_result vkhmm_result;
#else
typedef int32_t vkhmm_result;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// How kernels reach a buffer.
enum vkhmm_placement_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /// In spans of neighbouring frames: its device address changes when data comes and goes.
    VKHMM_PLACEMENT_SPAN = 1,
    /// In a sparse buffer for life: its device address never changes.
    VKHMM_PLACEMENT_SPARSE = 2,
    /// In place, on the host's own bytes: nothing moves, its device address never changes.
    VKHMM_PLACEMENT_IN_PLACE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vkhmm_placement_kind vkhmm_placement_kind;
#else
typedef uint32_t vkhmm_placement_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// Where the current bytes of a page are.
enum vkhmm_location
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /// Nowhere: zeros that nobody has written.
    VKHMM_LOCATION_ABSENT = 0,
    /// On the host.
    VKHMM_LOCATION_HOST = 1,
    /// On both sides, the same.
    VKHMM_LOCATION_SHARED = 2,
    /// On the device, and only there.
    VKHMM_LOCATION_DEVICE = 3,
    /// Gone, with the device that held the only copy.
    VKHMM_LOCATION_LOST = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vkhmm_location vkhmm_location;
#else
typedef uint32_t vkhmm_location;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// A runtime: memory that host and device share, and kernels that work on it. Several may live in one process; their memory does
/// not mix. Zero names none.
typedef struct vkhmm_runtime {
    /// Opaque.
    uint64_t id;
} vkhmm_runtime;

/// Which fault engine answers CPU touches; zero leaves it open.
typedef uint32_t vkhmm_fault_engine;

/// Which kind of device memory; zero leaves it open.
typedef uint32_t vkhmm_memory_kind;

/// Which buffers kernels reach memory through; zero leaves it open.
typedef uint32_t vkhmm_placement_choice;

/// A yes or no that may be left open: VKHMM_DEFAULT, VKHMM_OFF or VKHMM_ON.
typedef uint32_t vkhmm_switch;

/// Which failure a test injects; zero is none.
typedef uint32_t vkhmm_failure;

/// Settings of a runtime. Zero everything, set size to sizeof, then what is wanted: what stays zero (or NULL) is taken from the
/// environment, then from the machine; vkhmm_runtime_doctor says what came of it, and lists the variables. Later versions add fields
/// at the end; programs built against an earlier header go on working.
typedef struct vkhmm_runtime_options {
    /// sizeof(vkhmm_runtime_options).
    size_t size;
    /// Most bytes of device memory that frames may take. Default: what the device offers, times 0.9.
    uint64_t device_memory_limit;
    /// Most bytes of host memory that the device may have imported (and pinned) at a time. Default: a quarter of what is available.
    uint64_t import_limit;
    /// Bytes of address space to reserve, exactly. Default: as much as the process's limits allow, at most 1 TiB.
    uint64_t reservation;
    /// Part of a device's name, or its number. Default: the best.
    const char *device;
    /// File for the launch trace: one JSON line per launch. Default: none.
    const char *record_launches;
    /// The one to use; fails, saying why, if it cannot be had.
    vkhmm_fault_engine fault_engine;
    /// The one to use instead of the best; software devices can play each.
    vkhmm_memory_kind memory_kind;
    /// How buffers are placed. Default: sparse where the device has sparse buffers, else spans. Sparse fails where it cannot be.
    vkhmm_placement_choice placement;
    /// Whether small buffers are used in place: VKHMM_ON for those of at most in_place_bytes, VKHMM_OFF for none. Default: up to 64 KiB.
    vkhmm_switch in_place;
    /// See in_place.
    uint64_t in_place_bytes;
    /// Whether launches revoke also what would have stayed shared, so that a system call without a host guard fails on the first run
    /// and not on the rare one. Default: off, unless the library is a debug build.
    vkhmm_switch strict_io;
    /// Whether to run under Khronos validation; see vkhmm_runtime_validation_messages.
    vkhmm_switch validation;
    /// Whether core dumps contain managed memory. Default: no, the bytes are the user's.
    vkhmm_switch dump_memory;
    /// For tests: VKHMM_OFF moves everything through staging, never through imports.
    vkhmm_switch test_import;
    /// For tests: VKHMM_ON makes all roles share one queue.
    vkhmm_switch test_shared_queue;
    /// For tests: VKHMM_ON gives copies and kernels timelines of their own, even on one queue.
    vkhmm_switch test_split_queue;
    /// For tests: VKHMM_OFF keeps the CPU away from device memory.
    vkhmm_switch test_cpu_access;
    /// For tests: VKHMM_OFF acts as if no host-visible memory were coherent.
    vkhmm_switch test_coherent;
    /// For tests: VKHMM_ON guards frames against stray accesses (software devices).
    vkhmm_switch test_frame_guard;
    /// For tests: VKHMM_ON acts as a kernel without UFFDIO_POISON and read-only UFFDIO_CONTINUE.
    vkhmm_switch test_older_kernel;
    /// For tests: most regions of one copy command.
    uint32_t test_regions_max;
    /// For tests: how the call test_fail_at_call fails.
    vkhmm_failure test_failure;
    /// For tests: this device call, counted from one, fails once; see vkhmm_runtime_device_calls.
    uint64_t test_fail_at_call;
    /// For tests: from this device call on, the device is lost.
    uint64_t test_lose_at_call;
} vkhmm_runtime_options;

/// Managed memory: bytes that host and device share. Zero names none.
typedef struct vkhmm_buffer {
    /// Opaque.
    uint64_t id;
} vkhmm_buffer;

/// Work on its way. Destroying it changes nothing but the handle. Zero names none.
typedef struct vkhmm_launch {
    /// Opaque.
    uint64_t id;
} vkhmm_launch;

/// A run of pages in the same state.
typedef struct vkhmm_residency {
    /// First byte, from the start of the buffer.
    uint64_t offset;
    /// How many.
    uint64_t bytes;
    /// Where the current bytes are.
    vkhmm_location location;
    /// 1 if an operation uses them.
    uint32_t held;
    /// 1 if the device has the only copy.
    uint32_t dirty;
    /// 1 if a guard keeps them on the host.
    uint32_t pinned;
} vkhmm_residency;

/// What may be done with bytes.
typedef uint32_t vkhmm_access_kind;

/// Bytes held on the host. Zero names none.
typedef struct vkhmm_guard {
    /// Opaque.
    uint64_t id;
} vkhmm_guard;

/// A specialisation constant.
typedef struct vkhmm_spec {
    /// Its SpecId in the module.
    uint32_t id;
    /// Bytes of the value: 1, 2, 4 or 8; 4 for a bool.
    uint32_t bytes;
    /// The value in the low bytes: memcpy a float here.
    uint64_t bits;
} vkhmm_spec;

/// Options of a kernel. Zero everything, set size to sizeof, then what is wanted.
typedef struct vkhmm_kernel_options {
    /// sizeof(vkhmm_kernel_options).
    size_t size;
    /// The entry point; needed only where the module has several.
    const char *entry;
    /// What messages call it. Default: the entry point.
    const char *name;
    /// Specialisation constants.
    const struct vkhmm_spec *specs;
    /// How many.
    size_t spec_count;
    /// The subgroup size to run with. Default: the device's choice.
    uint32_t subgroup_size;
    /// Nonzero: its launches are timed, for vkhmm_launch_elapsed. Not free: it keeps the kernel apart from its neighbours.
    uint32_t timed;
} vkhmm_kernel_options;

/// A compiled kernel. Zero names none.
typedef struct vkhmm_kernel {
    /// Opaque.
    uint64_t id;
} vkhmm_kernel;

/// How many work groups run.
typedef struct vkhmm_grid {
    /// Not zero: enough invocations for that many items, folded over x and y, for kernels that number items by (group.y * groups.x +
    /// group.x) * local_size + local index and check the bound. Zero: `groups` counts.
    uint64_t items;
    /// Groups in x, y and z. None in one of them runs nothing, and still orders.
    uint32_t groups[3];
    /// Zero.
    uint32_t reserved;
} vkhmm_grid;

/// Bytes of a buffer, and what a kernel may do with them.
typedef struct vkhmm_access {
    /// Whose bytes.
    struct vkhmm_buffer buffer;
    /// The first, from the start of the buffer.
    uint64_t offset;
    /// How many; VKHMM_WHOLE_SIZE for all from there on. None binds nothing and has address zero.
    uint64_t bytes;
    /// What may be done with them.
    vkhmm_access_kind kind;
    /// Zero.
    uint32_t reserved;
} vkhmm_access;

/// A value for push constants: a scalar, or one struct for the whole block.
typedef struct vkhmm_value {
    /// Its bytes; copied by the call.
    const void *data;
    /// How many.
    size_t bytes;
} vkhmm_value;

/// A matrix of float in row-major order: an access, how many rows and columns it has, and how they lie in it.
typedef struct vkhmm_matrix {
    /// The bytes that it lies in.
    struct vkhmm_access access;
    /// Rows, as they lie.
    uint64_t rows;
    /// Columns, as they lie.
    uint64_t cols;
    /// Elements from the start of a row to the next; zero for as many as there are columns. Of what is between rows nothing is used.
    uint64_t stride;
    /// 1: kernels see the transposed matrix.
    uint32_t transposed;
    /// Zero.
    uint32_t reserved;
} vkhmm_matrix;

/// A sparse matrix of float in compressed rows: row r has the elements row_start[r] up to row_start[r + 1] of columns and values.
typedef struct vkhmm_csr {
    /// Rows.
    uint64_t rows;
    /// Columns.
    uint64_t cols;
    /// rows + 1 indices (uint32_t), ascending from 0.
    struct vkhmm_access row_start;
    /// The column of each element (uint32_t).
    struct vkhmm_access columns;
    /// The elements (float).
    struct vkhmm_access values;
} vkhmm_csr;

/// What is said about bytes.
typedef uint32_t vkhmm_advice;

/// One of the two sides that bytes may be on.
typedef uint32_t vkhmm_side;

/// Bytes kept on one side. Zero names none.
typedef struct vkhmm_pinned {
    /// Opaque.
    uint64_t id;
} vkhmm_pinned;

/// A run of pages about which the same was said. Flags are 0 or 1.
typedef struct vkhmm_attributes {
    /// Of its first byte in the buffer.
    uint64_t offset;
    /// How many.
    uint64_t bytes;
    /// Where they had better be.
    vkhmm_side preferred;
    /// Where the last prefetch was to bring them.
    vkhmm_side last_prefetch;
    /// They are read far more often than written.
    uint32_t read_mostly;
    /// Kernels are to work on the host's bytes.
    uint32_t accessed_by;
    /// Kernels do work on the host's bytes, because it was advised or for another reason.
    uint32_t in_place;
    /// A guard or pin keeps them on the host.
    uint32_t pinned_host;
    /// A pin keeps their place on the device.
    uint32_t pinned_device;
    /// Host and device took them from each other: they stay where they are for a while.
    uint32_t thrash_guarded;
} vkhmm_attributes;

/// Bits of a pagemap: what is true of its memory, apart from its kind.
typedef uint32_t vkhmm_pagemap_flags;

/// A registered description of device memory.
typedef struct vkhmm_pagemap {
    /// Its name within the runtime; never reused.
    uint64_t id;
    /// Its first device address.
    uint64_t address;
    /// Bytes of device memory.
    uint64_t bytes;
    /// Which kind of memory.
    vkhmm_memory_kind kind;
    /// What else is true of it.
    vkhmm_pagemap_flags flags;
    /// Frames of 64 KiB in use.
    uint32_t references;
    /// 1 while it hands out frames, 0 once killed.
    uint32_t live;
} vkhmm_pagemap;

/// Bits of a page's descriptor.
typedef uint32_t vkhmm_page_flags;

/// How much an application is ready to turn on for vkhmm.
typedef uint32_t vkhmm_level;

/// What vkhmm asks of a device. Zero names none.
typedef struct vkhmm_requirements {
    /// Opaque.
    uint64_t id;
} vkhmm_requirements;

/// An extension or a feature to turn on. The texts are valid until the requirements are destroyed.
typedef struct vkhmm_wanted {
    /// Its name, as the specification has it.
    const char *name;
    /// NULL if vkhmm does not run without it; else what is lost without it, in words.
    const char *lost;
} vkhmm_wanted;

/// Bits of what a queue is for.
typedef uint32_t vkhmm_roles;

/// Queues of one family, to be created for vkhmm.
typedef struct vkhmm_wanted_queue {
    /// Which family.
    uint32_t family;
    /// How many of it, beside those that the application keeps for itself.
    uint32_t count;
    /// What they are for.
    vkhmm_roles roles;
    /// 1 if vkhmm does not run without them. An application that cannot spare the required one may share it under a lock.
    uint32_t required;
} vkhmm_wanted_queue;

/// A queue for vkhmm. `lock` and `unlock` are NULL if vkhmm alone uses it. Otherwise the application uses it, too, and both call the
/// queue under this lock: vkhmm takes it around one call of the driver, and nothing inside; a thread that holds it calls nothing of
/// vkhmm. They must not throw, and must not be called again after vkhmm_runtime_close has answered OK.
typedef struct vkhmm_queue {
    /// From vkGetDeviceQueue; created without flags.
    VkQueue queue;
    /// Its family.
    uint32_t family;
    /// Zero.
    uint32_t reserved;
    /// Returns once the calling thread alone may use the queue.
    void (*lock)(void *user);
    /// Ends what `lock` of the same thread began.
    void (*unlock)(void *user);
    /// Given to both.
    void *user;
} vkhmm_queue;

/// An application's instance and device, and what vkhmm may do with them. vkhmm destroys neither. Whoever passes parts promises all of
/// this until vkhmm_runtime_close has answered OK:
///
/// 1. instance, physical_device and device are alive and belong together; device is made of physical_device alone.
/// 2. api_version is the instance's apiVersion; extensions are on; features and enabled_features are what vkCreateDevice was given.
/// 3. Each queue was created with device, without flags, in the family named.
/// 4. Nobody else uses a queue without a lock, in any way: vkQueueWaitIdle and vkDeviceWaitIdle included.
/// 5. The locks do as vkhmm_queue says.
/// 6. families names every family whose queues will touch managed buffers.
/// 7. usage is allowed on this device for storage buffers with device addresses.
/// 8. Buffers that are acquired are used as vkhmm_acquire says, and neither destroyed nor bound anew.
/// 9. Managed pointers are never given to Vulkan: the driver may hold locks that the answer to a touch needs.
typedef struct vkhmm_parts {
    /// sizeof(vkhmm_parts).
    size_t size;
    /// vkGetInstanceProcAddr of the loader that the instance came from.
    PFN_vkGetInstanceProcAddr get_instance_proc_addr;
    /// The instance.
    VkInstance instance;
    /// The physical device.
    VkPhysicalDevice physical_device;
    /// The device.
    VkDevice device;
    /// Names of the device extensions that are on.
    const char *const *extensions;
    /// How many.
    size_t extension_count;
    /// The pNext chain that vkCreateDevice was given; NULL if there was none. Read during the call only.
    const void *features;
    /// What pEnabledFeatures pointed at; NULL if it was. Read during the call only.
    const VkPhysicalDeviceFeatures *enabled_features;
    /// Queues for vkhmm; one that can run kernels at least.
    const struct vkhmm_queue *queues;
    /// How many.
    size_t queue_count;
    /// The families of all queues of the application's that will touch managed buffers, in any order.
    const uint32_t *families;
    /// How many.
    size_t family_count;
    /// Most bytes of device memory for frames; zero leaves it open. device_memory_limit of the options comes first.
    uint64_t limit;
    /// The apiVersion that the instance was created with.
    uint32_t api_version;
    /// What managed buffers are used as, beside storage, copies and device addresses.
    VkBufferUsageFlags usage;
} vkhmm_parts;

/// Bytes in the application's hands, until vkhmm_release or vkhmm_acquired_cancel. Zero names none.
typedef struct vkhmm_acquired {
    /// Opaque.
    uint64_t id;
} vkhmm_acquired;

/// Where the bytes of one access lie on the device.
typedef struct vkhmm_placed {
    /// The buffer, shared by the queue families that the parts named; VK_NULL_HANDLE for an empty access.
    VkBuffer buffer;
    /// First byte, from the start of the VkBuffer.
    uint64_t offset;
    /// How many bytes.
    uint64_t size;
    /// Device address of the first byte; zero for an empty access.
    uint64_t address;
    /// 1 if buffer, offset and address are the same at every acquire of these bytes: descriptors may be written once.
    uint32_t stable;
    /// Zero.
    uint32_t reserved;
} vkhmm_placed;

/// A timeline semaphore and a value of it.
typedef struct vkhmm_wait {
    /// The runtime's: only wait for it, on its device.
    VkSemaphore semaphore;
    /// What it reaches without a further call.
    uint64_t value;
} vkhmm_wait;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// What the last call on this thread complained about, in words; empty if it succeeded. Never NULL. Valid until the next call of any
/// other function of this library on this thread. Each thread has its own.
const char *vkhmm_last_error(void);

/// The name of a result code, such as "VKHMM_ERROR_LOST"; "unknown" for any other number. Never NULL, valid for ever.
const char *vkhmm_result_name(int32_t result);

/// Version of the library that is loaded, such as "0.1.0". Never NULL, valid for ever.
const char *vkhmm_version(void);

/// What was found on this machine, what was chosen and why, in words.
///
/// Errors: Of texts, of handles, FORKED.
vkhmm_result vkhmm_runtime_doctor(struct vkhmm_runtime runtime, char *text, size_t capacity, size_t *needed);

/// Everything that is counted, as one JSON object: bytes moved by cause and by path, touches, launches, evictions, nanoseconds.
///
/// Errors: Of texts, of handles, FORKED.
vkhmm_result vkhmm_runtime_stats_json(struct vkhmm_runtime runtime,
                                      char *text,
                                      size_t capacity,
                                      size_t *needed);

/// One counter by its name in vkhmm_runtime_stats_json; and "in_bytes" and "out_bytes": all bytes copied to the device, and home.
///
/// Errors: INVALID_ARGUMENT for an unknown name; of handles, FORKED.
vkhmm_result vkhmm_runtime_counter(struct vkhmm_runtime runtime,
                                   const char *name,
                                   uint64_t *value);

/// Who waited for what, longest first, as a JSON array of {"label", "count", "ns"}: allocations (touches, guards) and kernels.
///
/// Errors: Of texts, of handles, FORKED.
vkhmm_result vkhmm_runtime_waits_json(struct vkhmm_runtime runtime,
                                      char *text,
                                      size_t capacity,
                                      size_t *needed);

/// What is going on right now, in words: open operations with their age, queues, who is in which call. For whoever wonders why something
/// waits. Takes no lock that anybody holds, so it answers also when everything hangs.
///
/// Errors: Of texts, of handles, FORKED.
vkhmm_result vkhmm_runtime_report(struct vkhmm_runtime runtime,
                                  char *text,
                                  size_t capacity,
                                  size_t *needed);

/// The last events with their causes, oldest first, as a JSON array of {"at_ns", "cause", "start", "end"}; start and end are bytes of
/// the runtime's reservation.
///
/// Errors: Of texts, of handles, FORKED.
vkhmm_result vkhmm_runtime_trace_json(struct vkhmm_runtime runtime,
                                      char *text,
                                      size_t capacity,
                                      size_t *needed);

/// What the validation layers said, one message a line, if the runtime was made with them. Any message is a bug of vkhmm, or of a
/// kernel.
///
/// Errors: Of texts, of handles, FORKED.
vkhmm_result vkhmm_runtime_validation_messages(struct vkhmm_runtime runtime,
                                               char *text,
                                               size_t capacity,
                                               size_t *needed);

/// Number of device calls so far, for test_lose_at_call and test_fail_at_call.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_runtime_device_calls(struct vkhmm_runtime runtime, uint64_t *calls);

/// Makes a runtime on a Vulkan device of its own: opens host memory and device, and starts threads. `options` may be NULL. Ends with
/// vkhmm_runtime_destroy.
///
/// Errors: NO_DEVICE, NO_HOST, SETTING, SYSTEM, OUT_OF_HOST_MEMORY, INVALID_ARGUMENT; each says what would help.
vkhmm_result vkhmm_runtime_create(const struct vkhmm_runtime_options *options,
                                  struct vkhmm_runtime *runtime);

/// Ends a runtime and frees everything that goes with it: its buffers, kernels, launches, guards and acquired bytes are stale from now on,
/// and their pointers must not be used any more. Does not wait for the device: what it still uses is reclaimed after its last
/// operation; before an application destroys its own device, vkhmm_runtime_close says when. In a forked child it does nothing.
///
/// Errors: STALE_HANDLE if it was destroyed before, INVALID_HANDLE, FORKED.
vkhmm_result vkhmm_runtime_destroy(struct vkhmm_runtime runtime);

/// Gives up whatever a handle names, a runtime with everything that goes with it; nothing for a number that names nothing, and nothing in
/// a forked child. For finalisers, which may run between any two calls: vkhmm_last_error stays as it is.
void vkhmm_release_handle(uint64_t id);

/// The fault engine that answers CPU touches.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_runtime_fault_engine(struct vkhmm_runtime runtime, vkhmm_fault_engine *engine);

/// Submits what is recorded and not yet submitted. Never needed for correctness.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_runtime_flush(struct vkhmm_runtime runtime);

/// Waits for everything launched before.
///
/// Errors: DEVICE_LOST; of handles, FORKED.
vkhmm_result vkhmm_runtime_sync(struct vkhmm_runtime runtime);

/// vkhmm_runtime_sync for at most `timeout_ns` nanoseconds; TIMEOUT if there is work left.
///
/// Errors: DEVICE_LOST; of handles, FORKED.
vkhmm_result vkhmm_runtime_wait(struct vkhmm_runtime runtime, uint64_t timeout_ns);

/// Device memory: the limit, and the bytes that are in use now. Either may be NULL.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_runtime_device_memory(struct vkhmm_runtime runtime, uint64_t *limit, uint64_t *used);

/// Sets how many bytes of device memory frames may take, and evicts what is above. `evicted`, the bytes evicted, may be NULL.
///
/// Errors: DEVICE_LOST; of handles, FORKED.
vkhmm_result vkhmm_runtime_set_device_memory_limit(struct vkhmm_runtime runtime,
                                                   uint64_t bytes,
                                                   uint64_t *evicted);

/// Evicts at least `bytes` of device memory if that much can be, the cheapest first. `evicted`, the bytes evicted, may be NULL.
///
/// Errors: DEVICE_LOST; of handles, FORKED.
vkhmm_result vkhmm_runtime_trim(struct vkhmm_runtime runtime,
                                uint64_t bytes,
                                uint64_t *evicted);

/// For loops over arrays that are larger than the device: how many items one window has, so that `depth` windows fit the device memory
/// limit at once, when the arrays of one window take `bytes_per_item` bytes per item together. Launch items 0..step, step..2*step
/// and so on up to `len`; such launches overlap copies in, kernels and copies out.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_runtime_window(struct vkhmm_runtime runtime,
                                  size_t len,
                                  size_t bytes_per_item,
                                  size_t depth,
                                  size_t *step);

/// Allocates `bytes` bytes, all zero, 2 MiB aligned. No host or device memory is taken until they are touched; each allocation takes
/// whole 2 MiB blocks of address space. `label` is for reports and errors, NULL for none. Ends with vkhmm_free, or with its runtime.
///
/// Errors: OUT_OF_ADDRESS_SPACE; of handles, FORKED.
vkhmm_result vkhmm_alloc(struct vkhmm_runtime runtime,
                         uint64_t bytes,
                         const char *label,
                         struct vkhmm_buffer *buffer);

/// As vkhmm_alloc, for memory whose device address never changes while it lives: whatever is evicted and comes back, a kernel finds it
/// where it was, and descriptors can be written once.
///
/// Errors: NOT_STABLE, with what stands against it; otherwise as vkhmm_alloc.
vkhmm_result vkhmm_alloc_stable(struct vkhmm_runtime runtime,
                                uint64_t bytes,
                                const char *label,
                                struct vkhmm_buffer *buffer);

/// Frees a buffer: its handle is stale and its pointer must not be used from now on. Never waits: what launches, the device or an open
/// guard still use is reclaimed after its last use, and the address is not given out before. In a forked child it does nothing.
///
/// Errors: STALE_HANDLE if it was freed before, INVALID_HANDLE, FORKED.
vkhmm_result vkhmm_free(struct vkhmm_buffer buffer);

/// The address of the first byte; NULL for an empty buffer. It never changes. Plain loads and stores from any thread: while a kernel owns a
/// page the first touch waits for the kernel and brings that part home. Bytes that were lost with the device are SIGBUS, touching it in a
/// forked child is SIGSEGV. Never hand it to a Vulkan entry point. With VKHMM_FAULT_ENGINE_DECLARED it may be used between
/// vkhmm_host_begin and vkhmm_host_end only.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_buffer_pointer(struct vkhmm_buffer buffer,
                                  void **pointer);

/// Whose memory an address is: the buffer, its runtime, and how many bytes behind the buffer's start; each may be NULL. NONE for an
/// address that is no live buffer's. Touches nothing.
///
/// Errors: FORKED.
///
/// Pointers: `address` is any address at all. Other pointers as the head of vkhmm.h says.
vkhmm_result vkhmm_buffer_find(const void *address,
                               struct vkhmm_runtime *runtime,
                               struct vkhmm_buffer *buffer,
                               uint64_t *offset);

/// The number of bytes, as allocated.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_buffer_size(struct vkhmm_buffer buffer, uint64_t *bytes);

/// The label, as given.
///
/// Errors: Of texts, of handles, FORKED.
vkhmm_result vkhmm_buffer_label(struct vkhmm_buffer buffer, char *text, size_t capacity, size_t *needed);

/// How kernels reach the buffer (`kind` may be NULL), and why so, as a text.
///
/// Errors: Of texts, of handles, FORKED.
vkhmm_result vkhmm_buffer_placement(struct vkhmm_buffer buffer,
                                    vkhmm_placement_kind *kind,
                                    char *text,
                                    size_t capacity,
                                    size_t *needed);

/// Whether any of these bytes were lost with the device: VKHMM_OK if not.
///
/// Errors: LOST, OUT_OF_RANGE; of handles, FORKED.
vkhmm_result vkhmm_buffer_check(struct vkhmm_buffer buffer, uint64_t offset, uint64_t bytes);

/// Starts to copy bytes to the device, where they stay readable by the host. A hint: it does what it can without waiting for, or
/// taking from, anybody. `launch`, to wait for it, may be NULL.
///
/// Errors: LOST, DEVICE_LOST, OUT_OF_RANGE; of handles, FORKED.
vkhmm_result vkhmm_prefetch_to_device(struct vkhmm_buffer buffer,
                                      uint64_t offset,
                                      uint64_t bytes,
                                      struct vkhmm_launch *launch);

/// Starts to bring bytes home, after unfinished launches that write them; the device's copies stay valid. `launch`, to wait for it, may be NULL.
///
/// Errors: LOST, OUT_OF_RANGE; of handles, FORKED.
vkhmm_result vkhmm_prefetch_to_host(struct vkhmm_buffer buffer,
                                    uint64_t offset,
                                    uint64_t bytes,
                                    struct vkhmm_launch *launch);

/// Where bytes are: runs of pages in the same state, in order. Writes at most `capacity` of them and sets `*needed` to how many there
/// are. Faults nothing in.
///
/// Errors: OUT_OF_RANGE; INCOMPLETE if there are more; of handles, FORKED.
vkhmm_result vkhmm_buffer_residency(struct vkhmm_buffer buffer,
                                    uint64_t offset,
                                    uint64_t bytes,
                                    struct vkhmm_residency *runs,
                                    size_t capacity,
                                    size_t *needed);

/// Brings bytes home, waiting for kernels that have them, and keeps them on the host until vkhmm_host_end: read, written and handed to
/// system calls (read, write, O_DIRECT) they behave as ordinary memory under every fault engine. `kind` is VKHMM_ACCESS_READ, or
/// VKHMM_ACCESS_WRITE to change them. `pointer`, the address of the first of them, may be NULL. While the guard is open, launches
/// that write the bytes (or, with VKHMM_ACCESS_WRITE, use them at all) fail with GUARDED.
///
/// Errors: LOST, DEVICE_LOST, OUT_OF_HOST_MEMORY, OUT_OF_RANGE, INVALID_ARGUMENT; of handles, FORKED.
vkhmm_result vkhmm_host_begin(struct vkhmm_buffer buffer,
                              uint64_t offset,
                              uint64_t bytes,
                              vkhmm_access_kind kind,
                              struct vkhmm_guard *guard,
                              void **pointer);

/// Lets the bytes go. In a forked child it does nothing.
///
/// Errors: STALE_HANDLE if it was ended before, INVALID_HANDLE, FORKED.
vkhmm_result vkhmm_host_end(struct vkhmm_guard guard);

/// Makes a kernel from a SPIR-V module of `bytes` bytes, which may be freed afterwards. `options` may be NULL. Ends with
/// vkhmm_kernel_destroy, or with its runtime.
///
/// The contract is the caller's: the module is valid SPIR-V, and for every launch whose arguments pass the checks the kernel terminates,
/// has no data race, reads only what it is given, and writes only what it is given for writing.
///
/// Errors: KERNEL, UNSUPPORTED, DEVICE_LOST, REFUSED, INVALID_ARGUMENT; of handles, FORKED.
vkhmm_result vkhmm_kernel_create(struct vkhmm_runtime runtime,
                                 const void *spirv,
                                 size_t bytes,
                                 const struct vkhmm_kernel_options *options,
                                 struct vkhmm_kernel *kernel);

/// Gives a kernel up; what the device still runs of it stays until it is done. In a forked child it does nothing.
///
/// Errors: STALE_HANDLE if it was destroyed before, INVALID_HANDLE, FORKED.
vkhmm_result vkhmm_kernel_destroy(struct vkhmm_kernel kernel);

/// What messages call it.
///
/// Errors: Of texts, of handles, FORKED.
vkhmm_result vkhmm_kernel_name(struct vkhmm_kernel kernel, char *text, size_t capacity, size_t *needed);

/// Invocations of one work group: three numbers, x first.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_kernel_local_size(struct vkhmm_kernel kernel, uint32_t (*size)[3]);

/// Runs a kernel on bytes of buffers. Returns at once: the host's views of what it writes are gone, of what it reads are read-only, and
/// everything launched or touched later sees what it did. It blocks only for device memory that earlier launches use.
///
/// Accesses fill the kernel's storage buffers in (set, binding) order; once these are used up, they fill push-constant members that are
/// device addresses, in offset order. Values fill the other members in order; one struct may fill the rest of the block. `launch`, to
/// wait for it, may be NULL.
///
/// Errors: ARGUMENTS, WRITES_READ_ONLY_ARGUMENT, GRID_TOO_LARGE, BINDING_TOO_LARGE, MISALIGNED, FOREIGN, WORKING_SET_TOO_LARGE, GUARDED, LOST,
/// DEVICE_LOST, OUT_OF_HOST_MEMORY, OUT_OF_DEVICE_MEMORY, OUT_OF_RANGE, PAGEMAP, INVALID_ARGUMENT; of handles, FORKED.
vkhmm_result vkhmm_kernel_launch(struct vkhmm_kernel kernel,
                                 struct vkhmm_grid grid,
                                 const struct vkhmm_access *accesses,
                                 size_t access_count,
                                 const struct vkhmm_value *values,
                                 size_t value_count,
                                 struct vkhmm_launch *launch);

/// Sets every 32-bit word of `to` to `word`, on the device. Like any launch: asynchronous and in order. `launch` may be NULL.
///
/// Errors: WORDS if `to` is not whole words or not given for writing; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_fill(const struct vkhmm_access *to,
                        uint32_t word,
                        struct vkhmm_launch *launch);

/// Copies all of `from` to `to`, on the device. Like any launch: asynchronous and in order. `launch` may be NULL.
///
/// Errors: WORDS if the two differ in length, are not whole words, or `to` is not given for writing; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_copy(const struct vkhmm_access *from,
                        const struct vkhmm_access *to,
                        struct vkhmm_launch *launch);

/// Waits until it is over, at most `timeout_ns` nanoseconds; TIMEOUT if it is not. May be called any number of times, by any thread.
///
/// Errors: DEVICE_LOST: every page it was to write is lost; of handles, FORKED.
vkhmm_result vkhmm_launch_wait(struct vkhmm_launch launch,
                               uint64_t timeout_ns);

/// Whether it is over: 1 or 0.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_launch_is_done(struct vkhmm_launch launch, uint32_t *done);

/// How many nanoseconds the kernel ran on the device; NONE before it is over, where the device has no
/// clock, and for kernels that are not timed (vkhmm_kernel_options).
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_launch_elapsed(struct vkhmm_launch launch, uint64_t *ns);

/// Gives the handle up; the work goes on. In a forked child it does nothing.
///
/// Errors: STALE_HANDLE if it was destroyed before, INVALID_HANDLE, FORKED.
vkhmm_result vkhmm_launch_destroy(struct vkhmm_launch launch);

/// Of the vkhmm_kernels_ functions: each is asynchronous and in order, as vkhmm_kernel_launch is; results stay in managed memory. What is
/// larger than the device memory limit goes in windows. What is written must have no element of what is read. An error that concerns a later window leaves what earlier ones wrote. `launch` may
/// be NULL.
///
/// `to[i] = value`.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_fill(const struct vkhmm_access *to,
                                float value,
                                struct vkhmm_launch *launch);

/// `to[i] = from[i]`. Both have the same length.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_copy(const struct vkhmm_access *from,
                                const struct vkhmm_access *to,
                                struct vkhmm_launch *launch);

/// `y[i] += a * x[i]`. Both have the same length.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_axpy(float a,
                                const struct vkhmm_access *x,
                                const struct vkhmm_access *y,
                                struct vkhmm_launch *launch);

/// `x[i] *= a`.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_scale(float a, const struct vkhmm_access *x, struct vkhmm_launch *launch);

/// `out[0]` = the sum of `x[i] * y[i]`. Both have the same length.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_dot(const struct vkhmm_access *x,
                               const struct vkhmm_access *y,
                               const struct vkhmm_access *out,
                               struct vkhmm_launch *launch);

/// `out[0]` = the sum of `x`.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_sum(const struct vkhmm_access *x,
                               const struct vkhmm_access *out,
                               struct vkhmm_launch *launch);

/// `out[0]` = the largest of `x`; what is not a number is passed over, and of nothing it is minus infinity.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_max(const struct vkhmm_access *x,
                               const struct vkhmm_access *out,
                               struct vkhmm_launch *launch);

/// `out[0]` (uint32_t) = the index of the smallest of `x`, the first one of equal ones; what is not a number is passed over, and of
/// nothing it is UINT32_MAX.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_arg_min(const struct vkhmm_access *x,
                                   const struct vkhmm_access *out,
                                   struct vkhmm_launch *launch);

/// `c = alpha a b + beta c`. With `beta` zero the old `c` is not read.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_gemm(float alpha,
                                const struct vkhmm_matrix *a,
                                const struct vkhmm_matrix *b,
                                float beta,
                                const struct vkhmm_matrix *c,
                                struct vkhmm_launch *launch);

/// `c` = `a` times its transposed, the Gram matrix of the rows of `a`.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_gram(const struct vkhmm_matrix *a,
                                const struct vkhmm_matrix *c,
                                struct vkhmm_launch *launch);

/// `c = alpha a aT + beta c` for the lower triangle of `c` and its diagonal; what is above stays as it is.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_syrk(float alpha,
                                const struct vkhmm_matrix *a,
                                float beta,
                                const struct vkhmm_matrix *c,
                                struct vkhmm_launch *launch);

/// `b` = `a` transposed.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_transpose(const struct vkhmm_matrix *a,
                                     const struct vkhmm_matrix *b,
                                     struct vkhmm_launch *launch);

/// Each element of `out` is the sum of `filter`'s elements times the neighbourhood of the same element of `image`, the filter's element
/// (rows / 2, cols / 2) lying on it; beyond the border the nearest element of `image` stands. The filter is not mirrored.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_conv2d(const struct vkhmm_matrix *image,
                                  const struct vkhmm_matrix *filter,
                                  const struct vkhmm_matrix *out,
                                  struct vkhmm_launch *launch);

/// Each row of `out` is the softmax of the same row of `a`.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_softmax(const struct vkhmm_matrix *a,
                                   const struct vkhmm_matrix *out,
                                   struct vkhmm_launch *launch);

/// `y = a x` for a sparse `a`. Where all of it does not fit the device memory limit, the CPU reads `row_start`, and so waits for what
/// writes it.
///
/// Errors: SHAPE; otherwise as vkhmm_kernel_launch.
vkhmm_result vkhmm_kernels_spmv(const struct vkhmm_csr *a,
                                const struct vkhmm_access *x,
                                const struct vkhmm_access *y,
                                struct vkhmm_launch *launch);

/// Says how bytes are going to be used: a hint about all pages that they touch, until something else is said. Moves nothing by itself,
/// and changes no result.
///
/// Errors: INVALID_ARGUMENT, OUT_OF_RANGE; of handles, FORKED.
vkhmm_result vkhmm_advise(struct vkhmm_buffer buffer,
                          uint64_t offset,
                          uint64_t bytes,
                          vkhmm_advice advice);

/// Says that nobody needs what the bytes are: nothing of them is copied home. Pages that are partly others' keep their contents. Until
/// they are written again the bytes are some earlier values of theirs, or zeros. `saved`, the bytes whose copy home is saved, may be NULL.
///
/// Errors: LOST, OUT_OF_RANGE; of handles, FORKED; nothing has changed then.
vkhmm_result vkhmm_discard(struct vkhmm_buffer buffer,
                           uint64_t offset,
                           uint64_t bytes,
                           uint64_t *saved);

/// Brings bytes to `side` and keeps them there until vkhmm_unpin. On the host, launches that name them fail with GUARDED. On the device,
/// nothing takes their frames; a load brings home a duplicate, a store takes its page home.
///
/// Errors: INVALID_ARGUMENT, OUT_OF_RANGE, GUARDED, LOST, DEVICE_LOST, OUT_OF_HOST_MEMORY; on the device WORKING_SET_TOO_LARGE, ACQUIRED; of
/// handles, FORKED. Nothing is pinned then.
vkhmm_result vkhmm_pin(struct vkhmm_buffer buffer,
                       uint64_t offset,
                       uint64_t bytes,
                       vkhmm_side side,
                       struct vkhmm_pinned *pinned);

/// Lets the bytes go. In a forked child it does nothing.
///
/// Errors: STALE_HANDLE if it was unpinned before, INVALID_HANDLE, FORKED.
vkhmm_result vkhmm_unpin(struct vkhmm_pinned pinned);

/// What was said about bytes, and what keeps them where they are: runs of pages, in order. Writes at most `capacity` of them and sets
/// `*needed` to how many there are. Faults nothing in.
///
/// Errors: OUT_OF_RANGE; INCOMPLETE if there are more; of handles, FORKED.
vkhmm_result vkhmm_buffer_attributes(struct vkhmm_buffer buffer,
                                     uint64_t offset,
                                     uint64_t bytes,
                                     struct vkhmm_attributes *runs,
                                     size_t capacity,
                                     size_t *needed);

/// The registered pagemaps, live and dying. Writes at most `capacity` and sets `*needed` to how many there are.
///
/// Errors: INCOMPLETE if there are more; of handles, FORKED.
vkhmm_result vkhmm_runtime_pagemaps(struct vkhmm_runtime runtime,
                                    struct vkhmm_pagemap *pagemaps,
                                    size_t capacity,
                                    size_t *needed);

/// The pagemap that owns a device address; NONE if none does.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_runtime_find_pagemap(struct vkhmm_runtime runtime,
                                        uint64_t device_address,
                                        struct vkhmm_pagemap *pagemap);

/// No frame of this pagemap is handed out any more; when none is left, launches fail with PAGEMAP.
///
/// Errors: PAGEMAP if it is unknown; of handles, FORKED.
vkhmm_result vkhmm_runtime_kill_pagemap(struct vkhmm_runtime runtime, uint64_t pagemap);

/// Takes a killed pagemap down: its pages come home; waits up to `timeout_ns` nanoseconds for the last use of its frames.
///
/// Errors: PAGEMAP if it is live, unknown or still referenced; DEVICE_LOST; of handles, FORKED.
vkhmm_result vkhmm_runtime_unregister_pagemap(struct vkhmm_runtime runtime,
                                              uint64_t pagemap,
                                              uint64_t timeout_ns);

/// The descriptor of the page that holds a managed address, and where its bytes are; NONE for any other address. Either may be NULL.
/// Faults nothing in.
///
/// Errors: Of handles, FORKED.
///
/// Pointers: `address` is any address at all. Other pointers as the head of vkhmm.h says.
vkhmm_result vkhmm_runtime_page_flags(struct vkhmm_runtime runtime,
                                      const void *address,
                                      vkhmm_page_flags *flags,
                                      vkhmm_location *place);

/// Whether the CPU can load and store the page at `address` where it is, 1 or 0: 1 for every address that is not managed, and for managed
/// pages whose bytes are on the host.
///
/// Errors: Of handles, FORKED.
///
/// Pointers: `address` is any address at all. Other pointers as the head of vkhmm.h says.
vkhmm_result vkhmm_runtime_is_addressable(struct vkhmm_runtime runtime,
                                          const void *address,
                                          uint32_t *addressable);

/// Asks what a device is to be created with, before it is: extensions, features and queues, each required or with what is lost without
/// it. `api_version` is the apiVersion that the instance was created with (1.2 or above). Ends with vkhmm_requirements_destroy.
///
/// Errors: NO_DEVICE if the device lacks what is required, which the text names; INVALID_ARGUMENT; OUT_OF_HOST_MEMORY.
///
/// Pointers: `instance` and `physical_device` are alive, and `get_instance_proc_addr` is vkGetInstanceProcAddr of their loader.
vkhmm_result vkhmm_requirements_query(PFN_vkGetInstanceProcAddr get_instance_proc_addr,
                                      VkInstance instance,
                                      VkPhysicalDevice physical_device,
                                      uint32_t api_version,
                                      vkhmm_level level,
                                      struct vkhmm_requirements *requirements);

/// Gives them up, with their texts and their chain of features. In a forked child it does nothing.
///
/// Errors: STALE_HANDLE if they were destroyed before, INVALID_HANDLE, FORKED.
vkhmm_result vkhmm_requirements_destroy(struct vkhmm_requirements requirements);

/// Device extensions to turn on; those that the device does not have are not listed.
///
/// Errors: INCOMPLETE if there are more; of handles, FORKED.
vkhmm_result vkhmm_requirements_extensions(struct vkhmm_requirements requirements,
                                           struct vkhmm_wanted *list,
                                           size_t capacity,
                                           size_t *needed);

/// Features to turn on, by name; vkhmm_requirements_feature_chain has the same as structures.
///
/// Errors: INCOMPLETE if there are more; of handles, FORKED.
vkhmm_result vkhmm_requirements_features(struct vkhmm_requirements requirements,
                                         struct vkhmm_wanted *list,
                                         size_t capacity,
                                         size_t *needed);

/// The features as a chain for VkDeviceCreateInfo's pNext: VkPhysicalDeviceFeatures2 first, each structure once. To be merged with an
/// application's own where both have a structure. Valid until the requirements are destroyed.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_requirements_feature_chain(struct vkhmm_requirements requirements,
                                              const void **chain);

/// Queues to create for vkhmm, the required one first.
///
/// Errors: INCOMPLETE if there are more; of handles, FORKED.
vkhmm_result vkhmm_requirements_queues(struct vkhmm_requirements requirements,
                                       struct vkhmm_wanted_queue *list,
                                       size_t capacity,
                                       size_t *needed);

/// All of it in words, a line each.
///
/// Errors: Of texts, of handles, FORKED.
vkhmm_result vkhmm_requirements_text(struct vkhmm_requirements requirements,
                                     char *text,
                                     size_t capacity,
                                     size_t *needed);

/// Makes a runtime over a device that the application made and keeps. `options` may be NULL; device and validation in them are the
/// application's business here. Ends with vkhmm_runtime_close. Small submissions are run and waited for meanwhile.
///
/// Errors: NO_DEVICE names what is required and not turned on, or what does not fit together; SHARED_QUEUE if CPU touches would need a queue that
/// the application shares; otherwise as vkhmm_runtime_create.
///
/// Pointers: The promises of vkhmm_parts.
vkhmm_result vkhmm_runtime_from_vulkan(const struct vkhmm_parts *parts,
                                       const struct vkhmm_runtime_options *options,
                                       struct vkhmm_runtime *runtime);

/// Ends a runtime as vkhmm_runtime_destroy does, and waits at most `timeout_ns` nanoseconds until no thread of the runtime's and nothing
/// made by it uses the Vulkan device: after OK an application may destroy its device. TIMEOUT if that is not so yet: call it again with
/// the same handle, which is stale for every other call. What was launched is finished first.
///
/// Errors: ENDING if the process is ending: vkhmm does not touch the device any more, and what it made from it is still there; STALE_HANDLE,
/// INVALID_HANDLE, FORKED.
vkhmm_result vkhmm_runtime_close(struct vkhmm_runtime runtime,
                                 uint64_t timeout_ns);

/// Brings bytes to the device for the application's own command buffers: all accesses, or none. It comes after everything launched before
/// on the same bytes, and takes the host's views away as a launch does. `placed` is an array of `count` places, in the accesses' order.
/// The application's submissions that use them wait for `wait` first. `label` is for reports and errors, NULL for none.
///
/// Never waits for the device. Until the release the frames stay where they are: later launches have the rest of the device memory limit.
/// Launches and acquires that conflict with it are refused, CPU touches wait. Reads beside reads are granted.
///
/// Errors: BUSY: it would have to wait, ask again later; WORKING_SET_TOO_LARGE: it does not fit beside what is acquired already, as
/// vkhmm_can_acquire tells; ACQUIRED: somebody else has it; and those of vkhmm_kernel_launch that are about memory.
vkhmm_result vkhmm_acquire(struct vkhmm_runtime runtime,
                           const struct vkhmm_access *accesses,
                           size_t count,
                           const char *label,
                           struct vkhmm_acquired *acquired,
                           struct vkhmm_placed *placed,
                           struct vkhmm_wait *wait);

/// Gives the bytes back after work that is submitted: everything that touches them from now on comes after `value`, without a wait here,
/// and the next acquire of them is granted at once. After the loss of the device nothing happens.
///
/// The caller promises: work is submitted that makes `semaphore`, a timeline semaphore of the runtime's device, reach `value`, and
/// nothing keeps it from being done; the semaphore lives until it has, and a later launch or touch of the bytes is through,
/// vkhmm_runtime_sync has returned or the runtime is closed; all work on the bytes waited for `wait`, stayed inside them, stored only to
/// what was acquired for writing, and is done when `value` is reached.
///
/// Errors: INVALID_ARGUMENT for a semaphore that is VK_NULL_HANDLE; of handles, FORKED.
vkhmm_result vkhmm_release(struct vkhmm_acquired acquired,
                           VkSemaphore semaphore,
                           uint64_t value);

/// Gives the bytes back; no work that uses them was submitted. What was acquired with VKHMM_ACCESS_OVERWRITE is zero from now on.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_acquired_cancel(struct vkhmm_acquired acquired);

/// Whether accesses of `bytes` bytes in all fit the device memory limit beside what is acquired now: 1 or 0. Takes and moves nothing.
///
/// Errors: Of handles, FORKED.
vkhmm_result vkhmm_can_acquire(struct vkhmm_runtime runtime,
                               uint64_t bytes,
                               uint32_t *yes);

/// Memory of `bytes` bytes, managed from VKHMM_MEMORY_MANAGED_MIN on, else of the C library's; NULL if there is none. `context` is a
/// runtime's id as a pointer. The four functions have the shape of NumPy's PyDataMemAllocator; they leave vkhmm_last_error as it is. What they
/// give is for them alone to free. Not for VKHMM_FAULT_ENGINE_DECLARED: nobody says when such memory is touched. In a forked child what is
/// new is of the C library's, and freeing what the parent managed does nothing.
void *vkhmm_memory_malloc(void *context,
                          size_t bytes);

/// As vkhmm_memory_malloc, `count` elements of `bytes` bytes each, all zero; large ones take no memory until they are touched.
void *vkhmm_memory_calloc(void *context,
                          size_t count,
                          size_t bytes);

/// Memory of another size with the same bytes at its start; `memory`, which may be NULL, is freed then. NULL if there is none: `memory`
/// is as it was.
///
/// Pointers: `memory` came from these functions and was not freed; nothing else uses it.
void *vkhmm_memory_realloc(void *context,
                           void *memory,
                           size_t bytes);

/// Frees memory of these functions; NULL is nothing. Never waits. The context and the number of bytes are not looked at.
///
/// Pointers: `memory` is NULL, or came from these functions and was not freed.
void vkhmm_memory_free(void *context,
                       void *memory,
                       size_t bytes);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VKHMM_H */
