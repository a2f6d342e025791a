# ruff: noqa: E501 - a phrase a line
"""Every finding of the doctor: its level, and what happened, why, and what to do, in English and Chinese."""

from collections.abc import Mapping
from typing import Final

from proxy.cli.doctor.findings import Entry, Explanation, Level

_OK, _NOTE, _WARNING, _FAILED, _SKIPPED = Level.OK, Level.NOTE, Level.WARNING, Level.FAILED, Level.SKIPPED
_Texts = tuple[str, str, str]


def _good(english: str, chinese: str) -> Entry:
    return Entry(_OK, Explanation(english), Explanation(chinese))


def _entry(level: Level, english: _Texts, chinese: _Texts) -> Entry:
    return Entry(level, Explanation(*english), Explanation(*chinese))


def _unreached(cause: str, happened: str, chinese_cause: str, chinese_cure: str) -> Entry:
    """Return the entry of a failed connection; its English remedy is the text of the service's log."""
    return _entry(
        _FAILED,
        ("{origin}: {happened}", cause, "{cure}"),
        (f"{{origin}}：{happened}", chinese_cause, chinese_cure),
    )


_CONNECTION: Final[Mapping[str, Entry]] = {  # by the values of FailureKind
    "refused": _unreached("Nothing listens on that port, or a firewall rejects the connection.", "连接被拒绝", "端口上没有程序在监听，或者防火墙拒绝了连接。", "请检查主机和端口，并确认服务在运行。"),
    "unknown_name": _unreached("DNS does not know the name: a spelling mistake, or a name that exists only inside the company's network or VPN.", "主机名无法解析", "DNS 里没有这个名字：拼写错误，或者只有公司内网或 VPN 里才有。", "请检查拼写，以及本机的 DNS 或 /etc/hosts。"),
    "name_server_silent": _entry(_FAILED, ("{origin}: the host name could not be looked up", "The DNS server of this machine did not answer.", "Check the network and the DNS server in /etc/resolv.conf, and try again."), ("{origin}：查询主机名时没有得到响应", "本机的 DNS 服务器没有响应。", "请检查网络和 /etc/resolv.conf 里的 DNS 服务器，然后重试。")),
    "unreachable": _unreached("This machine has no route to that address.", "无法到达主机", "本机没有通往该地址的路由。", "请检查网络、VPN 和防火墙。"),
    "forbidden_here": _unreached("A firewall or sandbox of this machine forbids the connection.", "本机不允许这个连接", "本机的防火墙或沙箱禁止了它。", "请检查本机的防火墙和沙箱设置。"),
    "too_many_files": _unreached("Too many files and connections are open.", "本进程的文件描述符已用完", "打开的文件和连接太多。", "请提高上限（ulimit -n）。"),
    "connect_timeout": _entry(_FAILED, ("{origin}: no connection in time", "A firewall drops the packets, or the host is down.", "Check the host, the port, the firewall and the VPN."), ("{origin}：没能按时建立连接", "防火墙丢弃了数据包，或者主机没有开机。", "请检查主机、端口、防火墙和 VPN。")),
    "read_timeout": _unreached("The server accepts connections but does not answer: it hangs, or it expects TLS or another protocol.", "已连接，但没有按时响应", "服务器接受连接却不响应：它可能挂起了，或者期待的是 TLS 或别的协议。", "请检查服务端，或者调大超时。"),
    "certificate_expired": _unreached("Nobody renewed the certificate, or this machine's clock is wrong.", "证书已过期", "证书没有及时更新，或者本机的时钟不对。", "请服务方更新证书，并检查本机时钟。"),
    "certificate_not_yet_valid": _unreached("The certificate is new, or this machine's clock is behind.", "证书尚未生效", "证书刚签发，或者本机的时钟慢了。", "请检查两边的时钟。"),
    "certificate_self_signed": _unreached("The certificate, or the CA that issued it, is the company's own, and this machine does not know it.", "证书是自签名的", "证书或签发它的 CA 是公司自己的，本机不认识。", "请在 ca_file 里指定这张证书或公司 CA 的证书。"),
    "certificate_unknown_issuer": _unreached("The CA is the company's own, or the server does not send its intermediate certificates.", "签发证书的 CA 不受本机信任", "CA 是公司自己的，或者服务器没有发送中间证书。", "请在 ca_file 里指定 CA 的证书，并确认服务器发送了中间证书。"),
    "certificate_wrong_name": _unreached("The URL has another host name than the certificate, such as an IP address or an alias.", "证书属于另一个主机名", "URL 里的主机名和证书上的不同，例如用了 IP 地址或别名。", "请使用证书上的名字，或者为这个名字签发证书。"),
    "certificate_invalid": _unreached("The certificate breaks a rule, such as on its usage or its signature.", "证书无效", "证书的用途或签名等不符合规则。", "请服务方更换证书。"),
    "client_certificate": _unreached("The server wants a client certificate (mutual TLS), or another one.", "服务器拒绝了 TLS 握手，似乎要求客户端证书", "服务器要求客户端证书（双向 TLS），或者要求另一张。", "请设置 client_cert 和 client_key，或者检查它们是否正确。"),
    "not_tls": _unreached("The URL begins with https://, but the server speaks plain HTTP.", "端口不支持 TLS", "URL 以 https:// 开头，但服务器只支持明文 HTTP。", "请把 https:// 改成 http://，或者换端口。"),
    "tls_version": _unreached("The server supports only old versions of TLS.", "双方没有共同的 TLS 版本", "服务器只支持旧版本的 TLS。", "服务器必须支持 TLS 1.2 或更新的版本。"),
    "tls_failed": _unreached("The port may not speak TLS, or something in between cuts the connection.", "TLS 握手时连接中断", "端口可能不支持 TLS，或者中间设备切断了连接。", "请确认端口支持 TLS，并且没有防火墙或代理切断连接。"),
    "proxy_refused": _unreached("The forward proxy refuses this destination, or wants a password.", "正向代理没有建立连接", "正向代理拒绝这个目标，或者需要密码。", "请检查代理的密码和允许的目标。"),
    "closed": _unreached("The server closes the connection without a response: it crashed, or it expects another protocol.", "连接在响应之前被关闭", "服务器不响应就关闭了连接：它崩溃了，或者期待另一种协议。", "如果端口使用 TLS，请把 http:// 改成 https://；否则请查看服务端日志。"),
    "reset": _unreached("The server or a device in between reset the connection.", "连接被重置", "服务器或中间设备重置了连接。", "请查看服务器和中间代理的日志。"),
    "cut_off": _unreached("The server or a device in between broke the response off.", "响应中断", "服务器或中间设备中断了响应。", "请查看服务端日志。"),
    "tls_expected": _unreached("The URL begins with http://, but the port speaks TLS.", "端口使用 TLS", "URL 以 http:// 开头，但端口使用 TLS。", "请把 http:// 改成 https://。"),
    "not_http": _unreached("Another kind of server listens on that port.", "响应不是 HTTP", "端口上是另一种服务。", "请检查端口。"),
    "bad_url": _unreached("The URL cannot be parsed.", "URL 无效", "URL 无法解析。", "请检查拼写。"),
    "other": _unreached("The cause is not known.", "请求失败", "原因未知。", "请查看服务端日志。"),
}  # fmt: skip

