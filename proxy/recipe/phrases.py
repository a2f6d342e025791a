# ruff: noqa: E501 - a phrase a line
"""Translate the output of `recipe` to Chinese, by one table of phrases (pure).

`{}` in a phrase is a placeholder for a name, number, path or another phrase.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from proxy.transport_failure import FAILURE_WORDS, FailureKind

_TRANSPORT_FAILURES: Final = {
    FailureKind.REFUSED: "{}：连接被拒绝；请检查主机和端口，并确认服务在运行",
    FailureKind.UNKNOWN_NAME: "{}：主机名无法解析；请检查拼写，以及本机的 DNS 或 /etc/hosts",
    FailureKind.READ_TIMEOUT: "{}：已连接，但没有按时响应；请检查服务端，或者调大超时",
    FailureKind.CERTIFICATE_EXPIRED: "{}：证书已过期；请服务方更新证书",
    FailureKind.CERTIFICATE_SELF_SIGNED: "{}：证书是自签名的；请在 ca_file 里指定这张证书或公司 CA 的证书",
    FailureKind.CERTIFICATE_WRONG_NAME: "{}：证书属于另一个主机名；请使用证书上的名字，或者为这个名字签发证书",
    FailureKind.NOT_TLS: "{}：端口不支持 TLS；请把 https:// 改成 http://，或者换端口",
}
CHINESE: Final[Mapping[str, str]] = {
    # --- questions and results
    "Paste the curl line that gets a token:": "请粘贴取令牌的 curl 命令行：",
    "Which of these is the token?": "哪一个是令牌？",
    "Which of these is its lifetime?": "哪一个表示有效期？",
    "{} is a local time without a time zone. For these UTC offsets the lifetime would be:": (
        "{} 是本地时间，响应没有写时区。按不同的偏移，有效期分别是："
    ),
    "# tested: with this block the reply yields a token of {} characters with a lifetime of {}": (
        "# 已试过：用这段配置从响应里取到了 {} 个字符的令牌，有效期 {}"
    ),
    "the masked reply:": "它的响应（已打码）：",
    "the endpoint answered {}, a redirect, which is not followed": "接口返回 {}，是重定向，不会跟随",
    "the endpoint answered {}": "接口返回 {}",
    "the reply contains nothing that looks like a token": "响应里没有像令牌的内容",
    "the block cannot read this reply: {}": "这段配置读不了这个响应：{}",
    "# {} is read from the environment, as in the command line": "# {} 从环境变量读取，和命令行里一样",
    "export {}='{}'  # {}, {} characters": "export {}='{}'  # {}，{} 个字符",
    "a shell variable in the command line": "命令行里的 shell 变量",
    "the password of HTTP basic authentication": "HTTP Basic 认证的密码",
    "a part of the URL": "URL 的一部分",
    "the proxy's URL with its password": "带密码的代理 URL",
    '"{}" of the JSON': "JSON 里的“{}”",
    '"{}" of the form': "表单里的“{}”",
    '"{}" of the query': "查询串里的“{}”",
    '"{}" of the headers': "请求头里的“{}”",
    # --- the comments of the block
    "Generated from a curl command. The comments above the keys give the reasons.": (
        "由 curl 命令行生成。每个键上方写着判断及其理由。"
    ),
    "Set in the environment: {}": "需要设置的环境变量：{}",
    "the request is exactly OAuth 2.0 client credentials (RFC 6749, section 4.4)": (
        "这个请求就是 OAuth 2.0 客户端凭证模式（RFC 6749 4.4 节）"
    ),
    "if a new token revokes the previous one, as with WeChat: {}": "如果新令牌会让旧的失效（例如微信）：{}",
    'the token in the reply already begins with "Bearer"': "响应里的令牌自带 “Bearer”",
    "unsure: issuers that return X-Subject-Token usually expect X-Auth-Token": (
        "不确定：返回 X-Subject-Token 的，上游一般要求用 X-Auth-Token"
    ),
    "more than the default limit of 31 days": "超过了默认上限 31 天",
    "unsure: the reply has no lifetime; five minutes are assumed: ask the issuer": (
        "不确定：响应里没有有效期，先按五分钟算，请向签发方确认"
    ),
    "{}; no path refers to it, so it is fixed here": "{}；没有路径可以指到那里，所以在这里写死",
    "unsure: {} is a local time without a time zone, so five minutes are assumed; "
    "name the UTC offset with --utc-offset, or write instead:": (
        "不确定：{} 是没写时区的本地时间，先按五分钟算；请用 --utc-offset 指明签发方时钟的偏移，或者在这里改写成："
    ),
    "that is {}": "即 {}",
    "unsure: {}": "不确定：{}",
    "or: {}: {}": "或者：{}：{}",
    "the whole reply is one word that {}": "整个响应是一个词，{}",
    "the value {}, but its name does not suggest a token": "这个值{}，不过名字看不出来",
    'it is named "{}" and {}': "它叫“{}”，并且{}",
    'the reply has a header "{}" that {}': "响应头“{}”{}",
    'the reply sets a cookie "{}" that {}': "响应设置了 Cookie“{}”，它{}",
    "is a JWT": "是 JWT",
    "looks random ({} characters)": "像随机串（{} 个字符）",
    "is long ({} characters)": "较长（{} 个字符）",
    "is short ({} characters)": "较短（{} 个字符）",
    '"{}" is true in a reply that contains a token': "带令牌的响应里“{}”为 true",
    '"{}" is {} in a reply that contains a token': "带令牌的响应里“{}”是 {}",
    '"{}" is the refresh time that the issuer asks for': "“{}”是签发方建议的刷新时间",
    '"{}" as {} since 1970 is {} after the reply': "“{}”是 1970 年以来的{}，即响应之后 {}",
    '"{}" looks like {} since 1970, but that is before the reply': "“{}”像 1970 年以来的{}，但早于响应的时刻",
    '"{}" is a date, but not after the reply': "“{}”是日期，但不晚于响应的时刻",
    '"{}" has no time zone; read as UTC it is {} after the reply': "“{}”没写时区；按 UTC 算是响应之后 {}",
    '"{}" is {} after the reply': "“{}”是响应之后 {}",
    '"{}" is {} seconds, {}': "“{}”是 {} 秒，即 {}",
    '"{}" is {} milliseconds, {}': "“{}”是 {} 毫秒，即 {}",
    'the value of "{}" means {}': "“{}”的值表示 {}",
    "a local time at UTC offset {}, {} after the reply": "时钟偏移 {} 的本地时间，响应之后 {}",
    "a local time at UTC offset {}": "时钟偏移 {} 的本地时间",
    "the exp claim of the JWT says {}": "JWT 自己写明 {}",
    "{}, and the exp claim of the JWT agrees": "{}，与 JWT 里的 exp 一致",
    "{}, but {}": "{}，但是{}",
    "{} (chosen)": "{}（已选定）",
    "seconds": "秒数",
    "milliseconds": "毫秒数",
    # --- notes on the request
    "everything after the curl command is ignored": "命令后面的内容没有采用",
    "-k is ignored: certificates are always verified; set ca_file to the issuer's certificate": (
        "-k 没有采用：始终校验证书，请用 ca_file 指定签发方的证书"
    ),
    "-L is ignored: redirects are not followed, because they could leak the secret": (
        "-L 没有采用：不跟随重定向，以免把密钥带到别处"
    ),
    "the body is JSON, so it is sent as application/json, although curl would send a form": (
        "请求体是 JSON，所以按 application/json 发送，而 curl 会当成表单"
    ),
    "null values are omitted: TOML has no null": "null 值已略去：TOML 没有 null",
    '"{}" was a number and is sent as a string': "“{}”原来是数字，会以字符串发送",
    '"{}" was the time of the request: {} is the current time, as a number': "“{}”是请求的时刻：{} 每次取当时的数值",
    '"{}" was the time of the request: {} is the current time': "“{}”是请求的时刻：{} 每次取当时的值",
    '"{}" was the id of the request: {} is a new id for each request': "“{}”是请求的编号：{} 每次生成新的",
    '"{}" is a token that will expire: configure a credential for it, and write {} here': (
        "“{}”本身就是会过期的令牌：请把取它的方法写成另一个凭证，这里写 {}"
    ),
    "the cookie of a browser session expires with it: ask the issuer for a key instead": (
        "浏览器会话的 Cookie 会随会话失效：请向签发方申请 key"
    ),
    "a field looks like a signature of this request: {}": "有一个字段像是这次请求的签名：{}",
    # --- errors of the command
    "the curl line: {}. Use source = \"exec\" instead:": "curl 命令行：{}。这种令牌用 source = \"exec\" 来取：",
    "the curl line: {}": "curl 命令行：{}",
    "the line computes a value ($(...), `...`, ${...} with an operator, or a command before curl), "
    "but recipe runs nothing": (
        "命令行里有运行时现算的内容（$(...)、`...`、带运算的 ${...}，或者 curl 前面还有命令），而这里不会执行任何命令"
    ),
    "  1. Save the line as get-token.sh next to your settings. It must print the whole reply,": (
        "  1. 把命令行存成配置文件旁边的 get-token.sh；它必须输出接口的完整响应，"
    ),
    "     so remove jq and similar filters. Read secrets from the environment; env of the block sets it.": (
        "     所以去掉 jq 之类的处理。密钥从环境变量读取，在配置的 env 里列出。"
    ),
    "  2. Or use the script below, which signs with HMAC-SHA256, and adapt the signed text and the request:": (
        "  2. 或者改用下面的脚本，它用 HMAC-SHA256 签名；把签名内容和请求改成你的接口要求的样子："
    ),
    "     save it as hmac-token.py, and write {}": "     存成 hmac-token.py，并写上 {}",
    "  3. Check the paths in the block, then try it: {}": "  3. 核对配置里的路径，然后试一下：{}",
    "the shell variable {} is not set: export it first": "shell 变量 {} 没有设置：请先 export",
    'this is not a curl command: it must begin with "curl"': "这不是 curl 命令：必须以 curl 开头",
    "there are curly quotes or long dashes: replace them with \" or ' and -": (
        "有中文引号或长破折号：请换成英文的 \" 或 ' 和 -"
    ),
    "a quote is not closed": "有一个引号没有闭合",
    "the line ends with a backslash, but there is no next line": "命令行以反斜杠结尾，缺了下一行",
    "an & outside of quotes ends a command: put the URL in quotes": "引号外的 & 会结束命令：请给 URL 加引号",
    "there is a parenthesis outside of quotes: put the text in quotes": "引号外有括号：请给文本加引号",
    "there are several URLs: is an & or a space outside of quotes?": "有多个 URL：是不是引号外有 & 或空格？",
    "there is no URL in the line": "命令行里没有 URL",
    "the URL is not valid": "URL 无效",
    "the URL must be http:// or https://": "URL 必须以 http:// 或 https:// 开头",
    "the URL has no host": "URL 没有主机名",
    "{ } and [ ] in a URL make several requests: replace a placeholder by its value, or add -g": (
        "URL 里的 { } 和 [ ] 会变成多个请求：请把占位符换成实际的值，或者加上 -g"
    ),
    "the body is neither JSON nor a form: the http source cannot send it": "请求体既不是 JSON 也不是表单，无法写成配置",
    "the body should be JSON but is not: check its quotes": "请求体应当是 JSON 却不是：请检查引号",
    "{}: unknown or unsupported": "{}：未知选项，或者无法写成配置",
    "{}: write the value here instead of a variable": "{}：请在这里直接写值，不要用变量",
    "-headers: write the table here, as @{...}": "-headers：请在这里直接写 @{...}",
    "-method: without it PowerShell sends GET without a body: add -Method Post": (
        "-method：没有它，PowerShell 发送不带请求体的 GET：请加上 -Method Post"
    ),
    "the {} of $session are not read: write them as parameters, such as -Headers": (
        "$session 里的 {} 不会读取：请写成命令的参数，例如 -Headers"
    ),
    "the text of a here-string begins in the line after @' or @\"": "here-string 的文本从 @' 或 @\" 的下一行开始",
    "@NAME: splatting is not read: write the parameters into the line": (
        "@NAME：不支持 splatting：请把参数直接写在命令行里"
    ),
    "a comma outside of quotes makes a list: put the text in quotes": "引号外的逗号会变成列表：请给文本加引号",
    "%NAME% is a variable of cmd, but the line has signs of another shell: put it in single quotes "
    "if it is text, or write it as $NAME": (
        "%NAME% 是 cmd 的变量，但这一行是别的 shell 的写法：如果是普通文本，请放进单引号；如果是变量，请写成 $NAME"
    ),
    "only %NAME% with letters, digits and _ is read of the variables of cmd": (
        "cmd 的变量只支持 %NAME% 这种写法，名字只能含字母、数字和 _"
    ),
    "single quotes are text in cmd: write double quotes instead": "单引号在 cmd 里只是普通字符：请改用双引号",
    "the words after a redirection are not read: put < and > at the end of the line": (
        "重定向后面的内容不会读取：请把 < 和 > 放到命令行末尾"
    ),
    "$1, $$ and similar are values of the shell: put the text in single quotes": (
        "$1、$$ 等是 shell 自己的值：如果是普通文本，请放进单引号"
    ),
    "a backslash before a letter disappears outside of quotes: put the text in quotes": (
        "引号外，字母前面的反斜杠会消失：请给文本加引号"
    ),
    "a space follows the backslash at the end of a line: remove the space": "行尾的反斜杠后面有空格：请删掉空格",
    "{}=: variables before curl are not read: write -x instead": "{}=：curl 前面的变量不会读取：请改写成 -x",
    "-u is ignored: as in curl, the Authorization header replaces it": (
        "-u 没有采用：和 curl 一样，以 Authorization 头为准"
    ),
    "-H: {} occurs twice with different values": "-H：{} 出现了两次，值不同",
    "-H: write a header as Name: value": "-H：请把请求头写成 Name: value",
    "a path needs the current folder or your home folder, which is missing": "路径需要当前目录或主目录，但它不存在",
    "{}: the value is missing": "{}：缺少值",
    "{}: multipart requests for a token are not supported: send it as --data or --json": (
        "{}：不支持用 multipart 请求令牌：请改用 --data 或 --json"
    ),
    "-u: give the password as well, as user:password": "-u：请连密码一起写，格式为 user:password",
    "--utc-offset: must be an offset from UTC, such as +08:00": "--utc-offset：必须是相对 UTC 的偏移，例如 +08:00",
    "--offline: {}: cannot be read: {}": "--offline：{}：无法读取：{}",
    # --- errors of the connection
    "the token endpoint {}": "令牌接口 {}",
    **{"{}: " + "; ".join(FAILURE_WORDS[kind]): text for kind, text in _TRANSPORT_FAILURES.items()},
}  # fmt: skip
_LENGTH_MAX: Final = 400
_LITERAL_MIN: Final = 2
"""The minimum number of literal characters in a phrase; fewer would match any text."""

Translate = Callable[[str], str]


def language_of(environ: Mapping[str, str]) -> str:
    """Return the language of the locale, `zh` or `en`, from LC_ALL, LC_MESSAGES or LANG."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if environ.get(name):
            return "zh" if environ[name].lower().startswith("zh") else "en"
    return "en"


def translator(language: str) -> Translate:
    """Return a function that translates sentences to a language; unknown ones stay unchanged."""
    return in_chinese if language == "zh" else str


def in_chinese(text: str) -> str:
    """Translate a sentence to Chinese if the table contains it."""
    exact = CHINESE.get(text)
    if exact is not None:
        return exact
    if len(text) > _LENGTH_MAX or "\n" in text:  # a script or a reply
        return text
    for pattern, template in _patterns():
        found = pattern.fullmatch(text)
        if found:
            return template.format(*map(in_chinese, found.groups()))
    return text


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Compile the phrases with placeholders, the longest first."""
    phrases = sorted(CHINESE, key=lambda phrase: -len(phrase.replace("{}", "")))
    return [
        (re.compile("(.+?)".join(map(re.escape, phrase.split("{}"))), re.DOTALL), CHINESE[phrase])
        for phrase in phrases
        if "{}" in phrase and len(phrase.replace("{}", "")) >= _LITERAL_MIN
    ]
