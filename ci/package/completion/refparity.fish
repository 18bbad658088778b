# Completion of refparity for fish. Commands and options are what the program says with --help.

function __refparity_commands
    refparity --help 2>/dev/null | string replace --filter --regex '^  ([a-z][a-z-]*)  +(.*)$' '$1\t$2'
end

function __refparity_options
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    refparity $words[2] --help 2>/dev/null | string replace --filter --regex '^  (--[a-z0-9-]+)(?:.*?  +(\S.*))?$' '$1\t$2'
end

function __refparity_has_command
    test (count (commandline --tokenize --cut-at-cursor --current-process)) -ge 2
end

complete -c refparity -n 'not __refparity_has_command' -f -a '(__refparity_commands)'
complete -c refparity -n 'not __refparity_has_command' -f -l help -d 'list the commands'
complete -c refparity -n 'not __refparity_has_command' -f -l version -d 'print the version'
complete -c refparity -n '__refparity_has_command; and string match -q -- "-*" (commandline -ct)' -f -a '(__refparity_options)'