_START: Final[Mapping[str, Entry]] = {
    "settings_valid": _good("{file}: {summary}", "{file}：{summary}"),
    "settings_invalid": _entry(_FAILED, ("{problem}", "The configuration file has a mistake.", "Correct this key; `check` shows the result."), ("{problem}", "配置文件有错误。", "请改正这个键，再用 `check` 检查。")),
    "key_weak": _entry(_WARNING, ('the key of "{name}" has fewer than 16 characters', "A short key can be guessed.", "Set a longer one: `openssl rand -hex 24` makes one."), ("“{name}”的 key 少于 16 个字符", "短的 key 可能被猜到。", "请换成更长的，例如用 `openssl rand -hex 24` 生成。")),
    "access_open": _entry(_WARNING, ('mode = "open": no key is required', "Anyone who can reach the service can use the upstream.", 'Set mode = "keys" with [[access.keys]], unless only trusted programs can reach it.'), ("mode = \"open\"：不需要 key", "任何能访问本服务的人都能使用上游。", "请设置 mode = \"keys\" 和 [[access.keys]]，除非只有可信的程序能访问。")),
    "skipped": _entry(_SKIPPED, ("not tested", "It needs {needed}, which failed.", "Repair that first."), ("没有测试", "它依赖的 {needed} 失败了。", "请先解决前面的问题。")),
    "redis_works": _good("Redis answers", "Redis 正常响应"),
    "redis_rejects": _entry(_FAILED, ("Redis does not accept the user or the password", "The password in redis_url is wrong or missing, or the user may not run the commands.", "Correct user and password in redis_url: redis://USER:PASSWORD@HOST:6379/0."), ("Redis 不接受用户名或密码", "redis_url 里的密码错误或缺失，或者该用户无权执行命令。", "请改正 redis_url 里的用户名和密码：redis://USER:PASSWORD@HOST:6379/0。")),
    "redis_unavailable": _entry(_FAILED, ("Redis does not answer", "It is not running, its address is wrong, or a firewall is in between.", "Start Redis, or correct redis_url; remove [shared] if there is only one instance."), ("Redis 没有响应", "Redis 没有运行，地址写错了，或者中间有防火墙。", "请启动 Redis，或者改正 redis_url；只有一个实例时可以去掉 [shared]。")),
    "name_found": _good("{host} is {addresses}", "{host} 的地址是 {addresses}"),
    "connected": _good("{origin}: connected", "{origin}：已连接"),
    "tls_works": _good("{origin}: {version}, the certificate is valid for {days} more days", "{origin}：{version}，证书还有 {days} 天有效"),
    "certificate_expires_soon": _entry(_WARNING, ("{origin}: the certificate expires in {days} days", "Its renewal is due, or has failed.", "Ask the server's operator to renew it."), ("{origin}：证书将在 {days} 天后过期", "证书该更新了，或者自动更新失败了。", "请服务方更新证书。")),
}  # fmt: skip

