# refparity_compile_options(target...): the language, warnings and sanitizers of this project's own
# targets. Not for what it installs or links.
include_guard(GLOBAL)

function(refparity_compile_options)
  foreach(target IN LISTS ARGN)
    set_target_properties(${target} PROPERTIES
      C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
    # _DEFAULT_SOURCE: wait4. No contraction to FMA: metrics are the same to the bit on every CPU.
    target_compile_definitions(${target} PRIVATE _POSIX_C_SOURCE=200809L _DEFAULT_SOURCE)
    target_compile_options(${target} PRIVATE -ffp-contract=off -Wall -Wextra -Wshadow -Wconversion
      -Wdouble-promotion -Wundef -Wstrict-prototypes $<$<BOOL:${REFPARITY_WERROR}>:-Werror>)
    if(REFPARITY_SANITIZE)
      target_compile_options(${target} PRIVATE -fsanitize=${REFPARITY_SANITIZE}
        -fno-sanitize-recover=all -fno-omit-frame-pointer)
      target_link_options(${target} PUBLIC -fsanitize=${REFPARITY_SANITIZE}) # what links it, too
    endif()
  endforeach()
endfunction()
