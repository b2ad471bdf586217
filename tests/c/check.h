/* What the parts of the C test share: checks that name file and line, and memory that the host may touch under every engine. */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vkhmm.h>

/* One test: named, run alone on the main thread. */
struct test {
    const char *name;
    void (*run)(void);
};

extern const struct test BINDINGS[], CALLS[], HANDLES[], PROCESS[], VULKAN[];

/* Ends the program with what was wrong. */
_Noreturn void failed(const char *file, int line, const char *what, const char *why);

#define CHECK(condition) \
    do { \
        if (!(condition)) failed(__FILE__, __LINE__, #condition, vkhmm_last_error()); \
    } while (0)

/* The call answers `code`; and an error has a text, anything else none. */
#define ANSWERS(code, call) \
    do { \
        vkhmm_result answer_ = (call); \
        if (answer_ != (code)) failed(__FILE__, __LINE__, #call " is not " #code, vkhmm_result_name(answer_)); \
        if ((answer_ < 0) != (vkhmm_last_error()[0] != 0)) failed(__FILE__, __LINE__, #call, "text without error"); \
    } while (0)
#define OK(call) ANSWERS(VKHMM_OK, call)

/* The last error names `part`. */
#define SAYS(part) \
    do { \
        if (!strstr(vkhmm_last_error(), part)) failed(__FILE__, __LINE__, "should say: " part, vkhmm_last_error()); \
    } while (0)

enum { PAGE = 4096, WORDS = PAGE / 4 };

/* Options with their size set, and everything else left open. */
vkhmm_runtime_options options(void);
/* A runtime under validation, with 16 MiB of device memory. */
vkhmm_runtime open_runtime(void);
/* Destroys it; validation must have been silent. */
void close_runtime(vkhmm_runtime runtime);
vkhmm_buffer alloc_bytes(vkhmm_runtime runtime, uint64_t bytes, const char *label);
vkhmm_kernel kernel(vkhmm_runtime runtime, const char *shader);
/* Bytes of a SPIR-V module; the caller frees them. */
void *spirv(const char *shader, size_t *bytes);
/* Whether the fault engine is `declared`: then memory may be touched inside guards only. */
int is_declared(void);
/* All of a buffer, for the host: in `declared` inside a guard, else by its pointer alone. */
struct touch {
    vkhmm_guard guard;
    void *bytes;
};
struct touch touch(vkhmm_buffer buffer, vkhmm_access_kind kind);
void release(struct touch touch);
/* Writes i to word i; compares word i with `factor` * i. */
void number(vkhmm_buffer buffer, size_t words);
void compare(vkhmm_buffer buffer, size_t words, float factor);
vkhmm_access all(vkhmm_buffer buffer, vkhmm_access_kind kind);
/* x *= by, over all of it. */
vkhmm_result scale(vkhmm_kernel kernel, vkhmm_buffer buffer, size_t words, float by, vkhmm_launch *launch);

#endif
