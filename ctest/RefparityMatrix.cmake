# refparity_add_matrix(MATRIX [PREFIX name/] [STORE dir...] [LABELS label...] [RECORD_COMMAND cmd]
#                      [ENTRIES name...])
#
# Makes the tests of a matrix: for each pair one generated .c, one program, and one ctest test per
# slot, in the scheme
#
#   <pair>/run       FIXTURES_SETUP: runs the engine once and records what happened
#   <pair>/engine    did it exit well and complete its dump?
#   <pair>/tokens, emb, h00 .. hNN, post_norm, logits
#   <pair>/replay/emb, replay/h00 .. replay/logits   for entries with replay
#   <pair>/report    FIXTURES_CLEANUP: collects what the tests found and writes the reports
#
#   <entry>/weights   is the entry's GGUF the checkpoint that its hf_model names? Runs no engine
#
# and where an entry has compare_modes, <entry>/<mode>-vs-<mode>/<prompt> with tokens, slots and
# report, which need the run of both modes and no fixture; all of it
# between session/begin and session/end, which keep this ctest run's results apart from older ones
# and write results.json and junit.xml. STORE: folders with recorded fixtures. ENTRIES: these alone
# become tests; all unless given.
#
# CMake reads names and counts from the matrix, nothing else: string(JSON) rewrites numbers and
# splits on ";", so prompts, limits and argv are left to C. That also checks the matrix; a mistake
# that gets past this file is reported by every test, with line and column.
include_guard(GLOBAL)

# beside this file where it is installed, in cases/ in the source tree
set(_refparity_template "${CMAKE_CURRENT_LIST_DIR}/case.c.in")
if(NOT EXISTS "${_refparity_template}")
  set(_refparity_template "${CMAKE_CURRENT_LIST_DIR}/../cases/case.c.in")
endif()
set(REFPARITY_CASE_TEMPLATE "${_refparity_template}"
  CACHE INTERNAL "what a generated case is made from")

# out = the value at the path in json, or default when there is none.
function(_refparity_json out default json)
  string(JSON value ERROR_VARIABLE error GET "${json}" ${ARGN})
  if(error)
    set(value "${default}")
  endif()
  set(${out} "${value}" PARENT_SCOPE)
endfunction()

# out = the length of the array at the path, 0 when there is none.
function(_refparity_json_length out json)
  string(JSON length ERROR_VARIABLE error LENGTH "${json}" ${ARGN})
  if(error)
    set(length 0)
  endif()
  set(${out} ${length} PARENT_SCOPE)
endfunction()

function(_refparity_check_name where name)
  if(NOT name MATCHES "^[A-Za-z0-9._:-]+$")
    message(FATAL_ERROR "${where}: \"${name}\" is no name: expected [A-Za-z0-9._-]+ "
      "(refparity check-matrix gives line and column)")
  endif()
endfunction()

# text as a C or JSON string's inside.
function(_refparity_escape out text)
  string(REPLACE "\\" "\\\\" text "${text}")
  string(REPLACE "\"" "\\\"" text "${text}")
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

# config.json: what the programs of this build tree have to know (framework/run/context.h).
function(_refparity_write_config path matrix prefix dir reports targets stores record_command)
  set(store_items "")
  foreach(store IN LISTS stores)
    get_filename_component(store "${store}" REALPATH) # of one that is not there yet, too
    _refparity_escape(store "${store}")
    list(APPEND store_items "\"${store}\"")
  endforeach()
  list(JOIN store_items ", " store_items)
  set(target_items "")
  foreach(target IN LISTS targets)
    # "" where this build has no such target
    list(APPEND target_items
      "\"${target}\": \"$<$<TARGET_EXISTS:${target}>:$<TARGET_FILE:${target}>>\"")
  endforeach()
  list(JOIN target_items ", " target_items)
  file(SHA256 "${matrix}" matrix_sha256)
  foreach(name matrix prefix dir reports record_command CMAKE_BINARY_DIR)
    _refparity_escape(${name} "${${name}}")
  endforeach()
  file(GENERATE OUTPUT "${path}" CONTENT "{
  \"matrix\": \"${matrix}\",
  \"matrix_sha256\": \"${matrix_sha256}\",
  \"prefix\": \"${prefix}\",
  \"build_dir\": \"${CMAKE_BINARY_DIR}\",
  \"work_dir\": \"${dir}\",
  \"reports_dir\": \"${reports}\",
  \"record_command\": \"${record_command}\",
  \"tool\": \"$<TARGET_FILE:refparity::tool>\",
  \"stores\": [${store_items}],
  \"targets\": {${target_items}}
}
")
endfunction()