_TOKENS: Final[Mapping[str, Entry]] = {
    "token_works": _good("a token that lives {life}, fetched in {seconds} s; it is refreshed after {refresh} at the latest", "令牌有效期 {life}，用 {seconds} 秒取到；最迟在 {refresh} 后更新"),
    "token_endless": _good("a token that does not expire", "不过期的令牌"),
    "token_failed": _entry(_FAILED, ("no token", "The token source failed; the line below says how.", "Run `token {name}`, which shows more."), ("没有取到令牌", "令牌来源失败，原因见下一行。", "请运行 `token {name}` 查看详情。")),
    "token_refused": _entry(_FAILED, ("{origin} answered {status}: it refuses the request for a token", "The id, the secret or another field of the request is wrong, or this machine's address is not allowed.", "Check them; `recipe` makes the block from a curl line that works."), ("{origin} 返回 {status}：拒绝了取令牌的请求", "请求里的 id、密钥或其他字段错误，或者本机地址不在白名单里。", "请检查这些字段；`recipe` 可以用能成功的 curl 命令行生成配置。")),
    "token_path_unknown": _entry(_FAILED, ("{origin} answered {status} to the request for a token", "The path of the URL or the method is wrong.", "Check `url` and `method` of the credential."), ("{origin} 对取令牌的请求返回 {status}", "URL 的路径或请求方法错误。", "请检查凭证的 `url` 和 `method`。")),
    "token_redirected": _entry(_FAILED, ("{origin} answered {status}, a redirect, to the request for a token", "The URL leads to another address, such as a login page. Redirects are not followed, because they could leak the secret.", "Write the final URL."), ("{origin} 对取令牌的请求返回 {status}，是重定向", "URL 指向另一个地址，例如登录页。重定向不会跟随，因为可能泄露密钥。", "请直接写最终的 URL。")),
    "token_rate_limited": _entry(_FAILED, ("{origin} answered 429 to the request for a token", "Too many tokens were requested.", "Wait; let instances share tokens over Redis (`sharing`)."), ("{origin} 对取令牌的请求返回 429", "取令牌的次数太多。", "请稍等；多个实例可以通过 Redis 共享令牌（`sharing`）。")),
    "token_endpoint_failed": _entry(_FAILED, ("{origin} answered {status} to the request for a token", "The token endpoint has failed.", "Try again later, or ask its operator."), ("{origin} 对取令牌的请求返回 {status}", "令牌接口自身出错。", "请稍后重试，或者联系服务方。")),
    "token_reply_empty": _entry(_FAILED, ("{origin}: the reply to the request for a token is empty", "The URL is that of another service, or the token is in a header.", "Check `url`; use `token_header` if a header has the token."), ("{origin}：取令牌的响应是空的", "URL 属于另一个服务，或者令牌在响应头里。", "请检查 `url`；如果令牌在响应头里，请使用 `token_header`。")),
    "token_reply_html": _entry(_FAILED, ("{origin}: the reply to the request for a token is a web page", "The URL is that of a login or an error page.", "Write the URL of the API, not of the page in the browser."), ("{origin}：取令牌的响应是网页", "URL 指向登录页或错误页。", "请写接口的 URL，而不是浏览器里的页面。")),
    "token_reply_not_json": _entry(_FAILED, ("{origin}: the reply to the request for a token is not JSON", "The endpoint has another format, or the URL is wrong.", "Check `url`; set `token_text` if the whole reply is the token."), ("{origin}：取令牌的响应不是 JSON", "接口使用另一种格式，或者 URL 错误。", "请检查 `url`；如果整个响应就是令牌，请设置 `token_text`。")),
    "token_no_success": _entry(_FAILED, ("{origin}: the reply signals no success", "The issuer refuses the request inside a 200, or `success` of the credential is wrong.", "Run `token {name}`, which shows the reply; check the id, the secret and `success`."), ("{origin}：响应表示没有成功", "签发方用 200 拒绝了请求，或者凭证的 `success` 写错了。", "请运行 `token {name}` 查看响应，并检查 id、密钥和 `success`。")),
    "token_missing": _entry(_FAILED, ("{origin}: the reply has no token where the configuration looks for it", "The path in `token` is wrong, or the reply is an error.", "Run `token {name}`, which shows the reply, and correct `token`."), ("{origin}：响应里配置的位置没有令牌", "`token` 的路径错误，或者响应是一个错误。", "请运行 `token {name}` 查看响应，并改正 `token`。")),
    "token_already_expired": _entry(_FAILED, ("{origin}: the token in the reply has already expired", "The issuer's clock and this one differ, the unit or the time zone of `expires` is wrong, or the issuer returns an old token.", "Check the clocks, and `as` and `offset` of `expires`."), ("{origin}：响应里的令牌已经过期", "签发方的时钟和本机不一致，`expires` 的单位或时区错误，或者签发方返回了旧令牌。", "请检查时钟，以及 `expires` 的 `as` 和 `offset`。")),
    "token_slow": _entry(_WARNING, ("the token took {seconds} s of at most {limit} s", "The token endpoint is slow.", "Ask its operator; raise `timeout` of the credential."), ("取令牌用了 {seconds} 秒，上限是 {limit} 秒", "令牌接口很慢。", "请联系服务方，或者调大凭证的 `timeout`。")),
    "token_revoked_previous": _entry(_NOTE, ("this fetch revoked the token of a running service", 'reissue = "revokes_previous": the issuer keeps one token valid.', "Nothing: the service fetches a new one."), ("这次取令牌使正在运行的服务的令牌失效", "reissue = \"revokes_previous\"：签发方只保留一个有效令牌。", "无需处理：服务会重新取。")),
    "lifetime_too_short": _entry(_FAILED, ("tokens live only {life}", "That is too short to refresh a token before it expires, so requests have to wait for tokens.", "Check the unit in `expires`; ask the issuer for a longer lifetime."), ("令牌有效期只有 {life}", "太短，来不及在过期前更新，请求只能等待新令牌。", "请检查 `expires` 的单位，或者请签发方延长有效期。")),
    "refresh_window_too_short": _entry(_WARNING, ("tokens live {life} and are refreshed after {refresh}: that leaves {window}, but the fetch took {seconds} s", "The lifetime is shorter than the renewal needs, so requests sometimes wait for a token.", "Ask the issuer for a longer lifetime, or make its endpoint faster."), ("令牌有效期 {life}，在 {refresh} 后更新，只剩 {window}，而取令牌用了 {seconds} 秒", "有效期短于更新所需的时间，请求有时要等待令牌。", "请签发方延长有效期，或者加快令牌接口。")),
    "token_has_prefix": _entry(_WARNING, ('the token in the reply already begins with "{prefix}"', "The template adds it again, so that it is sent twice.", 'Set `inject = {{ template = "{{token}}" }}`, with the `header` that `inject` has now.'), ("响应里的令牌自带“{prefix}”", "模板会再加一次，于是发送两遍。", '请设置 `inject = {{ template = "{{token}}" }}`，并保留 `inject` 现有的 `header`。')),
    "lifetime_unreadable": _entry(_WARNING, ("the lifetime of the token cannot be read, so `default_ttl` applies", "The path or the unit in `expires` does not match the reply.", "Run `token NAME`, which shows the reply, and correct `expires`."), ("读不到令牌的有效期，使用 `default_ttl`", "`expires` 的路径或单位和响应不符。", "请运行 `token NAME` 查看响应，并改正 `expires`。")),
    "lifetime_doubtful": _entry(_WARNING, ("tokens live {life}, which is unusual", "The unit or the time zone in `expires` may be wrong.", "Compare it with the issuer's documentation."), ("令牌有效期 {life}，不太常见", "`expires` 的单位或时区可能写错了。", "请对照签发方的文档。")),
    "clock_ahead": _entry(_WARNING, ("this machine's clock is {difference} ahead of the issuer's", "One of the two clocks is not synchronised.", "Synchronise it: `timedatectl set-ntp true`. Signed requests and certificates depend on it."), ("本机时钟比签发方快 {difference}", "两边有一个时钟没有同步。", "请同步时钟：`timedatectl set-ntp true`。签名请求和证书都依赖它。")),
    "clock_behind": _entry(_WARNING, ("this machine's clock is {difference} behind the issuer's", "One of the two clocks is not synchronised.", "Synchronise it: `timedatectl set-ntp true`. Signed requests and certificates depend on it."), ("本机时钟比签发方慢 {difference}", "两边有一个时钟没有同步。", "请同步时钟：`timedatectl set-ntp true`。签名请求和证书都依赖它。")),
}  # fmt: skip

