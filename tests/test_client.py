"""Another program runs the main job against the real app: gradio_client, the bundled model, no page."""

from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from razor.minicanvas import tasks
from razor.minicanvas.dataset import parse_target
from razor.patches import Patch

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def client(app_url, tmp_path_factory):
    return Client(app_url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def test_only_the_typed_endpoints_are_offered(client):
    offered = client.view_api(return_format="dict")["named_endpoints"]
    assert list(offered) == ["/score", "/unlearn", "/predict", "/export"]
    assert [made["label"] for made in offered["/unlearn"]["returns"]] == ["1st", "2nd"]
    assert offered["/export"]["returns"][0]["python_type"]["type"] == "filepath"
    for name in ("/predict", "/export"):
        assert offered[name]["parameters"][-1]["parameter_name"] == "anyway"


def test_a_style_is_forgotten_checked_and_taken_away(client, tmp_path):
    job = client.submit(forget="style:thermal", api_name="/unlearn")
    run, patch = job.result(timeout=300)
    assert job.outputs()[0][0]["round"] == 1 and job.outputs()[0][1] is None
    assert run["before"]["forget_accuracy"]["value"] > 0.95 and run["after"]["forget_accuracy"]["value"] < 0.1
    assert Patch.load(Path(patch)).parameters_edited == run["parameters_edited"]
    tasks.task(parse_target("style:thermal")).forget.test[0].image.save(tmp_path / "thermal.png")
    sent = {"pictures": [handle_file(tmp_path / "thermal.png")], "patch": handle_file(patch)}
    said = client.predict(texts=["a thermal image", "a chalk drawing", "a photo"], **sent, api_name="/predict")
    assert said["before"][0]["a thermal image"] > 0.9 > said["after"][0]["a thermal image"]
    assert Path(client.predict(patch=handle_file(patch), form="full", api_name="/export")).suffix == ".zip"
    read = Patch.load(Path(patch))
    Patch(read.deltas, read.recipe, dict.fromkeys(read.base, "0" * 16)).save(tmp_path / "other.safetensors")
    sent["patch"] = handle_file(tmp_path / "other.safetensors")
    with pytest.raises(AppError, match=r"made for another model: .* With anyway=True it is taken all the same"):
        client.predict(texts=["a thermal image", "a photo"], **sent, api_name="/predict")
    again = client.predict(texts=list(said["after"][0]), **sent, anyway=True, api_name="/predict")
    assert again["after"] == said["after"]


def test_a_mistake_reaches_the_caller_in_words(client):
    with pytest.raises(AppError, match="write axis:name, such as object:cat"):
        client.predict(forget="a cat", api_name="/score")
