"""The colours of code as a style sheet: `proxy/chat/page/code.css` holds what this makes.

    python -c "from proxy.chat.code_styles import *; print(code_styles(), end='')" > proxy/chat/page/code.css

Every kind of token has one of a few roles, and every role a colour for light and one for dark pages. A page
that sets `--code-keyword` and the like decides for itself. Contrast is 7:1 on the papers below.
"""

from typing import Final

LIGHT_PAPER: Final = "#f4f6f5"
DARK_PAPER: Final = "#182022"
ROLES: Final[dict[str, tuple[str, str, str]]] = {
    "keyword": ("#6a2a86", "#d9b3f0", "k kc kd kn kp kr kt ow nt"),
    "string": ("#0e5637", "#a5d6b0", "s s1 s2 sa sb sc sd se sh si sr ss sx dl gi"),
    "comment": ("#475153", "#b6c2c3", "c c1 ch cm cp cpf cs gp go"),
    "number": ("#7a3a06", "#efbf8f", "m mb mf mh mi il mo no ld"),
    "name": ("#174a86", "#a6cdf7", "nf fm nc nd nn na nb bp ne ni nl nx gh gu"),
    "error": ("#861c1a", "#ffb3ab", "gd gr gt"),
}
"""Of each role: the colour on light and on dark paper, and Pygments' short names of its tokens."""


def code_styles() -> str:
    """The style sheet, for a page that follows the system and for one that sets a theme."""
    light = "".join(f"  --code-of-{role}: {colour};\n" for role, (colour, _, _) in ROLES.items())
    dark = "".join(f"  --code-of-{role}: {colour};\n" for role, (_, colour, _) in ROLES.items())
    system = f":root:not([data-theme=light]) {{\n{dark}}}"
    nested = "".join(f"  {line}\n" for line in system.splitlines())
    rules = "".join(
        f"pre code :is({', '.join('.' + name for name in names.split())}) "
        f"{{\n  color: var(--code-{role}, var(--code-of-{role}));\n}}\n\n"
        for role, (_, _, names) in ROLES.items()
    )
    return (
        "/* Made by proxy/chat/code_styles.py, which says how. */\n\n"
        f":root,\n:host {{\n{light}}}\n\n"
        f"@media (prefers-color-scheme: dark) {{\n{nested}}}\n\n"
        f":root[data-theme=dark] {{\n{dark}}}\n\n"
        f"{rules}"
        "pre code :is(.c, .c1, .ch, .cm, .cs, .ge) {\n  font-style: italic;\n}\n\n"
        "pre code :is(.gh, .gu, .gs) {\n  font-weight: 600;\n}\n"
    )
