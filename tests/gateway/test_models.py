"""The list of models."""

from tests.gateway.caller import Caller


async def test_two_models_are_listed(caller: Caller) -> None:
    reply = await (await caller.client.get("/v1/models", headers=caller.headers)).get_json()
    assert reply.keys() == {"object", "data"}
    assert reply["object"] == "list"
    assert [model["id"] for model in reply["data"]] == ["mock-gpt-model", "mock-embedding-model"]
    for model in reply["data"]:
        assert model.keys() == {"id", "object", "created", "owned_by"}
        assert model["object"] == "model"
        one = await caller.client.get(f"/v1/models/{model['id']}", headers=caller.headers)
        assert await one.get_json() == model


async def test_an_unknown_model_is_404(caller: Caller) -> None:
    response = await caller.client.get("/v1/models/org%2Fother", headers=caller.headers)
    assert response.status_code == 404
    error = (await response.get_json())["error"]
    assert error["code"] == "model_not_found"
    assert "org/other" in error["message"]