# The slots of a model with n layers, as test names and as the C functions of a case.
function(_refparity_slots n out_names out_functions out_tests)
  math(EXPR last "${n} - 1")
  string(LENGTH "${last}" width)
  if(width LESS 2)
    set(width 2)
  endif()
  set(names emb)
  set(functions "static void emb(void **state) { rp_case_slot(state, \"emb\"); }\n")
  foreach(layer RANGE ${last})
    string(LENGTH "${layer}" digits)
    math(EXPR zeros "${width} - ${digits}")
    string(REPEAT "0" ${zeros} zeros)
    list(APPEND names h${zeros}${layer})
    string(APPEND functions
      "static void h${zeros}${layer}(void **state) { rp_case_slot(state, \"h${layer}\"); }\n")
  endforeach()
  foreach(slot post_norm logits)
    list(APPEND names ${slot})
    string(APPEND functions
      "static void ${slot}(void **state) { rp_case_slot(state, \"${slot}\"); }\n")
  endforeach()
  set(tests "")
  foreach(name IN LISTS names)
    string(APPEND tests "        cmocka_unit_test(${name}),\n")
  endforeach()
  set(${out_names} "${names}" PARENT_SCOPE)
  set(${out_functions} "${functions}" PARENT_SCOPE)
  set(${out_tests} "${tests}" PARENT_SCOPE)
endfunction()

# The same for the replay of each slot of slot_names.
function(_refparity_replays slot_names out_functions out_tests)
  set(functions "")
  set(tests "")
  foreach(name IN LISTS slot_names)
    string(REGEX REPLACE "^h0*([0-9])" "h\\1" slot "${name}")
    string(APPEND functions
      "static void replay_${name}(void **state) { rp_case_replay(state, \"${slot}\"); }\n")
    string(APPEND tests "        {\"replay/${name}\", replay_${name}, NULL, NULL, NULL},\n")
  endforeach()
  set(${out_functions} "${functions}" PARENT_SCOPE)
  set(${out_tests} "${tests}" PARENT_SCOPE)
endfunction()

# At the end of the configuration, when all targets are known: an engine that this build does not
# make is no error, its pairs are skipped.
function(_refparity_add_engines program)
  foreach(target IN LISTS ARGN)
    if(TARGET "${target}")
      add_dependencies(${program} "${target}")
    endif()
  endforeach()
endfunction()

# out = the line on which the entry's name stands, for IDEs to jump to. Text search: string(JSON)
# keeps no positions.
function(_refparity_entry_line out entry)
  string(FIND "${json}" "\"tests\"" tests)
  string(SUBSTRING "${json}" ${tests} -1 rest)
  string(FIND "${rest}" "\"${entry}\"" name)
  math(EXPR before "${tests} + ${name}")
  string(SUBSTRING "${json}" 0 ${before} head)
  string(REGEX MATCHALL "\n" newlines "${head}")
  list(LENGTH newlines line)
  math(EXPR line "${line} + 1")
  set(${out} ${line} PARENT_SCOPE)
endfunction()

