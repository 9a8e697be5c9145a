"""``capmarshal completion``: what has bash or zsh complete the words behind ``capmarshal``."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from capmarshal._commands import printing

if TYPE_CHECKING:
    from typing import Any

_BASH = """\
_capmarshal() {
    mapfile -t COMPREPLY < <("$1" completion bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/] ]]; then
        compopt -o nospace
    fi
}
complete -F _capmarshal capmarshal
"""
_ZSH = """\
#compdef capmarshal
_capmarshal() {
    local each
    for each in "${(@f)$("${words[1]}" completion zsh "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
        case $each in
            "") ;;
            *[=/]) compadd -S '' -- "$each" ;;
            *) compadd -- "$each" ;;
        esac
    done
}
compdef _capmarshal capmarshal
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH}


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds the command to those of the command line."""
    parser = commands.add_parser(
        "completion",
        help="print what has a shell complete commands, paths, methods and arguments",
        description="Prints a script for a shell to read at its start: source <(capmarshal completion bash). Methods "
        "and parameters are those that the service says it has, which is connected to, and has a second for it.",
        usage="capmarshal completion [-h] {bash,zsh}",
    )
    parser.add_argument("shell", choices=_SCRIPTS, help="the shell")
    # By the scripts: bash gives its line and where it breaks words, zsh the words.
    typed = parser.add_argument("typed", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    # Else Python 3.11 says that it is, where the shell is missing.
    typed.required = False
    parser.set_defaults(run=partial(_run, commands))


def _run(commands: argparse._SubParsersAction[Any], parsed: argparse.Namespace) -> int:
    # Imported when used: the scripts are asked for once.
    from capmarshal._commands.completing import candidates, for_bash, words_in

    if not parsed.typed:
        text = _SCRIPTS[parsed.shell]
    elif parsed.shell == "bash":
        line, breaks = (*parsed.typed, "")[:2]
        words, typed = words_in(line)
        text = _lines(for_bash(candidates(commands.choices, words[1:] or [""]), typed, breaks))
    else:
        text = _lines(candidates(commands.choices, parsed.typed))
    return 0 if printing.printed(text.encode(errors="surrogateescape")) else 1


def _lines(found: list[str]) -> str:
    return "".join(f"{each}\n" for each in found)
