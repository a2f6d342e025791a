#!/usr/bin/env python3
"""Get a token from an endpoint whose requests must be signed with HMAC-SHA256. Change what differs for yours.

Needs TOKEN_URL, APP_ID and APP_SECRET in the environment, and nothing but Python. Prints the reply.
"""

import hashlib
import hmac
import json
import os
import time
import urllib.request
import uuid

app_id, secret = os.environ["APP_ID"], os.environ["APP_SECRET"]
timestamp, nonce = str(int(time.time() * 1000)), uuid.uuid4().hex

signed = (
    f"appId={app_id}&nonce={nonce}&timestamp={timestamp}"  # exactly the text that your endpoint wants signed
)
signature = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()

body = {"appId": app_id, "timestamp": timestamp, "nonce": nonce, "sign": signature}
request = urllib.request.Request(
    os.environ["TOKEN_URL"], json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
)
with urllib.request.urlopen(request, timeout=8) as reply:
    print(reply.read().decode())