# One pair: its program and its tests. Reads the caller's entry, engine_name and so on. against: the
# mode whose dump is the reference, "" for the fixture.
function(_refparity_add_pair mode against prompt)
  set(pair "${entry}/${prompt}")
  set(reference "against its recorded fixture")
  set(needs "${arg_PREFIX}${pair}")
  if(mode)
    string(REPLACE ":" "-" mode "${mode}")
    set(pair "${entry}/${mode}/${prompt}")
    set(needs "${arg_PREFIX}${pair}")
  endif()
  if(against)
    set(reference "its mode ${mode} against its mode ${against}")
    string(REPLACE ":" "-" against "${against}")
    set(mode "${mode}-vs-${against}")
    set(pair "${entry}/${mode}/${prompt}")
    list(APPEND needs "${arg_PREFIX}${entry}/${against}/${prompt}" "${arg_PREFIX}${pair}")
    set(run_tests "")
    set(run_functions "")
  else()
    set(run_tests "        cmocka_unit_test(run),\n        cmocka_unit_test(engine),\n")
    set(run_functions "static void run(void **state) { rp_case_run(state); }
static void engine(void **state) { rp_case_engine(state); }
")
  endif()
  set(replays "")
  set(replay_functions "")
  set(replay_tests "")
  if((replay STREQUAL "all" OR "${mode}" IN_LIST replay) AND NOT against)
    list(TRANSFORM slot_names PREPEND "replay/" OUTPUT_VARIABLE replays)
    _refparity_replays("${slot_names}" replay_functions replay_tests)
  endif()
  string(REPLACE "/" "__" program "case.${id}.${pair}") # names hold no "__"
  set(source "${dir}/cases/${program}.c")
  list(GET slot_names 1 first_layer)
  configure_file("${REFPARITY_CASE_TEMPLATE}" "${source}" @ONLY)
  add_executable(${program} "${source}")
  target_link_libraries(${program} PRIVATE refparity::cases)
  # It only calls: optimizing it would be a sixth of a large matrix's build, for nothing.
  target_compile_options(${program} PRIVATE -O0 -U_FORTIFY_SOURCE)
  set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${dir}/cases"
    C_STANDARD 11 FOLDER "refparity/${id}")
  # whoever builds a case can run it
  add_dependencies(${program} refparity::tool)
  cmake_language(EVAL CODE "cmake_language(DEFER DIRECTORY [[${CMAKE_SOURCE_DIR}]]
    CALL _refparity_add_engines ${program} ${engine_targets})")

  set(test "${arg_PREFIX}${pair}")
  set(all tokens ${slot_names} ${replays} report)
  if(NOT against)
    list(PREPEND all run engine)
  endif()
  foreach(name IN LISTS all)
    add_test(NAME "${test}/${name}" COMMAND ${program} ${name})
  endforeach()
  list(TRANSFORM all PREPEND "${test}/")
  set(labels "${entry}" "${engine_name}" ${arg_LABELS})
  set_tests_properties(${all} PROPERTIES SKIP_RETURN_CODE 77
    SKIP_REGULAR_EXPRESSION "(^|\n)refparity: SKIP: " DISABLED ${disabled}
    DEF_SOURCE_LINE "${matrix}:${entry_line}")
  if(against)
    list(APPEND labels modes)
    list(POP_BACK all report)
    set_tests_properties(${all} PROPERTIES FIXTURES_REQUIRED "${needs}" LABELS "${labels}")
    set_tests_properties(${report} PROPERTIES FIXTURES_CLEANUP "${test}"
      FIXTURES_REQUIRED "${id}-session" LABELS "${labels}")
    return()
  endif()
  list(TRANSFORM slot_names PREPEND "${test}/" OUTPUT_VARIABLE judged)
  list(POP_BACK judged)
  set_tests_properties(${judged} PROPERTIES FIXTURES_REQUIRED "${test}" LABELS "${labels};layer")
  foreach(name engine tokens logits)
    set_tests_properties("${test}/${name}" PROPERTIES
      FIXTURES_REQUIRED "${test}" LABELS "${labels};${name}")
  endforeach()
  if(replays)
    list(TRANSFORM replays PREPEND "${test}/")
    set_tests_properties(${replays} PROPERTIES
      FIXTURES_REQUIRED "${test}" LABELS "${labels};replay")
  endif()
  # The gate asks for replay of all layers up to a slot. One after the other, each verdict is computed once.
  if(gate STREQUAL "explained")
    set(earlier "")
    foreach(name IN LISTS judged ITEMS "${test}/logits")
      set(before ${earlier})
      string(REPLACE "${test}/" "${test}/replay/" own "${name}")
      if(own IN_LIST replays)
        list(APPEND before "${own}")
      endif()
      if(before)
        set_tests_properties("${name}" PROPERTIES DEPENDS "${before}")
      endif()
      set(earlier "${name}")
    endforeach()
  endif()
  set_tests_properties("${test}/run" PROPERTIES FIXTURES_SETUP "${test}"
    FIXTURES_REQUIRED "${id}-session" LABELS "${labels};run" PROCESSORS ${processors}
    TIMEOUT ${timeout})
  if(serial)
    set_tests_properties("${test}/run" PROPERTIES RESOURCE_LOCK "refparity-${engine_name}")
  endif()
  set_tests_properties("${test}/report" PROPERTIES FIXTURES_CLEANUP "${test}"
    FIXTURES_REQUIRED "${id}-session" LABELS "${labels};report")
endfunction()