_API: Final[Mapping[str, Entry]] = {
    "models_listed": _good("{count} models: {names}", "{count} 个模型：{names}"),
    "models_none": _entry(_WARNING, ("the list of models is empty", "The key or the token may use no model.", "Ask the operator which models it may use; name one with --model."), ("模型列表是空的", "这个 key 或令牌没有可用的模型。", "请向服务方确认可用的模型，并用 --model 指定。")),
    "models_missing": _entry(_NOTE, ("GET /models answered {status}: there is no list of models", "Some gateways have none.", "Nothing, if the names of the models are known: RAGFlow asks for them."), ("GET /models 返回 {status}：没有模型列表", "有些网关没有模型列表。", "知道模型名就无需处理：在 RAGFlow 里手工填写。")),
    "models_unreadable": _entry(_WARNING, ("the list of models has no `data`", "The address is not that of an OpenAI-compatible API, or the gateway has its own format.", "Check the base URL; RAGFlow will show no models."), ("模型列表里没有 `data`", "地址不是 OpenAI 兼容接口，或者网关使用自己的格式。", "请检查 Base URL；RAGFlow 会显示没有模型。")),
    "model_not_listed": _entry(_WARNING, ("the list of models does not contain {model}", "The name is misspelt, or the list is incomplete.", "Compare it with the names in the list."), ("模型列表里没有 {model}", "名字拼错了，或者列表不完整。", "请对照列表里的名字。")),
    "no_chat_model": _entry(_WARNING, ("no chat was tested", "Neither the command nor the list of models names a model for chat.", "Pass one with --model."), ("没有测试对话", "命令和模型列表里都没有对话模型。", "请用 --model 指定。")),
    "no_embedding_model": _entry(_NOTE, ("embeddings were not tested", "Neither the command nor the list of models names an embedding model.", "Pass one with --embedding-model if you use embeddings."), ("没有测试向量化", "命令和模型列表里都没有向量模型。", "需要时请用 --embedding-model 指定。")),
    "base_url_no_version": _entry(_FAILED, ("the base URL lacks its version; {better} is right", "Clients append /chat/completions to the base URL.", "Write {better}."), ("Base URL 缺少版本号，正确的是 {better}", "客户端会在 Base URL 后面加上 /chat/completions。", "请写 {better}。")),
    "base_url_doubled": _entry(_FAILED, ("the base URL has /v1 twice; {better} is right", "Some clients append /v1 themselves.", "Write {better}."), ("Base URL 里有两个 /v1，正确的是 {better}", "有些客户端会自己加上 /v1。", "请写 {better}。")),
    "base_url_extra_version": _entry(_FAILED, ("the base URL must not end with /v1; {better} is right", "This gateway has another version in its path, or none.", "Write {better}."), ("Base URL 不应以 /v1 结尾，正确的是 {better}", "这个网关的路径里是别的版本号，或者没有版本号。", "请写 {better}。")),
    "base_url_wrong_path": _entry(_FAILED, ("the path of the base URL is wrong; {better} is right", "The server has no such path.", "Write {better}."), ("Base URL 的路径错误，正确的是 {better}", "服务器没有这个路径。", "请写 {better}。")),
    "base_url_has_endpoint": _entry(_FAILED, ("the base URL must not include {endpoint}", "Clients append it themselves.", "Write {better}."), ("Base URL 不应包含 {endpoint}", "客户端会自己加上。", "请写 {better}。")),
    "path_unknown": _entry(_FAILED, ("{origin} answered {status}: it does not know the path", "The base URL is wrong, or the gateway has no such endpoint.", "Check the base URL: it usually ends with /v1."), ("{origin} 返回 {status}：没有这个路径", "Base URL 错误，或者网关没有这个接口。", "请检查 Base URL，它通常以 /v1 结尾。")),
    "redirected": _entry(_FAILED, ("{origin} answers with a redirect", "The server moves plain HTTP to HTTPS, or adds a slash; API clients lose the key or the body on the way.", "Write the final address in the base URL."), ("{origin} 返回重定向", "服务器把 HTTP 转到 HTTPS，或者补上斜杠；客户端会因此丢失 key 或请求体。", "请在 Base URL 里写最终的地址。")),
    "request_failed": _entry(_FAILED, ("{origin}: the request failed", "The line below says how.", "Look at the server's log."), ("{origin}：请求失败", "原因见下一行。", "请查看服务端日志。")),
    "key_rejected": _entry(_FAILED, ("{origin} answered {status}: it does not accept the key", "The key is wrong, or it is one of the default keys, which work only on the machine itself and not behind nginx.", "Use a key of [[access.keys]]; check that no proxy in between removes the Authorization header."), ("{origin} 返回 {status}：不接受这个 key", "key 错误，或者是默认 key：它们只在本机直连时有效，经过 nginx 就无效。", "请使用 [[access.keys]] 里的 key，并确认中间的代理没有去掉 Authorization 请求头。")),
    "key_forbids": _entry(_FAILED, ("{origin} answered {status}: this key may not do that", "The key is limited to other models, endpoints or sites.", "Change `models` or `endpoints` of the key, or use another key."), ("{origin} 返回 {status}：这个 key 没有权限", "key 被限制在其他模型、接口或站点。", "请修改 key 的 `models` 或 `endpoints`，或者换一个 key。")),
    "token_rejected": _entry(_FAILED, ("{origin} rejects the token", "The token is for another audience or scope, it goes into the wrong header, or the credential belongs to another upstream.", "Check `scope`, `inject` and `credential`; compare with the request that works by hand."), ("{origin} 拒绝了令牌", "令牌的受众或权限范围不对，写进了错误的请求头，或者凭证属于另一个上游。", "请检查 `scope`、`inject` 和 `credential`，并和手工能成功的请求对比。")),
    "rate_limited": _entry(_FAILED, ("{origin} answered 429: too many requests", "A limit of the key or of the gateway is reached.", "Wait, or raise the limit."), ("{origin} 返回 429：请求太多", "达到了 key 或网关的上限。", "请稍等，或者提高上限。")),
    "model_unknown": _entry(_FAILED, ("{origin} answered {status}: it does not know the model {model}", "The name is misspelt, the gateway uses its own names, or the key may not use this model.", "Use a name from the list of models; `renames` of the upstream can translate names."), ("{origin} 返回 {status}：不认识模型 {model}", "名字拼错了，网关使用自己的名字，或者这个 key 无权使用该模型。", "请使用模型列表里的名字；上游的 `renames` 可以转换名字。")),
    "body_too_large": _entry(_FAILED, ("{origin} answered 413: the request is too large", "A server in between limits the size of requests; nginx's default is 1 MiB.", "Raise `client_max_body_size` in nginx."), ("{origin} 返回 413：请求太大", "中间的服务器限制了请求大小；nginx 默认是 1 MiB。", "请在 nginx 里调大 `client_max_body_size`。")),
    "front_server_gets_no_response": _entry(_FAILED, ("{origin} answered {status} with a web page", "A web server in front, such as nginx, cannot reach the service behind it, or stopped waiting.", "Check that the service runs and that `proxy_pass` has its address; raise `proxy_read_timeout`."), ("{origin} 返回 {status} 和一个网页", "前面的 Web 服务器（例如 nginx）连不上后面的服务，或者不再等待。", "请确认服务在运行、`proxy_pass` 的地址正确，并调大 `proxy_read_timeout`。")),
    "server_failed": _entry(_FAILED, ("{origin} answered {status}", "The server has failed.", "Look at its log, or ask its operator."), ("{origin} 返回 {status}", "服务端出错。", "请查看它的日志，或者联系服务方。")),
    "request_rejected": _entry(_FAILED, ("{origin} answered {status}: it rejects the request", "It does not accept a field of the request, or the model does not fit the endpoint.", "Read its message below; a repair may help."), ("{origin} 返回 {status}：拒绝了请求", "它不接受请求里的某个字段，或者模型和接口不匹配。", "请看下面的消息；也许可以启用一个修正（repairs）。")),
    "behind_token_rejected": _entry(_FAILED, ("{origin} answered {status}: the model gateway or the token issuer rejects the proxy", "The proxy's credential is wrong or not allowed.", "Run `doctor` on the proxy's machine."), ("{origin} 返回 {status}：模型网关或令牌签发方拒绝了代理", "代理的凭证错误或没有权限。", "请在代理所在的机器上运行 `doctor`。")),
    "behind_unreachable": _entry(_FAILED, ("{origin} answered {status}: the proxy cannot reach the model gateway", "The gateway is down, or `base_url` is wrong.", "Run `doctor` on the proxy's machine."), ("{origin} 返回 {status}：代理连不上模型网关", "网关没有运行，或者 `base_url` 错误。", "请在代理所在的机器上运行 `doctor`。")),
    "behind_bad_response": _entry(_FAILED, ("{origin} answered {status}: the model gateway's response is not usable", "The gateway broke off, or sent something that is not the response of an API.", "Run `doctor` on the proxy's machine; its log has the reason."), ("{origin} 返回 {status}：模型网关的响应无法使用", "网关中断了响应，或者返回的不是接口响应。", "请在代理所在的机器上运行 `doctor`；日志里有原因。")),
    "behind_timeout": _entry(_FAILED, ("{origin} answered {status}: the model gateway did not answer in time", "The gateway is slow or overloaded.", "Raise `timeouts` of the upstream, or set `heartbeat`."), ("{origin} 返回 {status}：模型网关没有按时响应", "网关很慢或过载。", "请调大上游的 `timeouts`，或者设置 `heartbeat`。")),
    "behind_unavailable": _entry(_FAILED, ("{origin} answered {status}: the proxy has no token, or has paused the gateway", "The token endpoint fails, or the gateway failed several times in a row.", "Run `doctor` on the proxy's machine."), ("{origin} 返回 {status}：代理没有令牌，或者暂停了对网关的请求", "令牌接口出错，或者网关连续出错。", "请在代理所在的机器上运行 `doctor`。")),
    "answered_html": _entry(_FAILED, ("{origin} answered with a web page", "The base URL is that of a website or a login page.", "Write the address of the API; it usually ends with /v1."), ("{origin} 返回的是网页", "Base URL 是网站或登录页的地址。", "请写接口的地址，它通常以 /v1 结尾。")),
    "answered_not_json": _entry(_FAILED, ("{origin}: the response is not JSON", "The address is not that of an OpenAI-compatible API.", "Check the base URL."), ("{origin}：响应不是 JSON", "地址不是 OpenAI 兼容接口。", "请检查 Base URL。")),
    "answered_nothing": _entry(_FAILED, ("{origin}: the response is empty", "The address is not that of an OpenAI-compatible API, or the server failed.", "Check the base URL, and look at the server's log."), ("{origin}：响应是空的", "地址不是 OpenAI 兼容接口，或者服务端出错。", "请检查 Base URL，并查看服务端日志。")),
    "error_in_200": _entry(_FAILED, ("{origin} answered 200 with an error inside", "The gateway reports errors inside successful responses. RAGFlow shows them as empty answers.", 'Read its message below. In the proxy, repairs = ["ragflow"] gives such errors a true status.'), ("{origin} 返回 200，内容却是错误", "网关把错误放在成功的响应里，RAGFlow 会显示空回答。", "请看下面的消息。在代理里设置 repairs = [\"ragflow\"] 可以还原真实的状态码。")),
    "coding_unreadable": _entry(_FAILED, ("the response is encoded as {coding}, which was not asked for", "The server or a CDN compresses responses regardless of what the client accepts.", "Turn off compression for this path."), ("响应的编码是 {coding}，客户端并没有要求", "服务器或 CDN 不管客户端是否接受都压缩响应。", "请对这个路径关闭压缩。")),
    "no_response": _entry(_FAILED, ("no response within {seconds} s", "The model or the gateway is overloaded, or waits for something.", "Try again; raise --timeout if the model is slow."), ("{seconds} 秒内没有响应", "模型或网关过载，或者在等待别的东西。", "请重试；模型很慢时调大 --timeout。")),
    "response_too_large": _entry(_FAILED, ("the response is larger than 2 MiB", "It is not the answer to a short question.", "Check the base URL and the model."), ("响应超过 2 MiB", "服务器返回的不像是一个简短问题的回答。", "请检查 Base URL 和模型。")),
}  # fmt: skip

