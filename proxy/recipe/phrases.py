# ruff: noqa: E501 - a phrase a line
"""Say in Chinese what `recipe` says in English: one table of phrases, applied where a sentence is printed (pure).

Names of fields, numbers and paths fill the `{}` of a phrase; they may be phrases themselves.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

CHINESE: Final[Mapping[str, str]] = {
    # --- what is asked, and how it ends
    "Paste the curl line that gets a token:": "请粘贴取 token 的 curl 命令行：",
    "Which of these is the token?": "哪一个是 token？",
    "Which of these tells how long it lives?": "哪一个表示有效期？",
    "{} is a local time, and the reply does not name its zone. It would mean a life of:": (
        "{} 是本地时间，响应没有写时区。按不同的偏移，有效期分别是："
    ),
    "# tried: with this block the reply gives a token of {} characters that lives {}": (
        "# 已试过：用这段配置从响应里取到了 {} 个字符的 token，有效期 {}"
    ),
    "its reply, masked:": "它的响应（已打码）：",
    "the endpoint answered {}, a redirect, which is not followed": "接口返回 {}，是重定向，不会跟随",
    "the endpoint answered {}": "接口返回 {}",
    "the reply holds nothing that looks like a token": "响应里没有像 token 的内容",
    "the block does not read this reply: {}": "这段配置读不了这个响应：{}",
    "# {} is read from the environment, as in the line": "# {} 从环境变量读取，和命令行里一样",
    "export {}='{}'  # {}, {} characters": "export {}='{}'  # {}，{} 个字符",
    "a shell variable of the line": "命令行里的 shell 变量",
    "the password of HTTP basic authorization": "HTTP Basic 认证的密码",
    "a part of the URL": "URL 的一部分",
    "the proxy's URL with its password": "带密码的代理 URL",
    '"{}" of the JSON': "JSON 里的“{}”",
    '"{}" of the form': "表单里的“{}”",
    '"{}" of the query': "查询串里的“{}”",
    '"{}" of the headers': "请求头里的“{}”",
    # --- the comments of the block
    "Made from a curl line. Above each key stands what is believed, and why.": (
        "由 curl 命令行生成。每个键上方写着判断及其理由。"
    ),
    "Set in the environment: {}": "需要设置的环境变量：{}",
    "the request is exactly OAuth 2.0 client credentials (RFC 6749, section 4.4)": (
        "这个请求就是 OAuth 2.0 客户端凭证模式（RFC 6749 4.4 节）"
    ),
    "if a new token ends the one before, as with WeChat: {}": "如果新 token 会让旧的失效（例如微信）：{}",
    'the reply says "Bearer" itself': "响应里的 token 自带 “Bearer”",
    "unsure: where X-Subject-Token is given, X-Auth-Token is what upstreams ask for": (
        "不确定：返回 X-Subject-Token 的，上游一般要求用 X-Auth-Token"
    ),
    "more than the 31 days that are believed otherwise": "超过了默认上限 31 天",
    "unsure: nothing in the reply tells the token's life; five minutes are assumed: ask its issuer": (
        "不确定：响应里没有有效期，先按五分钟算，请向签发方确认"
    ),
    "{}; no path leads there, so it is fixed here": "{}；没有路径可以指到那里，所以在这里写死",
    "unsure: {} is a local time that names no zone, so five minutes are assumed; name the offset of the issuer's "
    "clock with --utc-offset, or write here instead:": (
        "不确定：{} 是没写时区的本地时间，先按五分钟算；请用 --utc-offset 指明签发方时钟的偏移，或者在这里改写成："
    ),
    "that is {}": "即 {}",
    "unsure: {}": "不确定：{}",
    "or: {}: {}": "或者：{}：{}",
    "the whole reply is one word {}": "整个响应是一个词，{}",
    "the value {}, though its name does not say it": "这个值{}，不过名字看不出来",
    'it is named "{}" and {}': "它叫“{}”，并且{}",
    'the reply has a header "{}" that {}': "响应头“{}”{}",
    'the reply sets a cookie "{}" that {}': "响应设置了 Cookie“{}”，它{}",
    "is a JWT": "是 JWT",
    "looks random ({} characters)": "像随机串（{} 个字符）",
    "is long ({} characters)": "较长（{} 个字符）",
    "is short ({} characters)": "较短（{} 个字符）",
    '"{}" is true in a reply that brings a token': "带 token 的响应里“{}”为 true",
    '"{}" is {} in a reply that brings a token': "带 token 的响应里“{}”是 {}",
    '"{}" is the issuer\'s own wish': "“{}”是签发方自己的建议",
    '"{}" as {} since 1970 is {} after the reply': "“{}”是 1970 年以来的{}，即响应之后 {}",
    '"{}" looks like {} since 1970, though that is before the reply': "“{}”像 1970 年以来的{}，但早于响应的时刻",
    '"{}" is a date, though none after the reply': "“{}”是日期，但不晚于响应的时刻",
    '"{}" names no time zone; read as UTC it is {} after the reply': "“{}”没写时区；按 UTC 算是响应之后 {}",
    '"{}" is {} after the reply': "“{}”是响应之后 {}",
    '"{}" is {} seconds, {}': "“{}”是 {} 秒，即 {}",
    '"{}" is {} milliseconds, {}': "“{}”是 {} 毫秒，即 {}",
    "a local time of a clock at {}, {} after the reply": "时钟偏移 {} 的本地时间，响应之后 {}",
    "a local time of a clock at {}": "时钟偏移 {} 的本地时间",
    "the JWT itself says {}": "JWT 自己写明 {}",
    "{}, and the JWT's own exp agrees": "{}，与 JWT 里的 exp 一致",
    "{}, but {}": "{}，但是{}",
    "{} (chosen)": "{}（已选定）",
    "seconds": "秒数",
    "milliseconds": "毫秒数",
    # --- what is not carried over
    "what follows the command in the line is left out": "命令后面的内容没有采用",
    "-k is not carried over: certificates are always checked; name the issuer's in ca_file": (
        "-k 没有采用：始终校验证书，请用 ca_file 指定签发方的证书"
    ),
    "-L is not carried over: no redirect is followed, it would carry the secret on": (
        "-L 没有采用：不跟随重定向，以免把密钥带到别处"
    ),
    "the body is JSON, and sent as application/json where curl says it is a form": (
        "请求体是 JSON，所以按 application/json 发送，而 curl 会当成表单"
    ),
    "fields that were null are left out: TOML has no null": "值为 null 的字段已略去：TOML 没有 null",
    '"{}" was a number, and is sent as a string': "“{}”原来是数字，会以字符串发送",
    '"{}" was the moment of the request: {} is that of each, as a number': "“{}”是请求的时刻：{} 每次取当时的数值",
    '"{}" was the moment of the request: {} is that of each': "“{}”是请求的时刻：{} 每次取当时的值",
    '"{}" was an id of the request: {} is a new one for each': "“{}”是请求的编号：{} 每次生成新的",
    '"{}" is itself a token that will expire: make the way to get it a credential of its own, and write {} here': (
        "“{}”本身就是会过期的 token：请把取它的方法写成另一个凭证，这里写 {}"
    ),
    "a cookie of a browser's session ends with it: ask the issuer for a key instead": (
        "浏览器会话的 Cookie 会随会话失效：请向签发方申请 key"
    ),
    "a field looks like a signature of this one request: {}": "有一个字段像是这次请求的签名：{}",
    # --- what cannot be read
    "the curl line: {}. source = \"exec\" gets such a token:": "curl 命令行：{}。这种 token 用 source = \"exec\" 来取：",
    "the curl line: {}": "curl 命令行：{}",
    "the line computes something when it runs ($(...), `...`, ${...} with an operator, or a command before curl), "
    "and nothing is run here": (
        "命令行里有运行时现算的内容（$(...)、`...`、带运算的 ${...}，或者 curl 前面还有命令），而这里不会执行任何命令"
    ),
    "  1. Save the line as get-token.sh beside your settings; it must print the endpoint's whole reply,": (
        "  1. 把命令行存成配置文件旁边的 get-token.sh；它必须输出接口的完整响应，"
    ),
    "     so leave out jq and the like. Take secrets from its environment; env of the block names them.": (
        "     所以去掉 jq 之类的处理。密钥从环境变量读取，在配置的 env 里列出。"
    ),
    "  2. Or take the script below instead, which signs with HMAC-SHA256, and adapt what is signed and sent:": (
        "  2. 或者改用下面的脚本，它用 HMAC-SHA256 签名；把签名内容和请求改成你的接口要求的样子："
    ),
    "     save it as hmac-token.py, and write {}": "     存成 hmac-token.py，并写上 {}",
    "  3. Check the paths in the block, then try it: {}": "  3. 核对配置里的路径，然后试一下：{}",
    "the shell variable {} is not set: export it first": "shell 变量 {} 没有设置：请先 export",
    'this is no curl command: it must begin with "curl"': "这不是 curl 命令：必须以 curl 开头",
    "a quote in the line has no end": "有一个引号没有闭合",
    "the line ends in a backslash: its next line is missing": "命令行以反斜杠结尾，缺了下一行",
    "an & outside of quotes ends a command: put the URL in quotes": "引号外的 & 会结束命令：请给 URL 加引号",
    "a parenthesis outside of quotes: put the text in quotes": "引号外有括号：请给文本加引号",
    "several URLs: an & or a space outside of quotes?": "有多个 URL：是不是引号外有 & 或空格？",
    "no URL in the line": "命令行里没有 URL",
    "the URL is not valid": "URL 无效",
    "the URL must be http:// or https://": "URL 必须以 http:// 或 https:// 开头",
    "the URL names no host": "URL 没有主机名",
    "the body is neither JSON nor a form: no recipe can say it": "请求体既不是 JSON 也不是表单，无法写成配置",
    "the body should be JSON, and is not: check its quotes": "请求体应当是 JSON 却不是：请检查引号",
    "{}: unknown, or nothing that a recipe can say": "{}：未知选项，或者无法写成配置",
    "{}: its value is missing": "{}：缺少值",
    "{}: multipart requests for a token are not supported: send it as --data or --json": (
        "{}：不支持用 multipart 请求 token：请改用 --data 或 --json"
    ),
    "-u: give the password too, as user:password": "-u：请连密码一起写，格式为 user:password",
    "--utc-offset: must be an offset from UTC, such as +08:00": "--utc-offset：必须是相对 UTC 的偏移，例如 +08:00",
    "--offline: {}: cannot be read: {}": "--offline：{}：无法读取：{}",
    # --- why the endpoint gave no answer
    "the token endpoint {}": "token 接口 {}",
    "{}: connection refused; check the host and the port, and that the server is running": (
        "{}：连接被拒绝；请检查主机和端口，并确认服务在运行"
    ),
    "{}: the host name is unknown; check its spelling, and this machine's DNS or /etc/hosts": (
        "{}：主机名无法解析；请检查拼写，以及本机的 DNS 或 /etc/hosts"
    ),
    "{}: connected, but no answer in time; look at the server, or raise the timeout": (
        "{}：已连接，但没有按时响应；请检查服务端，或者调大超时"
    ),
    "{}: its certificate has expired; the server's operator must renew it": "{}：证书已过期；请服务方更新证书",
    "{}: its certificate is self-signed; name that certificate, or the one of your company's CA, in ca_file": (
        "{}：证书是自签名的；请在 ca_file 里指定这张证书或公司 CA 的证书"
    ),
    "{}: its certificate is for another host name; write the name that the certificate has, or have it issued for "
    "this one": "{}：证书属于另一个主机名；请使用证书上的名字，或者为这个名字签发证书",
    "{}: the port does not speak TLS; write http:// instead of https://, or another port": (
        "{}：端口不支持 TLS；请把 https:// 改成 http://，或者换端口"
    ),
}  # fmt: skip
_LENGTH_MAX: Final = 400
_LITERAL_MIN: Final = 2
"""Characters of its own that a phrase must have, or it would fit everything."""

Translate = Callable[[str], str]


def language_of(environ: Mapping[str, str]) -> str:
    """The language of the locale: `zh` or `en` (POSIX: the first that is set of LC_ALL, LC_MESSAGES, LANG)."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if environ.get(name):
            return "zh" if environ[name].lower().startswith("zh") else "en"
    return "en"


def translator(language: str) -> Translate:
    """What turns a sentence into one of this language; unknown ones stay as they are."""
    return in_chinese if language == "zh" else str


def in_chinese(text: str) -> str:
    """The sentence in Chinese, where the table has it."""
    exact = CHINESE.get(text)
    if exact is not None:
        return exact
    if len(text) > _LENGTH_MAX or "\n" in text:  # a script or a reply, which are no phrases
        return text
    for pattern, template in _patterns():
        found = pattern.fullmatch(text)
        if found:
            return template.format(*map(in_chinese, found.groups()))
    return text


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """The phrases with places to fill, the most telling first."""
    phrases = sorted(CHINESE, key=lambda phrase: -len(phrase.replace("{}", "")))
    return [
        (re.compile("(.+?)".join(map(re.escape, phrase.split("{}"))), re.DOTALL), CHINESE[phrase])
        for phrase in phrases
        if "{}" in phrase and len(phrase.replace("{}", "")) >= _LITERAL_MIN
    ]
