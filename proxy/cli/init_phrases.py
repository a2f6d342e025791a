# ruff: noqa: E501 - a phrase a line
"""What `init` asks and says, and the comments that it writes, in English and Chinese."""

from typing import Final

TEXTS: Final = {
    "url": ("1/5  Base URL of the model gateway (Enter: the demonstration gateway)", "1/5  模型网关的 Base URL（回车：使用演示网关）"),
    "access": ("2/5  How does the gateway know you? 1 a token, from a curl line (or paste it here); 2 a fixed API key; 3 not at all", "2/5  网关如何认证？1 令牌（用 curl 命令行获取，可直接粘贴在这里）；2 固定的 API key；3 不认证"),
    "key": ("     The API key (it is not shown)", "     API key（不会显示）"),
    "model": ("3/5  Model for the chat", "3/5  对话模型"),
    "caller": ("4/5  The program that will call this proxy", "4/5  调用本代理的程序"),
    "secrets": ("5/5  Where to keep secrets: 1 files; 2 environment variables", "5/5  机密放在哪里：1 文件；2 环境变量"),
    "models": ("     models: {}", "     模型：{}"),
    "corrected": ("     corrected to {}", "     已改正为 {}"),
    "header": ("     The gateway rejects it in the Authorization header. Which header does it expect (Enter: just that one)", "     网关不接受放在 Authorization 请求头里的令牌或 key。它要求哪个请求头（回车：就是这个）"),
    "other_url": ("     Base URL of the model gateway again (Enter: stop)", "     请重新输入模型网关的 Base URL（回车：退出）"),
    "other_header": ("if the gateway expects the token or key in another header than Authorization, name it with --header", "如果网关要求把令牌或 key 放在 Authorization 以外的请求头里，请用 --header 指定"),
    "again": ("     please answer again", "     请重新回答"),
    "nothing": ("nothing was written: correct the answer, and run init again", "没有写入任何文件：请改正答案后重新运行 init"),
    "written": ("written: {}", "已写入：{}"),
    "testing": ("testing it with doctor:", "用 doctor 检查："),
    "hand_over": ("the key for {} is in {}", "{} 的 key 在 {}"),
    "load": ("before you start the service: {}", "启动服务之前：{}"),
    "serve": ("start it: {}", "启动：{}"),
}  # fmt: skip
COMMENTS: Final = {
    "en": (
        "Written by `llm-token-proxy init`. docs/configuration.md has every key.",
        "who may call; the client gets this key",
        "the model gateway",
        "fixes what the client cannot handle: docs/repairs.md",
        "the web chat, at /chat/",
        "the gateway's own key",
    ),
    "zh": (
        "由 `llm-token-proxy init` 写成。全部配置项见 docs/configuration.zh-CN.md。",
        "谁可以调用；客户端使用这个 key",
        "模型网关",
        "修正客户端处理不了的内容：docs/repairs.zh-CN.md",
        "网页对话，地址是 /chat/",
        "网关自己的 key",
    ),
}