_CHAT: Final[Mapping[str, Entry]] = {
    "first_piece": _good("RAGFlow's check of a chat model: {model} sent its first text after {seconds} s", "RAGFlow 添加对话模型的检查：{model} 在 {seconds} 秒后开始回答"),
    "chat_works": _good("{model} answered in {seconds} s", "{model} 用 {seconds} 秒回答"),
    "answer_empty": _entry(_FAILED, ("the answer has no text", "The model wrote nothing, or the gateway puts the text into other fields. RAGFlow shows an empty answer.", 'Try another model; in the proxy, repairs = ["ragflow"] handles several such gateways.'), ("回答里没有文字", "模型什么也没写，或者网关把文字放在别的字段里。RAGFlow 会显示空回答。", "请换一个模型；在代理里设置 repairs = [\"ragflow\"] 可以处理几种这样的网关。")),
    "usage_missing": _entry(_NOTE, ("the response has no `usage`", "The gateway does not count tokens.", "Nothing for chat; RAGFlow's vision models need it: enable a repair."), ("回答里没有 `usage`", "网关不统计 token 数。", "对话无需处理；RAGFlow 的视觉模型需要它，请启用修正。")),
    "slow_for_ragflow": _entry(_WARNING, ("the first text came after {seconds} s", "RAGFlow waits 10 s when a model is added.", "Set LLM_TIMEOUT_SECONDS in RAGFlow's environment, or use a faster model."), ("{seconds} 秒后才有文字", "RAGFlow 添加模型时只等 10 秒。", "请在 RAGFlow 的环境变量里设置 LLM_TIMEOUT_SECONDS，或者换更快的模型。")),
    "not_streamed": _entry(_FAILED, ("the response is whole, although a stream was asked for", "The gateway or the model does not stream.", "Choose a model that streams; turn streaming off in the client."), ("要求流式，返回的却是完整的回答", "网关或模型不支持流式。", "请换支持流式的模型，或者在客户端关闭流式。")),
    "stream_works": _good("{events} events, from {first} s to {last} s: nothing buffers the stream", "{events} 个事件，从 {first} 秒到 {last} 秒：没有被缓冲"),
    "stream_too_quick": _entry(_NOTE, ("{events} events within {last} s: too few or too quick to see whether something buffers", "The answer was short or fast.", "Test with a slower model, or with the real address."), ("{last} 秒内 {events} 个事件：太少或太快，看不出是否被缓冲", "回答很短或很快。", "请用较慢的模型或真实的地址测试。")),
    "stream_empty": _entry(_FAILED, ("the stream has no text", "The model wrote nothing, or the stream has another format.", "Try without streaming, and another model."), ("流里没有文字", "模型什么也没写，或者流的格式不同。", "请试试不用流式，或者换模型。")),
    "stream_error": _entry(_FAILED, ("the stream contains an error", "The gateway failed after the stream had begun.", "Read its message below."), ("流里有一个错误", "流开始之后网关出错。", "请看下面的消息。")),
    "stream_stalled": _entry(_FAILED, ("the stream stopped, and did not end within {seconds} s", "The model hangs, or something in between holds the rest back.", "Look at the log of the gateway; raise --timeout if the model is slow."), ("流停住了，{seconds} 秒内没有结束", "模型挂起了，或者中间有设备扣住了后面的内容。", "请查看网关的日志；模型很慢时调大 --timeout。")),
    "stream_broken": _entry(_FAILED, ("the connection broke in the middle of the response", "The gateway or a server in between cut it, often after its own timeout.", "Raise the timeouts on the way, such as nginx's `proxy_read_timeout`."), ("回答到一半连接中断", "网关或中间的服务器切断了连接，常常是因为它自己的超时。", "请调大沿途的超时，例如 nginx 的 `proxy_read_timeout`。")),
    "stream_unfinished": _entry(_FAILED, ("the stream ended without [DONE] and without finish_reason", "Something in between ended it early; clients treat the partial answer as complete.", "Look for a timeout or a size limit on the way. If the gateway always ends so, the repair `accept_missing_end` accepts it."), ("流结束时没有 [DONE]，也没有 finish_reason", "中间有设备提前结束了它；客户端会把残缺的回答当成完整的。", "请检查沿途的超时和大小限制。如果网关一直这样结束，可以启用修正 `accept_missing_end`。")),
    "stream_without_done": _entry(_WARNING, ("the stream ends without [DONE]", "The gateway does not send it; some clients wait for it.", "Nothing for RAGFlow and the OpenAI SDKs; for other clients, ask the gateway's operator to send it."), ("流结束时没有 [DONE]", "网关没有发送它；有些客户端会一直等待。", "RAGFlow 和 OpenAI 的 SDK 不受影响；其他客户端请服务方补上。")),
    "stream_wrong_type": _entry(_WARNING, ("the stream is not marked as text/event-stream", "The gateway sends another Content-Type; Open WebUI and others then do not stream.", 'In the proxy, repairs = ["common"] corrects it.'), ("流的 Content-Type 不是 text/event-stream", "网关返回了别的 Content-Type；Open WebUI 等客户端就不会流式显示。", "在代理里设置 repairs = [\"common\"] 可以改正。")),
    "stream_compressed": _entry(_WARNING, ("the stream is compressed", "A server on the way compresses event streams; most of them then hold events back.", "In nginx: `gzip off;` for this location."), ("流被压缩了", "沿途有服务器压缩事件流；大多数会因此扣住事件。", "在 nginx 的这个 location 里写 `gzip off;`。")),
    "http_1_0": _entry(_WARNING, ("the response is HTTP/1.0", "A server on the way speaks HTTP/1.0: a stream that was cut cannot be told from a complete one.", "Enable HTTP/1.1 there; in nginx: `proxy_http_version 1.1;`."), ("响应是 HTTP/1.0", "沿途有服务器使用 HTTP/1.0：无法区分被切断的流和完整的流。", "请在那里启用 HTTP/1.1；nginx 里写 `proxy_http_version 1.1;`。")),
    "buffered_by_nginx": _entry(_FAILED, ("{events} events arrived together after {last} s: the stream is buffered, and nginx is on the way", "`proxy_buffering` is on, and nginx ignores the header X-Accel-Buffering or does not get it.", "In this location of nginx: `proxy_buffering off;` and `proxy_http_version 1.1;`. config/nginx/proxy.conf has the whole location."), ("{events} 个事件在 {last} 秒后一起到达：流被缓冲了，沿途有 nginx", "`proxy_buffering` 是打开的，而且 nginx 忽略或没有收到 X-Accel-Buffering 响应头。", "在 nginx 的这个 location 里写 `proxy_buffering off;` 和 `proxy_http_version 1.1;`。完整的写法见 config/nginx/proxy.conf。")),
    "buffered_by_compression": _entry(_FAILED, ("{events} events arrived together after {last} s: the stream is compressed and thereby buffered", "A server on the way compresses event streams, and collects them first.", "Turn compression off for event streams; in nginx: `gzip off;`."), ("{events} 个事件在 {last} 秒后一起到达：流被压缩，因此被缓冲", "沿途有服务器压缩事件流，先收集再发送。", "请对事件流关闭压缩；nginx 里写 `gzip off;`。")),
    "buffered_by_http_1_0": _entry(_FAILED, ("{events} events arrived together after {last} s: a server on the way speaks HTTP/1.0", "HTTP/1.0 has no chunks, so that server collects the whole response.", "Enable HTTP/1.1 there; in nginx: `proxy_http_version 1.1;`."), ("{events} 个事件在 {last} 秒后一起到达：沿途有服务器使用 HTTP/1.0", "HTTP/1.0 没有分块传输，服务器会先收集完整的回答。", "请在那里启用 HTTP/1.1；nginx 里写 `proxy_http_version 1.1;`。")),
    "buffered_by_cdn": _entry(_FAILED, ("{events} events arrived together after {last} s: a CDN is on the way", "The CDN collects responses before it sends them.", "Turn caching, compression and response buffering off for this path, or bypass the CDN."), ("{events} 个事件在 {last} 秒后一起到达：沿途有 CDN", "CDN 先收集响应再发送。", "请对这个路径关闭缓存、压缩和响应缓冲，或者绕过 CDN。")),
    "buffered_whole": _entry(_FAILED, ("{events} events arrived together after {last} s, with a Content-Length", "Something on the way, or the gateway itself, collects the whole response and sends it then.", "Look for a proxy, a firewall or an antivirus that scans responses; ask the gateway's operator."), ("{events} 个事件在 {last} 秒后一起到达，并带有 Content-Length", "沿途的设备或网关自己先收集完整的回答再发送。", "请检查会扫描响应的代理、防火墙或杀毒软件，并询问网关的服务方。")),
    "buffered_somewhere": _entry(_FAILED, ("{events} events arrived together after {last} s", "Something on the way buffers the stream, or the gateway only pretends to stream.", "Test nearer to the model with --url, step by step: the first address that buffers has the cause."), ("{events} 个事件在 {last} 秒后一起到达", "沿途有设备缓冲了流，或者网关的流式是假的。", "请用 --url 一步步向模型靠近测试：第一个出现缓冲的地址就是原因所在。")),
    "delta_null": _entry(_WARNING, ("a chunk has `delta: null`", "RAGFlow fails on it.", 'In the proxy: repairs = ["ragflow"].'), ("有的数据块里 `delta` 是 null", "RAGFlow 遇到它会出错。", "在代理里设置 repairs = [\"ragflow\"]。")),
    "choices_empty": _entry(_WARNING, ("a chunk has no choices, although usage was not asked for", "RAGFlow's vision models fail on it.", 'In the proxy: repairs = ["ragflow"].'), ("没有要求 usage，却有数据块的 choices 是空的", "RAGFlow 的视觉模型遇到它会出错。", "在代理里设置 repairs = [\"ragflow\"]。")),
    "usage_repeated": _entry(_WARNING, ("{count} chunks have a `usage`", "RAGFlow adds them up and counts too many tokens.", 'In the proxy: repairs = ["ragflow"].'), ("{count} 个数据块带有 `usage`", "RAGFlow 会把它们相加，多算 token。", "在代理里设置 repairs = [\"ragflow\"]。")),
    "embedding_works": _good("{model} returns vectors of {size} numbers", "{model} 返回 {size} 维向量"),
    "embedding_empty": _entry(_FAILED, ("the response has no vector", "The model is not an embedding model, or the gateway has another format.", "Name an embedding model with --embedding-model."), ("响应里没有向量", "这不是向量模型，或者网关的格式不同。", "请用 --embedding-model 指定向量模型。")),
    "embedding_not_numbers": _entry(_FAILED, ("the vector is base64, although numbers were asked for", "The gateway ignores encoding_format.", 'In the proxy: repairs = ["ragflow"], or ask the operator.'), ("要求的是数字，向量却是 base64", "网关忽略了 encoding_format。", "在代理里设置 repairs = [\"ragflow\"]，或者联系服务方。")),
    "embedding_no_index": _entry(_WARNING, ("the vectors have no `index`", "RAGFlow sorts by it and fails.", 'In the proxy: repairs = ["ragflow"].'), ("向量没有 `index`", "RAGFlow 按它排序，会出错。", "在代理里设置 repairs = [\"ragflow\"]。")),
    "embedding_no_total": _entry(_WARNING, ("`usage.total_tokens` is missing", "RAGFlow fails on it.", 'In the proxy: repairs = ["ragflow"].'), ("缺少 `usage.total_tokens`", "RAGFlow 遇到它会出错。", "在代理里设置 repairs = [\"ragflow\"]。")),
    "drop_params_rejected": _entry(_WARNING, ("the field drop_params is rejected", "RAGFlow 0.21 to 0.27 sends it with embeddings.", 'In the proxy: repairs = ["ragflow"] removes it.'), ("字段 drop_params 被拒绝", "RAGFlow 0.21 到 0.27 会在向量化请求里发送它。", "在代理里设置 repairs = [\"ragflow\"] 可以去掉它。")),
    "rerank_works": _good("{model} ranks documents", "{model} 可以重排序"),
    "rerank_unreadable": _entry(_FAILED, ("the response has no results[].relevance_score", "The gateway has another format, such as that of TEI. RAGFlow takes all scores as zero.", 'In the proxy: repairs = ["ragflow"].'), ("响应里没有 results[].relevance_score", "网关使用别的格式，例如 TEI。RAGFlow 会把分数都当成零。", "在代理里设置 repairs = [\"ragflow\"]。")),
    "vision_works": _good("{model} describes a picture", "{model} 可以看图"),
}  # fmt: skip

CATALOGUE: Final[Mapping[str, Entry]] = {**_CONNECTION, **_START, **_TOKENS, **_API, **_CHAT}
"""The findings by id."""