# One entry: reads what its pairs have in common, then adds them.
function(_refparity_add_entry entry_json)
  _refparity_json(entry "" "${entry_json}" name)
  _refparity_check_name("${matrix}" "${entry}")
  _refparity_entry_line(entry_line "${entry}")
  _refparity_json(hf_model "" "${entry_json}" hf_model)
  string(REGEX REPLACE "[^A-Za-z0-9._/-]" "_" hf_model "${hf_model}")
  _refparity_json(n_layers "" "${entry_json}" n_layers)
  if(NOT n_layers MATCHES "^[1-9][0-9]?[0-9]?[0-9]?$")
    message(FATAL_ERROR "${matrix}: entry ${entry}: expected n_layers, the number of the model's "
      "layers (num_hidden_layers in its config.json), found \"${n_layers}\"")
  endif()
  _refparity_json(disabled OFF "${entry_json}" _disabled)
  if(disabled STREQUAL "OFF" OR disabled STREQUAL "")
    set(disabled FALSE)
  else()
    set(disabled TRUE)
  endif()

  _refparity_json(engine_name "${default_engine}" "${entry_json}" engine)
  _refparity_check_name("${matrix}" "${engine_name}")
  _refparity_json(engine_json "{}" "${engines_json}" "${engine_name}")
  _refparity_json(processors 1 "${engine_json}" processors)
  _refparity_json(timeout 600 "${engine_json}" timeout_s)
  _refparity_json(serial OFF "${engine_json}" serial)
  string(REGEX REPLACE "[.].*" "" timeout "${timeout}")
  math(EXPR timeout "${timeout} + 120") # the harness ends the engine itself, long before
  string(REGEX MATCHALL "{target:[A-Za-z0-9_.+-]+}" engine_targets "${engine_json}")
  list(TRANSFORM engine_targets REPLACE "{target:(.*)}" "\\1")

  # as framework/matrix/parse_gate.c has it
  _refparity_json(gate strict "${entry_json}" gate)
  set(replay OFF)
  if(NOT gate STREQUAL "strict")
    set(replay ON)
  endif()
  _refparity_json(replay ${replay} "${entry_json}" replay)
  _refparity_json_length(n_replay "${entry_json}" replay)
  if(n_replay GREATER 0) # a list of modes, else a boolean
    set(replay "")
    foreach(i RANGE ${n_replay})
      if(i LESS n_replay)
        string(JSON mode GET "${entry_json}" replay ${i})
        _refparity_check_name("${matrix}" "${mode}")
        string(REPLACE ":" "-" mode "${mode}")
        list(APPEND replay "${mode}")
      endif()
    endforeach()
  elseif(replay)
    set(replay all)
  else()
    set(replay none)
  endif()

  # Is the entry's GGUF the checkpoint? Once an entry, without an engine.
  set(weights "${arg_PREFIX}${entry}/weights")
  add_test(NAME "${weights}" COMMAND refparity::tool weights --config "${config}" --entry "${entry}")
  set_tests_properties("${weights}" PROPERTIES SKIP_RETURN_CODE 77 DISABLED ${disabled}
    FIXTURES_REQUIRED "${id}-session" LABELS "${entry};weights;${arg_LABELS}"
    DEF_SOURCE_LINE "${matrix}:${entry_line}")

  _refparity_slots(${n_layers} slot_names slot_functions slot_tests)
  set(modes "")
  _refparity_json_length(n_modes "${entry_json}" modes)
  foreach(i RANGE ${n_modes})
    if(i LESS n_modes)
      string(JSON mode GET "${entry_json}" modes ${i})
      _refparity_check_name("${matrix}" "${mode}")
      list(APPEND modes "${mode}")
    endif()
  endforeach()
  _refparity_json_length(n_compared "${entry_json}" compare_modes)
  _refparity_json_length(n_prompts "${entry_json}" prompts)
  foreach(i RANGE ${n_prompts})
    if(i LESS n_prompts)
      _refparity_json(prompt "p${i}" "${entry_json}" prompts ${i} id)
      _refparity_check_name("${matrix}" "${prompt}")
      if(NOT modes)
        _refparity_add_pair("" "" "${prompt}")
      endif()
      foreach(mode IN LISTS modes)
        _refparity_add_pair("${mode}" "" "${prompt}")
      endforeach()
      foreach(k RANGE ${n_compared})
        if(k LESS n_compared)
          string(JSON mode GET "${entry_json}" compare_modes ${k} 0)
          string(JSON against GET "${entry_json}" compare_modes ${k} 1)
          _refparity_check_name("${matrix}" "${mode}")
          _refparity_check_name("${matrix}" "${against}")
          _refparity_add_pair("${mode}" "${against}" "${prompt}")
        endif()
      endforeach()
    endif()
  endforeach()
endfunction()

