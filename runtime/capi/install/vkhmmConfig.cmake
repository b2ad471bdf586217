# Imported targets of vkhmm: vkhmm::vkhmm, the shared library, and vkhmm::static. Found relative to this file, so the whole may be moved.
get_filename_component(vkhmm_PREFIX "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

if(NOT TARGET vkhmm::vkhmm)
    add_library(vkhmm::vkhmm SHARED IMPORTED)
    set_target_properties(vkhmm::vkhmm PROPERTIES
        IMPORTED_LOCATION "${vkhmm_PREFIX}/lib/libvkhmm.so.0"
        IMPORTED_SONAME "libvkhmm.so.0"
        INTERFACE_INCLUDE_DIRECTORIES "${vkhmm_PREFIX}/include")
    add_library(vkhmm::static STATIC IMPORTED)
    set_target_properties(vkhmm::static PROPERTIES
        IMPORTED_LOCATION "${vkhmm_PREFIX}/lib/libvkhmm.a"
        INTERFACE_LINK_LIBRARIES "-lgcc_s;-lutil;-lrt;-lpthread;-lm;-ldl"
        INTERFACE_INCLUDE_DIRECTORIES "${vkhmm_PREFIX}/include")
endif()

set(vkhmm_FOUND TRUE)
