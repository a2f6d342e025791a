"""The verification script that came with the original Flask proxy."""

from openai import OpenAI


def test_steam():
    client = OpenAI(api_key="fake key", base_url="http://localhost:5002/agent/api/llm_proxy/v1")
    messages = [
        {"role": "user", "content": "你是谁"},
    ]
    res = client.chat.completions.create(messages=messages, model="gpt-4o-240806-deploy-gs", stream=True)
    for chunk in res:
        print(chunk.to_json())