function(refparity_add_matrix matrix)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "PREFIX;RECORD_COMMAND" "STORE;LABELS;ENTRIES")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "refparity_add_matrix: unknown argument ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT CMAKE_C_COMPILER)
    message(FATAL_ERROR "refparity_add_matrix: the generated cases are C: project(... LANGUAGES C)")
  endif()
  file(REAL_PATH "${matrix}" matrix)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${matrix}")
  if(NOT EXISTS "${matrix}")
    message(FATAL_ERROR "refparity_add_matrix: no such file: ${matrix}")
  endif()
  file(READ "${matrix}" json)
  string(JSON n_entries ERROR_VARIABLE error LENGTH "${json}" tests)
  if(error)
    message(FATAL_ERROR "${matrix}: ${error} (refparity check-matrix gives line and column)")
  endif()
  _refparity_json(engines_json "{}" "${json}" engines)
  # of entries that name none: "engine" of the matrix, or the only one that there is
  _refparity_json_length(n_engines "${json}" engines)
  set(default_engine "")
  if(n_engines EQUAL 0)
    message(FATAL_ERROR "${matrix}: expected \"engines\", what there is to run "
      "(refparity check-matrix says how to add one)")
  elseif(n_engines EQUAL 1)
    string(JSON default_engine MEMBER "${json}" engines 0)
  endif()
  _refparity_json(default_engine "${default_engine}" "${json}" engine)

  set(id refparity)
  set(dir "${CMAKE_BINARY_DIR}/refparity")
  set(reports "${CMAKE_BINARY_DIR}/reports")
  if(arg_PREFIX)
    string(REGEX REPLACE "[^A-Za-z0-9._-]" "_" id "${arg_PREFIX}")
    string(APPEND dir "/${id}")
    string(APPEND reports "/${id}")
  endif()
  if(NOT arg_RECORD_COMMAND)
    set(arg_RECORD_COMMAND "${REFPARITY_RECORDER} --matrix ${matrix} --filter")
  endif()
  get_property(ids GLOBAL PROPERTY REFPARITY_IDS)
  if(id IN_LIST ids)
    message(FATAL_ERROR "refparity_add_matrix(${matrix}): give each matrix a PREFIX of its own")
  endif()
  set_property(GLOBAL APPEND PROPERTY REFPARITY_IDS "${id}")
  set(config "${dir}/config.json")
  # for `refparity report BUILD_DIR`: the matrices of this build tree, below refparity/
  file(RELATIVE_PATH listed "${CMAKE_BINARY_DIR}/refparity" "${config}")
  set_property(GLOBAL APPEND_STRING PROPERTY REFPARITY_CONFIGS "${listed}\n")
  get_property(configs GLOBAL PROPERTY REFPARITY_CONFIGS)
  file(WRITE "${CMAKE_BINARY_DIR}/refparity/matrices" "${configs}")
  string(REGEX MATCHALL "{target:[A-Za-z0-9_.+-]+}" targets "${json}")
  list(TRANSFORM targets REPLACE "{target:(.*)}" "\\1")
  list(REMOVE_DUPLICATES targets)
  _refparity_write_config("${config}" "${matrix}" "${arg_PREFIX}" "${dir}" "${reports}"
    "${targets}" "${arg_STORE}" "${arg_RECORD_COMMAND}")

  add_test(NAME "${arg_PREFIX}session/begin" COMMAND refparity::tool report --begin "${config}")
  add_test(NAME "${arg_PREFIX}session/end" COMMAND refparity::tool report --write-only "${config}")
  set_tests_properties("${arg_PREFIX}session/begin" PROPERTIES
    FIXTURES_SETUP "${id}-session" LABELS "session;${arg_LABELS}")
  set_tests_properties("${arg_PREFIX}session/end" PROPERTIES
    FIXTURES_CLEANUP "${id}-session" LABELS "session;${arg_LABELS}")

  set(wanted "${arg_ENTRIES}")
  foreach(i RANGE ${n_entries})
    if(i LESS n_entries)
      string(JSON entry_json GET "${json}" tests ${i})
      _refparity_json(name "" "${entry_json}" name)
      if(NOT arg_ENTRIES OR name IN_LIST arg_ENTRIES)
        _refparity_add_entry("${entry_json}")
        list(REMOVE_ITEM wanted "${name}")
      endif()
    endif()
  endforeach()
  if(wanted)
    message(FATAL_ERROR "${matrix}: no entry ${wanted} (refparity check-matrix --list has all pairs)")
  endif()
endfunction()
