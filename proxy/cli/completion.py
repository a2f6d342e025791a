"""`completion`: print the script that completes the commands and their options in a shell.

The scripts are generated from the table of commands, so they know every option.
"""

import argparse
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy.cli.arguments import COMMANDS, SCRIPT, options_of

_BASH: Final = string.Template("""\
_llm_token_proxy() {
    local word command="" current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$word" in $pattern) command="$word"; break ;; esac
    done
    case "$command $previous" in
$values
    esac
    case "$command" in
        "") COMPREPLY=($(compgen -W "$commands" -- "$current")) ;;
$options
    esac
}
complete -F _llm_token_proxy $script
""")
_ZSH: Final = string.Template("""\
#compdef $script
_llm_token_proxy() {
    local context state line
    local -a commands
    commands=(
$commands
    )
    _arguments -C '1: :->command' '*:: :->options'
    case $state in
        command) _describe command commands ;;
        options)
            case $line[1] in
$options
            esac ;;
    esac
}
if [[ "$funcstack[1]" == "_$script" ]]; then
    _llm_token_proxy "$@"  # autoloaded by compinit
else
    compdef _llm_token_proxy $script
fi
""")


def completion(shell: str) -> str:
    """Return the script for a shell."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _bash() -> str:
    values, options = [], []
    for name, command in COMMANDS.items():
        words: list[str] = []
        for action in options_of(command):
            words += action.option_strings or [str(choice) for choice in action.choices or ()]
            replies = _bash_values(action)
            flags = action.option_strings if replies else ()
            values += [f'        "{name} {flag}") {replies}; return ;;' for flag in flags]
        options.append(f'        {name}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current")) ;;')
    return _fill(
        _BASH,
        pattern="|".join(COMMANDS),
        commands=" ".join(COMMANDS),
        values="\n".join(values),
        options="\n".join(options),
    )


def _bash_values(action: argparse.Action) -> str:
    """Return the statement that completes the value of an option; empty if it has none."""
    if action.choices:
        return f'COMPREPLY=($(compgen -W "{" ".join(map(str, action.choices))}" -- "$current"))'
    if action.type is Path:
        return 'COMPREPLY=($(compgen -f -- "$current"))'
    return "COMPREPLY=()" if action.nargs != 0 else ""


def _zsh() -> str:
    commands = [f"        '{name}:{_quoted(command.help)}'" for name, command in COMMANDS.items()]
    options = []
    for name, command in COMMANDS.items():
        words = " \\\n                    ".join(f"'{_zsh_option(action)}'" for action in options_of(command))
        options.append(f"                {name}) _arguments \\\n                    {words} ;;")
    return _fill(_ZSH, commands="\n".join(commands), options="\n".join(options))


def _zsh_option(action: argparse.Action) -> str:
    help_text = _quoted(action.help or "").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    value = ""
    if action.nargs != 0:
        value = f":{action.metavar or action.dest}:"
        value += f"({' '.join(map(str, action.choices))})" if action.choices else ""
        value += "_files" if action.type is Path else ""
    return f"{action.option_strings[0]}[{help_text}]{value}" if action.option_strings else f"1{value}"


def _fish() -> str:
    return "\n".join([f"complete -c {SCRIPT} -f", *_fish_lines(), ""])


def _fish_lines() -> Iterator[str]:
    start = f"complete -c {SCRIPT}"
    for name, command in COMMANDS.items():
        yield f"{start} -n __fish_use_subcommand -a {name} -d '{_quoted(command.help)}'"
    for name, command in COMMANDS.items():
        seen = f"{start} -n '__fish_seen_subcommand_from {name}'"
        for action in options_of(command):
            words = " ".join(map(str, action.choices or ()))
            if not action.option_strings:
                if words:
                    yield f"{seen} -a '{words}'"
                continue
            value = "" if action.nargs == 0 else " -x"
            value = f" -x -a '{words}'" if words else " -r -F" if action.type is Path else value
            flag = action.option_strings[0].removeprefix("--")
            yield f"{seen} -l {flag}{value} -d '{_quoted(action.help or '')}'"


def _quoted(text: str) -> str:
    """Return a text that can stand between single quotes in any shell."""
    return text.replace("'", "’")


def _fill(template: string.Template, **values: str) -> str:
    return template.safe_substitute(values, script=SCRIPT)
